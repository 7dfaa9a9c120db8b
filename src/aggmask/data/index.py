"""The images and annotations of a COCO-format file, as packed arrays that all processes share by memory mapping.

An annotation file is parsed once (see `packing`) into .npy files, kept under a hash of its content. Difference from
`pycocotools.COCO`: no dictionaries of Python objects, of which each worker process would come to hold its own copy.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import fsspec
import numpy as np

from aggmask.cocofile.reading import read, readable
from aggmask.data.packing import pack
from aggmask.data.processors import global_rank
from aggmask.data.storage import is_url
from aggmask.errors import UserError
from aggmask.structures import Category

FORMAT = 3  # of the packed arrays: raise it when their names or meaning change
_logger = logging.getLogger(__name__)

# What a remote file system may tell about the content of a file, besides its size.
_VERSION_KEYS = ("ETag", "etag", "LastModified", "Last-Modified", "Content-MD5", "md5Hash", "generation", "mtime")


@dataclass(frozen=True)
class ImageAnnotations:
    """The n annotations of one image, in order of annotation, crowds included, in the frame of the annotation file."""

    labels: np.ndarray  # (n,) int64 contiguous label: place in `AnnotationIndex.categories`
    crowd: np.ndarray  # (n,) bool: never a target, as a crowd or by its mark `ignore`
    areas: np.ndarray  # (n,) float64, the file's own `area`, pixels
    boxes: np.ndarray  # (n, 4) float64 x y w h, pixels
    ids: np.ndarray  # (n,) int64 annotation ids
    segmentations: list  # n times: list of (m, 2) float32 polygons (x, y) | RLE {"size": [h, w], "counts": bytes}

    def __len__(self) -> int:
        return len(self.labels)


class AnnotationIndex:
    """Images and annotations of one COCO-format file. Open it with `AnnotationIndex.open`.

    Nothing is read before it is asked for, and then through memory maps: a copy in a worker process (forked or
    pickled: only the folder travels) costs next to nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def open(
        cls, annotations: str | Path, cache_dir: str | Path | None = None, called: str | None = None, warn: bool = True
    ) -> AnnotationIndex:
        """The index of an annotation file, built when its content has not been seen before.

        Args:
            annotations: path or fsspec URL of the JSON file.
            cache_dir: where packed arrays are kept; by default `.aggmask` beside the file, and where nothing can be
                written there, the user's cache folder.
            called: what messages call the file; by default by its place.
            warn: say, each time, what is done otherwise than the file says.

        Raises:
            UserError: the file is missing, unreadable, or not a sound COCO file; or no cache folder can be written.
        """
        source = str(annotations) if is_url(annotations) else str(Path(annotations).expanduser().absolute())
        roots, called = _cache_roots(source, cache_dir), called or source
        with readable(source):
            fingerprint = _fingerprint(source)
        if folder := _stamped_folder(roots, source, fingerprint):
            return cls(folder)._told(called if warn else None)
        data = read(source)
        key = hashlib.blake2b(data, digest_size=16).hexdigest()
        name = f"{Path(source.partition('?')[0]).stem}-{key}-v{FORMAT}"
        folder = next((root / name for root in roots if _is_built(root / name)), None)
        if folder is None:
            arrays, facts = pack(data, called)
            del data
            folder = _store(arrays, facts, roots, name)
        _write_stamp(folder, source, fingerprint)
        return cls(folder)._told(called if warn else None)

    def _told(self, called: str | None) -> AnnotationIndex:
        if called and self.deviations and global_rank() == 0:
            told = "; ".join(f"{count} annotations {what}" for what, count in self.deviations.items())
            _logger.warning("%s: %s. python -m aggmask.doctor names them", called, told)
        return self

    def __reduce__(self) -> tuple:
        return AnnotationIndex, (self._folder,)

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {file.stem: np.load(file, mmap_mode="r").view(np.ndarray) for file in self._folder.glob("*.npy")}

    @cached_property
    def _facts(self) -> dict:
        return json.loads((self._folder / "facts.json").read_text(encoding="utf-8"))

    @cached_property
    def categories(self) -> list[Category]:
        """Sorted by id: a label is a place in this list."""
        return [Category(id, name) for id, name in self._facts["categories"]]

    def unseen(self) -> list[Category]:
        """Categories that no object has."""
        labels = np.unique(self._arrays["labels"][~self._arrays["crowd"]]).tolist()
        return [category for label, category in enumerate(self.categories) if label not in labels]

    @property
    def deviations(self) -> dict[str, int]:
        """What is done otherwise than the file says, in words, and with how many annotations."""
        return self._facts["told"]

    @property
    def image_ids(self) -> np.ndarray:
        """(N,) int64, sorted."""
        return self._arrays["image_ids"]

    @property
    def sizes(self) -> np.ndarray:
        """(N, 2) int32 (height, width), as the file says."""
        return self._arrays["sizes"]

    def __len__(self) -> int:
        return len(self.image_ids)

    def file_name(self, i: int) -> str:
        """Name of image number i, as the file says."""
        start, end = _span(self._arrays["name_ends"], i)
        return self._arrays["names"][start:end].tobytes().decode()

    def object_counts(self) -> np.ndarray:
        """(N,) int64: annotations of each image that are not crowds."""
        single = np.concatenate([[0], np.cumsum(~self._arrays["crowd"])])
        return np.diff(single[self._arrays["annotation_ends"]])

    def annotations(self, i: int) -> ImageAnnotations:
        """Annotations of image number i; the arrays are the caller's own."""
        a = self._arrays
        first, last = _span(a["annotation_ends"], i)
        columns = {key: np.array(a[key][first:last]) for key in ("labels", "crowd", "areas", "boxes", "ids")}
        size = self.sizes[i].tolist()
        segmentations: list = []
        for k in range(first, last):
            start, end = _span(a["rle_ends"], k)
            if end > start:
                segmentations.append({"size": list(size), "counts": a["rles"][start:end].tobytes()})
            else:
                spans = (_span(a["point_ends"], p) for p in range(*_span(a["polygon_ends"], k)))
                segmentations.append([np.array(a["points"][start:end]) for start, end in spans])
        return ImageAnnotations(**columns, segmentations=segmentations)


def _span(ends: np.ndarray, i: int) -> tuple[int, int]:
    """Where the i-th run lies, given where each run ends; `ends` opens with a 0."""
    return int(ends[i]), int(ends[i + 1])


def _cache_roots(source: str, cache_dir: str | Path | None) -> list[Path]:
    """Folders to look into and to write to, best first."""
    if cache_dir is not None:
        return [Path(cache_dir).expanduser().absolute()]
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aggmask"
    return [user] if is_url(source) else [Path(source).parent / ".aggmask", user]


def _fingerprint(source: str) -> str | None:
    """What tells one content of `source` from another without reading it; None where nothing does."""
    if not is_url(source):
        stat = os.stat(source)
        if time.time() - stat.st_mtime < 2:  # another write within the clock's tick would go unseen
            return None
        return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    fs, path = fsspec.core.url_to_fs(source)
    info = fs.info(path)
    told = [f"{key}={info[key]}" for key in _VERSION_KEYS if info.get(key)]
    return f"{info.get('size')} {told}" if told else None


def _is_built(folder: Path) -> bool:
    return os.access(folder / "facts.json", os.R_OK)


def _stamp(root: Path, source: str) -> Path:
    return root / f"{hashlib.blake2b(source.encode(), digest_size=8).hexdigest()}.stamp"


def _stamped_folder(roots: list[Path], source: str, fingerprint: str | None) -> Path | None:
    """The folder this very file was found to belong to earlier: saves hashing it again."""
    for root in roots:
        try:
            seen, name = _stamp(root, source).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            continue
        if seen == fingerprint and name.endswith(f"-v{FORMAT}") and _is_built(root / name):
            return root / name
    return None


def _write_stamp(folder: Path, source: str, fingerprint: str | None) -> None:
    if fingerprint is None:
        return
    stamp = _stamp(folder.parent, source)
    draft = stamp.with_suffix(f".{uuid.uuid4().hex}")
    try:
        draft.write_text(f"{fingerprint}\n{folder.name}", encoding="utf-8")
        draft.replace(stamp)
    except OSError:  # a cache that can only be read: the file is hashed again next time
        draft.unlink(missing_ok=True)


def _store(arrays: dict[str, np.ndarray], facts: dict, roots: list[Path], name: str) -> Path:
    """Write the arrays under the first root that takes them: beside their place, then renamed into it at once."""
    refusals = []
    for root in roots:
        folder, draft = root / name, root / f".building-{uuid.uuid4().hex}"
        try:
            draft.mkdir(parents=True)
            for key, values in arrays.items():
                np.save(draft / f"{key}.npy", values)
            (draft / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
            draft.rename(folder)
            return folder
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            if _is_built(folder):  # another process was faster
                return folder
            refusals.append(f"{root} ({error.strerror or error})")
    raise UserError(
        f"The annotation index cannot be written to {', nor to '.join(refusals)}. Name a folder: data.cache_dir=DIR."
    )

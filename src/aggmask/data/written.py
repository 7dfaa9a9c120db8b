"""Data sets that are made here, written to disk once and whole, in COCO layout.

A folder says in its stamp, `<name>.json`, what it was made from. The same wish again costs nothing, and another
version of the drawing code makes the folder anew. Never touched is a folder that was made with other settings, since a
training may be reading it, nor one without such a stamp, which is somebody else's.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from aggmask.data.outlines import Scene, segment
from aggmask.errors import UserError
from aggmask.structures import Category


def write_made(
    root: str | Path,
    name: str,
    version: int,
    categories: Sequence[Category],
    images: Mapping[str, int],
    least_size: int,
    size: int | tuple[int, int],
    max_objects: int,
    seed: int,
    draw: Callable[..., Scene],
    **more: Any,
) -> None:
    """Look at the numbers that all such data sets are asked for, then `write_splits`.

    Args:
        version: counted up when the same numbers give other pictures.
        images: split -> number of pictures.
        least_size: pixels of the short side.
        size: (height, width) of the pictures in pixels, or one number for both.
        max_objects: largest number of objects in a picture.
        draw: (random numbers, name of the split, size=(height, width), max_objects=..., **more) -> a picture.
        more: what else the pictures depend on, as plain values.

    Raises:
        UserError: a number is out of range; see `write_splits`.
    """
    height, width = (size, size) if isinstance(size, int) else size
    counts = {f"{split.removesuffix('2017')}_images": number for split, number in images.items()}
    _check_counts(name, least_size, size=size, **counts, max_objects=max_objects, seed=seed)
    asked = {"max_objects": max_objects, **more}
    stamp = {"version": version, **counts, "size": [height, width], "seed": seed, **asked}
    write_splits(root, name, stamp, categories, images, partial(draw, size=(height, width), **asked))


def _check_counts(name: str, least_size: int, size: int | tuple[int, int], seed: int, **counts: int) -> None:
    """Look whether the numbers that all such data sets have make sense.

    Raises:
        UserError: names them all.
    """
    sides = (size,) if isinstance(size, int) else size
    if min(sides) < least_size or seed < 0 or min(counts.values()) < 1:
        given = ", ".join(f"{key}={value!r}" for key, value in {"size": size, **counts, "seed": seed}.items())
        raise UserError(f"{name}: need size >= {least_size}, seed >= 0 and {', '.join(counts)} >= 1; got {given}")


def write_splits(
    root: str | Path,
    name: str,
    stamp: Mapping[str, Any],
    categories: Sequence[Category],
    splits: Mapping[str, int],
    draw: Callable[[np.random.Generator, str], Scene],
) -> None:
    """Write the data set, unless `root` holds just this one already.

    Files: `annotations/instances_<split>.json` and the pictures in `<split>`. The folder appears at once when
    complete, so an interrupted or a concurrent call leaves nothing half written. A picture depends on the seed, its
    split and its number alone: asking for more of them keeps the first ones, and no two splits share one.

    Args:
        root: folder to make; its parents are made too.
        name: of the data set.
        stamp: everything that the pictures depend on, as plain values; `seed` and `size` (height, width) among them.
        splits: name -> number of pictures.
        draw: (random numbers, name of the split) -> a picture.

    Raises:
        UserError: `root` holds something that this function did not write, or wrote with other settings.
    """
    root, stamp = Path(root), {"data": f"aggmask {name}", **stamp}
    if _stamp_in(root, name) == stamp:
        return
    _check_place(root, name, stamp)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as work:
        new = Path(work) / "new"
        (new / "annotations").mkdir(parents=True)
        for number, (split, images) in enumerate(splits.items()):
            streams = (np.random.default_rng([stamp["seed"], number, index]) for index in range(images))
            ids = range(number + 1, number + 1 + len(splits) * images, len(splits))  # of no other split
            scenes = ((image_id, draw(rng, split)) for image_id, rng in zip(ids, streams, strict=True))
            _write_split(new, split, categories, scenes, stamp["size"])
        (new / f"{name}.json").write_text(json.dumps(stamp, indent=1))
        _check_place(root, name, stamp)
        try:
            if root.exists():
                os.rename(root, Path(work) / "old")
            os.rename(new, root)
        except OSError:
            if _stamp_in(root, name) != stamp:  # else another process wrote the same meanwhile
                raise


def _write_split(
    folder: Path, split: str, categories: Sequence[Category], scenes: Iterable[tuple[int, Scene]], size: Sequence[int]
) -> None:
    """Pictures and annotation file of one split."""
    (folder / split).mkdir()
    records, annotations = [], []
    height, width = size
    for image_id, scene in scenes:
        record = {"id": image_id, "file_name": f"{image_id:012d}.jpg", "height": height, "width": width}
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(scene.pixels), quality=95, colorsubsampling="444")
        (folder / split / record["file_name"]).write_bytes(jpeg)
        records.append(record)
        for label, visible in zip(scene.labels, scene.visible, strict=True):
            if mask := segment(visible):
                ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": categories[label].id}
                annotations.append(ids | {"iscrowd": 0} | mask)
    listed = [{"id": c.id, "name": c.name, "supercategory": "shape"} for c in categories]
    content = {"images": records, "annotations": annotations, "categories": listed}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content, separators=(",", ":")))


def _stamp_in(root: Path, name: str) -> dict[str, Any] | None:
    """What the folder says it was made from; None where it says nothing."""
    try:
        stamp = json.loads((root / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) and stamp.get("data") == f"aggmask {name}" else None


def _check_place(root: Path, name: str, stamp: Mapping[str, Any]) -> None:
    there = _stamp_in(root, name)
    if there is None:
        if root.exists() and not (root.is_dir() and not any(root.iterdir())):
            raise UserError(
                f"{root} exists and was not written by the {name} data set (no {name}.json of ours in it): "
                "nothing was changed. Name another folder, or move this one away."
            )
        return
    settings = there.keys() & stamp.keys() - {"version"}  # a key that only one of them has came or went with a version
    if others := [key for key in stamp if key in settings and there[key] != stamp[key]]:
        told = ", ".join(f"{key}={there[key]} (asked for: {stamp[key]})" for key in others)
        raise UserError(
            f"{root} holds the {name} data set with {told}: nothing was changed, since a training may be reading it. "
            "Name another folder (data.root=DIR), or remove this one."
        )

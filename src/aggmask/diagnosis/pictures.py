"""The image files of a data set: there, whole, and of the size that the annotations were made for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from aggmask.cocofile.records import Image
from aggmask.data.decode import decode_image, orientation_of
from aggmask.data.storage import Storage
from aggmask.diagnosis.structure import Examination, Progress
from aggmask.errors import UserError

_AT_ONCE = 64  # images asked for together, for the sake of remote storage


def examine_pictures(examination: Examination, storage: Storage, workers: int = 1, progress: Progress = iter) -> None:
    """Decode every image of a file; what is wrong joins the findings and repairs of its annotations.

    Args:
        workers: threads (decoders work outside of Python's lock).
        progress: put around the loop over images.
    """
    images = examination.images()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for (position, image), found in zip(progress(images), _in_order(pool, storage, images), strict=True):
            if found is None:
                continue
            kind, text = found
            examination.findings.add(kind, f"image {image.id} ({image.file_name!r})", text)
            if kind not in ("stored-frame", "turned"):
                examination.repairs.drop("images", position)


def _in_order(pool: ThreadPoolExecutor, storage: Storage, images: list[tuple[int, Image]]) -> Iterable:
    look: Callable = lambda pair: look_at(pair[1], storage)  # noqa: E731
    for start in range(0, len(images), _AT_ONCE):  # a map of all would read far ahead of what is looked at
        yield from pool.map(look, images[start : start + _AT_ONCE])


def look_at(image: Image, storage: Storage) -> tuple[str, str] | None:
    """(kind, text) of what is wrong with an image's file, if anything is."""
    try:
        if image.file_name not in storage:
            return "missing", f"not in {storage.place}"
    except UserError as error:
        return "outside-folder", str(error)
    try:
        data = storage.read(image.file_name)
        seen = decode_image(data, image.file_name).shape[:2]
    except UserError as error:
        return "unreadable", str(error)
    expected, orientation = (image.height, image.width), orientation_of(data)
    stored = seen[::-1] if orientation >= 5 else seen
    if seen == expected:
        if orientation != 1 and (orientation < 5 or seen == stored):
            return "turned", f"EXIF orientation {orientation}"
        return None
    shown = f"{seen[0]} x {seen[1]}, annotations for {expected[0]} x {expected[1]} (height x width)"
    if stored == expected:
        return "stored-frame", f"EXIF orientation {orientation}; as viewers show it, it is {shown}"
    if seen == expected[::-1]:
        shown += ". Height and width are exchanged: in the annotations, or the picture was turned after annotating"
    elif orientation != 1:
        shown += f". EXIF orientation {orientation} does not explain it"
    return "wrong-size", shown

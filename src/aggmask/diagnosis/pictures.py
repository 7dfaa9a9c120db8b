"""The image files of a data set: there, whole, and of the size that the annotations were made for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from aggmask.cocofile.records import Image
from aggmask.data.decode import EXCHANGED, Exif, decode_image, largest_value, orientation_of, size_of, told_to_turn
from aggmask.data.storage import Storage
from aggmask.depth import Range, UnknownScale, too_dark
from aggmask.diagnosis.merging import Placed, drop_repeats, join
from aggmask.diagnosis.structure import Examination, Progress
from aggmask.errors import UserError
from aggmask.geometry.frame import Size

_AT_ONCE = 64  # images asked for together, for the sake of remote storage
_DARK = 1 / 2  # of white: where no picture of a data set has a larger value, a bit is never used


def examine_pictures(
    examination: Examination,
    storage: Storage,
    workers: int = 1,
    progress: Progress = iter,
    value_range: Range | None = None,
    exif: Exif = "auto",
) -> None:
    """Decode every image of a file; what is wrong joins the findings and repairs of its annotations.

    Args:
        workers: threads (decoders work outside of Python's lock).
        progress: put around the loop over images.
        value_range, exif: see `decode.decode_image`.
    """
    images = examination.images()
    usable: dict[str, Placed] = {}  # by the name of the file
    near: dict[str, list[Placed]] = {}  # likewise
    deep: dict[str, float] = {}
    look = partial(look_at, storage=storage, value_range=value_range, exif=exif)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for (position, image), seen in zip(progress(images), _in_order(pool, look, images), strict=True):
            if seen.largest is not None:
                deep[image.file_name] = seen.largest
            if seen.kind is not None:
                examination.findings.add(seen.kind, f"image {image.id} ({image.file_name!r})", seen.text)
            if seen.kind == "near-name":
                near.setdefault(seen.name, []).append((position, image))
            elif seen.kind in (None, "stored-frame", "turned", "no-scale"):
                usable[image.file_name] = position, image
            else:
                examination.repairs.drop("images", position)
    _rename(examination, near, usable)
    brightest = max(deep, key=deep.__getitem__, default=None)
    if brightest is not None and deep[brightest] < _DARK:  # of all: one picture alone may well be dark
        text = too_dark(f"all {len(deep)} pictures deeper than 8 bits", deep[brightest], value_range)
        examination.findings.add("too-dark", repr(brightest), text)


def _rename(examination: Examination, near: dict[str, list[Placed]], usable: dict[str, Placed]) -> None:
    """Give images the names that their files have. Two that get one name that way become one image."""
    for name, group in near.items():
        if name in usable:
            group.insert(0, usable[name])
        else:
            examination.repairs.change("images", group[0][0], file_name=name)
    drop_repeats(examination, join(examination, near.values()))


def size_in(storage: Storage, name: str, exif: Exif = "auto") -> Size | None:
    """(height, width) of an image file by its header, as `exif` reads it; None where it cannot be read.

    Of a file with nearly that name where there is only one, which is the one that `examine_pictures` takes.
    """
    try:
        near = [] if name in storage else storage.near(name)
        return size_of(storage.read(near[0] if len(near) == 1 else name), exif)
    except UserError:
        return None


def _in_order(pool: ThreadPoolExecutor, look: Callable[[Image], Seen], images: list[tuple[int, Image]]) -> Iterable:
    for start in range(0, len(images), _AT_ONCE):  # a map of all would read far ahead of what is looked at
        yield from pool.map(look, (image for _, image in images[start : start + _AT_ONCE]))


@dataclass(frozen=True)
class Seen:
    """What an image's file is like."""

    kind: str | None = None  # of what is wrong, if anything is
    text: str = ""
    largest: float | None = None  # value, as a share of white, of a picture deeper than 8 bits
    name: str | None = None  # that the file has, where it is spelled otherwise


def look_at(image: Image, storage: Storage, value_range: Range | None = None, exif: Exif = "auto") -> Seen:
    """Read an image's file and hold it against its record."""
    try:
        if image.file_name not in storage:
            return _under_another_name(image, storage, value_range, exif)
    except UserError as error:
        return Seen("outside-folder", str(error))
    try:
        data = storage.read(image.file_name)
        size = decode_image(data, image.file_name, value_range=value_range, exif=exif).shape[:2]
    except UnknownScale as error:
        return Seen("no-scale", str(error))
    except UserError as error:
        return Seen("unreadable", str(error))
    return Seen(*_held_against(image, size, orientation_of(data), exif), largest_value(data, value_range))


def _under_another_name(image: Image, storage: Storage, value_range: Range | None, exif: Exif) -> Seen:
    near = storage.near(image.file_name)
    if len(near) != 1:
        among = f", which has {', '.join(map(repr, near))}" if near else ""
        return Seen("missing", f"not in {storage.place}{among}")
    seen = look_at(msgspec.structs.replace(image, file_name=near[0]), storage, value_range, exif)
    text = f"{storage.place} has {near[0]!r}"
    if seen.kind in (None, "stored-frame", "turned"):
        return Seen("near-name", text, seen.largest, near[0])
    return replace(seen, text=f"{text}: {seen.text}")


def _held_against(image: Image, seen: Size, orientation: int, exif: Exif) -> tuple[str | None, str]:
    """(kind, text) of what is wrong with the size, (height, width) as `exif` reads it; auto: as a viewer shows it."""
    expected = image.height, image.width
    other = seen[::-1] if orientation >= 5 else seen  # in the other reading
    if seen == expected:
        if exif == "auto" and orientation != 1 and (orientation < 5 or seen == other):
            return "turned", f"EXIF orientation {orientation}"
        return None, ""
    shown = f"{seen[0]} x {seen[1]}, annotations for {expected[0]} x {expected[1]} (height x width)"
    if other == expected and exif != "auto":
        return "wrong-size", f"{shown}. {told_to_turn(exif, orientation)}"
    if other == expected:
        return "stored-frame", f"EXIF orientation {orientation}; as viewers show it, it is {shown}"
    if seen == expected[::-1]:
        shown += f". {EXCHANGED}"
    elif orientation != 1:
        shown += f". EXIF orientation {orientation} does not explain it"
    return "wrong-size", shown

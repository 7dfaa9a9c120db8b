"""The JSON of a COCO-format file -> typed records, and what does not fit together in them.

The format is COCO's "instances" (https://cocodataset.org/#format-data) as found in the wild. Whoever reads annotations
reads them here: the index of a data set stops at the first problem, `aggmask.doctor` lists them all.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import msgspec

from aggmask.errors import UserError

MAX_PIXELS = 178_956_970  # of an image; Pillow's own limit against decompression bombs
LISTS = ("images", "categories", "annotations")

_PIECE = 2**24  # bytes

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # as the index keeps them
_Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_PIXELS)]


class Image(msgspec.Struct, gc=False):
    """One picture, in the frame that its annotations are made for."""

    id: Id
    file_name: str
    height: _Side
    width: _Side


class Box(msgspec.Struct, gc=False, array_like=True, forbid_unknown_fields=True):
    """Top left corner and size, pixels; or nothing at all, as some exporters write it."""

    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None

    def __post_init__(self) -> None:
        if None in (numbers := msgspec.structs.astuple(self)) and any(number is not None for number in numbers):
            raise ValueError("Expected four numbers")

    @property
    def numbers(self) -> tuple[float, ...]:
        """x, y, width, height; empty where there is nothing."""
        return () if self.x is None else msgspec.structs.astuple(self)

    @property
    def has_extent(self) -> bool:
        """Whether it is a box: zeros often stand for one that nobody has drawn."""
        return self.x is not None and self.width > 0 and self.height > 0


_NO = ("", "0", "false", "no")  # flags as text


class Annotation(msgspec.Struct, gc=False):
    """One object, or a crowd of them."""

    id: Id
    image_id: Id
    category_id: Id
    iscrowd: bool | int | None = None
    ignore: Any = None  # of any type: no standard says which
    area: float | None = None
    bbox: Box | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")  # of many shapes: decoded one by one, see `segmentation`

    @property
    def is_target(self) -> bool:
        """Whether training learns it."""
        return not self.iscrowd and not self.is_ignored

    @property
    def is_ignored(self) -> bool:
        """Whether `ignore` says so."""
        return self.ignore.strip().lower() not in _NO if isinstance(self.ignore, str) else bool(self.ignore)


CVAT_CROWDS = "CVAT (Datumaro) writes iscrowd=1 for each brush or SAM mask"
_A_FEW, _MANY = 5, 10  # crowds, and one in how many annotations; COCO has one in a hundred


def too_many_crowds(crowds: int, annotations: int) -> bool:
    """Whether so many of the annotations are crowds that most are single objects, marked so by an exporter."""
    return crowds >= _A_FEW and crowds * _MANY > annotations


class Category(msgspec.Struct):
    """What objects are called."""

    id: Id
    name: str
    supercategory: Any = None  # a name, where there is one


class File(msgspec.Struct):
    """A whole file."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation] = []  # test-dev has none


class _Pieces(msgspec.Struct):
    images: list[msgspec.Raw]
    categories: list[msgspec.Raw]
    annotations: list[msgspec.Raw] = []


class Problem(NamedTuple):
    """Something about one record that keeps a file from being used."""

    kind: str
    list: str  # which of LISTS the record is in
    position: int  # in that list
    text: str  # names the record


@dataclass(frozen=True)
class LenientFile:
    """The records of a file that can be read, and where in the file's lists they stand."""

    file: File
    positions: dict[str, list[int]]
    problems: list[Problem]


# Lax: tools write 3.0 or "3" for the id 3.
_decoder = {kind: msgspec.json.Decoder(kind, strict=False) for kind in (File, _Pieces, Image, Category, Annotation)}
_decode_top = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_KINDS = dict(zip(LISTS, (Image, Category, Annotation), strict=True))


def parse(data: bytes, source: str) -> File:
    """The records of a file.

    Raises:
        UserError: it is no whole JSON file, or not one of this format; names the first record that is wrong.
    """
    return _decoded(_decoder[File].decode, data, source)


def parse_leniently(data: bytes, source: str) -> LenientFile:
    """The records that can be read, and a problem for each one that cannot.

    Raises:
        UserError: it is no whole JSON file, or the lists of this format are not in it.
    """
    try:
        file = parse(data, source)
        return LenientFile(file, {name: list(range(len(getattr(file, name)))) for name in LISTS}, [])
    except UserError:
        pieces = _decoded(_decoder[_Pieces].decode, data, source)
    records: dict[str, list] = {name: [] for name in LISTS}
    positions: dict[str, list[int]] = {name: [] for name in LISTS}
    problems = []
    for name in LISTS:
        for position, piece in enumerate(getattr(pieces, name)):
            try:
                records[name].append(_decoder[_KINDS[name]].decode(piece))
                positions[name].append(position)
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                start = bytes(piece)[:80].decode(errors="replace")
                problems.append(Problem("record", name, position, f"{name}[{position}] ({start}): {error}"))
    return LenientFile(File(**records), positions, problems)


def raw_records(data: bytes) -> dict[str, msgspec.Raw | list[msgspec.Raw]]:
    """Whatever is in a file whose lists can be read, word for word; the lists of this format as lists of records."""
    content = _decode_top(_without_mark(data))
    return content | {name: _decode_list(content[name]) for name in LISTS if name in content}


def _without_mark(data: bytes) -> bytes | memoryview:
    """UTF-8 without the mark that some editors put before it."""
    return memoryview(data)[3:] if data.startswith(codecs.BOM_UTF8) else data


def _decoded(decode: Callable, data: bytes, source: str):
    try:
        _check_text(data)
        return decode(_without_mark(data))
    except msgspec.ValidationError as error:
        raise UserError(
            f"{source} is not a COCO annotation file: {error}. Such a file is one JSON object with the lists `images` "
            "(id, file_name, height, width), `annotations` (id, image_id, category_id, segmentation) and `categories` "
            "(id, name)."
        ) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        hint = "Download or export it again."
        if data[:2] in (b"\x1f\x8b", b"PK"):
            hint = "It is an archive (gzip or zip): unpack it, and name the file that was in it."
        elif isinstance(error, UnicodeError):
            hint = "Save it as UTF-8, or download or export it again."
        if b"NaN" in data or b"Infinity" in data:  # what Python's own json writes for them
            hint = "It has NaN or Infinity in it, which JSON does not know: export it without, or write null."
        raise UserError(f"{source} is not a whole JSON file ({len(data)} bytes): {error}. {hint}") from error


def _check_text(data: bytes) -> None:
    """Raise UnicodeDecodeError where it is not UTF-8, piece by piece: msgspec looks at what is asked for only."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), _PIECE):
        decoder.decode(data[start : start + _PIECE], final=start + _PIECE >= len(data))


def problems_of(file: File) -> Iterator[Problem]:
    """What does not fit together among records that are all right by themselves, in the order of the file."""
    images, categories = {image.id for image in file.images}, {category.id for category in file.categories}
    yield from _repeated(file.images, "image")
    yield from _repeated(file.categories, "category")
    for position, image in enumerate(file.images):
        if image.height * image.width > MAX_PIXELS:
            text = f"image {image.id} is {image.height} x {image.width}: more than {MAX_PIXELS} pixels. Cut it up."
            yield Problem("image-too-large", "images", position, text)
    for position, a in enumerate(file.annotations):
        numbers = (a.area or 0.0, *(a.bbox.numbers if a.bbox else ()))
        if not all(map(math.isfinite, numbers)):
            text = f"annotation {a.id} has an area or a box that is not a number: {numbers}. Remove the value."
            yield Problem("not-a-number", "annotations", position, text)
        for id, known, kind in ((a.image_id, images, "image"), (a.category_id, categories, "category")):
            if id not in known:
                list_name = "images" if kind == "image" else "categories"
                text = (
                    f"annotation {a.id} belongs to {kind} {id}, which `{list_name}` does not list. "
                    f"Remove the annotation, or add the {kind}."
                )
                yield Problem(f"unknown-{kind}", "annotations", position, text)


def _repeated(records: Sequence[Image | Category], kind: str) -> Iterator[Problem]:
    list_name = "images" if kind == "image" else "categories"
    seen = set()
    for position, record in enumerate(records):
        if record.id in seen:
            text = f"{kind} id {record.id} is listed twice. Remove one of the two, or renumber it."
            yield Problem(f"repeated-{kind}-id", list_name, position, text)
        seen.add(record.id)

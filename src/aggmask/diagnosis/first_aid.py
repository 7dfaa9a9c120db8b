"""What keeps records from being read at all, and can be put right: ids that are no numbers, images without a size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from aggmask.cocofile.records import LISTS, raw_records
from aggmask.geometry.frame import Size

Progress = Callable[[list], Iterable]  # such as tqdm
SizeOf = Callable[[str], "Size | None"]  # file name -> (height, width), None where the file does not tell


class _Head(msgspec.Struct):
    """The keys of any record that are looked at here, of any type."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    file_name: Any = None
    height: Any = None
    width: Any = None


class Mended(NamedTuple):
    """Something that was put right in a record."""

    kind: str
    where: str
    text: str


_decode_head = msgspec.json.Decoder(_Head).decode
_REFERENCES = {"images": {}, "categories": {}, "annotations": {"image_id": "images", "category_id": "categories"}}


def first_aid(data: bytes, size_of: SizeOf | None = None, progress: Progress = iter) -> tuple[bytes, list[Mended]]:
    """An annotation file with whole numbers for ids of letters, and with the sizes of images that lack theirs.

    Args:
        data: a file whose lists can be read, if not all of their records.
        size_of: None: no sizes.
        progress: put around the loop over the records of each list.
    """
    content = raw_records(data)
    records = {name: content[name] for name in LISTS if name in content}
    heads = {name: [_head(record) for record in found] for name, found in records.items()}
    numbers = {name: _numbers(head.id for head in found) for name, found in heads.items()}
    mended: list[Mended] = []
    for name, found in records.items():
        for position, head in enumerate(progress(heads[name])):
            change, told = _change(name, head, numbers, size_of)
            if not change:
                continue
            try:
                found[position] = msgspec.json.decode(found[position]) | change
            except (msgspec.MsgspecError, UnicodeError, RecursionError):  # in another key: it stays a fault
                continue
            mended += [Mended(kind, f"{name}[{position}]", text) for kind, text in told]
    return (msgspec.json.encode(content) if mended else data), mended


def _head(record: msgspec.Raw) -> _Head:
    try:
        return _decode_head(record)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _Head()


def _number(id: object) -> int | None:
    """What the format's reader makes of an id."""
    try:
        return msgspec.convert(id, int, strict=False)
    except msgspec.ValidationError:
        return None


def _numbers(ids: Iterable[object]) -> dict[str, int]:
    """A number for each id of letters, after those that there are."""
    known = {id: _number(id) for id in ids if isinstance(id, str | int | float)}
    first = max((number for number in known.values() if number is not None), default=0) + 1
    texts = [id for id, number in known.items() if number is None and isinstance(id, str)]
    return {text: first + k for k, text in enumerate(texts)}


def _change(
    name: str, head: _Head, numbers: dict[str, dict[str, int]], size_of: SizeOf | None
) -> tuple[dict, list[tuple[str, str]]]:
    """Values that a record has instead; (kind, text) of each."""
    change: dict[str, int] = {}
    told = []
    for key, target in {"id": name, **_REFERENCES[name]}.items():
        id = getattr(head, key)
        if isinstance(id, str) and id in numbers.get(target, {}):
            change[key] = numbers[target][id]
            told.append(("text-id", f"{key} {id!r} becomes {change[key]}"[:200]))
    if (
        name == "images"
        and size_of is not None
        and not (head.height and head.width)
        and isinstance(head.file_name, str)
    ):
        size = size_of(head.file_name)
        if size is not None:
            change["height"], change["width"] = size
            told.append(("no-size", f"{head.file_name!r} is {size[0]} x {size[1]} (height x width)"))
    return change, told

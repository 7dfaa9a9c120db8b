"""What keeps records from being read at all, and can be put right: ids that are no numbers, images without a size."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from itertools import count
from typing import Any, NamedTuple

import msgspec

from aggmask.cocofile.records import LISTS, Id, raw_records
from aggmask.geometry.frame import Size

Progress = Callable[[list], Iterable]  # such as tqdm
SizeOf = Callable[[str], "Size | None"]  # file name -> (height, width), None where the file does not tell


class _Head(msgspec.Struct):
    """The keys of any record that are looked at here, of any type."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    name: Any = None
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
    """An annotation file with whole numbers for ids of letters, text for names of digits, and the sizes of images.

    Args:
        data: a file whose lists can be read, if not all of their records.
        size_of: None: no sizes.
        progress: put around the loop over the records of each list.
    """
    content = raw_records(data)
    records = {name: content[name] for name in LISTS if name in content}
    heads = {name: [_head(record) for record in found] for name, found in records.items()}
    numbers = {name: _numbers(heads, name) for name in heads}
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
        return msgspec.convert(id, Id, strict=False)
    except msgspec.ValidationError:
        return None


def free_ids(taken: Container[int]) -> Iterator[int]:
    """The numbers from 1 that are not taken: those after the largest one may not fit into an id."""
    return (id for id in count(1) if id not in taken)


def _numbers(heads: dict[str, list[_Head]], name: str) -> dict[str, int]:
    """A number for each id of letters in a list; none that a record has, or looks for in vain."""
    known = {head.id: _number(head.id) for head in heads[name] if isinstance(head.id, str | int | float)}
    keys = [(other, key) for other, keys in _REFERENCES.items() for key, target in keys.items() if target == name]
    references = {_number(getattr(head, key)) for other, key in keys for head in heads.get(other, ())}
    texts = [id for id, number in known.items() if number is None and isinstance(id, str)]
    return dict(zip(texts, free_ids(references.union(known.values())), strict=False))


def _change(
    name: str, head: _Head, numbers: dict[str, dict[str, int]], size_of: SizeOf | None
) -> tuple[dict, list[tuple[str, str]]]:
    """Values that a record has instead; (kind, text) of each."""
    change: dict[str, int | str] = {}
    told = []
    for key, target in {"id": name, **_REFERENCES[name]}.items():
        id = getattr(head, key)
        if isinstance(id, str) and id in numbers.get(target, {}):
            change[key] = numbers[target][id]
            told.append(("text-id", f"{key} {id!r} becomes {change[key]}"[:200]))
    if name == "categories" and isinstance(head.name, int | float) and not isinstance(head.name, bool):
        change["name"] = str(head.name)
        told.append(("number-name", f"name {head.name} becomes {change['name']!r}"[:200]))
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

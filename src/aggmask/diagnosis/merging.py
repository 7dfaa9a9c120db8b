"""Records that contradict each other or stand for one thing: which of them a clean copy has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aggmask.diagnosis.structure import Examination


def drop_contradictions(examination: Examination) -> None:
    """Leave out records of one id that say different things, with their annotations: whose these are is not known."""
    file, positions, repairs = examination.file.file, examination.file.positions, examination.repairs
    torn = {
        "images": _torn(file.images, attrgetter("file_name", "height", "width")),
        "categories": _torn(file.categories, attrgetter("name")),
    }
    if not any(torn.values()):
        return
    for list_name, ids in torn.items():
        for position, record in zip(positions[list_name], getattr(file, list_name), strict=True):
            if record.id in ids:
                repairs.drop(list_name, position)
    for position, a in zip(positions["annotations"], file.annotations, strict=True):
        if a.image_id in torn["images"] or a.category_id in torn["categories"]:
            repairs.drop("annotations", position)


def _torn(records: Sequence[Any], content: Callable[[Any], object]) -> set[int]:
    """Ids of which two records have different contents."""
    first: dict[int, object] = {}
    return {record.id for record in records if first.setdefault(record.id, content(record)) != content(record)}

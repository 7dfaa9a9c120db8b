"""The categories of a model in another annotation file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from aggmask.errors import UserError
from aggmask.structures import Category


def matching_ids(own: Sequence[Category], found: Sequence[Category], place: str) -> list[int]:
    """Ids in an annotation file of a model's categories: of the same id and name, else by name.

    Not by id alone: the same ids may mean other things in another file.

    Raises:
        UserError: the file lacks a category of the model, or a name stands for several categories; names them.
    """
    by_name: dict[str, list[int]] = {}
    for category in found:
        by_name.setdefault(category.name, []).append(category.id)
    missing = [category.name for category in own if category.name not in by_name]
    if missing:
        raise UserError(
            f"{place} has no category {', '.join(missing)}, which the model knows; it has {', '.join(by_name)}. "
            "Evaluate on a file that lists the model's categories by their names; one may well have no annotations."
        )
    if unclear := ambiguous(own, found):
        name = unclear[0].name
        known = [category.id for category in own if category.name == name]
        raise UserError(
            f"{place} has {name!r} under the ids {by_name[name]}, the model under {known}: which is which cannot be "
            "told by the name. Give the categories the model's ids, or names of their own; python -m aggmask.doctor "
            "with fix=FILE.json writes a copy in which equal names are one category."
        )
    there = {(category.id, category.name) for category in found}
    return [c.id if (c.id, c.name) in there else by_name[c.name][0] for c in own]


def ambiguous(own: Sequence[Category], found: Sequence[Category]) -> list[Category]:
    """A model's categories that a file has under another id, where their name stands for several, here or there."""
    there = {(category.id, category.name) for category in found}
    names, names_there = (Counter(category.name for category in categories) for categories in (own, found))
    elsewhere = [c for c in own if c.name in names_there and (c.id, c.name) not in there]
    return [c for c in elsewhere if max(names[c.name], names_there[c.name]) > 1]

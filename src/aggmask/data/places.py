"""Where the files of a data set lie, and one message when they do not.

The usual layout is COCO's; every place can be named by itself, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aggmask.cocofile.reading import COCO_LAYOUT
from aggmask.data.storage import is_url
from aggmask.errors import UserError

Source = Mapping[str, "str | None"]


@dataclass(frozen=True)
class Split:
    """One half of a data set. None: neither named nor under a root."""

    name: str  # as typed: data.<name>.annotations
    annotations: str | None
    images: str | None
    named: bool = field(default=False, compare=False)  # by itself, not only by a root

    @classmethod
    def of(cls, name: str, source: Source | None, root: Path | None) -> Split:
        """What `source` ({"annotations", "images"}) names; what it leaves out lies at its usual place in `root`.

        Raises:
            UserError: `source` has another key.
        """
        source = source or {}
        if unknown := source.keys() - {"annotations", "images"}:
            raise UserError(f"data.{name}.{unknown.pop()}: unknown; use annotations and images.")
        annotations, images = source.get("annotations"), source.get("images")
        named = annotations is not None
        if root is not None:
            annotations = annotations or str(root / "annotations" / f"instances_{name}2017.json")
            images = images or str(root / f"{name}2017")
        return cls(name, annotations, images, named)


def existing(place: str) -> str:
    """The place itself, or the zip of the same name where only that is there."""
    if not is_url(place) and not Path(place).expanduser().exists() and Path(f"{place}.zip").expanduser().exists():
        return f"{place}.zip"
    return place


def is_found(place: str | None) -> bool:
    """Whether there is something; of a URL this shows when it is opened."""
    return place is not None and (is_url(place) or Path(existing(place)).expanduser().exists())


def require(*splits: Split) -> None:
    """Raise one UserError that names all places of the splits when any of them is missing."""
    places = {f"data.{s.name}.{key}": getattr(s, key) for s in splits for key in ("annotations", "images")}
    if all(map(is_found, places.values())):
        return
    lines = [f"  {name}: {_state(place)}" for name, place in places.items()]
    raise UserError(
        "The data set is not there, or not all of it. Looked for:\n" + "\n".join(lines) + f"\n{COCO_LAYOUT}\n"
        "Set data.root=ROOT, or name each place: data.train.annotations=FILE data.train.images=FOLDER_OR_ZIP, and "
        "data.val likewise.\nWithout any data set: python -m aggmask.train experiment=demo"
    )


def _state(place: str | None) -> str:
    if place is None:
        return "not given (nor data.root)"
    return f"{place} ({'found' if is_found(place) else 'missing'})"

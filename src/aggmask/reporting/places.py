"""The validation data that a sweep was evaluated on, found again from its configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aggmask.data.datamodule import CocoDataModule
from aggmask.data.places import Split, is_found
from aggmask.data.storage import is_url
from aggmask.errors import UserError
from aggmask.reporting.runs import Run

_READING = ("value_range", "exif", "allow_outside")  # how pictures are read


def validation_data(runs: Sequence[Run], folder: Path, root: str | None = None, split: str = "val") -> CocoDataModule:
    """The data of finished runs, for its annotations and images; nothing is drawn or downloaded.

    Pictures are read as the first run read them.

    Args:
        folder: of the sweep; relative places are looked for from the working folder, then from above it.
        root: where the data is now, in COCO layout or under the names that the runs gave; None: where the runs had it.
        split: another one than val lies at its usual place in the root.

    Raises:
        UserError: it is not there, or the runs were evaluated on different files.
    """
    places = {_place(run, root, split) for run in runs}
    if len(places) > 1:
        lines = "".join(f"\n  {place.annotations}" for place in sorted(places, key=str))
        raise UserError(
            f"the runs were evaluated on different validation annotations:{lines}\nReport each data set alone"
        )
    place = places.pop()
    for base in (Path.cwd(), *folder.resolve().parents):
        annotations, images = (_from(base, each) for each in (place.annotations, place.images))
        if is_found(annotations):
            data = runs[0].config["data"]
            words = {key: data[key] for key in _READING if key in data}  # runs of older versions lack some
            return CocoDataModule(val={"annotations": annotations, "images": images}, **words)
    raise UserError(
        f"{place.annotations}: the validation annotations are not there any more; say where the data set is: root=DIR"
    )


def _place(run: Run, root: str | None, split: str) -> Split:
    data = run.config["data"]
    named = data.get("val") if split == "val" else None
    if root is None:
        return Split.of(split, named, data.get("root") and Path(data["root"]).expanduser())
    folder = Path(root).expanduser()
    usual = Split.of(split, None, folder)
    places = {key: _now(folder, (named or {}).get(key), getattr(usual, key)) for key in ("annotations", "images")}
    return replace(usual, **places)


def _now(root: Path, named: str | None, usual: str) -> str:
    """Where something that a run may have named lies in a root: under its name, or at its usual place."""
    own = str(root / Path(named).name) if named else usual
    return usual if is_found(usual) and not is_found(own) else own


def _from(base: Path, place: str | None) -> str | None:
    return place if place is None or is_url(place) else str(base / Path(place).expanduser())

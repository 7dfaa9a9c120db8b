"""What was found, as a terminal shows it: one block for each half of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aggmask.diagnosis.cells import CellReport
from aggmask.diagnosis.coverage import FATES
from aggmask.diagnosis.findings import KINDS
from aggmask.diagnosis.repair import kept
from aggmask.diagnosis.structure import Examination

FATE_COLUMNS = ("objects", *FATES)
_IN_WORDS = (
    "get all cells they claim",
    "lose some to another object",
    "lose all",
    "are outside of all scale ranges",
    "are too small",
)
LEVEL_COLUMNS = ("level", "stride", "grid", "sizes", "objects", "overwritten", "cells")
_MOST_CATEGORIES = 12


@dataclass
class Report:
    """One annotation file and its images."""

    name: str  # train or val
    examination: Examination
    cells: CellReport | None = None
    experiment: str | None = None  # whose grids they are
    advises: bool = True  # whether grids are proposed: those for the training pictures, where there are both


def as_text(report: Report, examples: int = 5) -> str:
    """Findings by kind, each with what is done about it and a few of them by name; then the cells."""
    file, findings = report.examination.file.file, report.examination.findings
    lines = [
        f"{report.name}: {report.examination.source}",
        f"  {len(file.images)} images, {len(file.annotations)} annotations, {len(file.categories)} categories",
    ]
    for kind, count in findings.counts().items():
        about = KINDS[kind]
        lines += [f"  {'FAULT' if about.fault else 'note '} {count:>6} x {about.what}", f"          -> {about.done}"]
        if about.fault:
            lines.append(f"          -> in a clean copy (fix=FILE): {about.remedy}")
        found = findings.of(kind)
        lines += [f"             {printable(str(finding))}" for finding in found[:examples]]
        if count > examples:
            lines.append(f"             ... and {count - examples} more")
    if not findings.found:
        lines.append("  nothing to complain about")
    if report.cells is not None:
        lines += ["", *_cells(report.cells, report.experiment)]
        if report.advises:
            lines += ["", f"  {verdict(report.cells)}", *(f"    {word}" for word in report.cells.proposal.words())]
    return "\n".join(lines)


def about_copy(examination: Examination) -> str:
    """What a clean copy still has, once it is made."""
    (images, of_images), (objects, of_objects) = (kept(examination, name) for name in ("images", "annotations"))
    text = f"{images} of {of_images} images and {objects} of {of_objects} annotations are in it"
    if of_objects and not objects:
        text += ". No object is left: mend the faults above in the file itself, then look at it again"
    return text


def _cells(cells: CellReport, experiment: str | None) -> Iterable[str]:
    yield f"  {summary(cells, experiment)}"
    yield from ("", table(level_rows(cells), LEVEL_COLUMNS))
    yield from ("", table(fate_rows(cells.by_size()), ("size", *FATE_COLUMNS)))
    rows = fate_rows(cells.by_category())
    yield from ("", table(rows[:_MOST_CATEGORIES], ("category", *FATE_COLUMNS)))
    if len(rows) > _MOST_CATEGORIES:
        yield f"  ... and {len(rows) - _MOST_CATEGORIES} more categories, which lose less"


def summary(cells: CellReport, experiment: str | None) -> str:
    """Whose cells, of how many objects, and what becomes of them."""
    shares = ", ".join(f"{percent(s)} {fate}" for s, fate in zip(cells.coverage.shares(), _IN_WORDS, strict=True))
    return (
        f"cells of experiment={experiment} at {max(cells.resize.short_sides)}/{cells.resize.long_side} pixels: "
        f"of {len(cells.population.ids)} objects in {len(cells.population.images)} of {cells.all_images} images, "
        f"{shares}{' (in a copy without the faults, at which training stops)' if cells.mended else ''}"
    )


def verdict(cells: CellReport) -> str:
    """Whether to change anything."""
    now, then = percent(float(cells.coverage.lost.mean())), percent(float(cells.proposed.lost.mean()))
    if cells.improves:
        return f"{now} of the objects are never learned. Grids made for this data set leave {then}:"
    return (
        f"{now} of the objects are never learned: the experiment's grids will do. Input size and grids made for this "
        f"data set ({then}), if you want them:"
    )


def level_rows(cells: CellReport) -> list[tuple[object, ...]]:
    """A row for each level under LEVEL_COLUMNS."""
    return [
        (number, v.stride, v.grid, f"{v.min_size:g}-{v.max_size:g}", count, percent(overwritten), f"{mean:.1f}")
        for number, (v, count, overwritten, mean) in enumerate(cells.by_level())
    ]


def fate_rows(groups: Sequence[tuple[str, int, np.ndarray]]) -> list[tuple[object, ...]]:
    """A row for each group under its name and FATE_COLUMNS."""
    return [(name, count, *map(percent, shares)) for name, count, shares in groups]


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Rows in columns as wide as they need; the first is text, the others are numbers."""
    cells = [list(header), *([printable(str(value)) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  " + "  ".join(_aligned(row, widths)).rstrip() for row in cells)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    first, *others = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]


def printable(text: str) -> str:
    """Text of a stranger's file without what a terminal would obey."""
    return "".join(c if c.isprintable() or c == " " else f"\\x{ord(c):02x}" for c in text)

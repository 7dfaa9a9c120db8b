"""What was found, as a terminal shows it: one block for each half of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aggmask.diagnosis.findings import KINDS
from aggmask.diagnosis.structure import Examination


@dataclass
class Report:
    """One annotation file and its images."""

    name: str  # train or val
    examination: Examination


def as_text(report: Report, examples: int = 5) -> str:
    """Findings by kind, each with what is done about it and a few of them by name."""
    file, findings = report.examination.file.file, report.examination.findings
    lines = [
        f"{report.name}: {report.examination.source}",
        f"  {len(file.images)} images, {len(file.annotations)} annotations, {len(file.categories)} categories",
    ]
    for kind, count in findings.counts().items():
        about = KINDS[kind]
        lines += [f"  {'FAULT' if about.fault else 'note '} {count:>6} x {about.what}", f"          -> {about.done}"]
        found = findings.of(kind)
        lines += [f"             {printable(str(finding))}" for finding in found[:examples]]
        if count > examples:
            lines.append(f"             ... and {count - examples} more")
    if not findings.found:
        lines.append("  nothing to complain about")
    return "\n".join(lines)


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

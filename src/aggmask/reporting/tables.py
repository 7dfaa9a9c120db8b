"""The table of variants: its columns once, and as Markdown and LaTeX; HTML takes the same cells."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from aggmask.metrics import crowding
from aggmask.metrics.resampling import Interval
from aggmask.reporting.costs import COSTS
from aggmask.reporting.summary import Row, Spread, Summary

NOTHING = "–"
_COMPARED = ("AP", *crowding.NAMES)  # numbers whose difference to the baseline has a column


class Cell(NamedTuple):
    """What is written, and the number that it is sorted by (None: always last)."""

    text: str
    value: float | None
    clear: bool = False  # an interval that leaves 0 out


def columns(summary: Summary) -> list[str]:
    """Headings; costs that nothing says are left out."""
    headings = []
    for name in summary.rows[0].numbers:
        headings.append(f"AP {crowding.NAMES[name]}" if name in crowding.NAMES else name)
        headings += [f"Δ{headings[-1]} [95 %]"] if name in _COMPARED else []
    headings += ["Δtouching − Δapart [95 %]"] if _touch(summary) else []
    costs = [f"{heading} [{unit}]" for _, heading, unit in _costs(summary)]
    return ["variant", "seeds", *headings, *costs]


def cells(summary: Summary) -> list[list[Cell]]:
    """A line for each row of the summary."""
    return [_line(summary, row) for row in summary.rows]


def as_markdown(summary: Summary) -> str:
    """The table with what its numbers mean below it, and notes."""
    headings = columns(summary)
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)]]
    lines += [[_markdown_text(cell) for cell in line] for line in cells(summary)]
    return (
        "\n".join(f"| {' | '.join(line)} |" for line in lines)
        + "".join(f"\n\n{text}" for text in (explanation(summary), *summary.notes))
        + "\n"
    )


def as_latex(summary: Summary) -> str:
    r"""A `tabular` of booktabs; the preamble needs \usepackage{booktabs}."""
    headings = columns(summary)
    head = " & ".join(map(_latex, headings))
    body = [" & ".join(_latex_text(cell) for cell in line) for line in cells(summary)]
    lines = ["\\begin{tabular}{l" + "r" * (len(headings) - 1) + "}", "\\toprule", head + r" \\", "\\midrule"]
    lines += [line + r" \\" for line in body] + ["\\bottomrule", "\\end{tabular}"]
    told = [f"% {' '.join(text.split())}" for text in (explanation(summary), *summary.notes)]
    return "\n".join([*told, *lines]) + "\n"


def explanation(summary: Summary) -> str:
    """One paragraph: what is averaged over what."""
    text = (
        f"Mask AP x 100 on {len(summary.truth.sizes)} {said_of(summary.split)} images: mean ± standard deviation "
        f"(n - 1) over seeds. ΔAP: the difference to “{summary.baseline.label}” of the means over seeds, with the 95 % "
        f"percentile interval of {summary.resamples} paired bootstrap resamples of the images; it does not hold the "
        "spread over seeds. Bold: 0 is outside of it."
    )
    if _touch(summary):
        text += f" Touching: objects with another one of their category at most {crowding.GAP} pixels away."
    return text


def said_of(split: str) -> str:
    """A split's name in a sentence."""
    return "validation" if split == "val" else split


def percent(spread: Spread) -> str:
    """AP x 100 with its deviation; a dash where there is nothing to find."""
    if math.isnan(spread.mean):
        return NOTHING
    deviation = "" if math.isnan(spread.deviation) else f" ± {100 * spread.deviation:.1f}"
    return f"{100 * spread.mean:.1f}{deviation}"


def signed(interval: Interval) -> str:
    """Differences x 100, with a real minus."""
    value, low, high = (f"{100 * number + 0.0:+.1f}".replace("-", "−") for number in interval)
    return f"{value} [{low}, {high}]"


def _touch(summary: Summary) -> bool:
    return crowding.NAMES.keys() <= summary.rows[0].numbers.keys()


def _costs(summary: Summary) -> Iterator[tuple[str, str, str]]:
    for name, (heading, unit) in COSTS.items():
        if any(row.costs[name] is not None for row in summary.rows):
            yield name, heading, unit


def _line(summary: Summary, row: Row) -> list[Cell]:
    numbers = []
    for name, spread in row.numbers.items():
        numbers.append(Cell(percent(spread), None if math.isnan(spread.mean) else spread.mean))
        numbers += [_difference(summary, row, name)] if name in _COMPARED else []
    numbers += [_difference(summary, row, crowding.MORE)] if _touch(summary) else []
    done, all_runs = len(row.variant.finished), len(row.variant.runs)
    seeds = Cell(str(done) if done == all_runs else f"{done} of {all_runs}", done)
    costs = (row.costs[name] for name, _, _ in _costs(summary))
    written = [Cell(NOTHING if value is None else _three_digits(value), value) for value in costs]
    return [Cell(row.variant.label, None), seeds, *numbers, *written]


def _difference(summary: Summary, row: Row, name: str) -> Cell:
    if row.variant is summary.baseline:
        return Cell("baseline", 0.0)
    interval = row.differences[name]
    if math.isnan(interval.value):
        return Cell(NOTHING, None)
    return Cell(signed(interval), interval.value, clear=interval.low > 0 or interval.high < 0)


def _three_digits(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u2009") if value >= 100 else f"{value:.3g}"


def _markdown_text(cell: Cell) -> str:
    text = cell.text.replace("|", "\\|")
    return f"**{text}**" if cell.clear else text


def _latex_text(cell: Cell) -> str:
    text = _latex(cell.text)
    return f"\\textbf{{{text}}}" if cell.clear else text


def _latex(text: str) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in text)


_ESCAPES = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "−": r"$-$",
    "–": "--",
    "\u2009": r"\,",
    "[": "{[}",
    "]": "{]}",
}

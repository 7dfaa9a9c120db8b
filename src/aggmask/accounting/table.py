"""Counts and forecasts as a table for a terminal, of one model or of two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aggmask.accounting.flops import Part
from aggmask.accounting.memory import Forecast

_GIGA, _MEGA = 1e9, 1e6
_MIB = 2**20


@dataclass(frozen=True)
class Summary:
    """What is known about one model."""

    name: str
    parts: list[Part]
    memory: Forecast
    training_cells: Sequence[float]  # asked of one image on each level
    candidates: Sequence[float]


def render(summaries: Sequence[Summary]) -> str:
    """One or two models -> lines of text; of two, the second over the first in the last columns."""
    names = [summary.name for summary in summaries] + ["second / first"] * (len(summaries) > 1)
    blocks = [_parts(summaries), _cells(summaries), _memory(summaries)]
    return "\n\n".join(_aligned(rows, names) for rows in blocks)


def _parts(summaries: Sequence[Summary]) -> list[list[str]]:
    heads = ["params", "dense", "training", "inference"]
    rows = [["operations of an image (G)", *_headed(summaries, heads)]]
    names = list(dict.fromkeys(part.name for s in summaries for part in s.parts))
    for name in names:
        rows.append(
            [name, *_numbers(summaries, lambda s, name=name: _counts(s, [p for p in s.parts if p.name == name]))]
        )
    rows.append(["head", *_numbers(summaries, lambda s: _counts(s, s.parts[2:]))])
    rows.append(["all", *_numbers(summaries, lambda s: _counts(s, s.parts))])
    return rows


def _counts(summary: Summary, parts: Sequence[Part]) -> list[float]:
    return [
        sum(p.parameters for p in parts) / _MEGA,
        sum(p.dense for p in parts) / _GIGA,
        sum(p.lazy(summary.training_cells) for p in parts) / _GIGA,
        sum(p.lazy(summary.candidates) for p in parts) / _GIGA,
    ]


def _cells(summaries: Sequence[Summary]) -> list[list[str]]:
    levels = range(max(len(s.candidates) for s in summaries))
    heads = [f"level {number}" for number in levels]
    rows = [["each asked cell (M)", *_headed(summaries, heads)]]

    def per_level(summary: Summary) -> list[float]:
        cells = zip(*(part.per_cell for part in summary.parts), strict=True)
        found = [sum(level) / _MEGA for level in cells]
        return found + [0.0] * (len(heads) - len(found))

    rows.append(["representations, weights, network", *_numbers(summaries, per_level)])
    return rows


def _memory(summaries: Sequence[Summary]) -> list[list[str]]:
    rows = [["memory", *_headed(summaries, ["MiB"])]]
    for label, pick in (
        ("weights", lambda m: m.weights),
        ("gradients and optimizer", lambda m: m.training_state),
        ("kept for the backward pass", lambda m: m.saved),
        ("  and for the asked cells", lambda m: m.saved_cells),
        ("training step", lambda m: m.training),
        ("maps at once in inference", lambda m: m.live),
        ("  and candidates", lambda m: m.live_cells),
        ("inference", lambda m: m.inference),
    ):
        rows.append([label, *_numbers(summaries, lambda s, pick=pick: [pick(s.memory) / _MIB])])
    return rows


def _headed(summaries: Sequence[Summary], heads: Sequence[str]) -> list[str]:
    return [*heads] * (len(summaries) if len(summaries) == 1 else len(summaries) + 1)


def _numbers(summaries: Sequence[Summary], values) -> list[str]:
    columns = [values(s) for s in summaries]
    cells = [_short(value) for column in columns for value in column]
    if len(columns) == 2:
        cells += [f"{b / a:.2f}" if a else "-" for a, b in zip(*columns, strict=True)]
    return cells


def _short(value: float) -> str:
    return "-" if not value else f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _aligned(rows: Sequence[Sequence[str]], names: Sequence[str]) -> str:
    """Columns of equal width, each name above its share of them."""
    share = (len(rows[0]) - 1) // len(names)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for group, name in enumerate(names):  # a name wider than its columns widens the first of them
        mine = widths[1 + group * share : 1 + (group + 1) * share]
        widths[1 + group * share] += max(0, len(name) - sum(mine) - 2 * (share - 1))
    title = " " * widths[0]
    for group, name in enumerate(names):
        mine = widths[1 + group * share : 1 + (group + 1) * share]
        title += "  " + name.rjust(sum(mine) + 2 * (share - 1))
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([title.rstrip(), lines[0], "-" * len(lines[0]), *lines[1:]])

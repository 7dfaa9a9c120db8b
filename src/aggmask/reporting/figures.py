"""The figures of a sweep, as matplotlib figures: for the page, for a notebook, for print.

A variant has the same color and marker in all of them; the baseline is black.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aggmask.metrics import crowding
from aggmask.metrics.resampling import Interval
from aggmask.reporting.costs import COSTS
from aggmask.reporting.runs import Run
from aggmask.reporting.summary import Row, Spread, Summary

WIDTH = 11.0  # inches, of every figure
# Okabe and Ito's colors, which people with any color vision can tell apart; yellow is left out on white paper.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
_LINE = 44  # characters of a variant's name in one line
_SMOOTHED = 40  # points that a loss curve is brought to


def differences(summary: Summary) -> Figure | None:
    """Difference of each variant to the baseline, of AP over all sizes and by size; None where there is one variant."""
    others = [row for row in summary.rows if row.differences]
    if not others:
        return None
    sizes = {"AP": "all", **_sizes(summary)}
    figure, axes = _panels(len(sizes), 1.1 + 0.35 * len(others), sharey=True)  # few large objects: wide intervals
    for panel, (name, title) in zip(axes, sizes.items(), strict=True):
        panel.axvline(0, color="black", linewidth=1)
        for height, row in enumerate(others):
            _interval(panel, row.differences[name], height, **_style(summary, row))
        panel.set_title(title, fontsize="medium")
        panel.locator_params(axis="x", nbins=4)
    figure.supxlabel("difference in AP points", fontsize="medium")
    names = _column([row.variant.label for row in others])
    axes[0].set_yticks(range(len(others)), names)
    axes[0].set_ylim(len(others) - 0.5, -0.5)
    return figure


def sizes(summary: Summary) -> Figure:
    """AP of small, medium and large objects (below 32 x 32, below 96 x 96, above), and of those that touch one of their
    kind or do not, with the deviation over seeds."""
    figure, (panel,) = _panels(1, 3.2)
    names = _sizes(summary)
    for row, shift in zip(summary.rows, _shifts(len(summary.rows)), strict=True):
        _dots(panel, np.arange(len(names)) + shift, [row.numbers[name] for name in names], **_style(summary, row))
    panel.set_xticks(range(len(names)), list(names.values()))
    panel.set(ylabel="mask AP x 100", xlim=(-0.5, len(names) - 0.5))
    return _with_legend(figure, panel)


def categories(summary: Summary) -> Figure:
    """AP of each category, best of the baseline first, with the deviation over seeds."""
    base = next(row for row in summary.rows if row.variant is summary.baseline)
    known = [number for number in by_baseline(summary) if not math.isnan(base.categories[number].mean)]
    spacing = max(0.2, 0.09 * len(summary.rows))
    figure, (panel,) = _panels(1, 1.2 + spacing * len(known))
    for row, shift in zip(summary.rows, _shifts(len(summary.rows)), strict=True):
        heights = np.arange(len(known)) + shift
        _dots(panel, heights, [row.categories[number] for number in known], sideways=True, **_style(summary, row))
    panel.set_yticks(range(len(known)), _column([summary.category_names[number] for number in known]))
    panel.set(xlabel="mask AP x 100", ylim=(len(known) - 0.5, -0.5))
    return _with_legend(figure, panel)


def by_baseline(summary: Summary) -> list[int]:
    """Ids of categories, best of the baseline first; those without ground truth last."""
    base = next(row.categories for row in summary.rows if row.variant is summary.baseline)
    return sorted(base, key=lambda number: (math.isnan(base[number].mean), -base[number].mean))


def costs(summary: Summary) -> Figure | None:
    """AP against everything that costs something; None where nothing is known of any cost."""
    known = [name for name in COSTS if any(row.costs[name] is not None for row in summary.rows)]
    if not known:
        return None
    figure, axes = _panels(len(known), 3.0, sharey=True)
    for panel, name in zip(axes, known, strict=True):
        for row in summary.rows:
            if row.costs[name] is not None:
                _dots(panel, [row.costs[name]], [row.numbers["AP"]], **_style(summary, row))
        heading, unit = COSTS[name]
        panel.set(xlabel=f"{heading} [{unit}]")
        panel.margins(x=0.2, y=0.15)
        panel.locator_params(axis="x", nbins=4)
    axes[0].set(ylabel="mask AP x 100")
    return _with_legend(figure, axes[0])


def curves(summary: Summary) -> Figure | None:
    """Validation AP and training loss over steps: a thin line for each seed, a thick one for their mean."""
    figure, (ap, loss) = _panels(2, 3.2)
    drawn = False
    for row in summary.rows:
        drawn |= _curve(ap, row.variant.finished, _validation, _style(summary, row))
        _curve(loss, row.variant.finished, _loss, {**_style(summary, row), "marker": ""})
    ap.set(xlabel="step", ylabel="validation mask AP x 100")
    loss.set(xlabel="step", ylabel="training loss")
    return _with_legend(figure, ap) if drawn else None


def _sizes(summary: Summary) -> dict[str, str]:
    """Sizes and sorts of objects of which there is ground truth: name -> as a person says it."""
    names = {"APs": "small", "APm": "medium", "APl": "large", **crowding.NAMES}
    numbers = summary.rows[0].numbers
    return {name: said for name, said in names.items() if name in numbers and not math.isnan(numbers[name].mean)}


def _validation(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The last one of each step: the end of a training may be evaluated twice."""
    points = {step: value for _, step, value in run.logged.get("val/AP", [])}
    return np.array(list(points), dtype=float), 100 * np.array(list(points.values()), dtype=float)


def _loss(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Means of equally many points each."""
    points = np.array(run.logged.get("train/loss", []), dtype=float).reshape(-1, 3)
    parts = np.array_split(points, min(_SMOOTHED, max(1, len(points))))
    means = np.array([part.mean(0) for part in parts if len(part)]).reshape(-1, 3)
    return means[:, 1], means[:, 2]


def _curve(panel: Axes, runs: Sequence[Run], points: Callable[[Run], Any], style: dict[str, Any]) -> bool:
    lines = [line for line in map(points, runs) if len(line[0])]
    if not lines:
        return False
    thin = {"color": style["color"], "linewidth": 0.8, "alpha": 0.45}
    shared = sorted(set.intersection(*(set(x) for x, _ in lines)))
    for x, y in lines if len(lines) > 1 else ():
        panel.plot(x, y, **thin)
    mean = np.mean([y[np.isin(x, shared)] for x, y in lines], axis=0)
    panel.plot(shared, mean, linewidth=1.8, markersize=4, **style)
    return True


def _panels(count: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False, **options)[0])
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
    return figure, axes


def _style(summary: Summary, row: Row) -> dict[str, Any]:
    if row.variant is summary.baseline:
        return {"color": "black", "marker": "o", "label": row.variant.label}
    others = [other for other in summary.rows if other.variant is not summary.baseline]
    place = others.index(row)
    pairs = zip(cycle(_COLORS), cycle(_MARKERS), strict=False)
    color, marker = next(pair for number, pair in enumerate(pairs) if number == place)
    return {"color": color, "marker": marker, "label": row.variant.label}


def _shifts(count: int) -> np.ndarray:
    """So that the dots of one place lie beside each other."""
    return (np.arange(count) - (count - 1) / 2) * min(0.12, 0.7 / count)


def _dots(panel: Axes, places: Any, spreads: Sequence[Spread], sideways: bool = False, **style: Any) -> None:
    means = 100 * np.array([spread.mean for spread in spreads])
    bars = 100 * np.nan_to_num([spread.deviation for spread in spreads])
    x, y, error = (means, places, "xerr") if sideways else (places, means, "yerr")
    panel.errorbar(x, y, **{error: bars}, linestyle="none", markersize=5, linewidth=1, capsize=2, **style)


def _interval(panel: Axes, interval: Interval, height: float, color: str, marker: str, label: str) -> None:
    value, low, high = (100 * number for number in interval)
    panel.plot([low, high], [height, height], color=color, linewidth=2, solid_capstyle="butt")
    panel.plot([value], [height], color=color, marker=marker, markersize=6, label=label)


def _with_legend(figure: Figure, panel: Axes) -> Figure:
    handles, labels = panel.get_legend_handles_labels()
    names = _column(labels)
    widest = max((len(line) for name in names for line in name.splitlines()), default=1)
    columns = max(1, min(len(labels), int(WIDTH * 12 / (widest + 6))))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _column(labels: Sequence[str]) -> list[str]:
    """Text as it is, where it is short: long names, which the table has in full, would leave the panels no room.

    Matplotlib would read what stands between two dollars as a formula.
    """
    lines = [textwrap.fill(label, _LINE, max_lines=3, placeholder=" ...") for label in labels]
    return [text.replace("$", r"\$") for text in lines]

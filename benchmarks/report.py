"""Figures as a table, as JSON and as a plot."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.figure import SubFigure

from aggmask.errors import UserError
from aggmask.files import read_json, write_json, write_whole
from benchmarks import inference, training
from benchmarks.records import Figure

_COLUMNS = 4  # of growth curves
_STAGES = tuple(dict.fromkeys((*training.STAGES[:4], *inference.STAGES, *training.STAGES)))


def table(figures: Sequence[Figure], machine: Mapping[str, Any]) -> str:
    """One line a figure, under a line that says the machine: medians, and the ratio with its least and greatest."""
    head = ("part", "what", "unit", "median", "baseline", "its median", "ratio", "spread", "target")
    rows = [head, *(_row(figure) for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = {0, 1, 2, 4, 8}
    lines = [
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    origins = _origins(figures)
    told = {key: value for key, value in machine.items() if not (origins and key in ("commit", "time"))}
    said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told.items() if value is not None)
    note = "ratio: 2.0 x is twice as fast as the baseline, 0.5 of is half of it; of the repeats its median, least, most"
    return "\n".join([said, *origins, note, "", *(line.rstrip() for line in lines)])


def _origins(figures: Sequence[Figure]) -> list[str]:
    """A line for each part: when it was measured, and which code; none where no figure says either (old records)."""
    lines = []
    for part in dict.fromkeys(figure.part for figure in figures):
        own = [figure for figure in figures if figure.part == part]
        times, commits = (sorted(set(said) - {""}) for said in ([f.time for f in own], [f.commit for f in own]))
        when = " to ".join(dict.fromkeys([times[0], times[-1]])) if times else "time not known"
        lines.append(f"{part}: {when}, commit {', '.join(commits) or 'not known'}")
    return lines if any(figure.time or figure.commit for figure in figures) else []


def _row(figure: Figure) -> tuple[str, ...]:
    middle, against = median(figure.values), median(figure.against)
    low, high = min(figure.ratios), max(figure.ratios)
    form = "{} x" if figure.sense == "speed" else "{} of"
    target = ""
    if figure.target is not None:
        bound = f"{'>=' if figure.sense == 'speed' else '<='} {_number(figure.target)}"
        target = f"{bound} {'reached' if figure.reached else 'MISSED'}"
    return (
        figure.part,
        figure.name,
        figure.unit,
        _number(middle),
        figure.baseline,
        _number(against),
        form.format(_number(figure.ratio)),
        f"{_number(low)} to {_number(high)}",
        target,
    )


def _number(value: float) -> str:
    """Three digits that mean something."""
    if not math.isfinite(value) or abs(value) < 1e-4:
        return f"{value:.2g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def write(folder: Path, figures: Sequence[Figure], machine: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write benchmarks.json and benchmarks.txt into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(f), "ratio": f.ratio, "ratio_spread": [min(f.ratios), max(f.ratios)]} for f in figures]
    content = {"machine": dict(machine), "settings": dict(settings), "figures": rows}
    write_json(folder / "benchmarks.json", content)  # a stop leaves the last whole one
    write_whole(folder / "benchmarks.txt", lambda file: file.write(f"{table(figures, machine)}\n".encode()))


def draw(folder: Path, figures: Sequence[Figure], machine: Mapping[str, Any]) -> None:
    """benchmarks.png beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    plot(figures, machine).savefig(folder / "benchmarks.png", dpi=110)


def kept(folder: Path, machine: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Figure]:
    """The figures in a folder, which were measured on the same machine with the same settings.

    Raises:
        ValueError: they were not, or the file is none of these.
    """
    file = folder / "benchmarks.json"
    other = "say --output=ANOTHER_FOLDER, or delete it"
    try:
        content = read_json(file) or {}
        rows = content.get("figures", [])
        names = {field.name for field in fields(Figure)}
        figures = [Figure(**{name: value for name, value in row.items() if name in names}) for row in rows]
    except (UserError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read as figures ({error}): {other}") from error
    if not figures:
        return []
    passing = {"time", "load_at_start", "commit"}
    asked = {**{k: v for k, v in machine.items() if k not in passing}, **json.loads(json.dumps(settings))}
    there = {**content.get("machine", {}), **content.get("settings", {})}
    if differ := [f"{key}: {there.get(key)}, now {value}" for key, value in asked.items() if there.get(key) != value]:
        raise ValueError(f"{folder} holds figures of other settings or another machine ({'; '.join(differ)}): {other}")
    return figures


def plot(figures: Sequence[Figure], machine: Mapping[str, Any]) -> Drawing:
    """Stages of each model beside those of its baseline; other ratios as bars; a small panel for each growth curve."""
    stages = [f for f in figures if f.part in ("training", "inference", "gpu") and ": " in f.name]
    curves: dict[tuple[str, str], list[Figure]] = defaultdict(list)
    for figure in figures:
        if figure.curve:
            curves[figure.curve, figure.unit].append(figure)
    others = [f for f in figures if f not in stages and not f.curve]
    rows = -(-len(curves) // _COLUMNS)
    panels = [
        (
            0.45 * len({f.name.split(": ")[0] for f in stages}) + 1.2,
            lambda panel: _draw_stages(panel.subplots(), stages),
        ),
        (0.24 * len(others) + 1, lambda panel: _draw_ratios(panel.subplots(), others)),
        (2.4 * rows + 0.2, lambda panel: _draw_curves(panel, rows, curves)),
    ]
    shown = [panel for panel, there in zip(panels, (stages, others, curves), strict=True) if there]
    drawing = Drawing(figsize=(15, sum(height for height, _ in shown) + 0.6), layout="constrained")
    drawing.suptitle(
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, {machine['time']}"
    )
    if shown:
        parts = drawing.subfigures(len(shown), 1, squeeze=False, height_ratios=[height for height, _ in shown])
        for part, (_, draw) in zip(parts[:, 0], shown, strict=True):
            draw(part)
    return drawing


def _draw_stages(axes: Axes, stages: Sequence[Figure]) -> None:
    bars: dict[str, dict[str, float]] = defaultdict(dict)
    for figure in stages:
        model, _, stage = figure.name.partition(": ")
        bars[f"{model} ({figure.part})"][stage] = median(figure.values)
        bars[f"{model} ({figure.part}), {figure.baseline}"][stage] = median(figure.against)
    names = [stage for stage in _STAGES if any(stage in bar for bar in bars.values())]
    left = [0.0] * len(bars)
    axes.set_prop_cycle(color=colormaps["tab20"].colors)
    for stage in names:
        widths = [bar.get(stage, 0.0) for bar in bars.values()]
        axes.barh(list(bars), widths, left=left, label=stage)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds (less is better)")
    axes.legend(fontsize="small", ncols=2)


def _draw_ratios(axes: Axes, figures: Sequence[Figure]) -> None:
    names = [f"{f.part}: {f.name}, {'speed' if f.sense == 'speed' else f.unit} against {f.baseline}" for f in figures]
    ratios = [f.ratio for f in figures]
    spread = [[r - min(f.ratios) for f, r in zip(figures, ratios, strict=True)]]
    spread.append([max(f.ratios) - r for f, r in zip(figures, ratios, strict=True)])
    colors = ["tab:blue" if f.sense == "speed" else "tab:orange" for f in figures]
    axes.barh(names, [r - 1 for r in ratios], left=1, xerr=spread, color=colors, error_kw={"lw": 1})
    for place, figure in enumerate(figures):
        if figure.target is not None:
            axes.plot([figure.target] * 2, [place - 0.4, place + 0.4], color="tab:red")
    axes.axvline(1, color="gray", lw=0.8)
    axes.set_xscale("log")
    axes.tick_params(axis="y", labelsize="small")
    axes.invert_yaxis()
    axes.set_title(
        "blue, speed: right of 1 is faster; orange, memory: left of 1 is less; red: target", fontsize="medium"
    )
    axes.set_xlabel("ratio to the baseline, of the repeats the median with least and most")


def _draw_curves(panel: SubFigure, rows: int, curves: Mapping[tuple[str, str], Sequence[Figure]]) -> None:
    places = list(panel.subplots(rows, _COLUMNS, squeeze=False).flat)
    for axes, ((name, unit), found) in zip(places, curves.items(), strict=False):
        _draw_curve(axes, name, unit, found)
    for axes in places[len(curves) :]:
        axes.set_axis_off()


def _draw_curve(axes: Axes, name: str, unit: str, points: Sequence[Figure]) -> None:
    x, y = [p.x for p in points], [median(p.values) for p in points]
    low, high = [min(p.values) for p in points], [max(p.values) for p in points]
    axes.plot(x, y, marker="o", ms=3)
    axes.fill_between(x, low, high, alpha=0.3)
    axes.set_title(name, fontsize="small")
    axes.set_xlabel(name.rpartition(" by ")[2], fontsize="small")
    axes.set_ylabel(unit)
    if max(x) > 100 * max(min(x), 1e-9):
        axes.set_xscale("log")
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)

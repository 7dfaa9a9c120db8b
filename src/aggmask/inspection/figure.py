"""One object as a figure, for print and notebooks: cell, representations, their strength, the aggregated mask.

After the figure of the method in AggMask's paper, with a trained model's own numbers in it.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from aggmask.inspection.pictures import CERTAIN, DIVERGING, OWN, RISING, base_picture, limit_of
from aggmask.inspection.trace import Inspection, Trace
from aggmask.inspection.words import number_of

_ROW = 5  # representations beside each other; more of them go into further rows
_SIDE = 1.4  # inches of a map's height
_SHARE = "#0072B2"


def figure_of(inspection: Inspection, trace: Trace) -> Figure:
    """Picture with cell and neighbors; above, the N representations; below, what the network made of them."""
    count = len(trace.neighbors)
    rows, columns = -(-count // _ROW), min(count, _ROW)
    height, width = inspection.frame.original
    step = _SIDE * min(max(width / height, 0.4), 2.5) + 0.12  # inches of a map's width
    heard = trace.neighbors[0].strength is not None
    below = [_strengths] * heard + [_context] * (trace.context is not None) + [_aggregated, _mask]
    row, last = _SIDE + 0.3, 1 if count <= 9 else 2  # rows of maps that the lower panels take, and their bars need
    left = min(rows + last, 3) * row * min(width / height, 1.5)
    right = max(columns, len(below)) * step
    figure = Figure(figsize=(left + right + 0.2, (rows + last) * row), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.06)
    picture, others = figure.subfigures(1, 2, width_ratios=(left, right), wspace=0.02)
    above, under = others.subfigures(2, 1, height_ratios=(rows, last))
    _place(picture.subplots(), inspection, trace)
    _representations(above.subplots(rows, columns, squeeze=False), inspection, trace)
    for draw, axes in zip(below, under.subplots(1, len(below)), strict=True):
        draw(axes, inspection, trace)
    return figure


def _place(axes: Axes, inspection: Inspection, trace: Trace) -> None:
    _picture(axes, inspection)
    x1, y1, x2, y2 = trace.cell_box
    for color, width in (("black", 3), ("white", 1.5)):
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=color, lw=width))
    size = 9 if len(trace.neighbors) <= 9 else 8
    for number, neighbor in enumerate(trace.neighbors, 1):
        if neighbor.place != neighbor.start:
            axes.plot(*zip(neighbor.start_point, neighbor.point, strict=True), color="white", lw=1)
        axes.plot(*neighbor.point, "o", ms=size, mfc="white", mec="black", mew=0.8)
        axes.text(*neighbor.point, str(number), size=0.75 * size, ha="center", va="center_baseline")
    axes.set_title(
        f"{number_of(trace)} {trace.name}: cell {trace.cell} of {trace.level.grid} x {trace.level.grid}",
        size=8,
        parse_math=False,
    )


def _representations(grid: np.ndarray, inspection: Inspection, trace: Trace) -> None:
    limit = max(limit_of(neighbor.logits) for neighbor in trace.neighbors)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, (axes, neighbor) in enumerate(zip(grid.flat, trace.neighbors, strict=False), 1):
        _map(axes, inspection, neighbor.logits, -limit, limit)
        axes.set_title(f"representation {number}" if number == 1 else str(number), size=8)


def _strengths(axes: Axes, inspection: Inspection, trace: Trace) -> None:
    """What each part adds to the first layer, the mean over pixels and outputs."""
    parts = [*trace.neighbors, *([trace.context] if trace.context else [])]
    names = [str(number) for number in range(1, len(trace.neighbors) + 1)] + ["context"] * (trace.context is not None)
    heights = np.arange(len(parts))
    axes.barh(heights, [part.response for part in parts], color=_SHARE, height=0.6)
    axes.set_yticks(heights, names, size=7 if len(parts) <= 10 else 6)
    axes.tick_params(axis="x", labelsize=6)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("first-layer response", size=8)


def _context(axes: Axes, inspection: Inspection, trace: Trace) -> None:
    _map(axes, inspection, trace.context.shares, 0.0, limit_of(trace.context.shares), RISING)
    axes.set_title("response to context", size=8)


def _aggregated(axes: Axes, inspection: Inspection, trace: Trace) -> None:
    limit = limit_of(trace.logits, CERTAIN)
    _map(axes, inspection, trace.logits, -limit, limit)
    axes.set_title("aggregated" if trace.neighbors[0].strength is not None else "mask logits", size=8)


def _mask(axes: Axes, inspection: Inspection, trace: Trace) -> None:
    _picture(axes, inspection)
    sheet = np.zeros((*trace.mask.shape, 4))
    sheet[trace.mask.numpy()] = (*(value / 255 for value in OWN), 0.6)
    axes.imshow(sheet, extent=_extent(inspection), interpolation="nearest")
    axes.contour(
        trace.mask.numpy(), levels=[0.5], colors="black", linewidths=0.8, extent=_extent(inspection), origin="upper"
    )
    axes.set_title(f"mask, score {trace.score:.2f}", size=8)


def scores_of(inspection: Inspection, trace: Trace) -> Figure:
    """The scores of a candidate's category in the cells of its level, the candidate's cell marked."""
    figure = Figure(figsize=(3.6, 3.0), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(inspection.category_map(trace), vmin=0, vmax=1, cmap=RISING)
    axes.add_patch(Rectangle((trace.cell[1] - 0.5, trace.cell[0] - 0.5), 1, 1, fill=False, color="white", lw=1.5))
    axes.set_title(f"scores of {trace.name} on level {trace.level_number}", size=9, parse_math=False)
    axes.set_axis_off()
    figure.colorbar(image)
    return figure


def _picture(axes: Axes, inspection: Inspection) -> None:
    axes.imshow(base_picture(inspection.pixels), extent=_extent(inspection), interpolation="nearest")
    axes.set_axis_off()


def _map(axes: Axes, inspection: Inspection, values: Tensor, low: float, high: float, colors: str = DIVERGING) -> None:
    shown = inspection.frame.maps_to_original(values[None], inspection.frame.original)[0]
    axes.imshow(shown, cmap=colors, vmin=low, vmax=high, extent=_extent(inspection))
    axes.set_axis_off()


def _extent(inspection: Inspection) -> tuple[float, float, float, float]:
    """Original pixels, so that points are drawn where they lie."""
    height, width = inspection.frame.original
    return 0, width, height, 0

"""The figure holds what the trace says, for every variant."""

from dataclasses import replace

import pytest

from aggmask.inspection.figure import figure_of, scores_of
from aggmask.inspection.trace import inspect
from tests.inspection.made import ORIGINAL, VARIANTS, picture, predictor


def axes_of(figure):
    return {axes.get_title(): axes for axes in figure.axes}


@pytest.mark.parametrize("name", ["solo", "window 5", "window 25", "deformable", "no context"])
def test_each_variant_draws(name, tmp_path):
    inspection = inspect(predictor(**VARIANTS[name]), picture(), 0.1)
    trace = inspection.trace(inspection.candidates.shown[0])
    figure = figure_of(inspection, trace)
    figure.savefig(tmp_path / "figure.png", dpi=20)
    axes = axes_of(figure)
    count, heard = len(trace.neighbors), trace.neighbors[0].strength is not None
    assert {"representation 1", *map(str, range(2, count + 1))} <= set(axes)
    assert ("first-layer response" in axes) == ("aggregated" in axes) == heard
    assert ("response to context" in axes) == (trace.context is not None)
    assert f"mask, score {trace.score:.2f}" in axes
    place = next(axes[title] for title in axes if "cell" in title)
    assert place.get_xlim() == (0, ORIGINAL[1])
    points = [line.get_xydata()[0].tolist() for line in place.lines if line.get_marker() == "o"]
    assert points == [list(neighbor.point) for neighbor in trace.neighbors]
    if heard:
        bars = [bar.get_width() for bar in axes["first-layer response"].patches]
        parts = [*trace.neighbors, *([trace.context] if trace.context else [])]
        assert bars == [part.response for part in parts]


def test_a_name_with_dollars_is_no_formula(tmp_path):
    inspection = inspect(predictor(**VARIANTS["solo"]), picture())
    trace = replace(inspection.trace(0), name=r"$\cat$")
    for number, figure in enumerate((figure_of(inspection, trace), scores_of(inspection, trace))):
        figure.savefig(tmp_path / f"{number}.png", dpi=20)
        assert any(trace.name in title for title in axes_of(figure))


def test_scores_with_the_cell_marked():
    inspection = inspect(predictor(**VARIANTS["window 5"]), picture())
    trace = inspection.trace(0)
    axes = scores_of(inspection, trace).axes[0]
    assert axes.images[0].get_array().shape == (trace.level.grid,) * 2
    assert axes.patches[0].get_xy() == (trace.cell[1] - 0.5, trace.cell[0] - 0.5)

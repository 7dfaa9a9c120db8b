"""A trace says what the model does: the same masks and scores, and parts that make them up."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aggmask.errors import UserError
from aggmask.inspection.candidates import Fate
from aggmask.inspection.trace import inspect
from tests.inspection.made import ORIGINAL, VARIANTS, picture, predictor
from tests.small import close


@pytest.fixture(scope="module")
def looked():
    """Each variant with its inspection."""
    models = {name: predictor(**options) for name, options in VARIANTS.items()}
    return {name: (model, inspect(model, picture(), 0.2)) for name, model in models.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_masks_and_scores_are_exactly_those_of_predict(looked, name):
    model, inspection = looked[name]
    expected = model.predict(picture(), 0.2)[0]
    found = inspection.instances(inspection.candidates.shown)
    assert len(found) > 2
    assert torch.equal(found.masks, expected.masks)
    assert torch.equal(found.scores, expected.scores)
    assert found.names == expected.names
    assert inspection.frame.original == ORIGINAL
    for i, number in enumerate(inspection.candidates.shown[:3]):
        trace = inspection.trace(number)
        assert torch.equal(trace.mask, expected.masks[i])
        assert trace.score == float(expected.scores[i])
        assert trace.name == expected.names[i]
        assert trace.fate is Fate.SHOWN


@pytest.mark.parametrize("name", VARIANTS)
def test_the_parts_make_up_the_mask(looked, name):
    _, inspection = looked[name]
    found = inspection.candidates.found
    for number in inspection.candidates.shown[:2]:
        trace = inspection.trace(number)
        masks = trace.logits.sigmoid()[None, None]
        # one cell alone against a chunk of cells: large logits make much of rounding
        close(F.interpolate(masks, size=found.masks.shape[-2:], mode="bilinear")[0, 0], found.masks[number], 1e-3)
        assert trace.score_before * trace.decay == pytest.approx(trace.score, rel=1e-5)
        assert trace.score_before <= trace.category_score
        assert len(trace.neighbors) == VARIANTS[name].get("window", 1)
        strengths = [neighbor.strength for neighbor in trace.neighbors]
        assert all(0 <= neighbor.iou_without <= 1 for neighbor in trace.neighbors)
        if "solo" in name:
            assert strengths == [None]
            assert [neighbor.direct for neighbor in trace.neighbors] == [True]
            assert torch.equal(trace.neighbors[0].logits, trace.logits)
            assert trace.neighbors[0].iou_without == trace.iou_without_any == 0
        else:
            assert min(strengths) > 0
            assert sum(neighbor.direct for neighbor in trace.neighbors) == ("residual" in VARIANTS[name])
        assert (trace.context is None) == ("solo" in name or name == "no context")
        if trace.context:
            assert len(trace.context.strengths) == 16
            assert trace.context.strength == pytest.approx(np.linalg.norm(trace.context.strengths), rel=1e-5)
            assert trace.context.response == pytest.approx(float(trace.context.shares.mean()), rel=1e-5)


def test_where_cell_and_neighbors_lie(looked):
    inspection = looked["window 9"][1]
    for trace in map(inspection.trace, range(8)):
        size, (row, column) = trace.level.grid, trace.cell
        # The canvas of 64 x 96 is 48 x 72 pixels of the original.
        expected = (column * 72 / size, row * 48 / size, (column + 1) * 72 / size, (row + 1) * 48 / size)
        np.testing.assert_allclose(trace.cell_box, expected, atol=1e-6)
        for neighbor in trace.neighbors:
            y, x = neighbor.place
            assert (abs(y - row) <= 1, abs(x - column) <= 1) == (True, True)
            np.testing.assert_allclose(neighbor.point, ((x + 0.5) * 72 / size, (y + 0.5) * 48 / size), atol=1e-6)


def test_shared_mask_cells_lie_between_the_cells_that_share_them(looked):
    inspection = looked["window 4"][1]
    traces = [inspection.trace(number) for number in range(len(inspection.candidates.fates))]
    trace = next(t for t in traces if t.level.grid == 8 and all(0 < x < 7 for x in t.cell))
    x1, y1, x2, y2 = trace.cell_box
    xs, ys = zip(*(neighbor.point for neighbor in trace.neighbors), strict=True)
    assert min(xs) <= (x1 + x2) / 2 <= max(xs)
    assert min(ys) <= (y1 + y2) / 2 <= max(ys)
    assert max(xs) - min(xs) in (0, pytest.approx(72 / 8 * 7 / 3))


def test_deformable_neighbors_start_at_the_window_and_move():
    model = predictor(**VARIANTS["deformable"])
    moved = inspect(model, picture()).trace(0).neighbors
    assert any(neighbor.place != neighbor.start for neighbor in moved)
    assert any(neighbor.point != neighbor.start_point for neighbor in moved)
    for parameter in model.segmenter.head.aggregation.neighbors.offsets.parameters():
        torch.nn.init.zeros_(parameter)
    for neighbor in inspect(model, picture()).trace(0).neighbors:
        assert neighbor.place == neighbor.start
        assert neighbor.point == neighbor.start_point


def test_who_removed_whom(looked):
    inspection = looked["window 5"][1]
    removed = [i for i in inspection.candidates.removed if inspection.candidates.fates[i] is Fate.DUPLICATE]
    assert removed
    for number in removed:
        trace, better = inspection.trace(number), inspection.trace(inspection.trace(number).by)
        assert better.score_before >= trace.score_before >= 0.2 > trace.score
        assert better.name == trace.name
        first, second = (inspection.candidates.found.masks[i] > 0.5 for i in (number, trace.by))
        assert trace.iou == pytest.approx(float((first & second).sum() / (first | second).sum()), rel=1e-5)


def test_without_each_representation():
    """With weights of 0 for all but one representation, only that one matters."""
    model = predictor(window=5, layers=1, context_channels=0)
    head = model.segmenter.head.aggregation
    torch.nn.init.zeros_(head.weights.conv.weight)
    bias = torch.zeros(1, 5, 3, 3)
    bias[0, 3, 1, 1] = 5.0  # tanh: nearly 1
    head.weights.conv.bias.data = torch.cat([bias.flatten(), torch.zeros(1)])
    inspection = inspect(model, picture(), 0.0)
    trace = inspection.trace(inspection.candidates.shown[0])
    assert [neighbor.iou_without for neighbor in trace.neighbors] == [1, 1, 1, 0, 1]
    assert trace.iou_without_any == 0
    assert [neighbor.strength for neighbor in trace.neighbors] == pytest.approx([0, 0, 0, 0.99991, 0], rel=1e-4)
    assert trace.neighbors[3].response == pytest.approx(float(trace.logits.abs().mean()), rel=1e-4)


def test_the_map_of_scores_and_the_best_of_them(looked):
    inspection = looked["window 5"][1]
    trace = inspection.trace(0)
    assert float(inspection.category_map(trace)[trace.cell]) == pytest.approx(trace.category_score)
    best = inspection.best_scores()
    assert {name for name, *_ in best} == {"disc", "<b>pair</b>", "block"}
    name, score, number, cell = best[0]
    label = [category.name for category in inspection.categories].index(name)
    assert score == pytest.approx(float(inspection.outputs[number].logits[0, label][cell].sigmoid()))
    assert score == max(float(output.logits.sigmoid().max()) for output in inspection.outputs)


def test_what_is_no_picture_is_refused(looked):
    with pytest.raises(UserError, match=r"nowhere\.jpg cannot be read"):
        inspect(looked["solo"][0], "nowhere.jpg")

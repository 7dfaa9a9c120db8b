"""The head equals the oracle that paints everything, for every member of the family."""

import pytest
import torch

from aggmask.decoding.decode import Decoder
from aggmask.model.representation.constant import ConstantBank
from aggmask.structures import Cells
from aggmask.supervision.assign import Assigner
from aggmask.supervision.criterion import Criterion
from tests.oracle import dense_detections, dense_head, dense_losses
from tests.recorder import LargestTensor
from tests.small import (
    CANVAS,
    PUBLISHED_ROWS,
    close,
    every_cell,
    make_head,
    make_levels_of,
    make_pyramid,
    random_objects,
)

HALF = make_levels_of(mask_grids=(4, 3, 3, 2, 2))
SOME_EQUAL = make_levels_of(grids=(10, 8, 5, 4, 3), mask_grids=(8, 6, 5, 4, 3))
FAMILY = {
    "solo": {},
    "solo over coarser mask grids": {"levels": HALF},
    "window 1": {"window": 1},
    "window 4 over coarser mask grids": {"levels": HALF, "window": 4},
    "window 5": {"window": 5},
    "window 5 over coarser mask grids": {"levels": HALF, "window": 5},
    "window 5, some grids equal": {"levels": SOME_EQUAL, "window": 5},
    "window 9": {"window": 9},
    "window 25": {"window": 25},
    "no context": {"context_channels": 0},
    "one-layer context": {"context_layers": 1, "context_channels": 8},
    "one layer": {"layers": 1},
    "two layers of 6 channels": {"layers": 2, "channels": 6},
    "kernel 1": {"kernel": 1},
    "one layer, kernel 1, no context": {"layers": 1, "kernel": 1, "context_channels": 0},
    "residual": {"residual": True, "init": "zero"},
    "residual over coarser mask grids": {"levels": HALF, "window": 4, "residual": True},
    "deformable": {"window": 5, "deformable": True},
    "deformable over coarser mask grids": {"levels": HALF, "window": 4, "deformable": True},
    "solov2": {"base": "predicted"},
    "solov2, window 5": {"base": "predicted", "window": 5},
    "solov2, deformable window 9": {"base": "predicted", "window": 9, "deformable": True},
    "aggmask*": {"base": "star", "window": 5},
    "aggmask* over coarser mask grids": {"base": "star", "levels": HALF, "window": 4},
    "aggmask*, deformable over coarser mask grids": {"base": "star", "levels": HALF, "window": 4, "deformable": True},
}


@pytest.fixture(params=FAMILY, ids=lambda name: name.replace(" ", "_"))
def head(request):
    return make_head(**FAMILY[request.param])


@pytest.fixture(
    params=[
        "solo",
        "window 4 over coarser mask grids",
        "no context",
        "one-layer context",
        "residual",
        "deformable",
        "solov2",
        "aggmask*",
        "aggmask*, deformable over coarser mask grids",
    ]
)
def one_of_each(request):
    return make_head(**FAMILY[request.param])


def test_identity_1_asked_masks_equal_painted_masks(head):
    pyramid = make_pyramid()
    for dense, output in zip(dense_head(head, pyramid), head(pyramid), strict=True):
        close(output.logits, dense.logits)
        cells = every_cell(output.level, 2)
        painted = torch.cat([dense.masks(0), dense.masks(1)])
        assert painted.std() > 0.1
        assert output.mask_stride == (output.level.stride // 2 if isinstance(head.bank, ConstantBank) else 4)
        assert painted.shape[-2:] == (CANVAS[0] // output.mask_stride, CANVAS[1] // output.mask_stride)
        asked = output.field.at(cells)
        close(asked, painted)
        close(output.field.at(cells[3::7]), asked[3::7], 1e-6)


def test_losses_and_gradients_equal_the_oracle(head):
    objects = [random_objects(6, seed=1), random_objects(5, seed=2)]
    pyramids = make_pyramid(), make_pyramid()
    outputs = head(pyramids[0])
    targets = Assigner()(outputs, objects, CANVAS)
    assert sum(len(target.cells) for target in targets) >= 10
    found = Criterion()(outputs, targets)
    expected = dense_losses(head, pyramids[1], objects, CANVAS)
    gradients = []
    for losses, pyramid in zip((found, expected), pyramids, strict=True):
        inputs = [*head.parameters(), *pyramid]
        gradients.append(torch.autograd.grad(sum(losses.values()), inputs, allow_unused=True))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=0)
    for ours, theirs in zip(*gradients, strict=True):
        close(ours, torch.zeros_like(ours) if theirs is None else theirs, 2e-4, least=1e-3)


def test_detections_equal_the_oracle(head):
    pyramid, kernel = make_pyramid(seed=5), "linear" if head.aggregation.representation_bias == 0 else "gaussian"
    options = {"score_threshold": 0.3, "nms_pre": 50, "kernel": kernel, "max_detections": 30}
    with torch.no_grad():
        found = Decoder(**options)(head(pyramid), CANVAS)
    for ours, theirs in zip(found, dense_detections(head, pyramid, CANVAS, **options), strict=True):
        assert len(theirs) >= 20
        close(ours.scores, torch.tensor([d.score for d in theirs]))
        for name, field in (("label", "labels"), ("level", "levels"), ("cell", "cells")):
            assert getattr(ours, field).tolist() == [getattr(d, name) for d in theirs]
        close(ours.masks, torch.stack([d.mask for d in theirs]), 1e-4)


def test_the_two_forms_of_the_oracle_agree():
    head, pyramid, objects = make_head(window=5), make_pyramid(), [random_objects(5), random_objects(4, seed=3)]
    every, positive = (dense_losses(head, pyramid, objects, CANVAS, every_cell=e) for e in (True, False))
    torch.testing.assert_close(positive, every)


def assert_all_have_gradients(module: torch.nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} has no gradient"
            assert parameter.grad.isfinite().all(), name


def test_no_cells_give_zeros_that_reach_every_parameter(one_of_each):
    outputs = one_of_each(make_pyramid())
    nothing = Cells(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    masks = [output.field.at(nothing) for output in outputs]
    for mask, output in zip(masks, outputs, strict=True):
        assert mask.shape == (0, CANVAS[0] // output.mask_stride, CANVAS[1] // output.mask_stride)
    (sum(m.sum() for m in masks) + sum(o.logits.sum() * 0 for o in outputs)).backward()
    assert_all_have_gradients(one_of_each)
    assert all(not parameter.grad.any() for parameter in one_of_each.parameters())


def test_a_batch_without_objects_trains_every_parameter(one_of_each):
    outputs = one_of_each(make_pyramid())
    losses = Criterion()(outputs, Assigner()(outputs, [random_objects(0)] * 2, CANVAS))
    assert losses["loss_mask"].item() == 0
    assert losses["loss_category"].item() > 0
    sum(losses.values()).backward()
    assert_all_have_gradients(one_of_each)
    assert one_of_each.category.classifier.weight.grad.any()


def test_output_strides_are_those_of_the_published_head():
    outputs = make_head(window=5)(make_pyramid())
    assert [output.mask_stride for output in outputs] == [4, 4, 8, 16, 16]
    assert [tuple(output.logits.shape) for output in outputs] == [(2, 3, o.level.grid, o.level.grid) for o in outputs]


def test_features_are_resized_to_the_levels():
    head, pyramid = make_head(), make_pyramid()
    features = head.at_levels(pyramid)
    assert [tuple(f.shape[-2:]) for f in features] == [(8, 12), (8, 12), (4, 6), (2, 3), (2, 3)]
    halved = pyramid[0].unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).mean((-1, -3))
    close(features[0], halved)
    assert features[1] is pyramid[1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": 5},
        {"window": 5, "context_channels": 0, "residual": True},
        {"base": "predicted"},
        {"base": "star", "window": 5, "deformable": True},
    ],
)
def test_bf16_autocast_runs_and_losses_are_single_precision(options):
    head, pyramid = make_head(**options), make_pyramid()
    objects = [random_objects(6, seed=1), random_objects(0)]
    losses, plain = [], Criterion()
    for enabled in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            outputs = head(pyramid)
            losses.append(plain(outputs, Assigner()(outputs, objects, CANVAS)))
            assert (outputs[0].logits.dtype == torch.bfloat16) == enabled
            found = Decoder(score_threshold=0.3)(outputs, CANVAS)
            assert all(d.scores.dtype == torch.float32 for d in found)
    for name, value in losses[0].items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(losses[1][name].item(), rel=0.05)
    sum(losses[0].values()).backward()
    assert_all_have_gradients(head)


def test_no_tensor_holds_all_cells_of_a_level():
    canvas, grids = (256, 256), [row["grid"] for row in PUBLISHED_ROWS]
    head = make_head(
        make_levels_of(grids=grids, sizes=[(r["min_size"], r["max_size"]) for r in PUBLISHED_ROWS]), window=5
    )
    pyramid = make_pyramid(1, canvas)
    objects = [random_objects(12, canvas=canvas, seed=4)]
    painted = 40 * 40 * 64 * 64
    with LargestTensor() as training:
        outputs = head(pyramid)
        losses = Criterion()(outputs, Assigner()(outputs, objects, canvas))
        sum(losses.values()).backward()
    with LargestTensor() as decoding, torch.no_grad():
        found = Decoder(score_threshold=0.6, nms_pre=100, memory_mb=16)(head(pyramid), canvas)
    assert len(found[0]) == 100
    assert training.elements < painted / 2, training
    assert decoding.elements < painted / 2, decoding
    with LargestTensor() as dense:
        dense_losses(head, pyramid, objects, canvas, every_cell=False)
    assert dense.elements >= painted

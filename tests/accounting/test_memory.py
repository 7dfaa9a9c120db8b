"""Forecasts equal what a real step keeps."""

import pytest
import torch

from aggmask.accounting.memory import LiveBytes, forecast, kept_for_backward, saved_per_pixel
from aggmask.decoding.decode import Decoder
from aggmask.supervision.losses import dice_losses, pixels_at_once
from tests.accounting.test_flops import TINY, segmenter_of
from tests.small import every_cell, make_head, make_pyramid

CELLS = [10.0] * 5


def forecast_of(experiment: str, *overrides: str, size=(64, 96), batch=1, cells=CELLS, state=1, **decoder):
    segmenter = segmenter_of(experiment, *TINY, *overrides)
    return forecast(segmenter, size, batch, cells, cells, state, Decoder(**decoder), torch.device("cpu"))


def saved_bytes(run) -> int:
    """What a real forward pass keeps for its backward pass, each storage once, weights apart."""
    found = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = run()
    del kept
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


@pytest.mark.parametrize("experiment", ["solo_r50_agg", "solov2_r50_agg"])
def test_whole_maps_that_are_kept_are_those_of_a_real_step(experiment):
    expected = forecast_of(experiment, "model.backbone.frozen_stages=0")
    segmenter = segmenter_of(experiment, *TINY, "model.backbone.frozen_stages=0", device="cpu").train()
    image = torch.randn(1, 3, 64, 96)
    statistics = sum(b.numel() * b.element_size() for b in segmenter.buffers())
    found = saved_bytes(lambda: segmenter(image))
    assert expected.saved == pytest.approx(found + image.nbytes, abs=statistics + image.nbytes)


@pytest.mark.parametrize(
    "options", [{}, {"window": 5}, {"window": 9, "context_channels": 0}, {"window": 5, "layers": 1}]
)
def test_what_an_asked_cell_keeps(options):
    """Up to a tenth: small tensors, kernels and patches, do not count by pixels of a mask."""
    head, canvas = make_head(**options), (256, 256)
    with torch.no_grad():
        pyramid = [m.detach() for m in make_pyramid(1, canvas)]
    output = head(pyramid)[0]
    cells = every_cell(output.level, 1)
    targets = torch.zeros(len(cells), canvas[0] // 4, canvas[1] // 4)
    # What both asks share (features, context) cancels out.
    many, few = (
        saved_bytes(lambda k=k: dice_losses(output.field.at(cells[:k]), targets[:k].clone())) for k in (len(cells), 8)
    )
    for_one = (many - few) / (len(cells) - 8)
    assert for_one / targets[0].numel() == pytest.approx(saved_per_pixel(head), rel=0.1)


def test_a_batch_and_its_cells_multiply_what_is_kept():
    one, two = (forecast_of("solo_r50_agg", batch=batch) for batch in (1, 2))
    assert two.saved / one.saved == pytest.approx(2, rel=0.05)
    assert two.saved_cells == 2 * one.saved_cells
    assert two.weights == one.weights
    assert forecast_of("solo_r50_agg", cells=[20.0] * 5).saved_cells == 2 * one.saved_cells


def test_a_gpu_works_on_more_cells_at_once():
    segmenter, cells = segmenter_of("solo_r50_agg", *TINY), [1e6] * 5
    saved = [kept_for_backward(segmenter, (64, 96), 1, cells, torch.device(d))[1] for d in ("cpu", "cuda")]
    most = [pixels_at_once(torch.device(d)) for d in ("cpu", "cuda")]
    assert saved[1] - saved[0] == 2 * (most[1] - most[0]) * saved_per_pixel(segmenter.head) > 0


def test_the_optimizer_keeps_its_share():
    sgd, adam = (forecast_of("solo_r50_agg", state=state) for state in (1, 2))
    assert adam.training_state / sgd.training_state == pytest.approx(3 / 2)
    assert sgd.training == sgd.weights + sgd.training_state + sgd.saved + sgd.saved_cells


def test_candidates_are_bounded_by_budget_and_matrix_nms():
    usual = forecast_of("solo_r50_agg", cells=[1000.0] * 5, memory_mb=4)
    assert usual.live_cells == forecast_of("solo_r50_agg", cells=[2000.0] * 5, memory_mb=4).live_cells
    assert forecast_of("solo_r50_agg", cells=[1000.0] * 5, memory_mb=1).live_cells < usual.live_cells
    assert forecast_of("solo_r50_agg", cells=[1000.0] * 5, memory_mb=4, nms_pre=50).live_cells < usual.live_cells


def test_live_bytes_by_hand():
    with LiveBytes() as watched:
        a = torch.zeros(100)
        b = a + 1  # 800 bytes live
        view = b.view(10, 10)
        del a, b
        c = torch.zeros(50)  # 400 of the view and 200
        assert watched.now == 600
        del view
        assert watched.now == 200
        del c
    assert watched.peak == 800

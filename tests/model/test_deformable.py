"""Neighbors that move."""

import pytest
import torch
from torch import nn

from aggmask.errors import UserError
from aggmask.model.aggregation.deformable import DeformableWindow
from aggmask.model.aggregation.neighbors import neighbors
from aggmask.structures import Cells, GridLevel
from tests.small import close, every_cell, make_head, make_levels_of, make_pyramid

HALF = make_levels_of(mask_grids=(4, 3, 3, 2, 2))
LEVEL = GridLevel(8, 6, 6, 1, 2)


def make_window(level=LEVEL, window=5, **options) -> DeformableWindow:
    torch.manual_seed(0)
    return DeformableWindow([level], window, channels=4, kernel=3, **options)


@pytest.mark.parametrize("base", ["constant", "predicted"])
@pytest.mark.parametrize("levels", [None, HALF], ids=["T = S", "T < S"])
@pytest.mark.parametrize("window", [1, 4, 5, 9, 25])
def test_at_the_start_it_equals_the_fixed_window(window, levels, base):
    fixed = make_head(levels, base=base, window=window)
    moving = make_head(levels, base=base, window=window, deformable=True)
    moving.load_state_dict(fixed.state_dict(), strict=False)
    for parameter in moving.aggregation.neighbors.parameters():
        nn.init.zeros_(parameter)
    pyramid = make_pyramid()
    for ours, theirs in zip(moving(pyramid), fixed(pyramid), strict=True):
        cells = every_cell(ours.level, 2)
        close(ours.field.at(cells), theirs.field.at(cells))


@pytest.mark.parametrize("base", ["constant", "predicted"])
@pytest.mark.parametrize("levels", [None, HALF], ids=["T = S", "T < S"])
def test_gradients_reach_the_offsets_from_the_start(levels, base):
    head = make_head(levels, base=base, window=5, deformable=True)
    conv = head.aggregation.neighbors.offsets.conv
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    output = head(make_pyramid())[0]
    output.field.at(every_cell(output.level, 2)).square().sum().backward()
    assert (conv.bias.grad != 0).all()
    assert (conv.weight.grad != 0).any(dim=(1, 2, 3)).all()


def test_offsets_start_at_zero_whatever_the_feature():
    moving = make_window()
    cells = Cells(torch.zeros(36, dtype=torch.long), torch.arange(36))
    places = moving(torch.randn(1, 4, 6, 6), cells, LEVEL)
    assert places.is_floating_point()
    assert torch.equal(places, neighbors(torch.arange(36), LEVEL, 5)[0].float())


def offset_by(moving: DeformableWindow, value: float, cell: int) -> list[list[float]]:
    nn.init.constant_(moving.offsets.conv.bias, value)
    cells = Cells(torch.zeros(1, dtype=torch.long), torch.tensor([cell]))
    with torch.no_grad():
        return moving(torch.zeros(1, 4, 6, 6), cells, LEVEL)[0].tolist()


def test_an_offset_is_in_cells_of_the_mask_grid_and_small_ones_are_taken_as_they_are():
    places = offset_by(make_window(window=1, bound=2.0), 0.05, cell=2 * 6 + 3)
    assert places[0] == pytest.approx([2.05, 3.05], abs=1e-4)


@pytest.mark.parametrize(("bound", "reached"), [(0.5, 2.5), (1.0, 3.0), (None, 5.0)])
def test_no_offset_passes_its_bound_nor_the_grid(bound, reached):
    assert offset_by(make_window(window=1, bound=bound), 100.0, cell=2 * 6 + 2)[0] == pytest.approx([reached] * 2)


def test_places_are_clipped_to_the_grid():
    assert offset_by(make_window(window=1), -1.0, cell=0) == [[0.0, 0.0]]


@pytest.mark.parametrize("bound", [0, -1.0])
def test_a_bound_without_room_is_refused(bound):
    with pytest.raises(UserError, match=r"neighbors\.bound="):
        make_window(bound=bound)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("base", ["constant", "predicted"])
def test_features_that_are_no_numbers_give_masks_that_are_none(base, value):
    """As the fixed window does: the training then says so, or skips the step, and no index is out of bounds."""
    head = make_head(base=base, window=5, deformable=True)
    nn.init.normal_(head.aggregation.neighbors.offsets.conv.weight)
    pyramid = make_pyramid(1)
    with torch.no_grad():
        pyramid[0][0, 0, 3, 3] = value
        output = head(pyramid)[0]
        masks = output.field.at(every_cell(output.level, 1))
    assert masks.isnan().any()

"""SOLO's bank of learned kernels."""

import math

import torch
import torch.nn.functional as F

from aggmask.geometry.grid import coordinate_channels
from aggmask.model.representation.constant import ConstantBank
from tests.small import close, make_levels_of


def test_channels_are_row_major_cells_of_each_levels_own_kernels():
    levels = make_levels_of(mask_grids=(4, 3, 3, 2, 2))
    torch.manual_seed(0)
    bank = ConstantBank(levels, in_channels=32, bias=-1.0, width=32, depth=1)
    features = [torch.randn(2, 32, 4, 6) for _ in levels]
    for level, kernels, feature, found in zip(levels, bank.kernels, features, bank(features, []), strict=True):
        maps = F.interpolate(bank.tower(coordinate_channels(feature)), scale_factor=2.0, mode="bilinear")
        maps = F.conv2d(maps, kernels.weight, kernels.bias)
        row, column = level.mask_grid - 1, 1
        asked = found.at(torch.tensor([1]), torch.tensor([[[row, column]]]))
        close(asked[0, 0], maps[1, row * level.mask_grid + column])


def test_published_start():
    bank = ConstantBank(make_levels_of(), in_channels=32, bias=-math.log(99), width=32, depth=7)
    assert len(bank.tower) == 7
    assert bank.tower[0].conv.in_channels == 34, "two coordinate channels"
    for kernels in bank.kernels:
        torch.testing.assert_close(kernels.bias.sigmoid(), torch.full_like(kernels.bias, 0.01))
        assert 0.005 < kernels.weight.std() < 0.015


def test_masks_have_half_the_stride_of_the_features():
    levels = make_levels_of()
    bank = ConstantBank(levels, in_channels=32, bias=0.0, width=32, depth=1)
    assert [bank.mask_stride(level) for level in levels] == [4, 4, 8, 16, 16]


def test_without_a_tower_the_kernels_see_the_features():
    levels = make_levels_of()
    bank = ConstantBank(levels, in_channels=32, bias=0.0, width=64, depth=0)
    found = bank([torch.randn(1, 32, 4, 6) for _ in levels], [])
    assert found[0].at(torch.tensor([0]), torch.tensor([[[0, 0]]])).shape == (1, 1, 8, 12)

"""Weights of the asked cells are those that a convolution over the whole grid gives."""

import torch
import torch.nn.functional as F

from aggmask.geometry.grid import coordinate_channels
from aggmask.model.aggregation.weights import BranchWeights, CategoryWeights
from aggmask.structures import Cells
from tests.small import close, every_cell, make_levels_of, many_threads

SOME = Cells(torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 17, 3, 17, 63]))


def equal_at_cells(weights, features, whole) -> None:
    expected = whole.flatten(2).transpose(1, 2)
    close(weights(features, SOME), expected[SOME.image, SOME.index])
    close(weights(features, every_cell(make_levels_of()[0], 2)), expected.flatten(0, 1))


def test_identity_5_category_weights_are_the_tanh_of_a_convolution():
    torch.manual_seed(0)
    weights, categories = CategoryWeights(32, 32, 11), torch.randn(2, 32, 8, 8)
    assert weights.conv.kernel_size == (3, 3)
    features = weights.cell_features(torch.randn(2, 32, 5, 7), categories)
    assert features is categories
    equal_at_cells(weights, features, torch.tanh(weights.conv(features)))


def test_identity_5_branch_weights_are_a_branch_of_their_own_without_tanh():
    torch.manual_seed(0)
    weights, level = BranchWeights(30, 99, 11, width=32, depth=2), torch.randn(2, 30, 5, 7)
    features = weights.cell_features(level, torch.randn(2, 99, 8, 8))
    expected = F.interpolate(coordinate_channels(level), size=(8, 8), mode="bilinear")
    for block in weights.tower:
        expected = F.relu(F.group_norm(F.conv2d(expected, block.conv.weight, padding=1), 32))
    close(features, expected)
    equal_at_cells(weights, features, F.conv2d(features, weights.conv.weight, weights.conv.bias))


def test_depth_0_reads_the_resized_features():
    weights = BranchWeights(30, 99, 11, depth=0)
    assert weights.channels == 32
    assert weights.cell_features(torch.randn(2, 30, 5, 7), torch.randn(2, 99, 8, 8)).shape == (2, 32, 8, 8)


def test_gradients_are_the_same_bits_whatever_the_order_of_threads():
    """Neighboring cells share what they read."""
    torch.manual_seed(0)
    weights, cells = CategoryWeights(64, 64, 11), every_cell(make_levels_of(grids=(12, 12, 12, 12, 12))[0], 4)
    grids, found = torch.randn(4, 64, 12, 12), []
    with many_threads():
        for _ in range(6):
            leaf = grids.clone().requires_grad_()
            weights(leaf, cells).square().sum().backward()
            found.append(leaf.grad)
    assert all(torch.equal(again, found[0]) for again in found[1:])

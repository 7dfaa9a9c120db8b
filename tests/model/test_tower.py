"""Convolution, GroupNorm, ReLU."""

import pytest
import torch
import torch.nn.functional as F

from aggmask.errors import UserError
from aggmask.model.aggregation.context import ContextBranch
from aggmask.model.tower import PRIOR_BIAS, ConvBlock, conv_tower, init_conv
from tests.small import close


def test_a_block_is_convolution_norm_relu():
    torch.manual_seed(0)
    tower, x = conv_tower(5, 64, 2), torch.randn(2, 5, 6, 7)
    expected = x
    for block in tower:
        assert block.conv.bias is None
        expected = F.relu(F.group_norm(F.conv2d(expected, block.conv.weight, padding=1), 32))
    close(tower(x), expected)


def test_a_large_block_without_a_norm_trains():
    """Its ReLU changes in place what the convolution gave, Winograd's too."""
    torch.manual_seed(0)
    block, x = ConvBlock(64, 64, norm=False), torch.randn(1, 64, 32, 32, requires_grad=True)
    block(x).square().sum().backward()
    ours, x.grad = [x.grad, block.conv.weight.grad], None
    weight = block.conv.weight.detach().requires_grad_()
    F.relu(F.conv2d(x, weight, padding=1)).square().sum().backward()
    for found, expected in zip(ours, (x.grad, weight.grad), strict=True):
        close(found, expected)


def test_depth_0_changes_nothing():
    x = torch.randn(1, 5, 3, 3)
    assert torch.equal(conv_tower(5, 64, 0)(x), x)


def test_widths_fit_the_groups():
    with pytest.raises(UserError, match="width of 48 is not divisible by the 32 groups"):
        conv_tower(5, 48, 1)
    with pytest.raises(UserError, match="width of 48 is not divisible by the 32 groups"):
        ContextBranch(48, 8)


def test_start():
    torch.manual_seed(0)
    conv = init_conv(torch.nn.Conv2d(64, 64, 3), PRIOR_BIAS)
    assert 0.009 < conv.weight.std() < 0.011
    assert torch.tensor(PRIOR_BIAS).sigmoid().item() == pytest.approx(0.01)
    assert (conv.bias == PRIOR_BIAS).all()

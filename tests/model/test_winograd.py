"""Fewer products, the same convolution."""

import pytest
import torch
import torch.nn.functional as F

from aggmask.model.convolution import Conv2d
from aggmask.model.winograd import convolve, gradients, pays
from tests.small import close


@pytest.mark.parametrize("height", [1, 4, 6, 7, 9])
def test_equals_the_plain_convolution_and_its_gradients(height):
    torch.manual_seed(0)
    maps = torch.randn(2, 5, height, 6, dtype=torch.double, requires_grad=True)
    weight = torch.randn(3, 5, 3, 3, dtype=torch.double, requires_grad=True)
    expected = F.conv2d(maps, weight, padding=1)
    gradient = torch.randn_like(expected)
    close(convolve(maps.detach(), weight.detach()), expected, 1e-13)
    theirs = torch.autograd.grad(expected, (maps, weight), gradient)
    for ours, plain in zip(gradients(gradient, maps.detach(), weight.detach()), theirs, strict=True):
        close(ours, plain, 1e-13)


def test_rounding_stays_small():
    torch.manual_seed(0)
    maps, weight = torch.randn(1, 256, 24, 24), torch.randn(256, 256, 3, 3) / 48  # results of deviation 1
    exact = F.conv2d(maps.double(), weight.double(), padding=1)
    assert float((convolve(maps, weight) - exact).std()) < 2.5e-6


def test_a_convolution_takes_it_where_it_pays():
    torch.manual_seed(0)
    conv, maps = Conv2d(64, 64, 3, padding=1, bias=False), torch.randn(2, 64, 32, 32, requires_grad=True)
    taken = conv(maps)
    assert type(taken.grad_fn).__name__ == "WinogradBackward"
    plain = F.conv2d(maps, conv.weight, padding=1)
    close(taken, plain)
    inputs = maps, conv.weight
    for ours, theirs in zip(*(torch.autograd.grad(y.square().sum(), inputs) for y in (taken, plain)), strict=True):
        close(ours, theirs, 1e-4)


def test_where_it_pays():
    wide, large = torch.empty(64, 64, 3, 3), torch.empty(1, 64, 25, 42)
    assert pays(large, wide)
    assert not pays(large[..., :39], wide), "few pixels"
    assert not pays(large, wide[:32]), "few channels"
    assert not pays(large, wide[..., :1, :1]), "another kernel"
    assert not pays(large.double(), wide.double())
    assert not pays(large.to("meta"), wide.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not pays(large, wide)

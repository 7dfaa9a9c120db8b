"""The context in bands of rows: the same as layer by layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aggmask.model.aggregation import banded
from aggmask.model.aggregation.banded import convolve_twice, pays, resized
from aggmask.model.aggregation.context import ContextBranch
from tests.small import close, make_pyramid


def make_layers(channels=8, reduced=8, groups=4):
    fuse, norm = nn.Conv2d(3 * channels, channels, 1), nn.GroupNorm(groups, channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return fuse.double(), norm.double(), nn.Conv2d(channels, reduced, 1).double()


def layer_by_layer(p2, wide, fuse, norm, reduce):
    sums = F.conv2d(p2, fuse.weight[:, : p2.shape[1]], fuse.bias)
    return reduce(F.relu(norm(sums + sum(resized(m, *p2.shape[2:]) for m in wide))))


def make_maps(batch=2, height=13, width=5, heights=(7, 2)):
    maps = [torch.randn(batch, 8, h, width, dtype=torch.double, requires_grad=True) for h in (height, *heights)]
    return maps[0], maps[1:]


@pytest.mark.parametrize("rows", [1, 4, 13])
def test_equals_layer_by_layer_and_its_gradients(rows, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(banded, "_BAND_BYTES", rows * 8 * 5 * 8)
    (p2, wide), layers = make_maps(), make_layers()
    found, expected = (form(p2, wide, *layers) for form in (convolve_twice, layer_by_layer))
    close(found, expected, 1e-13)
    gradient = torch.randn_like(expected)
    inputs = [p2, *wide, *(weight for layer in layers for weight in layer.parameters())]
    ours, theirs = (torch.autograd.grad(result, inputs, gradient) for result in (found, expected))
    for own, plain in zip(ours, theirs, strict=True):
        close(own, plain, 1e-12)


def test_channels_last_in_memory(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(banded, "_BAND_BYTES", 1000)
    (p2, wide), layers = make_maps(), make_layers()
    last = [m.detach().contiguous(memory_format=torch.channels_last).requires_grad_() for m in (p2, *wide)]
    found, expected = convolve_twice(last[0], last[1:], *layers), convolve_twice(p2, wide, *layers)
    close(found, expected, 1e-13)
    gradient = torch.randn_like(expected).contiguous(memory_format=torch.channels_last)
    ours, theirs = torch.autograd.grad(found, last, gradient), torch.autograd.grad(expected, (p2, *wide), gradient)
    for own, plain in zip(ours, theirs, strict=True):
        close(own, plain, 1e-13)


def test_a_mean_far_from_zero_costs_no_precision(monkeypatch):
    """Sums of squares in single precision would lose a deviation of 1 beside a mean of 5000."""
    torch.manual_seed(0)
    monkeypatch.setattr(banded, "_BAND_BYTES", 1000)
    (p2, wide), layers = make_maps(), make_layers()
    nn.init.constant_(layers[0].bias, 5000.0)
    expected = convolve_twice(p2, wide, *layers)
    single = [layer.float() for layer in layers]
    close(convolve_twice(p2.float(), [m.float() for m in wide], *single).double(), expected, 2e-3)


def test_an_image_does_not_depend_on_its_batch(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(banded, "_BAND_BYTES", 1000)
    (p2, wide), layers = make_maps(), make_layers()
    assert torch.equal(convolve_twice(p2[1:], [m[1:] for m in wide], *layers), convolve_twice(p2, wide, *layers)[1:])


def test_the_context_takes_it_where_it_pays(monkeypatch):
    torch.manual_seed(0)
    branch, pyramid = ContextBranch(64, 8), make_pyramid(channels=64)
    plain = branch(pyramid)
    monkeypatch.setattr(banded, "_BAND_BYTES", pyramid[0][0].nbytes // 3)
    taken = branch(pyramid)
    names = {type(result.grad_fn.next_functions[0][0]).__name__ for result in (plain, taken)}
    assert names == {"_ActivatedBackward", "_ConvolveTwiceBackward"}
    close(taken, plain)
    inputs = [*pyramid, *branch.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad(y.square().sum(), inputs) for y in (taken, plain)), strict=True):
        close(ours, theirs, 1e-4)


def test_no_image_at_all():
    pyramid = [torch.zeros(0, 64, 200 // s, 200 // s, requires_grad=True) for s in (1, 2, 4, 8, 8)]
    found = ContextBranch(64, 8)(pyramid)
    assert found.shape == (0, 8, 200, 200)
    found.sum().backward()


def test_where_it_pays():
    large, weight = torch.empty(1, 64, 120, 120), torch.empty(64, 64, 1, 1)
    assert pays(large, weight)
    assert not pays(large[..., :90], weight), "it fits in the cache"
    assert pays(large[..., :90].expand(2, -1, -1, -1), weight) is pays(large[..., :90], weight), "whatever the batch"
    assert not pays(large.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not pays(large, weight)

"""A convolution after a norm and a ReLU, with one map kept."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aggmask.model.convolution import convolve_activated
from aggmask.model.tower import conv_tower
from tests.accounting.test_memory import saved_bytes
from tests.small import close


def make(kernel: int, bias: bool, dtype=torch.double) -> tuple[torch.Tensor, nn.GroupNorm, nn.Conv2d]:
    torch.manual_seed(0)
    norm, conv = nn.GroupNorm(4, 8), nn.Conv2d(8, 6, kernel, padding=kernel // 2, bias=bias)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return torch.randn(2, 8, 5, 7, dtype=dtype, requires_grad=True), norm.to(dtype), conv.to(dtype)


@pytest.mark.parametrize(("kernel", "bias"), [(3, False), (1, True), (5, True)])
def test_results_and_gradients_are_those_of_autograd(kernel, bias):
    maps, norm, conv = make(kernel, bias)
    inputs = [maps, *norm.parameters(), *conv.parameters()]
    results = convolve_activated(maps, norm, conv), conv(F.relu(norm(maps)))
    close(*results, 1e-14)
    gradients = [torch.autograd.grad(y.sin().sum(), inputs) for y in results]
    for ours, theirs in zip(*gradients, strict=True):
        close(ours, theirs, 1e-13)


def test_mixed_precision_has_the_gradients_of_autograd():
    maps, norm, conv = make(3, bias=True, dtype=torch.float32)
    inputs = [maps, *norm.parameters(), *conv.parameters()]
    gradients = []
    for way in (convolve_activated, lambda maps, norm, conv: conv(F.relu(norm(maps)))):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = way(maps, norm, conv)
        assert result.dtype == torch.bfloat16
        gradients.append(torch.autograd.grad(result.float().sin().sum(), inputs))
    for ours, theirs in zip(*gradients, strict=True):
        assert ours.dtype == theirs.dtype == torch.float32
        close(ours, theirs, 0.02)


def test_a_tower_keeps_one_map_a_block():
    torch.manual_seed(0)
    tower, x = conv_tower(64, 64, 4), torch.randn(1, 64, 12, 12, requires_grad=True)
    kept = saved_bytes(lambda: tower(x)) / x.nbytes
    assert kept == pytest.approx(1 + 4 + 1, abs=0.1), "the input, each convolution, the result"
    plain = saved_bytes(lambda: nn.Sequential.forward(tower, x)) / x.nbytes
    assert plain == pytest.approx(1 + 2 * 4, abs=0.1)


def test_modules_are_called_so_that_hooks_see_them():
    tower, seen = conv_tower(5, 32, 3), []
    for name, module in tower.named_modules():
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.append(name))
    tower(torch.randn(1, 5, 4, 4, requires_grad=True)).sum().backward()
    assert seen == ["0.conv", "0.gn", "1.conv", "1.gn", "2.conv", "2.gn", ""]

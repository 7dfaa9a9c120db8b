"""Convolutions that need less memory and, on a CPU, fewer products than torch's; the same results up to rounding."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import is_autocast_available
from torch.autograd import grad
from torch.autograd.function import once_differentiable

from aggmask.model import winograd


class Conv2d(nn.Conv2d):
    """A convolution of stride 1 that takes the faster way."""

    def _conv_forward(self, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is None and winograd.pays(maps, weight):
            return winograd.Winograd.apply(maps, weight)
        return super()._conv_forward(maps, weight, bias)


def convolve_activated(maps: Tensor, norm: nn.GroupNorm, conv: nn.Conv2d) -> Tensor:
    """conv(relu(norm(maps))) that keeps `maps` alone for the backward pass.

    Autograd would keep what the convolution reads too. Here that is made again when its gradient is wanted: one pass
    over memory, which is little beside the convolution.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():  # a compiler decides itself what it makes again
        return conv(F.relu_(norm(maps)))
    return _Activated.apply(maps, norm.weight, norm.bias, conv.weight, conv.bias, norm, conv)


class _Activated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps, scale, shift, weight, bias, norm, conv) -> Tensor:
        ctx.save_for_backward(maps, scale, shift, weight)
        ctx.norm, ctx.padding, ctx.biased = (norm.num_groups, norm.eps), conv.padding, bias is not None
        ctx.autocast = _autocast(maps.device.type)
        return conv(F.relu_(norm(maps)))  # the modules, for whoever watches them

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, scale, shift, weight = ctx.saved_tensors
        groups, eps = ctx.norm
        with torch.enable_grad(), ctx.autocast:
            leaves = [tensor.detach().requires_grad_() for tensor in (maps, scale, shift)]
            inputs = F.relu_(F.group_norm(leaves[0], groups, *leaves[1:], eps))
        operands = gradient, inputs.detach().to(gradient.dtype), weight.to(gradient.dtype)
        of_inputs, of_weight = _gradients(*operands, ctx.padding)
        of_norm = grad(inputs, leaves, of_inputs.to(inputs.dtype))
        return *of_norm, of_weight.to(weight.dtype), gradient.sum((0, 2, 3)) if ctx.biased else None, None, None


def _autocast(kind: str) -> AbstractContextManager[None]:
    """Mixed precision as it is now: the backward pass runs outside of it."""
    if not is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, torch.get_autocast_dtype(kind))


def _gradients(gradient: Tensor, inputs: Tensor, weight: Tensor, padding: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Of a convolution's inputs and of its weight."""
    if winograd.pays(inputs, weight):
        return winograd.gradients(gradient, inputs, weight)
    once, never = (1, 1), (0, 0)
    both = torch.ops.aten.convolution_backward(
        gradient, inputs, weight, None, once, padding, once, False, never, 1, (True, True, False)
    )
    return both[:2]

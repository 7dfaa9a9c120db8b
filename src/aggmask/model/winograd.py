"""3x3 convolutions of wide maps on a CPU with half of the multiplications: Winograd's F(4, 3) along the rows.

Four rows of a result need six rows of the input. Six sums of those, each convolved with a 1x3 kernel (a sum of the
kernel's three rows), give the four rows as sums again: 18 products for 36 (Lavin and Gray 2016, arXiv:1509.09308). The
library behind torch has no such kernel for x86; its plain ones run at the processor's peak, so fewer products are the
only way to be faster. Columns are left alone: F(4x4, 3x3) would need a quarter of the products, but more and smaller
sums, which cost what that saves, and its rounding is worse. The relative error is 2e-6; that of torch's plain
convolutions here is 2e-7 to 9e-7.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

_ROWS = 4  # of the result, made together
_INPUT = (  # sums of six rows of the input
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (  # sums of the kernel's three rows
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = ((1, 0, 0, 0), (1, 1, 1, 1), (1, -1, 1, -1), (1, 2, 4, 8), (1, -2, 4, -8), (0, 0, 0, 1))  # rows of the result
_LEAST_CHANNELS, _LEAST_PIXELS = 64, 1000  # of one map; below, the sums cost more than the products they save
_LAST = torch.channels_last


def pays(maps: Tensor, weight: Tensor) -> bool:
    """Whether `convolve` is the faster way. Whatever the batch, so that an image's result does not depend on it."""
    return (
        is_plain(maps, weight)
        and weight.shape[-2:] == (3, 3)
        and min(weight.shape[:2]) >= _LEAST_CHANNELS
        and maps.shape[-2] * maps.shape[-1] >= _LEAST_PIXELS
    )


def is_plain(maps: Tensor, weight: Tensor) -> bool:
    """Whether this is single precision on a CPU, neither mixed nor compiled, for which the shortcuts here are made."""
    return (
        maps.device.type == "cpu"
        and maps.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class Winograd(torch.autograd.Function):
    """(B, in, h, w), (out, in, 3, 3) -> (B, out, h, w), channels last in memory; zeros around the maps."""

    @staticmethod
    def forward(ctx, maps: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(maps, weight)
        return convolve(maps, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradients(gradient, *ctx.saved_tensors)


def gradients(gradient: Tensor, maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the maps and of the weight."""
    return convolve(gradient, weight.flip(2, 3).transpose(0, 1)), _weight_gradient(gradient, maps)


def convolve(maps: Tensor, weight: Tensor) -> Tensor:
    """The convolution itself."""
    sums = torch.tensor(_KERNEL, dtype=weight.dtype) @ weight.permute(2, 0, 1, 3).flatten(1)
    kernels = [k.contiguous(memory_format=_LAST) for k in sums.view(-1, *weight.shape[:2], 1, 3)]
    # Not a view of anything: what follows may change it in place.
    result = torch.empty((len(maps), len(weight), *maps.shape[-2:]), dtype=maps.dtype, memory_format=_LAST).zero_()
    for image in range(len(maps)):  # one after the other: what is summed stays in the cache
        inputs, outputs = _six_rows(maps[image : image + 1]), _four_rows(result[image : image + 1])
        for kernel, row, column in zip(kernels, _INPUT, _OUTPUT, strict=True):
            part = F.conv2d(_sum(row, inputs), kernel, padding=(0, 1))
            for output, factor in zip(outputs, column, strict=True):
                if factor:
                    output.add_(part[:, :, : output.shape[2]], alpha=factor)
    return result


def _weight_gradient(gradient: Tensor, maps: Tensor) -> Tensor:
    """The convolution is linear in its kernels: every step of `convolve` backwards."""
    missing = -gradient.shape[2] % _ROWS
    shape = gradient.shape[1], maps.shape[1], 1, 3
    total = maps.new_zeros(len(_INPUT), *shape)
    for image in range(len(maps)):
        inputs = _six_rows(maps[image : image + 1])
        outputs = _four_rows(F.pad(gradient[image : image + 1], (0, 0, 0, missing)))
        for place, (row, column) in enumerate(zip(_INPUT, _OUTPUT, strict=True)):
            total[place] += conv2d_weight(_sum(row, inputs), shape, _sum(column, outputs), padding=(0, 1))
    sums = torch.tensor(_KERNEL, dtype=maps.dtype).T @ total.flatten(1)
    return sums.view(3, shape[0], shape[1], 3).permute(1, 2, 0, 3)


def _six_rows(maps: Tensor) -> list[Tensor]:
    """Views of every fourth row, with zeros around: the k-th holds row k of each group of six."""
    blocks = -(-maps.shape[2] // _ROWS)
    padded = F.pad(maps, (0, 0, 1, 1 + blocks * _ROWS - maps.shape[2]))
    return [padded[:, :, k : k + blocks * _ROWS - _ROWS + 1 : _ROWS] for k in range(len(_INPUT))]


def _four_rows(maps: Tensor) -> list[Tensor]:
    return [maps[:, :, k::_ROWS] for k in range(_ROWS)]


def _sum(factors: Sequence[int], parts: Sequence[Tensor]) -> Tensor:
    """The weighted sum of some maps, channels last."""
    wanted = sorted(((f, p) for f, p in zip(factors, parts, strict=True) if f), key=lambda pair: pair[0] != 1)
    (_, total), *rest = wanted  # the factor 1 is first: every row of the tables has one
    total = torch.add(total, rest[0][1], alpha=rest[0][0]) if rest else total
    for factor, part in rest[1:]:
        total.add_(part, alpha=factor)
    return total.contiguous(memory_format=_LAST)

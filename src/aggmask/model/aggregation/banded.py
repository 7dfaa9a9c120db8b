"""The context's two layers on a CPU, a band of rows at a time (method.md sections 4 and 9.3).

Layer by layer, each pass reads and writes maps of 256 channels at P2's size, which no cache holds, and the backward
pass makes several more of them. Here a band of rows goes through everything while the cache holds it. What is kept for
the backward pass are P2 and its first convolution's sums, of which the backward pass makes the rest again. The
gradients are written out, GroupNorm's too: a norm needs sums over the whole map, so that either direction runs over
the bands twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from aggmask.model.winograd import is_plain

_BAND_BYTES = 3 << 20  # of one band: several lie in the last-level cache beside each other


def pays(maps: Tensor, weight: Tensor) -> bool:
    """Whether bands are the faster way: where one map fits in the cache as it is, they gain nothing."""
    one = maps.shape[1:].numel() * maps.element_size()
    return is_plain(maps, weight) and one > _BAND_BYTES and len(maps) > 0


def convolve_twice(
    p2: Tensor, wide: Sequence[Tensor], fuse: nn.Conv2d, norm: nn.GroupNorm, reduce: nn.Conv2d
) -> Tensor:
    """reduce(relu(norm(fuse of all maps of the pyramid))).

    Args:
        p2: (B, C, H, W).
        wide: the coarser maps, convolved, each (B, C, its height, W).
        fuse: 1x1, of all maps; its first C inputs are P2's.
        reduce: 1x1, C to X channels.

    Returns:
        (B, X, H, W).
    """
    kernel = fuse.weight[:, : p2.shape[1]].flatten(1)
    affine = fuse.bias, norm.weight, norm.bias
    return _ConvolveTwice.apply(
        norm.num_groups, norm.eps, p2, kernel, *affine, reduce.weight.flatten(1), reduce.bias, *wide
    )


class _ConvolveTwice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, groups, eps, p2, kernel, bias, scale, shift, reduce, reduce_bias, *wide) -> Tensor:
        bands = list(_bands(p2, wide))
        fused, result = p2.new_empty(p2.shape), p2.new_empty(len(p2), len(reduce), *p2.shape[2:])
        moments = torch.stack(
            [
                _fuse(bands, p2[i].flatten(1), [m[i] for m in wide], kernel, bias, fused[i], groups)
                for i in range(len(p2))
            ]
        )
        for i, (mean, variance, _) in enumerate(moments):
            slope, offset = _affine(mean, (variance + eps).rsqrt(), scale, shift)
            for band in bands:
                x = torch.addcmul(offset, fused[i].flatten(1)[:, band.pixels], slope).relu_()
                torch.addmm(reduce_bias[:, None], reduce, x, out=result[i].flatten(1)[:, band.pixels])
        ctx.save_for_backward(p2, kernel, scale, shift, reduce, fused, moments)
        ctx.groups, ctx.eps, ctx.bands, ctx.heights = groups, eps, bands, [m.shape[2] for m in wide]
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        p2, kernel, scale, shift, reduce, fused, moments = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_p2, of_wide = p2.new_empty(p2.shape), [p2.new_zeros(*p2.shape[:2], h, p2.shape[3]) for h in ctx.heights]
        of_kernel, of_reduce = torch.zeros_like(kernel), torch.zeros_like(reduce)
        of_bias, of_scale, of_shift = torch.zeros(3, len(scale), dtype=torch.double)
        for i, (mean, variance, channel_mean) in enumerate(moments):
            rstd = (variance + ctx.eps).rsqrt()
            slope, offset = _affine(mean, rstd, scale, shift)
            inputs, sums, asked = p2[i].flatten(1), fused[i].flatten(1), gradient[i].flatten(1)

            # Of what the norm gave: its sum, and its sum times what the norm read.
            plain, timed = torch.zeros(2, len(scale), dtype=torch.double)
            for band in ctx.bands:
                x, g = sums[:, band.pixels], asked[:, band.pixels]
                activated = torch.addcmul(offset, x, slope).relu_()
                of_reduce.addmm_(g, activated.T)
                g = _where_positive(reduce.T @ g, activated)
                plain += g.sum(1)
                timed += g.mul_(x).sum(1)

            # Of what the norm read: slope * g + along * x + across, whose last two keep mean and variance as they are.
            count = sums.shape[1]
            of_shift += plain
            of_scale += (by_norm := (timed - mean * plain) * rstd)
            along = -_of_groups(scale * by_norm, ctx.groups) * rstd**2 / count
            across = -_of_groups(scale * plain, ctx.groups) * rstd / count - along * mean
            of_bias += scale * rstd * plain + count * (along * channel_mean + across)
            along, across = (column.to(p2.dtype)[:, None] for column in (along, across))
            for band in ctx.bands:
                x, g = sums[:, band.pixels], asked[:, band.pixels]
                g = _where_positive(reduce.T @ g, torch.addcmul(offset, x, slope))
                g = torch.addcmul(across, x, along).addcmul_(g, slope)
                of_kernel.addmm_(g, inputs[:, band.pixels].T)
                torch.mm(kernel.T, g, out=of_p2[i].flatten(1)[:, band.pixels])
                band.add_transposed(g, [m[i] for m in of_wide])
        affine = (column.to(p2.dtype) for column in (of_bias, of_scale, of_shift))
        return None, None, of_p2, of_kernel, *affine, of_reduce, gradient.sum((0, 2, 3)), *of_wide


class _Band(NamedTuple):
    """Some rows of P2, and the rows of the coarser maps from which they are interpolated."""

    rows: slice
    pixels: slice  # the same of a flat map
    sources: list[slice]  # of each coarser map
    matrix: Tensor  # (rows, all sources one after the other)

    def add_resized(self, maps: Sequence[Tensor], result: Tensor) -> None:
        """(C, h, W) each, resized and added to the rows of (C, H, W)."""
        read = torch.cat([m[:, rows] for m, rows in zip(maps, self.sources, strict=True)], 1)
        result[:, self.rows].baddbmm_(self.matrix.expand(len(read), -1, -1), read)

    def add_transposed(self, gradient: Tensor, results: Sequence[Tensor]) -> None:
        """The inverse way for gradients: (C, pixels), added to (C, h, W) each."""
        lines = gradient.view(len(gradient), len(self.matrix), -1)
        read = torch.bmm(self.matrix.T.expand(len(gradient), -1, -1), lines)
        parts = read.split([rows.stop - rows.start for rows in self.sources], 1)
        for result, rows, part in zip(results, self.sources, parts, strict=True):
            result[:, rows] += part


def _bands(p2: Tensor, wide: Sequence[Tensor]) -> Iterator[_Band]:
    channels, height, width = p2.shape[1:]
    step = max(1, _BAND_BYTES // (channels * width * p2.element_size()))
    resizing = [row_weights(m.shape[2], height, dtype=p2.dtype) for m in wide]
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        sources = [_span(matrix[rows]) for matrix in resizing]
        matrix = torch.cat([matrix[rows, source] for matrix, source in zip(resizing, sources, strict=True)], 1)
        yield _Band(rows, slice(rows.start * width, rows.stop * width), sources, matrix)


def _span(matrix: Tensor) -> slice:
    """The columns from the first to the last that are not 0."""
    used = matrix.any(0).nonzero()
    return slice(int(used[0]), int(used[-1]) + 1)


def _fuse(
    bands: Sequence[_Band],
    inputs: Tensor,
    wide: Sequence[Tensor],
    kernel: Tensor,
    bias: Tensor,
    result: Tensor,
    groups: int,
) -> Tensor:
    """Fill an image's (C, H, W) `result`; of its channels (3, C): mean and variance of the group, own mean."""
    counts, means, variances = [], [], []
    for band in bands:
        sums = result.flatten(1)[:, band.pixels]
        torch.mm(kernel, inputs[:, band.pixels], out=sums)
        sums += bias[:, None]
        band.add_resized(wide, result)
        means.append(mean := sums.mean(1))
        variances.append(torch.linalg.vector_norm(sums - mean[:, None], dim=1).double().square() / sums.shape[1])
        counts.append(float(sums.shape[1]))
    shares = torch.tensor(counts, dtype=torch.double)[:, None] / sum(counts)
    own = (shares * torch.stack(means)).sum(0)
    mean = _of_groups(own, groups)
    spread = torch.stack(variances) + (torch.stack(means) - mean).square()
    return torch.stack([mean, _of_groups((shares * spread).sum(0), groups), own])


def _of_groups(values: Tensor, groups: int) -> Tensor:
    """(C,) -> (C,) means over each channel's group."""
    return values.view(groups, -1).mean(1).repeat_interleave(len(values) // groups)


def _affine(mean: Tensor, rstd: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """(C, 1) each: the norm as slope * x + offset."""
    slope = scale * rstd
    return slope.to(scale.dtype)[:, None], (shift - mean * slope).to(scale.dtype)[:, None]


def _where_positive(gradient: Tensor, maps: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(gradient, maps, 0)


def resized(maps: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, corners on corners, as the context is published."""
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=True)


def row_weights(source: int, height: int, **of_tensor: Any) -> Tensor:
    """(height, source): what `resized` makes of each of `source` rows, along y alone."""
    return resized(torch.eye(source, **of_tensor)[None, None], height, source)[0, 0]

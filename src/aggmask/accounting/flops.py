"""Operations of a model, part by part: of the dense formulation, and of the lazy one as a function of the asked cells.

One multiply-add counts as two operations, as the published numbers do; norms, activations and resizing are not counted.
What runs over whole maps is counted by torch (`FlopCounterMode`) on tensors without content; what runs per cell is a
closed formula, which a test compares with torch's count of real cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from aggmask.geometry.grid import PYRAMID_STRIDES
from aggmask.model.head import Head
from aggmask.model.representation.constant import ConstantBank
from aggmask.model.segmenter import Segmenter
from aggmask.structures import GridLevel


@dataclass(frozen=True)
class Part:
    """One part of a model. Operations are those of one image's forward pass."""

    name: str
    parameters: int
    dense: float  # all S*S cells; as published, without the aggregation networks, which exist for asked cells only
    fixed: float  # lazy: whatever is asked
    per_cell: tuple[float, ...]  # lazy: for one asked cell of each level

    def lazy(self, cells: Sequence[float]) -> float:
        """Operations when so many cells of each level are asked."""
        return self.fixed + sum(n * each for n, each in zip(cells, self.per_cell, strict=True))


@dataclass(frozen=True)
class MapSizes:
    """Pixels of the maps of one image."""

    pyramid: int  # P2
    features: tuple[int, ...]  # per level, the level's own features
    masks: tuple[int, ...]  # per level, its masks


def map_sizes(head: Head, size: tuple[int, int]) -> MapSizes:
    """Sizes for a network input of (H, W), divisible by 32."""

    def pixels(stride: int) -> int:
        return -(-size[0] // stride) * -(-size[1] // stride)

    masks = tuple(pixels(head.bank.mask_stride(level)) for level in head.levels)
    return MapSizes(pixels(PYRAMID_STRIDES[0]), tuple(pixels(level.stride) for level in head.levels), masks)


def count(segmenter: Segmenter, size: tuple[int, int]) -> list[Part]:
    """The parts of a segmenter on the meta device, in the order in which an image passes them.

    Args:
        segmenter: built under `torch.device("meta")`.
        size: (H, W) of the network input, divisible by 32.
    """
    head, sizes = segmenter.head, map_sizes(segmenter.head, size)
    counted = _counted(segmenter, size)
    nothing = (0.0,) * len(head.levels)
    parts = []
    for name, module in (("backbone", segmenter.backbone), ("pyramid", segmenter.fpn), ("categories", head.category)):
        flops = counted[id(module)]
        parts.append(Part(name, _parameters(module), flops, flops, nothing))
    parts += _representations(head, sizes, counted[id(head.bank)])
    if hasattr(head.aggregation, "weights"):
        parts += _aggregation(head, sizes, counted)
    return parts


def _counted(segmenter: Segmenter, size: tuple[int, int]) -> Mapping[int, float]:
    """id of a module -> operations of one image's dense maps, as torch counts them."""
    names = {id(module): f"{type(segmenter).__name__}.{name}" for name, module in segmenter.named_modules() if name}
    image = torch.empty(1, segmenter.backbone.in_chans, *size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        segmenter.eval()(image)
    totals = {name: float(sum(kinds.values())) for name, kinds in counter.get_flop_counts().items()}
    return {key: totals.get(name, 0.0) for key, name in names.items()}


def _representations(head: Head, sizes: MapSizes, counted: float) -> list[Part]:
    bank, neighbors = head.bank, getattr(head.aggregation, "window", 1)
    constant = isinstance(bank, ConstantBank)
    kernels = bank.kernels if constant else [bank.kernels] * len(head.levels)
    channels = [k.in_channels if constant else k.out_channels for k in kernels]
    stored = _parameters(bank.kernels) if constant else 0
    # Dense: after the enlargement. Lazy: before it (method.md section 9.2).
    painted = sizes.features if constant else sizes.masks
    dense = sum(2 * c * v.mask_grid**2 * m for c, v, m in zip(channels, head.levels, sizes.masks, strict=True))
    each = tuple(2.0 * c * neighbors * p for c, p in zip(channels, painted, strict=True))
    nothing = (0.0,) * len(head.levels)
    return [
        Part("bank of kernels", _parameters(bank) - stored, counted, counted, nothing),
        Part("representations", stored, dense, 0.0, each),
    ]


def _aggregation(head: Head, sizes: MapSizes, counted: Mapping[int, float]) -> list[Part]:
    net, parts, nothing = head.aggregation, [], (0.0,) * len(head.levels)
    if net.context_channels:
        context = net.context
        convs = [module for module in context.modules() if isinstance(module, nn.Conv2d)]
        dense = sum(2.0 * conv.weight.numel() * sizes.pyramid for conv in convs)  # all at P2's size
        parts.append(Part("context", _parameters(context), dense, counted[id(context)], nothing))
    branch = counted[id(net.weights.tower)] if hasattr(net.weights, "tower") else 0.0
    parts.append(_at_cells("dynamic weights", head.levels, net.weights, branch))
    if hasattr(net.neighbors, "offsets"):
        parts.append(_at_cells("offsets of neighbors", head.levels, net.neighbors.offsets, 0.0))
    numbers = sum(out * into * k * k for out, into, k, _ in net.shapes)
    parts.append(Part("aggregation networks", 0, 0.0, 0.0, tuple(2.0 * numbers * pixels for pixels in sizes.masks)))
    return parts


def _at_cells(name: str, levels: Sequence[GridLevel], module: nn.Module, branch: float) -> Part:
    """A convolution over the category grid: everywhere, or at asked cells; `branch` is what comes before it."""
    each = 2.0 * module.conv.weight.numel()
    cells = sum(level.grid**2 for level in levels)
    return Part(name, _parameters(module), branch + each * cells, branch, (each,) * len(levels))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

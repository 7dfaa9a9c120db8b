"""AggMask's aggregation: a small network per asked cell, with weights predicted for that cell (method.md section 4).

Differences from the published code, none of which changes a number: weights are predicted at asked cells only
(section 9.5); the shared context is convolved once for all cells instead of being copied to each (section 9.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aggmask.errors import UserError
from aggmask.model.aggregation.context import PYRAMID_MAPS, ContextBranch
from aggmask.model.aggregation.first_layer import FirstLayer
from aggmask.model.aggregation.neighbors import FixedWindow, neighbors, settle_window
from aggmask.model.aggregation.start import start_of
from aggmask.model.aggregation.weights import CategoryWeights
from aggmask.structures import Cells, GridLevel

_AT_ONCE = 8  # cells whose maps stay in a processor's cache from layer to layer


class DynamicAggregation(nn.Module):
    """Aggregates the representations around a cell with weights of that cell.

    Args:
        levels: the head's levels.
        pyramid_channels: channels of P2..P6.
        cell_channels: channels of the category branch's last feature.
        window: representations gathered per cell: 1, 4, 5, 9 or 25.
        layers: convolutions of the aggregation network; the last one has one output.
        kernel: their size, odd.
        channels: M, their width.
        context_channels: X, context channels that join the representations; 0 for none.
        context_layers: 1 or 2 convolutions to the context.
        init: what the representations start with: "published" the logit of the prior, which saturates the network
            in short trainings; "zero" learns faster there (a predicted bank has no such start).
        residual: add the nearest cell's representation to the result, so that the network starts as plain SOLO; of
            deformable neighbors the one that moved away from there.
        weights: maker of what gives each cell's numbers: `CategoryWeights` (AggMask) or `BranchWeights` (AggMask*).
        neighbors: maker of what places the window: `FixedWindow` or `DeformableWindow`.

    Raises:
        UserError: an option has no such value.
    """

    def __init__(
        self,
        levels: Sequence[GridLevel],
        pyramid_channels: int,
        cell_channels: int,
        window: Literal[1, 4, 5, 9, 25] = 5,
        layers: int = 3,
        kernel: int = 3,
        channels: int = 4,
        context_channels: int = 16,
        context_layers: Literal[1, 2] = 2,
        init: Literal["published", "zero"] = "published",
        residual: bool = False,
        weights: Callable[..., nn.Module] = CategoryWeights,
        neighbors: Callable[..., nn.Module] = FixedWindow,
    ) -> None:
        super().__init__()
        _check(layers=layers, kernel=kernel, channels=channels, context_channels=context_channels)
        if context_layers not in (1, 2):
            raise UserError(f"model.aggregation.context_layers={context_layers}: must be 1 or 2")
        self.levels = tuple(levels)
        self.window = settle_window(window, levels)
        self.context_channels, self.kernel, self.residual = context_channels, kernel, residual
        self.representation_bias = start_of(init)
        widths = [self.window + context_channels, *[channels] * (layers - 1), 1]
        self.shapes = [(o, i, kernel, kernel) for i, o in pairwise(widths)]
        numbers = sum(o * i * kernel**2 + o for o, i, *_ in self.shapes)
        self.weights = weights(pyramid_channels=pyramid_channels, cell_channels=cell_channels, numbers=numbers)
        self.neighbors = neighbors(
            levels=levels, window=self.window, channels=self.weights.channels, kernel=self.weights.kernel
        )
        self.pyramid_maps = PYRAMID_MAPS if context_channels else 0  # that it reads
        # Held at once: the representations painted and gathered, or these and what a layer reads, writes and adds.
        self.maps_per_cell = max(2.5 * self.window, self.window + 3 * max(o for o, *_ in self.shapes))
        if context_channels:
            self.context = ContextBranch(pyramid_channels, context_channels, context_layers)

    def forward(
        self, pyramid: Sequence[Tensor], features: Sequence[Tensor], category_features: Sequence[Tensor]
    ) -> list[DynamicRule]:
        """[P2..P6], each level's (B, C, h, w) features and (B, ., S, S) category features -> one rule a level."""
        context = self.context(pyramid) if self.context_channels else None
        return [
            DynamicRule(self, level, context, self.weights.cell_features(f, c))
            for level, f, c in zip(self.levels, features, category_features, strict=True)
        ]

    def layers_of(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(K, numbers) -> per layer weights (K, out, in, k, k) and biases (K, out)."""
        sizes = [size for o, i, k, _ in self.shapes for size in (o * i * k * k, o)]
        parts = weights.split(sizes, dim=1)
        return [(w.unflatten(1, s), b) for w, b, s in zip(parts[::2], parts[1::2], self.shapes, strict=True)]


class DynamicRule:
    """DynamicAggregation at work on one level of one batch."""

    def __init__(
        self, net: DynamicAggregation, level: GridLevel, context: Tensor | None, cell_features: Tensor
    ) -> None:
        self.net, self.level, self.maps_per_cell = net, level, net.maps_per_cell
        self.context, self.cell_features = context, cell_features

    def neighbors(self, cells: Cells) -> Tensor:
        """(K, N, 2) places of the window on the mask grid."""
        return self.net.neighbors(self.cell_features, cells, self.level)

    def combine(self, stack: Tensor, cells: Cells) -> Tensor:
        """(K, N, H, W) representations -> (K, H, W) mask logits."""
        layers = self.net.layers_of(self.net.weights(self.cell_features, cells))
        context = None if self.context is None else self._context(stack.shape[-2:])
        few = _AT_ONCE if stack.device.type == "cpu" else max(1, len(cells))
        numbers = (x.split(few) for layer in layers for x in layer)
        parts = zip(stack.split(few), cells.image.split(few), *numbers, strict=True)
        maps = torch.cat([self._aggregated(maps, image, context, x) for maps, image, *x in parts])
        if self.net.residual:
            maps = maps + stack[torch.arange(len(stack), device=stack.device), self._nearest(cells)]
        return maps

    def first_layer(self, stack: Tensor, cells: Cells) -> FirstLayer:
        """What `combine` starts with, with a copy of the context for each cell: for a few cells only."""
        weight = self.net.layers_of(self.net.weights(self.cell_features, cells))[0][0]
        size = stack.shape[-2:]
        context = stack[:, :0] if self.context is None else self._context(size)[cells.image]
        return FirstLayer(torch.cat([stack, context], 1), weight, self._nearest(cells) if self.net.residual else None)

    def _nearest(self, cells: Cells) -> Tensor:
        """(K,) long: which of the N neighbors is the nearest mask cell."""
        return neighbors(cells.index, self.level, self.net.window)[1]

    def _context(self, size: tuple[int, int]) -> Tensor:
        """(B, X, *size). Not kept: what is painted again in the backward pass must do the same again."""
        if self.context.shape[-2:] == size:
            return self.context
        return F.interpolate(self.context, size=size, mode="bilinear", align_corners=True)

    def _aggregated(self, stack: Tensor, image: Tensor, context: Tensor | None, layers: Sequence[Tensor]) -> Tensor:
        """(k, N, H, W) of cells of the images (k,), with each layer's weights and biases -> (k, H, W)."""
        (weight, bias), *rest = zip(layers[::2], layers[1::2], strict=True)
        own, shared = weight.split([stack.shape[1], self.net.context_channels], dim=2)
        maps = convolve_each(stack, own) + self._of_context(context, shared, bias, image)
        for weight, bias in rest:
            maps = convolve_each(F.relu_(maps), weight, bias)
        return maps[:, 0]

    def _of_context(self, context: Tensor | None, weight: Tensor, bias: Tensor, image: Tensor) -> Tensor:
        """The first layer's share of the context, with its bias: (k, M, X, ., .), (k, M) -> (k, M, H, W)."""
        if context is None:
            return bias[:, :, None, None]
        counts = torch.bincount(image, minlength=len(context)).tolist()
        shares = [
            F.conv2d(seen[None], w.flatten(0, 1), b.flatten(), padding=self.net.kernel // 2)[0]
            for seen, w, b in zip(context, weight.split(counts), bias.split(counts), strict=True)
            if len(w)
        ]
        return (shares[0] if len(shares) == 1 else torch.cat(shares)).unflatten(0, bias.shape)


def convolve_each(maps: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(k, in, H, W) with (k, out, in, ., .) and (k, out): each cell's maps with its own weights -> (k, out, H, W)."""
    return (_one_by_one if maps.device.type == "cpu" else _in_groups)(maps, weight, bias)


def _one_by_one(maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """On a CPU twice as fast as groups."""
    biases = [None] * len(maps) if bias is None else bias
    parts = zip(maps.split(1), weight, biases, strict=True)
    return torch.cat([F.conv2d(m, w, b, padding=weight.shape[-1] // 2) for m, w, b in parts])


def _in_groups(maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    bias = None if bias is None else bias.flatten()
    rows, margin = maps.flatten(0, 1)[None], weight.shape[-1] // 2
    return F.conv2d(rows, weight.flatten(0, 1), bias, padding=margin, groups=len(maps))[0].unflatten(0, (len(maps), -1))


def _check(layers: int, kernel: int, channels: int, context_channels: int) -> None:
    for name, value, least in (
        ("layers", layers, 1),
        ("channels", channels, 1),
        ("context_channels", context_channels, 0),
    ):
        if value < least:
            raise UserError(f"model.aggregation.{name}={value}: must be {least} or more")
    if kernel < 1 or kernel % 2 == 0:
        raise UserError(f"model.aggregation.kernel={kernel}: must be odd (1, 3, 5, ...)")

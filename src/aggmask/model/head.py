"""The head: pyramid in, category logits and mask fields out; masks are painted when somebody asks a field for them.

A model of the family is a row: which bank of kernels, which neighbors, which aggregation (method.md sections 2 to 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aggmask.geometry.grid import PYRAMID_STRIDES
from aggmask.model.aggregation.first_layer import FirstLayer
from aggmask.model.category import CategoryBranch
from aggmask.model.representation.kernels import KernelBank
from aggmask.structures import Cells, GridLevel, LevelOutput


class Rule(Protocol):
    """How the representations around a cell become its mask, on one level."""

    maps_per_cell: float  # see `MaskField`

    def neighbors(self, cells: Cells) -> Tensor:
        """K cells -> (K, N, 2) places on the mask grid; float where they may lie between cells."""

    def combine(self, stack: Tensor, cells: Cells) -> Tensor:
        """(K, N, H, W) representations -> (K, H, W) mask logits."""

    def first_layer(self, stack: Tensor, cells: Cells) -> FirstLayer:
        """What the representations enter, for whoever wants to look at it; `combine` says how it goes on."""


@dataclass(frozen=True)
class NeighborField:
    """The mask field of one level: a bank, a choice of neighbors, an aggregation."""

    bank: KernelBank
    rule: Rule

    @property
    def maps_per_cell(self) -> float:
        """See `MaskField`."""
        return self.rule.maps_per_cell

    def at(self, cells: Cells) -> Tensor:
        """K cells, their images ascending -> (K, H, W) mask logits.

        For K = 0 one cell is asked and dropped, so that the empty result still reaches every parameter and
        distributed training needs no search for unused ones.
        """
        zero = torch.zeros(1, dtype=torch.long, device=self.bank.features[0].device)
        asked = cells if len(cells) else Cells(zero, zero)
        stack = self.bank.at(asked.image, self.rule.neighbors(asked))
        return self.rule.combine(stack, asked)[: len(cells)]


class Head(nn.Module):
    """Category branch, bank of representations and aggregation over the levels of a pyramid.

    Args:
        levels: from the finest objects to the largest; level number i looks at pyramid map number i.
        in_channels: channels of the pyramid.
        num_classes: without background.
        category, bank, aggregation: makers of the three parts.
    """

    def __init__(
        self,
        levels: Sequence[GridLevel],
        in_channels: int,
        num_classes: int,
        category: Callable[..., CategoryBranch],
        bank: Callable[..., nn.Module],
        aggregation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.category = category(in_channels=in_channels, num_classes=num_classes)
        self.aggregation = aggregation(levels=levels, pyramid_channels=in_channels, cell_channels=self.category.width)
        self.bank = bank(levels=levels, in_channels=in_channels, bias=self.aggregation.representation_bias)
        # P2 and so on: no more of them than somebody reads, or distributed training would miss gradients.
        self.pyramid_maps = max(len(self.levels), self.aggregation.pyramid_maps, self.bank.pyramid_maps)

    def forward(self, pyramid: Sequence[Tensor]) -> list[LevelOutput]:
        """[P2..P6], each (B, C, h, w) -> one output a level."""
        features = self.at_levels(pyramid)
        cells, logits = zip(
            *(self.category(f, v.grid) for f, v in zip(features, self.levels, strict=True)), strict=True
        )
        fields = map(NeighborField, self.bank(features, pyramid), self.aggregation(pyramid, features, cells))
        return [
            LevelOutput(v, self.bank.mask_stride(v), y, f) for v, y, f in zip(self.levels, logits, fields, strict=True)
        ]

    def at_levels(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Each level's pyramid map at the level's own stride: P2 is halved, P6 enlarged to P5's size."""
        height, width = pyramid[0].shape[-2:]
        finest = PYRAMID_STRIDES[0]
        sizes = [(-(-height * finest // v.stride), -(-width * finest // v.stride)) for v in self.levels]
        return [
            m if m.shape[-2:] == size else F.interpolate(m, size=size, mode="bilinear")
            for m, size in zip(pyramid, sizes, strict=False)
        ]

"""No aggregation: plain SOLO and SOLOv2, and mask interpolation without learned weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from aggmask.model.aggregation.first_layer import FirstLayer
from aggmask.model.aggregation.neighbors import neighbors
from aggmask.model.aggregation.start import start_of
from aggmask.structures import Cells, GridLevel


class KeepCell(nn.Module):
    """The mask of a cell is the representation of its nearest mask cell. The null object of the aggregations.

    Args:
        levels: the head's levels.
        pyramid_channels, cell_channels: not needed.
        init: what the representations start with, as in `DynamicAggregation`: comparisons need the same start.

    Raises:
        UserError: there is no such start.
    """

    pyramid_maps = 0  # that it reads
    maps_per_cell = 2.5  # held at once: a representation before, after and at half the size of enlarging

    def __init__(
        self,
        levels: Sequence[GridLevel],
        pyramid_channels: int,
        cell_channels: int,
        init: Literal["published", "zero"] = "published",
    ) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.representation_bias = start_of(init)

    def forward(
        self, pyramid: Sequence[Tensor], features: Sequence[Tensor], category_features: Sequence[Tensor]
    ) -> list[KeepRule]:
        """One rule a level; the features are not needed."""
        return [KeepRule(level) for level in self.levels]


class KeepRule:
    """KeepCell at work on one level."""

    maps_per_cell = KeepCell.maps_per_cell

    def __init__(self, level: GridLevel) -> None:
        self.level = level

    def neighbors(self, cells: Cells) -> Tensor:
        """(K, 1, 2) the nearest mask cell."""
        return neighbors(cells.index, self.level, window=1)[0]

    def combine(self, stack: Tensor, cells: Cells) -> Tensor:
        """(K, 1, H, W) -> (K, H, W)."""
        return stack[:, 0]

    def first_layer(self, stack: Tensor, cells: Cells) -> FirstLayer:
        """There is no network: the representation is passed on as it is."""
        return FirstLayer(stack[:, :0], stack.new_zeros(len(stack), 1, 0, 1, 1), torch.zeros_like(cells.index))

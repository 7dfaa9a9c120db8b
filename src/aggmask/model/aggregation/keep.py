"""No aggregation: plain SOLO and SOLOv2, and mask interpolation without learned weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from aggmask.model.aggregation.neighbors import neighbors
from aggmask.model.tower import PRIOR_BIAS
from aggmask.structures import Cells, GridLevel


class KeepCell(nn.Module):
    """The mask of a cell is the representation of its nearest mask cell. The null object of the aggregations."""

    representation_bias = PRIOR_BIAS
    pyramid_maps = 0  # that it reads
    maps_per_cell = 2.5  # held at once: a representation before, after and at half the size of enlarging

    def __init__(self, levels: Sequence[GridLevel], pyramid_channels: int, cell_channels: int) -> None:
        super().__init__()
        self.levels = tuple(levels)

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

"""Neighbors that move: a learned offset for each of a cell's neighbors (SODAR; method.md section 4).

There is no published code. Ours: offsets come from a convolution, zero at the start, on the feature that gives the
cell's weights; they count in cells of the mask grid and are bounded; places are clipped to the grid. Representations
between cells are made by interpolating kernels (section 9.6), so nothing more is painted for T < S than for T = S.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aggmask.errors import UserError
from aggmask.model.aggregation.neighbors import neighbors
from aggmask.model.aggregation.weights import CellConv
from aggmask.structures import Cells, GridLevel


class DeformableWindow(nn.Module):
    """A window whose places carry learned offsets; equal to the fixed window at the start.

    Args:
        levels: the head's levels.
        window: representations gathered per cell.
        channels: of the feature that offsets come from.
        kernel: size of their convolution.
        bound: no offset is larger, in cells of the mask grid along each axis; None: no bound but the grid.

    Raises:
        UserError: a bound that is not above 0.
    """

    def __init__(
        self, levels: Sequence[GridLevel], window: int, channels: int, kernel: int, bound: float | None = 2.0
    ) -> None:
        super().__init__()
        if bound is not None and bound <= 0:
            raise UserError(
                f"model.aggregation.neighbors.bound={bound}: must be above 0; "
                "model/aggregation/neighbors=fixed does not move"
            )
        self.window, self.bound = window, bound
        self.offsets = CellConv(channels, 2 * window, kernel)
        nn.init.zeros_(self.offsets.conv.weight)
        nn.init.zeros_(self.offsets.conv.bias)

    def forward(self, features: Tensor, cells: Cells, level: GridLevel) -> Tensor:
        """(B, channels, S, S), K cells of `level` -> (K, N, 2) float (row, column) places on its mask grid."""
        places = neighbors(cells.index, level, self.window)[0]
        offsets = self.offsets(features, cells).float().unflatten(1, (self.window, 2))
        if self.bound is not None:  # slope 1 at 0, whatever the bound
            offsets = self.bound * torch.tanh(offsets / self.bound)
        return (places + offsets).clamp(0, level.mask_grid - 1)

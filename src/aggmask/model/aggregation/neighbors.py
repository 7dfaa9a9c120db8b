"""Which mask cells lie around a category cell (method.md section 4)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aggmask.errors import UserError
from aggmask.geometry.grid import mask_grid_position
from aggmask.structures import Cells, GridLevel

log = logging.getLogger(__name__)

_PLUS = ((-1, 0), (0, -1), (0, 0), (0, 1), (1, 0))
_OFFSETS = {
    1: ((0, 0),),
    5: _PLUS,
    9: tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)),
    25: tuple((y, x) for y in range(-2, 3) for x in range(-2, 3)),
}
WINDOWS = (1, 4, 5, 9, 25)


def settle_window(window: int, levels: Sequence[GridLevel]) -> int:
    """The window that is used when `window` is asked for.

    The four corners need a mask grid that is coarser than the category grid on every level: where T = S they fall
    together. The published code then takes the plus of five everywhere, and so does this, with a warning.

    Raises:
        UserError: there is no such window.
    """
    if window not in WINDOWS:
        raise UserError(f"model.aggregation.window={window}: there are windows {', '.join(map(str, WINDOWS))}")
    equal = [number for number, level in enumerate(levels) if level.grid == level.mask_grid]
    if window == 4 and equal:
        log.warning(
            "window 4 needs mask grids that are coarser than the category grids, and level %d has T = S = %d: "
            "window 5 is used, as in the published models (model.interpolation.stride=2 makes the grids coarser)",
            equal[0],
            levels[equal[0]].grid,
        )
        return 5
    return window


def neighbors(index: Tensor, level: GridLevel, window: int) -> tuple[Tensor, Tensor]:
    """Mask cells around category cells, clipped to the mask grid (a border cell repeats its neighbors).

    Args:
        index: (K,) long row-major category cells.
        window: 1, 5, 9, 25 around the nearest mask cell, row-major; 4: the corners of the enclosing square.

    Returns:
        positions (K, N, 2) long (row, column); (K,) long: which of the N is the nearest mask cell.
    """
    place = mask_grid_position(index, level)
    nearest = place.round().long()  # half to even
    if window == 4:
        low, high = place.floor().long(), place.ceil().long()
        (top, left), (bottom, right) = low.unbind(-1), high.unbind(-1)
        corners = ((top, right), (bottom, right), (bottom, left), (top, left))  # the published order
        positions = torch.stack([torch.stack(corner, dim=-1) for corner in corners], dim=1)
    else:
        positions = nearest[:, None] + torch.tensor(_OFFSETS[window], device=index.device)
    # Before they are clipped: afterwards others are at the same place, and deformable ones move away from there.
    which = (positions == nearest[:, None]).all(-1).long().argmax(-1)
    # The corners too: the last cell's place is rounded up past the grid where S = 20 and T = 16.
    return positions.clamp(0, level.mask_grid - 1), which


class FixedWindow(nn.Module):
    """The window itself: its places depend on the cell alone. The null object of `deformable.DeformableWindow`."""

    def __init__(self, levels: Sequence[GridLevel], window: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, features: Tensor, cells: Cells, level: GridLevel) -> Tensor:
        """K cells of `level` -> (K, N, 2) long (row, column) mask cells; the features are not needed."""
        return neighbors(cells.index, level, self.window)[0]

"""Cells and pixels: the only place where one becomes the other (method.md sections 1, 4 and 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aggmask.errors import UserError
from aggmask.geometry.frame import CANVAS_MULTIPLE
from aggmask.structures import GridLevel

PYRAMID_STRIDES = (4, 8, 16, 32, 64)  # of P2..P6
# Those that divide a canvas, so that a level's masks and its targets have one size.
LEVEL_STRIDES = tuple(stride for stride in PYRAMID_STRIDES[1:] if CANVAS_MULTIPLE % stride == 0)
MASK_STRIDE = PYRAMID_STRIDES[0]  # of the finest masks of any head, and of those that are compared


def make_levels(rows: Sequence[Mapping], interpolation_stride: int = 1) -> list[GridLevel]:
    """Rows of a configuration -> grid levels.

    Args:
        rows: mappings with `stride`, `grid`, `min_size`, `max_size` and, where it differs from `grid`, `mask_grid`.
        interpolation_stride: T = ceil(mask_grid / interpolation_stride): how many category cells share a mask cell
            along each axis (mask interpolation).

    Raises:
        UserError: a grid or a scale range makes no sense; names the level.
    """
    if not isinstance(interpolation_stride, int) or interpolation_stride < 1:
        raise UserError(
            f"model.interpolation.stride={interpolation_stride}: must be a whole number, 1 or more (published: 1 or 2)"
        )
    if not 1 <= len(rows) <= len(PYRAMID_STRIDES):
        raise UserError(f"model.levels: {len(rows)} levels; there is one for each map of the pyramid, so 1 to 5")
    levels = []
    for number, row in enumerate(rows):
        if row.keys() - {"mask_grid"} != {"stride", "grid", "min_size", "max_size"}:
            raise UserError(
                f"level {number}: has {', '.join(sorted(row))}; must have stride, grid, min_size, max_size, and may "
                "have mask_grid"
            )
        if row["stride"] not in LEVEL_STRIDES:
            raise UserError(f"level {number}: stride {row['stride']}; must be one of {LEVEL_STRIDES}")
        grid, full = row["grid"], row["grid"] if row.get("mask_grid") is None else row["mask_grid"]
        for what, cells in (("grid", grid), ("mask_grid", full)):
            if not isinstance(cells, int) or cells < 1:
                raise UserError(f"level {number}: {what} {cells}; must be a whole number of cells, 1 or more")
        if full > grid:
            raise UserError(
                f"level {number}: mask grid {full} is larger than category grid {grid}; make it {grid} or less"
            )
        if not 0 <= row["min_size"] <= row["max_size"]:
            raise UserError(f"level {number}: object sizes {row['min_size']}..{row['max_size']} are not a range")
        mask_grid = -(-full // interpolation_stride)
        levels.append(GridLevel(row["stride"], grid, mask_grid, row["min_size"], row["max_size"]))
    return levels


def rows_and_columns(index: Tensor, grid: int) -> Tensor:
    """(K,) row-major cells of a grid x grid -> (K, 2) long (row, column)."""
    return torch.stack([index // grid, index % grid], dim=-1)


def mask_grid_position(index: Tensor, level: GridLevel) -> Tensor:
    """(K,) category cells -> (K, 2) float (row, column) places on the T x T mask grid, usually fractional.

    The corners of both grids coincide: (i, j) * (T - 1) / (S - 1), in the order of operations of the published code.
    """
    scale = (level.mask_grid - 1) / max(level.grid - 1, 1)
    return rows_and_columns(index, level.grid).float() * scale


def category_grid_position(places: Tensor, level: GridLevel) -> Tensor:
    """(..., 2) places on the mask grid -> (..., 2) float (row, column) places on the category grid.

    The inverse of `mask_grid_position`; a mask grid of one cell lies in the middle.
    """
    if level.mask_grid == 1:
        return torch.full_like(places, (level.grid - 1) / 2, dtype=torch.float)
    return places.float() * ((level.grid - 1) / (level.mask_grid - 1))


def points_of(places: Tensor, grid: int, canvas: tuple[int, int]) -> Tensor:
    """(..., 2) float (row, column) places on a grid -> (..., 2) double (x, y) network pixels of a (H, W) canvas.

    A whole place is the middle of its cell: (0, 0) lies half a cell from the canvas' corner.
    """
    extent = torch.tensor(canvas, dtype=torch.double, device=places.device)
    return ((places.double() + 0.5) / grid * extent).flip(-1)


def cell_of(coordinate: Tensor, extent: int, grid: int) -> Tensor:
    """Pixel coordinates -> long cell number along one axis, not clipped.

    Floor division of coordinate / extent by 1 / grid, rounding included, as the published code does it: just on a cell
    border that differs from floor(coordinate / extent * grid).
    """
    return torch.floor_divide(coordinate / extent, 1.0 / grid).long()


def coordinate_channels(features: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C + 2, h, w): x, then y, each from -1 to 1 over the map (CoordConv)."""
    batch, _, height, width = features.shape
    like = {"device": features.device, "dtype": features.dtype}
    x = torch.linspace(-1, 1, width, **like).expand(batch, 1, height, width)
    y = torch.linspace(-1, 1, height, **like)[:, None].expand(batch, 1, height, width)
    return torch.cat([features, x, y], dim=1)

"""Which cells are responsible for which objects (method.md section 5).

No loop over pixels, cells, objects or images: an object claims at most 3 x 3 cells, and of two claims on a cell the
later object wins, which is a maximum over object numbers. Mask targets are made for positive cells only. (In the
published SOLOv2 the later object wins the category alone, and the mask of such a cell is trained towards both objects.)

Arithmetic is done in the precisions of the published code (centers in double, the box around them in single), so that
a center just on a cell border goes to the same side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from aggmask.errors import UserError
from aggmask.geometry.grid import cell_of
from aggmask.structures import Cells, GridLevel, GridTargets, LevelOutput, Objects, joined


class Assigner:
    """Objects of a batch -> targets of every level.

    Args:
        center_fraction: size of an object's center region relative to its box.
        min_area: objects with a smaller mask, network pixels, are skipped (published: SOLO and AggMask 10, SOLOv2 1).
        shared_cells: whose mask a cell learns that several objects claim: the "last" one's, or "all" (SOLOv2), for
            which the cell is asked once for each.
    """

    def __init__(
        self, center_fraction: float = 0.2, min_area: int = 10, shared_cells: Literal["last", "all"] = "last"
    ) -> None:
        if not 0 < center_fraction <= 1:
            raise UserError(f"assigner.center_fraction={center_fraction}: must be between 0 and 1")
        if shared_cells not in ("last", "all"):
            raise UserError(f"assigner.shared_cells={shared_cells}: must be last or all")
        self.center_fraction, self.min_area, self.shared_cells = center_fraction, min_area, shared_cells

    def __call__(
        self, outputs: Sequence[LevelOutput], objects: Sequence[Objects], canvas: tuple[int, int]
    ) -> list[GridTargets]:
        """Targets for the levels of `outputs`.

        Args:
            outputs: only their levels, mask strides and numbers of classes are read.
            objects: per image, network frame.
            canvas: (H, W) of the padded batch.
        """
        grids = [(v.level, v.mask_stride) for v in outputs]
        return self.targets(grids, outputs[0].logits.shape[1], objects, canvas)

    def targets(
        self,
        grids: Sequence[tuple[GridLevel, int]],
        num_classes: int,
        objects: Sequence[Objects],
        canvas: tuple[int, int],
    ) -> list[GridTargets]:
        """The same without outputs: targets for levels and the strides of their masks."""
        found, image = joined(objects)
        return [self._at_level(*grid, num_classes, found, image, len(objects), canvas) for grid in grids]

    def _at_level(
        self,
        level: GridLevel,
        mask_stride: int,
        num_classes: int,
        found: Objects,
        image: Tensor,
        images: int,
        canvas: tuple[int, int],
    ) -> GridTargets:
        """Targets of one level; the number of classes stands for background."""
        claimant, place = self.claims(level, found, image, canvas)
        owner = self.owners(claimant, place, images * level.grid**2)
        if self.shared_cells == "last":
            wins = owner[place] == claimant
            claimant, place = claimant[wins], place[wins]
        order = (place * len(found) + claimant).argsort()
        claimant, place = claimant[order], place[order]
        asked, which = claimant.unique(return_inverse=True)
        labels = torch.cat([found.labels, found.labels.new_tensor([num_classes])])[owner]
        cells = Cells(place // level.grid**2, place % level.grid**2)
        masks = found[asked].masks_at(mask_stride)
        return GridTargets(labels.view(images, level.grid, level.grid), cells, masks, which)

    def claims(
        self, level: GridLevel, objects: Objects, image: Tensor, canvas: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Which object claims which cells of a level.

        Args:
            objects: of several images on the same canvas, one image after another.
            image: (n,) long: the image of each.

        Returns:
            (P,) object numbers; (P,) their cells, row-major on the grids of all images one after another.
        """
        widths, heights = (objects.boxes[:, 2:] - objects.boxes[:, :2]).float().unbind(-1)
        size = (widths * heights).sqrt()
        wanted = (size >= level.min_size) & (size <= level.max_size) & (objects.areas >= self.min_area)
        x, y = objects.centers.unbind(-1)
        rows, rows_valid = self._claimed(y, heights, canvas[0], level.grid)
        columns, columns_valid = self._claimed(x, widths, canvas[1], level.grid)
        rows = image[:, None] * level.grid + rows
        cell = (rows[:, :, None] * level.grid + columns[:, None, :]).flatten(1)
        valid = ((rows_valid[:, :, None] & columns_valid[:, None, :]) & wanted[:, None, None]).flatten(1)
        number = torch.arange(len(objects), device=cell.device)[:, None].expand_as(cell)
        return number[valid], cell[valid]

    def owners(self, claimant: Tensor, cell: Tensor, cells: int) -> Tensor:
        """Claims -> (cells,) long: number of the last object that claims each of so many cells, -1 for none."""
        owner = torch.full((cells,), -1, device=cell.device)
        return owner.scatter_reduce_(0, cell, claimant, "amax")

    def _claimed(self, center: Tensor, extent: Tensor, canvas: int, grid: int) -> tuple[Tensor, Tensor]:
        """(n, 3) cells along one axis around each center, and which of them the center region covers."""
        half = 0.5 * self.center_fraction * extent
        around = center.float()
        middle = cell_of(center, canvas, grid)
        first = cell_of(around - half, canvas, grid).clamp(min=0)
        last = cell_of(around + half, canvas, grid).clamp(max=grid - 1)
        cells = middle[:, None] + torch.arange(-1, 2, device=middle.device)
        return cells, (cells >= first[:, None]) & (cells <= last[:, None])

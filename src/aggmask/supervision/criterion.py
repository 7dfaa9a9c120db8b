"""Outputs and targets -> the losses that training minimizes (method.md section 6).

Difference from the published code, which fails on a batch without a positive cell: here such a batch has the mask loss
0, connected to every parameter. On several ranks the normalizers count the whole batch, so that the gradients, which
DDP averages, are those of one process with all the images; the published code counts each rank by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from aggmask.errors import UserError
from aggmask.structures import GridTargets, LevelOutput
from aggmask.supervision.losses import dice_losses, focal_loss_sum


class Criterion:
    """Owns the weights and the normalizers.

    Args:
        mask_weight: factor of the Dice loss, a mean over all masks that positive cells of the batch learn.
        category_weight: factor of the focal loss, a sum over cells and classes divided by (positive cells + 1).
        alpha, gamma: of the focal loss.
        normalizer: what both losses are divided by counts the cells of all ranks ("global"), or those of each "rank"
            alone, as published.

    Raises:
        UserError: there is no such normalizer.
    """

    def __init__(
        self,
        mask_weight: float = 3.0,
        category_weight: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        normalizer: Literal["global", "rank"] = "global",
    ) -> None:
        if normalizer not in ("global", "rank"):
            raise UserError(f"criterion.normalizer={normalizer}: must be global or rank")
        self.mask_weight, self.category_weight = mask_weight, category_weight
        self.alpha, self.gamma, self.normalizer = alpha, gamma, normalizer

    def __call__(self, outputs: Sequence[LevelOutput], targets: Sequence[GridTargets]) -> dict[str, Tensor]:
        """{"loss_mask", "loss_category"}: weighted scalars; their sum is the loss. Their mean over ranks is exact."""
        dice = torch.cat([dice_losses(o.field.at(t.cells), t.masks) for o, t in zip(outputs, targets, strict=True)])
        focal = sum(
            focal_loss_sum(o.logits, t.labels, self.alpha, self.gamma) for o, t in zip(outputs, targets, strict=True)
        )
        # Positive cells are not len(dice): a cell may learn several masks.
        positives = sum((t.labels < o.logits.shape[1]).sum() for o, t in zip(outputs, targets, strict=True))
        (masks, cells), ranks = self._counted(torch.stack([positives.new_tensor(len(dice)), positives]))
        return {
            "loss_mask": self.mask_weight * dice.sum() * ranks / masks.clamp(min=1),
            "loss_category": self.category_weight * focal * ranks / (cells + 1),
        }

    def _counted(self, counts: Tensor) -> tuple[Tensor, int]:
        """The counts that the losses are divided by, and over how many ranks they go."""
        if self.normalizer == "rank" or not (dist.is_available() and dist.is_initialized()):
            return counts, 1
        dist.all_reduce(counts)
        return counts, dist.get_world_size()

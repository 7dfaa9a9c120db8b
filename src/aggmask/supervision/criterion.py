"""Outputs and targets -> the losses that training minimizes (method.md section 6).

Difference from the published code, which fails on a batch without a positive cell: here such a batch has the mask loss
0, connected to every parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aggmask.structures import GridTargets, LevelOutput
from aggmask.supervision.losses import dice_losses, focal_loss_sum


class Criterion:
    """Owns the weights and the normalizers.

    Args:
        mask_weight: factor of the Dice loss, a mean over all masks that positive cells of the batch learn.
        category_weight: factor of the focal loss, a sum over cells and classes divided by (positive cells + 1).
        alpha, gamma: of the focal loss.
    """

    def __init__(
        self, mask_weight: float = 3.0, category_weight: float = 1.0, alpha: float = 0.25, gamma: float = 2.0
    ) -> None:
        self.mask_weight, self.category_weight = mask_weight, category_weight
        self.alpha, self.gamma = alpha, gamma

    def __call__(self, outputs: Sequence[LevelOutput], targets: Sequence[GridTargets]) -> dict[str, Tensor]:
        """{"loss_mask", "loss_category"}: weighted scalars; their sum is the loss."""
        dice = torch.cat([dice_losses(o.field.at(t.cells), t.masks) for o, t in zip(outputs, targets, strict=True)])
        focal = sum(
            focal_loss_sum(o.logits, t.labels, self.alpha, self.gamma) for o, t in zip(outputs, targets, strict=True)
        )
        # Not len(dice): a cell may be asked for several masks.
        positives = sum((t.labels < o.logits.shape[1]).sum() for o, t in zip(outputs, targets, strict=True))
        return {
            "loss_mask": self.mask_weight * dice.sum() / max(len(dice), 1),
            "loss_category": self.category_weight * focal / (positives + 1),
        }

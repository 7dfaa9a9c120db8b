"""Outputs and targets -> the losses that training minimizes (method.md section 6).

Difference from the published code, which fails on a batch without a positive cell: here such a batch has the mask loss
0, connected to every parameter. On several ranks the normalizers count the whole batch, so that the gradients, which
DDP averages, are those of one process with all the images; the published code counts each rank by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from aggmask.errors import UserError
from aggmask.structures import GridTargets, LevelOutput
from aggmask.supervision.losses import focal_loss_sum, mask_losses


@dataclass(frozen=True)
class Counts:
    """What the losses of a batch are divided by; those of a part of it too."""

    masks: Tensor  # () float: masks that positive cells learn, at least 1
    cells: Tensor  # () float: positive cells and 1


class Criterion:
    """Owns the weights and the normalizers.

    Args:
        mask_weight: factor of the Dice loss, a mean over all masks that positive cells of the batch learn.
        category_weight: factor of the focal loss, a sum over cells and classes divided by (positive cells + 1).
        alpha, gamma: of the focal loss.
        normalizer: what both losses are divided by counts the cells of all ranks ("global"), or those of each "rank"
            alone, as published.
        max_cells: masks of one rank's batch that are asked for at most; of more, a sample learns in the name of all.
            None: all of them, as published.

    Raises:
        UserError: there is no such normalizer, no mask may be asked for, or a number of the focal loss makes no sense.
    """

    def __init__(
        self,
        mask_weight: float = 3.0,
        category_weight: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        normalizer: Literal["global", "rank"] = "global",
        max_cells: int | None = None,
    ) -> None:
        if max_cells is not None and max_cells < 1:
            raise UserError(f"criterion.max_cells={max_cells}: must be at least 1, or null for no ceiling")
        if normalizer not in ("global", "rank"):
            raise UserError(f"criterion.normalizer={normalizer}: must be global or rank")
        if not 0 <= alpha <= 1:
            raise UserError(f"criterion.alpha={alpha}: must be from 0 to 1")
        if gamma != 0 and not 1 <= gamma < math.inf:  # between them a certain, right score has no finite gradient
            raise UserError(f"criterion.gamma={gamma}: must be 0, or 1 or more")
        self.mask_weight, self.category_weight = mask_weight, category_weight
        self.alpha, self.gamma, self.normalizer, self.max_cells = alpha, gamma, normalizer, max_cells

    def __call__(
        self, outputs: Sequence[LevelOutput], targets: Sequence[GridTargets], counts: Counts | None = None
    ) -> dict[str, Tensor]:
        """{"loss_mask", "loss_category"}: weighted scalars; their sum is the loss. Their mean over ranks is exact.

        Args:
            counts: of the batch that outputs and targets are a part of; None: of these.
        """
        counts = counts or self.count(targets, outputs[0].logits.shape[1])
        pairs = list(zip(outputs, targets, strict=True))
        dice = torch.cat([mask_losses(o.field, t.cells, t.masks, t.which) for o, t in pairs])
        focal = sum(focal_loss_sum(o.logits, t.labels, self.alpha, self.gamma) for o, t in pairs)
        return {
            "loss_mask": self.mask_weight * dice.sum() / counts.masks,
            "loss_category": self.category_weight * focal / counts.cells,
        }

    def count(self, targets: Sequence[GridTargets], num_classes: int) -> Counts:
        """What losses with these targets are divided by; all ranks at once, where the normalizer is global."""
        # Positive cells are not the masks: a cell may learn several.
        positives = sum((t.labels < num_classes).sum() for t in targets)
        counts, ranks = torch.stack([positives.new_tensor(sum(len(t.cells) for t in targets)), positives]), 1
        if self.normalizer == "global" and dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
            ranks = dist.get_world_size()
        masks, cells = counts
        return Counts(masks.clamp(min=1) / ranks, (cells + 1) / ranks)

    def sample(self, targets: Sequence[GridTargets], counts: Counts, seed: int) -> tuple[Sequence[GridTargets], Counts]:
        """At most `max_cells` masks of a batch, uniform over all of its levels and images; categories learn everywhere.

        The mean over the sample is an unbiased estimate of the mean over all, and so are its gradients.

        Args:
            counts: of all of them.
            seed: what is drawn depends on it alone, on any device.
        """
        sizes = [len(t.cells) for t in targets]
        if self.max_cells is None or sum(sizes) <= self.max_cells:
            return targets, counts
        chosen = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(seed))[: self.max_cells]
        kept = torch.zeros(sum(sizes), dtype=torch.bool)
        kept[chosen] = True
        sampled = []
        for t, keep in zip(targets, kept.to(targets[0].labels.device).split(sizes), strict=True):
            asked, which = t.which[keep].unique(return_inverse=True)
            sampled.append(GridTargets(t.labels, t.cells[keep], t.masks[asked], which))
        return sampled, Counts(counts.masks * (self.max_cells / sum(sizes)), counts.cells)

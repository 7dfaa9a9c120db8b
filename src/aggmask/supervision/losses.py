"""The two losses, per cell and unweighted (method.md section 6). Computed in float32 whatever comes in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torchvision.ops import sigmoid_focal_loss

from aggmask.structures import Cells, MaskField

_CELL = 200 * 336  # pixels of a mask at stride 4 of 800 x 1344
# Of masks asked at once. The maps of so many stay near a processor's cache; a GPU wants more work from each launch.
PIXELS_AT_ONCE = {"cpu": 8 * _CELL, "cuda": 32 * _CELL}
PIXELS_KEPT = 2**17  # so few are painted once: what they keep is little, and painting again is a fifth of a small step
_EPSILON = 0.001


def mask_losses(field: MaskField, cells: Cells, targets: Tensor, which: Tensor) -> Tensor:
    """(K,) Dice losses of a field's masks at K cells with 0/1 targets: `which` (K,) of (n, H, W).

    Unless they are small, masks are painted a few at a time, and again when their gradient is wanted: what a step keeps
    does not grow with the cells, and painting is little beside the maps that it reads.
    """

    def losses(cells: Cells, which: Tensor) -> Tensor:
        return dice_losses(field.at(cells), targets[which])

    pixels = targets.shape[1:].numel()
    if len(cells) * pixels <= PIXELS_KEPT:
        return losses(cells, which)
    few = max(1, pixels_at_once(targets.device) // pixels)
    starts = range(0, len(cells), few)
    parts = [(cells[i : i + few], which[i : i + few]) for i in starts]
    return torch.cat([checkpoint(losses, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])


def pixels_at_once(device: torch.device) -> int:
    """Pixels of masks that a device paints at once in training; one mask at least."""
    return PIXELS_AT_ONCE["cpu" if device.type == "cpu" else "cuda"]


def dice_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """(K, H, W) mask logits and 0/1 targets -> (K,) Dice losses with squared sums (V-Net; SOLO section 3.3)."""
    p, t = logits.float().sigmoid().flatten(1), targets.float().flatten(1)
    overlap = (p * t).sum(1)
    return 1 - 2 * overlap / (p.square().sum(1) + _EPSILON + t.square().sum(1) + _EPSILON)


def focal_loss_sum(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss summed over cells and classes.

    Args:
        logits: (B, classes, S, S).
        labels: (B, S, S) long; the number of classes stands for background.
    """
    targets = F.one_hot(labels, logits.shape[1] + 1)[..., :-1].movedim(-1, 1)
    with torch.autocast(logits.device.type, enabled=False):
        return sigmoid_focal_loss(logits.float(), targets.float(), alpha, gamma, reduction="sum")

"""The two losses, per cell and unweighted (method.md section 6). Computed in float32 whatever comes in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

_EPSILON = 0.001


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

"""Matrix NMS (SOLOv2, section 3.4; method.md section 7.5): every score decays at once, none is dropped."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def matrix_nms(
    masks: Tensor,
    labels: Tensor,
    scores: Tensor,
    kernel: Literal["gaussian", "linear"] = "gaussian",
    sigma: float = 2.0,
) -> Tensor:
    """Decayed scores of n candidates that are sorted by falling score.

    Args:
        masks: (n, h, w) bool.
        labels: (n,) long; candidates of different classes do not touch each other.
        scores: (n,) float.
        kernel: how a score falls with the overlap.
        sigma: of the gaussian kernel: exp(-sigma * iou^2).

    Returns:
        (n,) float32 scores, in the order given.
    """
    n = len(scores)
    flat = masks.flatten(1).float()
    with torch.autocast(flat.device.type, enabled=False):
        overlap = flat @ flat.T
    area = overlap.diagonal()
    iou = overlap / (area[:, None] + area - overlap).clamp(min=1)
    better = torch.ones((n, n), dtype=torch.bool, device=iou.device).triu(1)  # row better than column
    iou = torch.where(better & (labels[:, None] == labels), iou, 0.0)
    worst = iou.amax(0)[:, None] if n else iou  # of each row with one still better
    if kernel == "gaussian":
        decay = torch.exp(-sigma * (iou.square() - worst.square()))
    else:
        decay = (1 - iou) / (1 - worst).clamp(min=1e-12)
    return scores.float() * (decay.amin(0) if n else 1.0)

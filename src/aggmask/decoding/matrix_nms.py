"""Matrix NMS (SOLOv2, section 3.4; method.md section 7.5): every score decays at once, none is dropped."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

_PIXELS = 2**14  # of each mask that are floats at once


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
    overlap = _overlap(masks.flatten(1))
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


def _overlap(masks: Tensor) -> Tensor:
    """(n, pixels) bool -> (n, n) float: pixels that each two have in common. Whole numbers, so that parts add up."""
    overlap = torch.zeros((len(masks), len(masks)), device=masks.device)
    with torch.autocast(masks.device.type, enabled=False):
        for part in masks.split(_PIXELS, 1):
            floats = part.float()
            overlap += floats @ floats.T
    return overlap

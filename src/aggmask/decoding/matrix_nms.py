"""Matrix NMS (SOLOv2, section 3.4; method.md section 7.5): every score decays at once, none is dropped."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

_PIXELS = 2**14  # of each mask that are floats at once


class Decay(NamedTuple):
    """How far each of n candidates falls, and which better one it falls by."""

    factor: Tensor  # (n,) float32, at most 1: what the score is multiplied with
    by: Tensor  # (n,) long: the better candidate that lowers it most; -1: none does
    iou: Tensor  # (n,) float32: with that one


def matrix_decay(
    masks: Tensor, labels: Tensor, kernel: Literal["gaussian", "linear"] = "gaussian", sigma: float = 2.0
) -> Decay:
    """What n candidates, sorted by falling score, do to each other.

    Args:
        masks: (n, h, w) bool.
        labels: (n,) long; candidates of different classes do not touch each other.
        kernel: how a score falls with the overlap.
        sigma: of the gaussian kernel: exp(-sigma * iou^2).
    """
    n = len(labels)
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
    if not n:
        return Decay(iou.sum(0), labels, iou.sum(0))
    factor, by = decay.min(0)
    return Decay(factor, torch.where(factor < 1, by, -1), iou.gather(0, by[None])[0])


def _overlap(masks: Tensor) -> Tensor:
    """(n, pixels) bool -> (n, n) float: pixels that each two have in common. Whole numbers, so that parts add up."""
    overlap = torch.zeros((len(masks), len(masks)), device=masks.device)
    with torch.autocast(masks.device.type, enabled=False):
        for part in masks.split(_PIXELS, 1):
            floats = part.float()
            overlap += floats @ floats.T
    return overlap

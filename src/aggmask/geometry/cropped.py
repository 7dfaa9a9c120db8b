"""Masks of many objects of one image, each kept as its box and what is inside: for whoever looks at one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Box = tuple[int, int, int, int]  # x1 y1 x2 y2, half-open, pixels
Crop = tuple[Box, np.ndarray]  # the box around a mask and the (h, w) bool mask inside of it


class CroppedMasks:
    """Stands for an (n, H, W) bool tensor, which of many objects in a large image would fill the memory.

    `masks[number]` is an (H, W) bool tensor; any other key (a slice, list or tensor) picks several, still cropped.

    Args:
        size: (height, width) of the image.
        crops: of each object; an empty mask has the box (0, 0, 0, 0).
    """

    def __init__(self, size: tuple[int, int], crops: Sequence[Crop]) -> None:
        self.size, self.crops = size, list(crops)

    @classmethod
    def of(cls, size: tuple[int, int], masks: Iterable[np.ndarray]) -> CroppedMasks:
        """From (H, W) bool masks, which are asked for one after the other and not kept."""
        return cls(size, [_crop(mask) for mask in masks])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, H, W)"""
        return len(self.crops), *self.size

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, int):
            chosen = torch.arange(len(self))[key.cpu() if isinstance(key, Tensor) else key]
            return CroppedMasks(self.size, [self.crops[number] for number in chosen.tolist()])
        (x1, y1, x2, y2), inside = self.crops[key]
        mask = torch.zeros(self.size, dtype=torch.bool)
        mask[y1:y2, x1:x2] = torch.from_numpy(inside)
        return mask

    def shrunk(self, size: tuple[int, int]) -> CroppedMasks:
        """On an image that is no larger: a pixel is of a mask as soon as a part of it is, so that none vanishes."""
        return CroppedMasks(size, [_shrunk(crop, self.size, size) for crop in self.crops])


def cropped(masks: Tensor | CroppedMasks) -> CroppedMasks:
    """(n, H, W) bool masks on any device, or what is cropped already."""
    if isinstance(masks, CroppedMasks):
        return masks
    return CroppedMasks.of(tuple(masks.shape[-2:]), (mask.cpu().numpy() for mask in masks))


def overlap(a: Box, b: Box, margin: int = 0) -> int:
    """Pixels that two boxes share, the first grown by a margin."""
    width = min(a[2] + margin, b[2]) - max(a[0] - margin, b[0])
    height = min(a[3] + margin, b[3]) - max(a[1] - margin, b[1])
    return max(0, width) * max(0, height)


def shared(a: Crop, b: Crop) -> int:
    """Pixels that two masks of an image share."""
    (x1, y1, x2, y2), (u1, v1, u2, v2) = a[0], b[0]
    left, top, right, bottom = max(x1, u1), max(y1, v1), min(x2, u2), min(y2, v2)
    if left >= right or top >= bottom:
        return 0
    ours = a[1][top - y1 : bottom - y1, left - x1 : right - x1]
    return int(np.count_nonzero(ours & b[1][top - v1 : bottom - v1, left - u1 : right - u1]))


def dilated(mask: np.ndarray, by: int) -> np.ndarray:
    """(h, w) bool, grown by a square of 2 * by + 1 pixels, in few passes: each one reaches three times as far."""
    for _ in range(2):
        mask, reach = mask.T, 0
        while reach < by:
            step = min(2 * reach + 1, by - reach)
            grown = mask.copy()
            grown[step:] |= mask[:-step]
            grown[:-step] |= mask[step:]
            mask, reach = grown, reach + step
    return mask


def _crop(mask: np.ndarray) -> Crop:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return (0, 0, 0, 0), np.zeros((0, 0), bool)
    y1, y2, x1, x2 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return (x1, y1, x2, y2), mask[y1:y2, x1:x2].copy()  # a view would keep the whole


def _shrunk(crop: Crop, size: tuple[int, int], smaller: tuple[int, int]) -> Crop:
    (x1, y1, x2, y2), inside = crop
    if not inside.size:
        return crop
    top, rows = _starts(y1, y2, size[0], smaller[0])
    left, columns = _starts(x1, x2, size[1], smaller[1])
    inside = np.logical_or.reduceat(np.logical_or.reduceat(inside, rows, axis=0), columns, axis=1)
    return (left, top, left + len(columns), top + len(rows)), inside


def _starts(first: int, end: int, length: int, shorter: int) -> tuple[int, np.ndarray]:
    """The first of the larger pixels that show first..end of a side, and where in first..end each of them begins."""
    lows = np.arange(shorter) * length // shorter
    place = int(np.searchsorted(lows, first, side="right")) - 1
    return place, np.maximum(lows[place : np.searchsorted(lows, end)] - first, 0)

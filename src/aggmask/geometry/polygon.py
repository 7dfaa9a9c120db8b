"""Polygons that reach out of their image."""

from __future__ import annotations

import numpy as np


def clip_polygon(points: np.ndarray, size: tuple[int, int], margin: float = 0.0) -> np.ndarray:
    """(m, 2) polygon (x, y) -> its part inside [0, width] x [0, height] (Sutherland-Hodgman; may have no points).

    A concave polygon keeps bridges of no width along the border, which cover nothing.

    Args:
        points: float64, pixels.
        size: (height, width).
        margin: pixels that are kept around it.
    """
    low, high = -margin, np.array(size[::-1]) + margin
    for axis, sign, offset in ((0, 1, -low), (0, -1, high[0]), (1, 1, -low), (1, -1, high[1])):
        inward = sign * points[:, axis] + offset  # distance from the border, positive inside
        inside = inward >= 0
        if inside.all():
            continue
        following, inward_next = np.roll(points, -1, axis=0), np.roll(inward, -1)
        crosses = inside != np.roll(inside, -1)
        share = np.divide(inward, inward - inward_next, out=np.zeros_like(inward), where=crosses)[:, None]
        crossings = points + share * (following - points)
        both = np.stack([points, crossings], axis=1)  # a corner, then where the edge from it leaves or enters
        points = both[np.stack([inside, crosses], axis=1)]
    return np.clip(points, low, high)  # crossings are exact up to rounding only

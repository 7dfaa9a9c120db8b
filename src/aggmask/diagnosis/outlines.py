"""Questions about polygons that only a person looking for faults asks."""

from __future__ import annotations

import numpy as np
from matplotlib.path import Path as Outline

from aggmask.geometry.frame import Size

_MOST_POINTS = 4000  # of which each pair of edges is compared: 16 million pairs
_DEEP = 0.1  # pixels: rounded coordinates of a bridge cross themselves by less


def crosses_itself(points: np.ndarray) -> bool:
    """Whether two edges of a polygon (m, 2) pass through each other by more than a tenth of a pixel.

    Edges that only touch, or lie on each other, do not cross: exporters connect a hole to its outline by such a bridge.
    Polygons of more than 4000 points are taken to be all right.
    """
    points = points[(points != _following(points)).any(1)]
    if not 4 <= len(points) <= _MOST_POINTS:
        return False
    edges = _following(points) - points
    normals = np.stack([-edges[:, 1], edges[:, 0]], axis=1) / np.hypot(*edges.T)[:, None]
    distance = points @ normals.T - (points * normals).sum(1)  # of point j from the line through edge i, [j, i]
    distance[np.abs(distance) < _DEEP] = 0
    through = distance * _following(distance) < 0  # edge j passes through the line of edge i
    return bool((through & through.T).any())


def reach_outside(points: np.ndarray, size: Size) -> float:
    """How far, in pixels, a polygon (m, 2) reaches out of an image of `size` (height, width)."""
    low, high = points.min(0), points.max(0)
    return float(max(0, *-low, *(high - size[::-1])))


def depths(parts: list[np.ndarray]) -> np.ndarray:
    """(n,) how deep each of an object's polygons lies inside others of them: 1 is a hole, 2 an island in it, and so on.

    That is the longest chain of polygons around each other, and not how many there are: a hole where two overlapping
    polygons meet lies inside both, and is one all the same.
    """
    found = np.zeros(len(parts), int)
    if len(parts) < 2:
        return found
    lows, highs = (np.array([f(part, axis=0) for part in parts]) for f in (np.min, np.max))
    within = ((lows[:, None] >= lows) & (highs[:, None] <= highs)).all(2)  # box i in box j
    within &= ~within.T  # of two with the same box, neither holds the other
    inside = np.zeros_like(within)
    inside[within] = [Outline(parts[j]).contains_points(parts[i]).all() for i, j in np.argwhere(within).tolist()]
    deeper = np.ones(len(parts), bool)
    while (deeper := inside[:, deeper].any(1)).any():
        found += deeper
    return found


def _following(values: np.ndarray) -> np.ndarray:
    """Each row's next one; a tenth of the time of np.roll, which is most of it for so few points."""
    return np.concatenate([values[1:], values[:1]])

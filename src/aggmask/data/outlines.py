"""From depth maps to annotations: what is seen of each object, and its outline.

Every object is a *depth map*: pixels to its outline, positive inside. The visible part of an object is the minimum of
its own depth and the negated depths of all that lie above it, so outlines are exact below the pixel and one formula
serves picture and annotation. Depths are sampled at the corners and middles of pixels (two steps per pixel): the odd
samples are the pixel centers, from which a picture is drawn; the even ones reach the border.

Annotations follow COCO's habits. A visible part without a hole becomes polygons, one per piece: that is what training
rasterises fastest. One with a hole becomes compressed RLE, because COCO polygons cannot express a hole. `area` is that
of the polygons or the pixels of the RLE.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from contourpy import FillType, contour_generator
from pycocotools import mask as rle

MIN_PART = 2.0  # pixels: a smaller piece of an occluded object is not annotated
_TOLERANCE = 0.03  # pixels a polygon may lose per thinning step


@dataclass
class Scene:
    """One picture and what lies in it, back to front."""

    pixels: np.ndarray  # (H, W, 3) uint8
    labels: np.ndarray  # (n,) int, places in the data set's categories
    depths: np.ndarray  # (n, 2H+1, 2W+1) float32, pixels, of whole objects; sample (r, c) is the point (c/2, r/2)

    @property
    def visible(self) -> np.ndarray:
        """(n, 2H+1, 2W+1) depths of the visible parts: positive where the object is seen."""
        visible = self.depths.copy()
        above = np.full(visible.shape[1:], -np.inf, visible.dtype)
        for part, depth in zip(visible[::-1], self.depths[::-1], strict=True):
            np.minimum(part, -above, out=part)
            np.maximum(above, depth, out=above)
        return visible


def _thinned(ring: np.ndarray) -> np.ndarray:
    """A closed outline, (k,) complex, without the points that lie almost on the line between their neighbors."""
    for first in (1, 2) * 4:  # every other point at a time, so that no two neighbors go at once
        before, middle, after = ring[first - 1 : -2 : 2], ring[first:-1:2], ring[first + 1 :: 2]
        height = np.abs(((after - before).conj() * (middle - before)).imag)
        drop = height <= _TOLERANCE * np.abs(after - before)
        if len(ring) - drop.sum() < 4:
            break
        keep = np.ones(len(ring), bool)
        keep[first:-1:2] = ~drop
        ring = ring[keep]
    return ring


def _polygon_area(ring: np.ndarray) -> float:
    """Pixels inside a closed outline, (k,) complex x + iy."""
    return float(abs((ring[:-1].conj() * ring[1:]).imag.sum() + (ring[-1].conj() * ring[0]).imag) / 2)


def segment(visible: np.ndarray) -> dict | None:
    """The `segmentation`, `area` and `bbox` of a COCO annotation for one visible part.

    Args:
        visible: (2H+1, 2W+1) depth, as in `Scene.visible`.

    Returns:
        Polygons in original pixels where the part has no hole, else compressed RLE; None where nothing is left that
        is worth it.
    """
    seen = visible > 0
    spans = [np.flatnonzero(seen.any(axis))[[0, -1]] for axis in (1, 0)]
    (top, bottom), (left, right) = [(max(0, int(first) - 1), int(last) + 2) for first, last in spans]
    tracer = contour_generator(z=visible[top:bottom, left:right], fill_type=FillType.OuterOffset)
    rings = []
    for points, offsets in zip(*tracer.filled(0.0, np.inf), strict=True):
        points = (points[:, 0] + left + 1j * (points[:, 1] + top)) / 2
        outline, *holes = (points[a : b - 1] for a, b in itertools.pairwise(offsets))
        if any(_polygon_area(hole) >= MIN_PART for hole in holes):
            encoded = rle.encode(np.asfortranarray(seen[1::2, 1::2], dtype=np.uint8))
            segmentation = {"size": encoded["size"], "counts": encoded["counts"].decode()}
            return {
                "segmentation": segmentation,
                "area": float(rle.area(encoded)),
                "bbox": rle.toBbox(encoded).tolist(),
            }
        if _polygon_area(outline) >= MIN_PART:
            rings.append(_thinned(outline).round(2))
    if not rings:
        return None
    points = np.concatenate(rings).view(float).reshape(-1, 2)
    low, high = points.min(0), points.max(0)
    return {
        "segmentation": [ring.view(float).tolist() for ring in rings],
        "area": round(sum(map(_polygon_area, rings)), 2),
        "bbox": np.concatenate([low, high - low]).round(2).tolist(),
    }

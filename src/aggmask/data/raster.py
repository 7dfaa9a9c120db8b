"""Annotated outlines -> small bitmaps on the network's canvas, with each object's exact center and area.

Source: method.md section 5 (targets start from masks at the output stride, centers and areas from full resolution).
Deliberate difference from the published pipeline, which paints every object at the original size, resizes the bitmap
with nearest neighbor and then to a quarter with bilinear weights: here the outline's coordinates are transformed and
painted once, at the resolution of network pixels, only in the window of cells that the object touches; a cell is set
when at least half of it is covered. No bias, nothing lost, a few hundredths of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from aggmask.geometry.frame import Frame, Size
from aggmask.geometry.polygon import clip_polygon


class Patch(NamedTuple):
    """The network pixels of one object: where they start, and which they are."""

    top: int
    left: int
    pixels: np.ndarray  # (rows, columns) bool

    def of(self, canvas: np.ndarray) -> np.ndarray:
        """The patch's window of a canvas (H, W), a view."""
        height, width = self.pixels.shape
        return canvas[self.top : self.top + height, self.left : self.left + width]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x1 y1 x2 y2 around the pixels, of which there is one at least."""
        rows, columns = np.flatnonzero(self.pixels.any(1)), np.flatnonzero(self.pixels.any(0))
        return self.left + columns[0], self.top + rows[0], self.left + columns[-1] + 1, self.top + rows[-1] + 1


# Polygons (m, 2) float (x, y) or a run-length code, both in the original frame; or what is known of network pixels.
Segmentation = list[np.ndarray] | dict | Patch
_NO_AREA = 1e-6  # square pixels: what clipping leaves of a polygon that only touches the border


class _Window(NamedTuple):
    """The cells that one object touches: where they start and how much of each is covered."""

    top: int
    left: int
    coverage: np.ndarray  # (rows, columns), covered share or count: only compared with `full`
    full: float  # the coverage of a cell that lies inside the object
    center: tuple[float, float]  # (x, y) continuous
    area: float

    @property
    def cells(self) -> np.ndarray:
        """(rows, columns) bool: the object's cells, at least one."""
        cells = 2 * self.coverage >= self.full
        # smaller than half a cell: the cell that holds most of it
        return cells if cells.any() else self.coverage == self.coverage.max()


def rasterize(
    segmentations: Sequence[Segmentation], frame: Frame, stride: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint n objects of one image, clipped to the frame's content.

    Args:
        segmentations: per object a list of (m, 2) polygons (x, y) in the original frame (their union is the object), or
            a COCO run-length code {"size": [h, w], "counts": bytes} of the original size, or a patch.
        frame: how the image lies on its canvas.
        stride: network pixels per cell.

    Returns:
        masks: (n, ceil(H / stride), ceil(W / stride)) uint8 0/1 on the padded canvas H x W. An object with any area
            inside the content keeps at least one cell.
        centers: (n, 2) float64 (x, y) center of mass, network pixels as pixel indices (continuous minus 0.5).
        areas: (n,) float64 square network pixels; 0 where nothing is inside the content (its mask is empty).
    """
    rows, columns = (-(-side // stride) for side in frame.padded)
    masks = np.zeros((len(segmentations), rows, columns), np.uint8)
    centers = np.zeros((len(segmentations), 2))
    areas = np.zeros(len(segmentations))
    for i, segmentation in enumerate(segmentations):
        window = _cover(segmentation, frame, stride)
        if window is None:
            continue
        cells = window.cells
        height, width = cells.shape
        masks[i, window.top : window.top + height, window.left : window.left + width] = cells
        centers[i] = window.center[0] - 0.5, window.center[1] - 0.5
        areas[i] = window.area
    return masks, centers, areas


def patch_of(segmentation: Segmentation, frame: Frame) -> Patch | None:
    """An object's network pixels inside the frame's content, at least one; None where there is nothing of it."""
    window = _cover(segmentation, frame, 1)
    return None if window is None else Patch(window.top, window.left, window.cells)


def _cover(segmentation: Segmentation, frame: Frame, stride: int) -> _Window | None:
    if isinstance(segmentation, Patch):
        return _cover_patch(segmentation, stride)
    return (_cover_runs if isinstance(segmentation, dict) else _cover_polygons)(segmentation, frame, stride)


def _cover_patch(patch: Patch, stride: int) -> _Window | None:
    above, beside = patch.top % stride, patch.left % stride
    below, beyond = (
        -(start + extent) % stride for start, extent in zip((above, beside), patch.pixels.shape, strict=True)
    )
    bitmap = np.pad(patch.pixels.view(np.uint8), ((above, below), (beside, beyond)))
    return _count(bitmap, patch.top // stride, patch.left // stride, stride)


def _count(bitmap: np.ndarray, top: int, left: int, stride: int) -> _Window | None:
    """The window of an object's pixels, whole cells of them, that starts at a cell; None where no pixel is set."""
    by_row, by_column = bitmap.sum(1, dtype=np.int64), bitmap.sum(0, dtype=np.int64)
    area = int(by_row.sum())
    if not area:
        return None
    x = by_column @ (np.arange(len(by_column)) + 0.5) / area + left * stride
    y = by_row @ (np.arange(len(by_row)) + 0.5) / area + top * stride
    return _Window(top, left, _count_in_cells(bitmap, stride), stride * stride, (x, y), float(area))


def _moments(points: np.ndarray) -> tuple[float, np.ndarray]:
    """Area of a simple polygon (m, 2) and its first moments (x, y)."""
    origin = points[0]
    here = points - origin
    there = np.roll(here, -1, axis=0)
    cross = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
    area, first = cross.sum() / 2, ((here + there) * cross[:, None]).sum(0) / 6
    sign = 1.0 if area >= 0 else -1.0
    return sign * area, sign * first + sign * area * origin


def _cover_polygons(parts: Sequence[np.ndarray], frame: Frame, stride: int) -> _Window | None:
    """The union of polygons, painted at one sample per network pixel; None where nothing is inside the content."""
    # Clipping also keeps far-away points from pycocotools, which allocates memory by edge length and then crashes.
    visible = [clip_polygon(frame.points_to_network(part.astype(np.float64)), frame.content) for part in parts]
    visible = [part for part in visible if len(part) >= 3]
    if not visible:
        return None
    corners = np.concatenate(visible)
    left, top = np.floor(corners.min(0) / stride).astype(int).tolist()
    right, bottom = np.ceil(corners.max(0) / stride).astype(int).tolist()
    columns, rows = max(right - left, 1), max(bottom - top, 1)
    origin = np.array([left, top]) * stride
    # (y, x) instead of (x, y): pycocotools paints column by column, so its bitmap is then row-major for us
    outlines = [(part - origin)[:, ::-1].ravel() for part in visible]
    runs = coco_mask.frPyObjects(outlines, columns * stride, rows * stride)
    bitmap = coco_mask.decode(coco_mask.merge(runs) if len(runs) > 1 else runs[0]).T
    return _count(bitmap, top, left, stride) or _sliver(visible, stride)


def _sliver(parts: Sequence[np.ndarray], stride: int) -> _Window | None:
    """An object too thin to hold a pixel's center: its exact area and center, and the one cell of that center."""
    moments = [_moments(part) for part in parts]
    area = sum(part[0] for part in moments)
    if area <= _NO_AREA:
        return None
    x, y = (sum(part[1] for part in moments) / area).tolist()
    return _Window(int(y // stride), int(x // stride), np.ones((1, 1)), 1, (x, y), area)


def _count_in_cells(bitmap: np.ndarray, stride: int) -> np.ndarray:
    """(rows * stride, columns * stride) 0/1 -> (rows, columns) how many are set in each cell."""
    height, width = bitmap.shape
    in_rows = bitmap.reshape(height // stride, stride, width).sum(1, dtype=np.uint8)
    # slices instead of a reshape: numpy adds long rows fast and groups of four slowly
    return np.sum([in_rows[:, i::stride] for i in range(stride)], axis=0, dtype=np.uint16)


def _cover_runs(runs: dict, frame: Frame, stride: int) -> _Window | None:
    """A run-length code: every source pixel is a rectangle on the canvas, so coverage, center and area are exact."""
    x, y, width, height = coco_mask.toBbox(runs).astype(int).tolist()
    if not width or not height:
        return None
    bitmap = np.ascontiguousarray(coco_mask.decode(runs)[y : y + height, x : x + width])
    edges = np.full((2, max(width, height) + 1, 2), (x, y), np.float64)  # down the columns' and the rows' edges
    edges[0, :, 0] += np.arange(edges.shape[1])
    edges[1, :, 1] += np.arange(edges.shape[1])
    edges = frame.points_to_network(edges)
    left, over_x, middle_x = _overlaps(edges[0, : width + 1, 0], frame.content[1], stride)
    top, over_y, middle_y = _overlaps(edges[1, : height + 1, 1], frame.content[0], stride)
    # torch, not numpy: numpy's matrix products start threads of their own in every worker process
    pixels = torch.from_numpy(bitmap).float()
    rows = over_y @ pixels
    mass_x = (rows.sum(0) * over_x.sum(0)).double()  # visible area of the object in each source column, then row
    mass_y = (pixels @ over_x.sum(0) * over_y.sum(0)).double()
    area = mass_x.sum().item()
    if area <= _NO_AREA:
        return None
    center = ((mass_x @ middle_x).item() / area, (mass_y @ middle_y).item() / area)
    return _Window(top, left, (rows @ over_x.T).numpy(), stride * stride, center, area)


def _overlaps(edges: np.ndarray, content: int, stride: int) -> tuple[int, Tensor, Tensor]:
    """How much of each source pixel (between neighboring `edges`) lies in each cell, along one axis.

    Returns:
        The first cell, the overlaps (cells, pixels) float in network pixels, the middle (pixels,) double of each
        pixel's visible part. No cells when nothing is inside [0, content].
    """
    edges = np.clip(edges, 0, content)
    low, high = np.minimum(edges[1:], edges[:-1]), np.maximum(edges[1:], edges[:-1])  # a flip reverses the order
    first, last = int(low.min() // stride), -int(-high.max() // stride)
    starts = (np.arange(first, last) * stride)[:, None]
    overlap = np.clip(np.minimum(high, starts + stride) - np.maximum(low, starts), 0, None)
    return first, torch.from_numpy(overlap.astype(np.float32)), torch.from_numpy((low + high) / 2)


def bitmap(segmentation: Segmentation, size: Size) -> np.ndarray:
    """(H, W) bool of one object in the original frame, as pycocotools paints it."""
    if not isinstance(segmentation, dict):
        parts = [clip_polygon(part.astype(np.float64), size) for part in segmentation]
        outlines = [part.ravel() for part in parts if len(part) >= 3]
        if not outlines:
            return np.zeros(size, bool)
        segmentation = coco_mask.merge(coco_mask.frPyObjects(outlines, *size))
    return coco_mask.decode(segmentation).astype(bool)

"""One annotation's mask, area and box against each other and against its image."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
from pycocotools import mask as coco_mask

from aggmask.cocofile.records import Annotation, Image
from aggmask.cocofile.segmentation import Rle, are_pairs, is_polygon, mask_of, shape_of, shoelace
from aggmask.data.raster import bitmap, rasterize
from aggmask.diagnosis.findings import Findings, Repairs
from aggmask.diagnosis.outlines import crosses_itself, depths, reach_outside
from aggmask.geometry.frame import Frame, Size
from aggmask.geometry.polygon import clip_polygon

_TOLERATED = 1.0  # pixels: some tools count pixels where others count their edges
_AREA_RATIO = 2.0  # COCO's own areas are those of outlines, not of pixels: small objects differ by half
_BOX_IOU = 0.5


class MaskCheck:
    """Finds what is wrong with annotations, and how to mend it."""

    def __init__(self, findings: Findings, repairs: Repairs) -> None:
        self.findings, self.repairs = findings, repairs

    def __call__(self, position: int, annotation: Annotation, image: Image, name: str) -> bytes | None:
        """Look at the annotation at a position in the file.

        Args:
            name: what it is called in a finding.

        Returns:
            The mask to keep, as bytes that are equal for equal masks; None where there is none.
        """
        size = image.height, image.width
        try:
            shape, flat = shape_of(annotation.segmentation)
        except ValueError as error:
            self.findings.add("bad-shape", name, str(error))
            return None
        if pairs := are_pairs(shape):
            self.findings.add("pairs", name, f"{shape}"[:80])
            shape = [list(chain(*shape))]
            self.repairs.change("annotations", position, segmentation=shape)
        try:
            mask = mask_of(shape, *size)
        except ValueError as error:
            if not pairs:
                self.findings.add("bad-rle" if isinstance(shape, Rle) else "bad-shape", name, str(error))
            return None
        if annotation.iscrowd:
            self.findings.add("crowd", name)
        elif annotation.is_ignored:
            self.findings.add("ignore", name)
        if isinstance(mask, dict):
            if not mask["counts"]:
                self.findings.add("no-mask", name, "its RLE has no pixel")
                return None
        else:
            mask = self._polygons(position, shape or [], mask, flat, size, name)
            if mask is None:
                return None
        self._numbers(position, annotation, mask, size, name)
        if isinstance(mask, dict):
            return b"RLE" + mask["counts"]
        return b".".join(part.astype(np.float32).tobytes() for part in mask)

    def _polygons(
        self, position: int, shape: list, mask: list, flat: bool, size: Size, name: str
    ) -> list[np.ndarray] | dict | None:
        """The mask to keep, if there is one."""
        add, change = self.findings.add, self.repairs.change
        if not mask:
            box = len(shape) == 1 and len(shape[0]) == 4
            add("box-as-mask" if box else "no-mask", name, f"{shape}"[:80] if shape else "no polygon")
            return None
        if flat:
            add("flat", name)
            change("annotations", position, segmentation=mask)
        if len(mask) < len(shape):
            lengths = [len(part) for part in shape if not is_polygon(part)]
            add("broken-part", name, f"{lengths} numbers; three points are 6")
            change("annotations", position, segmentation=mask)
        if len(mask) > 1:
            add("parts", name, f"{len(mask)} polygons")
        # float32, as the index keeps them
        parts = [np.array(part, np.float32).reshape(-1, 2).astype(np.float64) for part in mask]
        outside = max(reach_outside(part, size) for part in parts)
        if (outside > 0 or sum(map(shoelace, parts)) < 1) and not rasterize([parts], Frame.resized(size, size))[2][0]:
            add("no-area", name, "it lies outside" if outside > _TOLERATED else "a line or a point")
            return None
        if outside > _TOLERATED:
            add("outside", name, f"by {outside:.1f} pixels (the image is {size[0]} x {size[1]}, height x width)")
            parts = [part for part in (clip_polygon(part, size) for part in parts) if len(part) >= 3]
            change("annotations", position, segmentation=[part.ravel().tolist() for part in parts])
        return self._repainted(position, parts, size, name) or parts

    def _repainted(self, position: int, parts: list[np.ndarray], size: Size, name: str) -> dict | None:
        """An RLE instead of polygons that mean something else than they paint."""
        depth = depths(parts)
        crossing = any(map(crosses_itself, parts))
        if depth.any():
            self.findings.add("filled-hole", name, f"{np.count_nonzero(depth)} of {len(parts)} polygons")
        if crossing:
            self.findings.add("crossing", name)
        if not depth.any() and not crossing:
            return None
        painted = np.zeros(size, bool)
        for level in range(depth.max() + 1):  # outlines, then the holes in them, then the islands in those
            painted[bitmap([parts[i] for i in np.flatnonzero(depth == level)], size)] = level % 2 == 0
        if not painted.any():  # thinner than pixels: it stays what it is
            return None
        runs = coco_mask.encode(np.asfortranarray(painted.astype(np.uint8)))
        segmentation = {"size": list(size), "counts": runs["counts"].decode("ascii")}
        self.repairs.change("annotations", position, segmentation=segmentation)
        return runs

    def _numbers(self, position: int, annotation: Annotation, mask: list | dict, size: Size, name: str) -> None:
        """`area` and `bbox` against the mask."""
        area, box = area_and_box(mask, size)
        given = annotation.area
        if given is not None and not 0 < area / _AREA_RATIO <= given + min(1, given) <= area * _AREA_RATIO + 2:
            if math.isfinite(given):  # else it is a finding by itself
                self.findings.add("wrong-area", name, f"{given:g}, but the mask has {area:g} pixels")
            self.repairs.change("annotations", position, area=area)
        if annotation.bbox is None:
            return
        given = np.array(annotation.bbox.numbers)
        if not np.isfinite(given).all():
            self.repairs.change("annotations", position, bbox=box.tolist())
        elif not annotation.bbox.has_extent:
            self.findings.add("no-box", name, f"{given.tolist()}")
            self.repairs.change("annotations", position, bbox=box.tolist())
        elif _iou(given, box) < _BOX_IOU and np.abs(given - box).max() > 2:
            corners = given - [0, 0, *given[:2]]
            hint = ": x1 y1 x2 y2 instead of x y width height" if _iou(corners, box) >= _BOX_IOU else ""
            self.findings.add("wrong-box", name, f"{given.tolist()}, but the mask's is {box.tolist()}{hint}")
            self.repairs.change("annotations", position, bbox=box.tolist())


def area_and_box(mask: list[np.ndarray] | dict, size: Size) -> tuple[float, np.ndarray]:
    """Pixels of a mask inside an image, those of overlapping polygons twice; x y w h around it."""
    if isinstance(mask, dict):
        return float(coco_mask.area(mask)), np.array(coco_mask.toBbox(mask))
    parts = [part for part in (clip_polygon(part.astype(np.float64), size) for part in mask) if len(part)]
    points = np.concatenate(parts)
    low, high = points.min(0), points.max(0)
    return sum(map(shoelace, parts)), np.concatenate([low, high - low])


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two boxes x y w h."""
    shared = np.prod(np.clip(np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    union = np.prod(np.clip(a[2:], 0, None)) + np.prod(b[2:]) - shared
    return float(shared / union) if union > 0 else 0.0

"""Bitmaps and annotations -> COCO's run-length encoding (RLE), byte-equal to pycocotools.

Source: the compressed column-major RLE of the COCO API (`maskApi.c`).
Deliberate differences from `COCO.annToRLE`: what is no mask is left out or refused (see `cocofile.segmentation`);
polygons are cut off 8192 pixels outside of the image (far away, they can end the process).
"""

from __future__ import annotations

from typing import Any

import hotcoco.mask
import numpy as np
import torch
from pycocotools import mask as reference
from torch import Tensor

from aggmask.cocofile.segmentation import mask_of, shape_of
from aggmask.geometry.frame import Size
from aggmask.geometry.polygon import clip_polygon

_FAR = 8192.0  # pixels outside of an image: pycocotools takes memory by the length of edges


def encode(masks: Tensor) -> list[bytes]:
    """(n, H, W) bool masks on any device -> n compressed RLE strings of column-major runs."""
    if not len(masks):
        return []
    columns = masks.to(torch.bool).transpose(1, 2)
    if masks.device.type != "cpu":
        columns = columns.contiguous()  # costs nothing there; on a CPU the encoder itself is faster at it
    return [rle["counts"] for rle in hotcoco.mask.encode(columns.cpu().numpy().transpose(2, 1, 0))]


def decode(counts: str | bytes, size: Size) -> np.ndarray:
    """One compressed RLE -> (H, W) bool bitmap."""
    return reference.decode({"size": list(size), "counts": counts}).astype(bool)


def area(rles: list[dict[str, Any]]) -> list[float]:
    """Pixels inside each compressed RLE."""
    # Not by pycocotools 2.0.11: with numpy 2 it fails on more than 255 at a time.
    return [float(pixels) for pixels in hotcoco.mask.area(rles)] if rles else []


def from_annotation(segmentation: Any, size: Size) -> dict[str, Any] | None:
    """The `segmentation` of an annotation (polygons, or RLE of any kind) -> a compressed RLE.

    Args:
        segmentation: a list of flat x, y lists, one such list, or a dict of `counts` (numbers or a string) and `size`;
            or the JSON of one (`msgspec.Raw`).
        size: (height, width) of the image.

    Returns:
        {"size": [h, w], "counts": str}, or None where there is no polygon of three points or more. An RLE may be all
        background.

    Raises:
        ValueError: neither polygons nor an RLE of the image's size.
    """
    mask = mask_of(shape_of(segmentation)[0], *size)
    if isinstance(mask, dict):
        return _readable(mask if mask["counts"] else _nothing(size), size)
    if not mask:
        return None
    polygons = [part.ravel().tolist() for polygon in mask if len(part := _near(polygon, size)) >= 3]
    return _readable(reference.merge(reference.frPyObjects(polygons, *size)) if polygons else _nothing(size), size)


def _nothing(size: Size) -> dict[str, Any]:
    return reference.frPyObjects({"size": list(size), "counts": [size[0] * size[1]]}, *size)


def _near(polygon: Any, size: Size) -> np.ndarray:
    """(m, 2) the part of a polygon that is not far outside of the image; edges that are cut keep their slope."""
    return clip_polygon(np.asarray(polygon, dtype=np.float64).reshape(-1, 2), size, _FAR)


def _readable(rle: dict[str, Any], size: Size) -> dict[str, Any]:
    counts = rle["counts"]
    return {"size": list(size), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}

"""The `segmentation` of one annotation, in all the shapes it takes in the wild, checked.

Source: the COCO format (https://cocodataset.org/#format-data) and its run-length code (`maskApi.c` of the COCO API).
Difference from `pycocotools`: a code that does not add up to the image is refused (there, too short a one is filled up
with whatever lies in memory, and too long a one may end the process); a part without an area is left out (there, one
with four numbers is read as a box, and every polygon after it too).
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from pycocotools import mask as coco_mask

FARTHEST = 1e9  # pixels: a coordinate beyond is no place in any image, and float32 still holds its square


class Rle(msgspec.Struct):
    """A run-length code: counts of pixels, column by column, background first; a string when compressed."""

    size: tuple[int, int]  # (height, width)
    counts: str | list[int]


Shape = list[list[float]] | Rle | None
Mask = list[list[float]] | dict  # usable polygons (x, y, x, y, ...) | {"size": [h, w], "counts": bytes}

_decode = msgspec.json.Decoder(Shape, strict=False).decode  # lax: some tools write numbers as strings
_decode_flat = msgspec.json.Decoder(list[float], strict=False).decode


def shape_of(segmentation: msgspec.Raw | Any) -> tuple[Shape, bool]:
    """Decoded JSON, or Python objects, as polygons or a run-length code.

    Returns:
        The shape, and whether it was one flat list of numbers, which stands for one polygon.

    Raises:
        ValueError: it is neither.
    """
    raw = isinstance(segmentation, msgspec.Raw)
    try:
        return (_decode(segmentation) if raw else msgspec.convert(segmentation, Shape, strict=False)), False
    except msgspec.ValidationError as error:
        try:
            flat = _decode_flat(segmentation) if raw else msgspec.convert(segmentation, list[float], strict=False)
        except msgspec.ValidationError:
            raise ValueError(f"`segmentation` is neither polygons nor RLE: {error}") from error
        return [flat], True


def mask_of(shape: Shape, height: int, width: int) -> Mask:
    """What of a shape is a mask: its polygons of three points and more, or its RLE, compressed.

    Returns:
        Empty where there is no mask: a list without polygons, or empty counts.

    Raises:
        ValueError: a coordinate is not a number, or the RLE is not one of an image of this size.
    """
    if isinstance(shape, Rle):
        return _compressed(shape, height, width)
    polygons = [part for part in shape or () if is_polygon(part)]
    for part in polygons:
        if not (math.isfinite(sum(part)) and -FARTHEST <= min(part) <= max(part) <= FARTHEST):
            raise ValueError(f"its polygon has coordinates outside of {-FARTHEST:.0e}..{FARTHEST:.0e}")
    return polygons


def is_polygon(part: list[float]) -> bool:
    """Whether the numbers are three points (x, y) or more."""
    return len(part) >= 6 and len(part) % 2 == 0


def are_pairs(shape: Shape) -> bool:
    """Whether points, [x, y] each, stand where polygons belong."""
    return isinstance(shape, list) and len(shape) >= 3 and all(len(part) == 2 for part in shape)


def shoelace(points: np.ndarray) -> float:
    """Area of a simple polygon (m, 2), square pixels."""
    x, y = (points - points[0]).T  # so that the last one, which closes it, adds nothing
    return float(abs(x[:-1] @ y[1:] - x[1:] @ y[:-1]) / 2)


def runs_of(counts: str) -> np.ndarray:
    """(n,) int64 lengths of the runs of a compressed RLE; maybe negative, where it is nonsense.

    Five bits a character and a flag for "goes on"; from the fourth number on, the difference to the last but one.

    Raises:
        ValueError: it has characters that do not belong there, or ends within a number.
    """
    code = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    if not len(code):
        return code
    ends = (code & 32) == 0
    if code.min() < 0 or code.max() > 63 or not ends[-1]:
        raise ValueError("its RLE is not a compressed code")
    number = np.cumsum(ends) - ends  # which number each character belongs to
    last = np.flatnonzero(ends)
    place = np.arange(len(code)) - np.concatenate([[0], last[:-1] + 1])[number]
    if place.max() > 6:
        raise ValueError("its RLE has runs longer than any image")
    negative = ((code[last] & 16) != 0) * (-32 << (5 * place[last]))
    runs = np.bincount(number, (code & 31) << (5 * place), len(last)).astype(np.int64) + negative
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _compressed(rle: Rle, height: int, width: int) -> dict:
    """An RLE as pycocotools compresses it; with empty counts when there is no foreground pixel."""
    if rle.size != (height, width):
        raise ValueError(
            f"its RLE is for an image of {rle.size} pixels, but the image has {(height, width)} (rows, columns)"
        )
    runs = runs_of(rle.counts) if isinstance(rle.counts, str) else rle.counts
    if len(runs) and (min(runs) < 0 or sum(runs) != height * width):
        raise ValueError(f"its RLE counts add up to {sum(runs)} pixels, but the image has {height * width}")
    if not sum(runs[1::2]):
        return {"size": list(rle.size), "counts": b""}
    if isinstance(rle.counts, str):
        return {"size": list(rle.size), "counts": rle.counts.encode("ascii")}
    return coco_mask.frPyObjects({"size": list(rle.size), "counts": rle.counts}, height, width)

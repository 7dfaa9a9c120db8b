"""The embedded data set: drawn shapes that overlap, written to disk in COCO layout within seconds.

Not from a paper. It exists so that the demo, the tests and small studies need no download, and so that a tiny network
learns it within minutes: five clear silhouettes with soft shading on a muted background, each category with a
favorite color (`color_hint`), centers apart by about one cell of a 10 x 10 grid, since a cell holds only one object.

Every shape is a *depth map*: pixels to its outline, positive inside. The visible part of an object is the minimum of
its own depth and the negated depths of all that lie above it, so outlines are exact below the pixel and one formula
serves picture and annotation. Depths are sampled at the corners and middles of pixels (two steps per pixel): the odd
samples are the pixel centers, from which the picture is drawn, antialiased by depth; the even ones reach the border.

What is written follows COCO's habits. A visible part without a hole becomes polygons, one per piece: that is what
training rasterises fastest. One with a hole becomes compressed RLE, because COCO polygons cannot express a hole.
`area` is that of the polygons or the pixels of the RLE. Category ids have gaps; 2 % of the pictures are empty.
"""

from __future__ import annotations

import colorsys
import functools
import itertools
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from contourpy import FillType, contour_generator
from PIL import Image
from pycocotools import mask as rle

from aggmask.errors import UserError
from aggmask.structures import Category

CATEGORIES = (
    Category(1, "disk"),
    Category(2, "square"),
    Category(3, "triangle"),
    Category(5, "star"),
    Category(8, "ring"),
)
SPLITS = ("train2017", "val2017")
STAMP = "shapes.json"  # what the folder was made from: lies in every complete folder
VERSION = 1  # count up when the same parameters give other pictures

EMPTY = 0.02  # share of pictures without an object
SMALLEST, LARGEST = 1 / 6, 7 / 12  # object size as a share of the short side: 16 and 56 at 96 pixels
MIN_VISIBLE = 0.4  # of each object's area inside the picture
MIN_DISTANCE = 0.1  # between visible centers of mass, share of the short side
MIN_PART = 2.0  # pixels: a smaller piece of an occluded object is not annotated
FAR = -4.0  # depth beyond which nothing depends on it (the shadow reaches 3 pixels)
OUTLINE_TOLERANCE = 0.03  # pixels a polygon may lose per thinning step

_HUES = {"disk": 0.985, "square": 0.59, "triangle": 0.41, "star": 0.125, "ring": 0.80}
_LIGHT = (-0.5, -0.85)  # (x, y) towards the light: upper left
_SHADOW = (2, 1)  # (rows, columns) in pixels


def _star_depth(x: np.ndarray, y: np.ndarray, points: int, outer: float, inner: float, rounding: float) -> np.ndarray:
    """Depth inside a star whose tips lie at radius `outer` and notches at `inner`, corners rounded."""
    # All sectors folded onto the half sector beside a tip: the nearest tip's direction has the largest projection.
    tips = [(float(np.cos(a)), float(np.sin(a))) for a in 2 * np.pi * np.arange(points) / points]
    px = functools.reduce(np.maximum, [x * cos + y * sin for cos, sin in tips])
    py = np.sqrt(np.maximum(x * x + y * y - px * px, 0))
    px -= outer
    half = np.pi / points
    ex, ey = float(inner * np.cos(half)) - outer, float(inner * np.sin(half))  # the edge from the tip to the notch
    along = ((px * ex + py * ey) / (ex * ex + ey * ey)).clip(0, 1)
    dx, dy = px - along * ex, py - along * ey
    return np.copysign(np.sqrt(dx * dx + dy * dy), ex * py - ey * px) + rounding


def _polygon_depth(x: np.ndarray, y: np.ndarray, points: int, outer: float, rounding: float) -> np.ndarray:
    """Depth inside a regular polygon: a star whose notches lie on the chords between its tips."""
    return _star_depth(x, y, points, outer, outer * float(np.cos(np.pi / points)), rounding)


# Depth for shapes whose box is about 1 x 1, at local coordinates (x, y).
_DEPTHS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disk": lambda x, y: 0.5 - np.sqrt(x * x + y * y),
    "square": lambda x, y: _polygon_depth(x, y, 4, 0.54, 0.06),
    "triangle": lambda x, y: _polygon_depth(x, y, 3, 0.54, 0.06),
    "star": lambda x, y: _star_depth(x, y, 5, 0.51, 0.235, 0.035),
    "ring": lambda x, y: 0.125 - np.abs(np.sqrt(x * x + y * y) - 0.375),
}


@dataclass
class Scene:
    """One drawn picture and what lies in it, back to front."""

    pixels: np.ndarray  # (H, W, 3) uint8
    labels: np.ndarray  # (n,) int, places in CATEGORIES
    depths: np.ndarray  # (n, 2H+1, 2W+1) float32, pixels, of whole shapes; sample (r, c) is the point (c/2, r/2)

    @property
    def visible(self) -> np.ndarray:
        """(n, 2H+1, 2W+1) depths of the visible parts: positive where the object is seen."""
        return _visible(self.depths)


def _visible(depths: np.ndarray) -> np.ndarray:
    visible = depths.copy()
    for i in range(len(depths) - 1):
        np.minimum(visible[i], -depths[i + 1 :].max(0), out=visible[i])
    return visible


def _fits(depths: np.ndarray, short_side: int) -> bool:
    """Whether enough of each object is visible, and all centers are far enough apart for a grid cell each.

    Args:
        depths: (n, H, W) at the pixel centers, back to front.
        short_side: of the picture, pixels.
    """
    masks, whole = _visible(depths) > 0, depths > 0
    areas = masks.sum((1, 2))
    if (areas < MIN_VISIBLE * whole.sum((1, 2))).any() or not areas.all():
        return False
    rows = masks.sum(2) @ np.arange(masks.shape[1]) / areas
    columns = masks.sum(1) @ np.arange(masks.shape[2]) / areas
    gaps = np.hypot(rows - rows[:, None], columns - columns[:, None])
    return bool((gaps[np.triu_indices(len(gaps), 1)] >= MIN_DISTANCE * short_side).all())


def draw_scene(rng: np.random.Generator, size: tuple[int, int], max_objects: int, color_hint: float) -> Scene:
    """Draw one picture.

    Args:
        rng: decides everything.
        size: (height, width) in pixels.
        max_objects: at most so many; fewer are drawn where a picture has no room left.
        color_hint: probability that an object has its category's color; otherwise it has any hue.

    Returns:
        The picture with its objects back to front.
    """
    short = min(size)
    pixels = _background(rng, size)
    labels, depths = [], np.zeros((0, 2 * size[0] + 1, 2 * size[1] + 1), np.float32)
    count = 0 if rng.random() < EMPTY else int(rng.integers(1, max_objects + 1))
    for _ in range(count):
        label = int(rng.integers(len(CATEGORIES)))
        name = CATEGORIES[label].name
        side = short * rng.uniform(SMALLEST, LARGEST)
        for _ in range(10):  # places tried before the object is given up
            # About a seventh of its size may lie beyond the border.
            y, x = (rng.uniform(0.35 * side, extent - 0.35 * side) for extent in size)
            depth = _place(name, size, (x, y), side, turn=rng.uniform(0, 2 * np.pi))
            proposed = np.concatenate([depths, depth[None]])
            if _fits(proposed[:, 1::2, 1::2], short):
                hue = _HUES[name] + rng.uniform(-0.04, 0.04) if rng.random() < color_hint else rng.random()
                color = colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.6, 0.85), rng.uniform(0.78, 1.0))
                _paint(pixels, depth, np.array(color, np.float32), (x, y), side)
                labels.append(label)
                depths = proposed
                break
    pixels += np.float32(0.012) * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Scene((pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8), np.array(labels, dtype=int), depths)


def _around(middle: float, reach: float) -> slice:
    """The samples within `reach` of `middle`; numpy cuts the end where the array ends."""
    return slice(max(0, int(middle - reach)), int(middle + reach) + 1)


def _place(name: str, size: tuple[int, int], center: tuple[float, float], side: float, turn: float) -> np.ndarray:
    """(2H+1, 2W+1) float32 depth of one shape, exact near its box; far away it is `FAR`, which costs nothing."""
    depth = np.full((2 * size[0] + 1, 2 * size[1] + 1), FAR, np.float32)
    columns, rows = (_around(2 * c, 2 * (0.6 * side - FAR)) for c in center)
    x = (np.arange(depth.shape[1], dtype=np.float32)[None, columns] / 2 - np.float32(center[0])) / np.float32(side)
    y = (np.arange(depth.shape[0], dtype=np.float32)[rows, None] / 2 - np.float32(center[1])) / np.float32(side)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    depth[rows, columns] = _DEPTHS[name](cos * x + sin * y, cos * y - sin * x) * side
    return depth


def _background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32 in 0..1: two muted colors mixed by smooth noise of two scales."""
    blend = np.zeros(size, np.float32)
    for cells, weight in ((3, 0.7), (9, 0.3)):
        noise = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        blend += weight * np.asarray(noise.resize(size[::-1], Image.Resampling.BICUBIC))
    hue, value = rng.random(), rng.uniform(0.3, 0.92)
    first = colorsys.hsv_to_rgb(hue, rng.uniform(0.05, 0.2), value)
    second = colorsys.hsv_to_rgb((hue + rng.uniform(-0.15, 0.15)) % 1, rng.uniform(0.05, 0.2), value * 0.72)
    blend = blend.clip(0, 1)[..., None]
    return blend * np.float32(first) + (1 - blend) * np.float32(second)


def _paint(pixels: np.ndarray, depth: np.ndarray, color: np.ndarray, center: tuple[float, float], side: float) -> None:
    """Lay a shape over the picture, in place: its shadow, then its body, lighter towards the light, with a dark rim.

    Args:
        pixels: (H, W, 3) float in 0..1.
        depth: (2H+1, 2W+1) of the whole shape, pixels.
        color: (3,) in 0..1.
        center: (x, y) pixels.
        side: size of the shape, pixels.
    """
    window = tuple(_around(c, 0.6 * side - FAR + max(_SHADOW)) for c in center[::-1])
    pixels = pixels[window]
    rows, columns = (np.arange(extent)[part] for extent, part in zip(depth[1::2, 1::2].shape, window, strict=True))
    shifted = depth[(2 * (rows[:, None] - _SHADOW[0]) + 1).clip(0), (2 * (columns - _SHADOW[1]) + 1).clip(0)]
    shadow = ((shifted + 3) / 4).clip(0, 1)
    pixels *= 1 - 0.35 * (shadow * shadow)[..., None]
    depth = depth[1::2, 1::2][window]
    lit = _LIGHT[0] * (columns + 0.5 - center[0]) + _LIGHT[1] * (rows[:, None] + 0.5 - center[1])
    shade = (0.9 + 0.35 / side * lit.astype(np.float32)) * (1 - 0.3 * (1.8 - depth).clip(0, 1))
    cover = (depth + 0.5).clip(0, 1)[..., None]
    pixels += cover * (color * shade[..., None] - pixels)


def _thinned(ring: np.ndarray) -> np.ndarray:
    """A closed outline, (k,) complex, without the points that lie almost on the line between their neighbors."""
    for first in (1, 2) * 4:  # every other point at a time, so that no two neighbors go at once
        before, middle, after = ring[first - 1 : -2 : 2], ring[first:-1:2], ring[first + 1 :: 2]
        height = np.abs(((after - before).conj() * (middle - before)).imag)
        drop = height <= OUTLINE_TOLERANCE * np.abs(after - before)
        if len(ring) - drop.sum() < 4:
            break
        keep = np.ones(len(ring), bool)
        keep[first:-1:2] = ~drop
        ring = ring[keep]
    return ring


def _polygon_area(ring: np.ndarray) -> float:
    """Pixels inside a closed outline, (k,) complex x + iy."""
    return float(abs((ring[:-1].conj() * ring[1:]).imag.sum() + (ring[-1].conj() * ring[0]).imag) / 2)


def segment(visible: np.ndarray) -> dict:
    """The `segmentation`, `area` and `bbox` of a COCO annotation for one visible part.

    Args:
        visible: (2H+1, 2W+1) depth, as in `Scene.visible`.

    Returns:
        Polygons in original pixels where the part has no hole, else compressed RLE.
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
    points = np.concatenate(rings).view(float).reshape(-1, 2)
    low, high = points.min(0), points.max(0)
    return {
        "segmentation": [ring.view(float).tolist() for ring in rings],
        "area": round(sum(map(_polygon_area, rings)), 2),
        "bbox": np.concatenate([low, high - low]).round(2).tolist(),
    }


def write_shapes(
    root: str | Path,
    train_images: int = 1500,
    val_images: int = 200,
    size: int | tuple[int, int] = 96,
    max_objects: int = 4,
    seed: int = 0,
    color_hint: float = 0.9,
) -> None:
    """Write the data set, unless `root` holds just this one already.

    Files: `annotations/instances_{train,val}2017.json`, the pictures in `train2017` and `val2017`. The folder appears
    at once when complete, so an interrupted or a concurrent call leaves nothing half written. A picture depends on
    the seed, its split and its number alone: asking for more of them keeps the first ones.

    Args:
        root: folder to make; its parents are made too.
        size: (height, width) of the pictures in pixels, or one number for both.
        max_objects: largest number of objects in a picture.
        color_hint: 0..1, probability that an object has its category's color. At 1 color alone tells the category,
            at 0 only the outline does.

    Raises:
        UserError: a parameter is out of range, or `root` holds something that this function did not write.
    """
    root = Path(root)
    height, width = (size, size) if isinstance(size, int) else size
    sizes_are_fine = min(height, width) >= 32 and min(train_images, val_images, max_objects) >= 1
    if not (sizes_are_fine and seed >= 0 and 0 <= color_hint <= 1):
        raise UserError(
            "shapes: need size >= 32, train_images, val_images and max_objects >= 1, seed >= 0, color_hint in 0..1; "
            f"got {size=}, {train_images=}, {val_images=}, {max_objects=}, {seed=}, {color_hint=}"
        )
    stamp = {
        "data": "aggmask shapes", "version": VERSION, "train_images": train_images, "val_images": val_images,
        "size": [height, width], "max_objects": max_objects, "seed": seed, "color_hint": color_hint,
    }  # fmt: skip
    if _stamp_in(root) == stamp:
        return
    _check_ours(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as work:
        new = Path(work) / "new"
        (new / "annotations").mkdir(parents=True)
        for number, (split, images) in enumerate(zip(SPLITS, (train_images, val_images), strict=True)):
            _write_split(new, number, split, images, stamp)
        (new / STAMP).write_text(json.dumps(stamp, indent=1))
        _check_ours(root)
        try:
            if root.exists():
                os.rename(root, Path(work) / "old")
            os.rename(new, root)
        except OSError:
            if _stamp_in(root) != stamp:  # else another process wrote the same meanwhile
                raise


def _write_split(folder: Path, number: int, split: str, images: int, stamp: dict) -> None:
    """Pictures and annotation file of one split. Image ids are odd for the first split, even for the second."""
    (folder / split).mkdir()
    records, annotations = [], []
    height, width = stamp["size"]
    for index in range(images):
        rng = np.random.default_rng([stamp["seed"], number, index])
        scene = draw_scene(rng, (height, width), stamp["max_objects"], stamp["color_hint"])
        image_id = 2 * index + 1 + number
        record = {"id": image_id, "file_name": f"{image_id:012d}.jpg", "height": height, "width": width}
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(scene.pixels), quality=95, colorsubsampling="444")
        (folder / split / record["file_name"]).write_bytes(jpeg)
        records.append(record)
        for label, visible in zip(scene.labels, scene.visible, strict=True):
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": CATEGORIES[label].id, "iscrowd": 0}
            annotations.append(ids | segment(visible))
    categories = [{"id": c.id, "name": c.name, "supercategory": "shape"} for c in CATEGORIES]
    content = {"images": records, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content, separators=(",", ":")))


def _stamp_in(root: Path) -> dict | None:
    """What the folder says it was made from; None where it says nothing."""
    try:
        stamp = json.loads((root / STAMP).read_text())
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) and stamp.get("data") == "aggmask shapes" else None


def _check_ours(root: Path) -> None:
    if root.exists() and not (root.is_dir() and (_stamp_in(root) or not any(root.iterdir()))):
        raise UserError(
            f"{root} exists and was not written by the shapes data set (no {STAMP} of ours in it): "
            "nothing was changed. Name another folder, or move this one away."
        )

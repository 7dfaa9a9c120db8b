"""Drawing by depth maps (see `outlines`): outlines by formula, put at a place, and painted on a picture."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Callable

import numpy as np
from PIL import Image

Outline = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (x, y) -> depth, of a shape whose box is about 1 x 1

FAR = -4.0  # depth beyond which nothing depends on it (the shadow reaches 3 pixels)
REACH = 0.6  # of any outline from its center, in its size

_LIGHT = (-0.5, -0.85)  # (x, y) towards the light: upper left
_SHADOW = (2, 1)  # (rows, columns) in pixels


def star_depth(x: np.ndarray, y: np.ndarray, points: int, outer: float, inner: float, rounding: float) -> np.ndarray:
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


def polygon_depth(x: np.ndarray, y: np.ndarray, points: int, outer: float, rounding: float) -> np.ndarray:
    """Depth inside a regular polygon: a star whose notches lie on the chords between its tips."""
    return star_depth(x, y, points, outer, outer * float(np.cos(np.pi / points)), rounding)


def place(outline: Outline, size: tuple[int, int], center: tuple[float, float], side: float, turn: float) -> np.ndarray:
    """(2H+1, 2W+1) float32 depth of one shape, exact near its box; far away it is `FAR`, which costs nothing.

    Args:
        size: (height, width) of the picture in pixels.
        center: (x, y) pixels.
        side: size of the shape, pixels.
        turn: radians.
    """
    depth = np.full((2 * size[0] + 1, 2 * size[1] + 1), FAR, np.float32)
    columns, rows = (around(2 * c, 2 * (REACH * side - FAR)) for c in center)
    x = (np.arange(depth.shape[1], dtype=np.float32)[None, columns] / 2 - np.float32(center[0])) / np.float32(side)
    y = (np.arange(depth.shape[0], dtype=np.float32)[rows, None] / 2 - np.float32(center[1])) / np.float32(side)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    depth[rows, columns] = outline(cos * x + sin * y, cos * y - sin * x) * side
    return depth


def around(middle: float, reach: float) -> slice:
    """The samples within `reach` of `middle`; numpy cuts the end where the array ends."""
    return slice(max(0, int(middle - reach)), int(middle + reach) + 1)


def soft_background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
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


def paint(pixels: np.ndarray, depth: np.ndarray, color: np.ndarray, center: tuple[float, float], side: float) -> None:
    """Lay a shape over the picture, in place: its shadow, then its body, lighter towards the light, with a dark rim.

    Args:
        pixels: (H, W, 3) float in 0..1.
        depth: (2H+1, 2W+1) of the whole shape, pixels.
        color: (3,) or, of a texture, (H, W, 3) in 0..1.
        center: (x, y) pixels.
        side: size of the shape, pixels.
    """
    window = tuple(around(c, REACH * side - FAR + max(_SHADOW)) for c in center[::-1])
    pixels, color = pixels[window], color if color.ndim == 1 else color[window]
    rows, columns = (np.arange(extent)[part] for extent, part in zip(depth[1::2, 1::2].shape, window, strict=True))
    shifted = depth[(2 * (rows[:, None] - _SHADOW[0]) + 1).clip(0), (2 * (columns - _SHADOW[1]) + 1).clip(0)]
    shadow = ((shifted + 3) / 4).clip(0, 1)
    pixels *= 1 - 0.35 * (shadow * shadow)[..., None]
    depth = depth[1::2, 1::2][window]
    lit = _LIGHT[0] * (columns + 0.5 - center[0]) + _LIGHT[1] * (rows[:, None] + 0.5 - center[1])
    shade = (0.9 + 0.35 / side * lit.astype(np.float32)) * (1 - 0.3 * (1.8 - depth).clip(0, 1))
    cover = (depth + 0.5).clip(0, 1)[..., None]
    pixels += cover * (color * shade[..., None] - pixels)


def finished(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) float in 0..1, which is spent -> uint8 with a camera's noise."""
    pixels += np.float32(0.012) * rng.standard_normal(pixels.shape, dtype=np.float32)
    return (pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8)

"""Random textures: noise, stripes, checks and spots in two colors."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image


def texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32 in 0..1 of two random colors."""
    blend = (_noise, _stripes, _checks, _spots)[rng.integers(4)](rng, size)
    blend = blend + np.float32(0.25) * (_noise(rng, size) - np.float32(0.5))  # none is perfectly regular
    first, second = _colors(rng)
    blend = blend.clip(0, 1)[..., None]
    return blend * first + (1 - blend) * second


def _colors(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    hue, value = rng.random(), rng.uniform(0.3, 0.95)
    colors = (
        (hue, rng.uniform(0.1, 0.8), value),
        ((hue + rng.uniform(-0.15, 0.15)) % 1, rng.uniform(0.1, 0.8), value * rng.uniform(0.55, 0.85)),
    )
    first, second = (np.array(colorsys.hsv_to_rgb(*color), np.float32) for color in colors)
    return first, second


def _noise(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 of about 0..1: smooth noise of two scales."""
    blend = np.zeros(size, np.float32)
    for cells, weight in ((int(rng.integers(3, 8)), 0.6), (int(rng.integers(10, 40)), 0.4)):
        noise = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        blend += np.float32(weight) * np.asarray(noise.resize(size[::-1], Image.Resampling.BICUBIC))
    return blend


def _phases(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Two (H, W) float32 coordinates in periods, at right angles and turned at random."""
    period, turn = rng.uniform(0.03, 0.12) * min(size), rng.uniform(0, np.pi)
    y, x = (np.arange(extent, dtype=np.float32) / np.float32(period) for extent in size)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    start = np.float32(rng.random())
    return cos * x + sin * y[:, None] + start, cos * y[:, None] - sin * x


def _stripes(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    wave = np.sin(np.float32(2 * np.pi) * _phases(rng, size)[0])
    return (np.float32(rng.uniform(0.5, 2.5)) * wave + np.float32(0.5)).clip(0, 1)


def _checks(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    along, across = _phases(rng, size)
    return ((np.floor(along) + np.floor(across)) % 2).astype(np.float32)


def _spots(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    along, across = _phases(rng, size)
    from_middle = np.hypot(along % 1 - np.float32(0.5), across % 1 - np.float32(0.5))
    return (from_middle < np.float32(rng.uniform(0.2, 0.4))).astype(np.float32)

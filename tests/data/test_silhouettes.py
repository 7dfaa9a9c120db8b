"""Outlines by formula: their areas, and that a depth is a distance."""

import numpy as np
import pytest

from aggmask.data.outlines import segment
from aggmask.data.shapes import OUTLINES
from aggmask.data.silhouettes import paint, place


def rounded_area(corners, rounding):
    """Area within `rounding` of a polygon: its own, strips along its edges, arcs at tips, less overlaps at notches."""
    edges = np.roll(corners, -1) - corners
    turns = np.angle(edges / np.roll(edges, 1))
    area = (corners.conj() * np.roll(corners, -1)).imag.sum() / 2
    return area + rounding * abs(edges).sum() + rounding**2 * np.where(turns > 0, turns / 2, np.tan(turns / 2)).sum()


def star_corners(points, outer, inner):
    return np.exp(1j * np.pi / points * np.arange(2 * points)) * np.tile([outer, inner], points)


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("disk", np.pi / 4),
        ("ring", np.pi * (0.5**2 - 0.25**2)),
        ("square", rounded_area(0.54 * 1j ** np.arange(4), 0.06)),
        ("triangle", rounded_area(0.54 * np.exp(2j * np.pi / 3 * np.arange(3)), 0.06)),
        ("star", rounded_area(star_corners(5, 0.51, 0.235), 0.035)),
    ],
)
def test_each_shape_has_its_area_and_depth_is_a_distance(name, area):
    depth = place(OUTLINES[name], (96, 96), (48, 48), 50.0, turn=0.4)
    assert segment(depth)["area"] == pytest.approx(area * 50**2, rel=0.015)
    near = (np.abs(depth) < 1.5)[1:-1, 1:-1]
    gradient = np.hypot(depth[1:-1, 2:] - depth[1:-1, :-2], depth[2:, 1:-1] - depth[:-2, 1:-1])
    assert np.median(gradient[near]) == pytest.approx(1.0, abs=0.02)  # one pixel per pixel


def test_a_texture_is_painted_where_the_shape_lies():
    depth = place(OUTLINES["disk"], (64, 64), (32, 32), 40.0, turn=0)
    texture = np.zeros((64, 64, 3), np.float32)
    texture[:32, :, 0], texture[32:, :, 1] = 1, 1  # red above, green below
    pixels = np.full((64, 64, 3), 0.5, np.float32)
    paint(pixels, depth, texture, (32, 32), 40.0)
    assert pixels[24, 32].argmax() == 0
    assert pixels[40, 32].argmax() == 1
    assert (pixels[[24, 40], 32].min(1) < 0.05).all()
    assert (pixels[2, 2] == 0.5).all()

"""The embedded data set: drawn shapes that overlap, written to disk in COCO layout within seconds.

Not from a paper. It exists so that the demo, the tests and small studies need no download, and so that a tiny network
learns it within minutes: five clear silhouettes with soft shading on a muted background, each category with a
favorite color (`color_hint`), centers apart by about one cell of a 10 x 10 grid, since a cell holds only one object.
Category ids have gaps; 2 % of the pictures are empty.
"""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np

from aggmask.data.outlines import Scene
from aggmask.data.pile import Pile
from aggmask.data.silhouettes import Outline, finished, paint, place, polygon_depth, soft_background, star_depth
from aggmask.data.written import write_made
from aggmask.errors import UserError
from aggmask.structures import Category

CATEGORIES = (
    Category(1, "disk"),
    Category(2, "square"),
    Category(3, "triangle"),
    Category(5, "star"),
    Category(8, "ring"),
)
VERSION = 1  # count up when the same parameters give other pictures

EMPTY = 0.02  # share of pictures without an object
SMALLEST, LARGEST = 1 / 6, 7 / 12  # object size as a share of the short side: 16 and 56 at 96 pixels
MIN_VISIBLE = 0.4  # of each object's area inside the picture
MIN_DISTANCE = 0.1  # between visible centers of mass, share of the short side

_HUES = {"disk": 0.985, "square": 0.59, "triangle": 0.41, "star": 0.125, "ring": 0.80}
OUTLINES: dict[str, Outline] = {
    "disk": lambda x, y: 0.5 - np.sqrt(x * x + y * y),
    "square": lambda x, y: polygon_depth(x, y, 4, 0.54, 0.06),
    "triangle": lambda x, y: polygon_depth(x, y, 3, 0.54, 0.06),
    "star": lambda x, y: star_depth(x, y, 5, 0.51, 0.235, 0.035),
    "ring": lambda x, y: 0.125 - np.abs(np.sqrt(x * x + y * y) - 0.375),
}


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
    pixels = soft_background(rng, size)
    labels, pile = [], Pile(size, MIN_VISIBLE, MIN_DISTANCE * short)
    count = 0 if rng.random() < EMPTY else int(rng.integers(1, max_objects + 1))
    for _ in range(count):
        label = int(rng.integers(len(CATEGORIES)))
        name = CATEGORIES[label].name
        side = short * rng.uniform(SMALLEST, LARGEST)
        for _ in range(10):  # places tried before the object is given up
            # About a seventh of its size may lie beyond the border.
            y, x = (rng.uniform(0.35 * side, extent - 0.35 * side) for extent in size)
            depth = place(OUTLINES[name], size, (x, y), side, turn=rng.uniform(0, 2 * np.pi))
            if pile.lay(depth):
                hue = _HUES[name] + rng.uniform(-0.04, 0.04) if rng.random() < color_hint else rng.random()
                color = colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.6, 0.85), rng.uniform(0.78, 1.0))
                paint(pixels, depth, np.array(color, np.float32), (x, y), side)
                labels.append(label)
                break
    return Scene(finished(rng, pixels), np.array(labels, dtype=int), pile.depths)


def write_shapes(
    root: str | Path,
    train_images: int = 1500,
    val_images: int = 200,
    size: int | tuple[int, int] = 96,
    max_objects: int = 4,
    seed: int = 0,
    color_hint: float = 0.8,
) -> None:
    """Write the data set, unless `root` holds just this one already; see `written.write_splits`.

    Args:
        root: folder to make; its parents are made too.
        size: (height, width) of the pictures in pixels, or one number for both.
        max_objects: largest number of objects in a picture.
        color_hint: 0..1, probability that an object has its category's color. At 1 color alone tells the category,
            at 0 only the outline does.

    Raises:
        UserError: a parameter is out of range, or `root` holds something else.
    """
    if not 0 <= color_hint <= 1:
        raise UserError(f"shapes: color_hint must be in 0..1, got {color_hint=}")
    images = {"train2017": train_images, "val2017": val_images}
    write_made(
        root, "shapes", VERSION, CATEGORIES, images, least_size=32, size=size, max_objects=max_objects, seed=seed,
        draw=lambda rng, split, **asked: draw_scene(rng, **asked), color_hint=color_hint,
    )  # fmt: skip

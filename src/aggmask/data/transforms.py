"""How an image comes onto the network's canvas: a frame is chosen, and the pixels follow it.

Source: method.md section 8 (short side one of 640..800, long side <= 1333, flip 0.5); large-scale jitter from
"Simple Copy-Paste" (Ghiasi et al., 2021). Only the frame is random; everything annotated is mapped by the same frame.

Resizing is bilinear without antialias, as in the published pipeline (OpenCV). On uint8 in the decoder's own memory
order (a channels-last view) it takes a third of the time of planar pixels and a seventh of Pillow's, which
antialiases; without antialias it costs no more than with, and most COCO images are enlarged, where it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from aggmask.errors import UserError
from aggmask.geometry.frame import Frame, Size, fit_within


@dataclass(frozen=True)
class Resize:
    """The whole image, scaled to one of the short sides (pixels), or less where the long side would pass its limit.

    Attributes:
        short_sides: one is drawn per image, unless the caller says which.
        long_side: upper limit.
        flip: probability of a mirrored image.
    """

    short_sides: Sequence[int]
    long_side: int
    flip: float = 0.0

    def __call__(self, size: Size, rng: np.random.Generator, short_side: int | None = None) -> Frame:
        """The frame of an image of `size` (height, width), on a canvas of just its new size."""
        drawn, mirrored = rng.random(2)  # both always, so that the flip does not depend on who chose the short side
        if short_side is None:
            short_side = self.short_sides[int(drawn * len(self.short_sides))]
        return Frame.resized(size, fit_within(size, short_side, self.long_side), flip=bool(mirrored < self.flip))


@dataclass(frozen=True)
class LargeScaleJitter:
    """The image scaled by a random factor of what fills a square canvas, then cropped or padded to that square.

    Attributes:
        min_scale: factor 1 fits the image into the square (published: 0.1 to 2.0).
        size: side of the square, pixels.
        flip: probability of a mirrored image.
    """

    min_scale: float
    max_scale: float
    size: int
    flip: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.min_scale <= self.max_scale or self.size < 1:
            raise UserError(
                f"large_scale_jitter: needs 0 < min_scale <= max_scale and size >= 1, got min_scale={self.min_scale}, "
                f"max_scale={self.max_scale}, size={self.size}."
            )

    def __call__(self, size: Size, rng: np.random.Generator, short_side: int | None = None) -> Frame:
        """The frame of an image of `size` (height, width); `short_side` has no meaning here.

        Raises:
            ValueError: a short side is given.
        """
        if short_side is not None:
            raise ValueError("large-scale jitter draws its own scale: a short side cannot be asked for")
        scale = rng.uniform(self.min_scale, self.max_scale) * self.size / max(size)
        scaled = max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))
        content = min(scaled[0], self.size), min(scaled[1], self.size)
        offset = int(rng.integers(scaled[0] - content[0] + 1)), int(rng.integers(scaled[1] - content[1] + 1))
        return Frame(size, scaled, content, (self.size, self.size), offset, flip=bool(rng.random() < self.flip))


def apply_frame(image: np.ndarray, frame: Frame) -> Tensor:
    """(H, W, c) uint8 original -> (c, h, w) uint8 content of the frame, a channels-last view (its padding is left out).

    Raises:
        ValueError: the image has another size than the frame's original.
    """
    if image.shape[:2] != tuple(frame.original):
        raise ValueError(f"the image is {image.shape[:2]}, its frame is for {frame.original}")
    pixels = _channels_first(image)
    if frame.scaled != frame.original:
        pixels = F.resize(pixels, list(frame.scaled), InterpolationMode.BILINEAR, antialias=False)
    (top, left), (height, width) = frame.offset, frame.content
    pixels = pixels[:, top : top + height, left : left + width]
    return pixels.flip(-1) if frame.flip else pixels


@dataclass(frozen=True)
class ColorJitter:
    """Random brightness, contrast, saturation and hue, in random order.

    Attributes:
        brightness: the factor is drawn from [max(0, 1 - x), 1 + x]; contrast and saturation likewise.
        hue: shift drawn from [-x, x], in turns of the color circle, at most 0.5. Costs more than all the rest of
            loading an image: 27 ms for 640 x 480 on one core, where the others cost 1 to 5.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        if min(self.brightness, self.contrast, self.saturation) < 0 or not 0 <= self.hue <= 0.5:
            raise UserError(f"color_jitter: values must be >= 0 and hue in 0..0.5, got {self}.")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(H, W, 1, 3 or 4) uint8 -> the same shape and type. Opacity stays, and grey has no saturation nor hue."""
        pixels = _channels_first(image[..., :3])
        shares = rng.uniform(-1, 1, size=4)
        adjustments: list[tuple[Callable, float, float]] = [
            (F.adjust_brightness, self.brightness, 1.0),
            (F.adjust_contrast, self.contrast, 1.0),
            (F.adjust_saturation, self.saturation, 1.0),
            (F.adjust_hue, self.hue, 0.0),
        ]
        for i in rng.permutation(4):
            adjust, reach, middle = adjustments[i]
            if reach:
                # a reach above 1 widens the range upwards only: a negative factor would invert the picture
                low = max(0.0, middle - reach) if middle else -reach
                factor = low + (shares[i] + 1) / 2 * (middle + reach - low)
                pixels = adjust(pixels, float(factor))
        jittered = pixels.permute(1, 2, 0).numpy()
        return np.ascontiguousarray(np.concatenate([jittered, image[..., 3:]], 2) if image.shape[2] > 3 else jittered)


def _channels_first(image: np.ndarray) -> Tensor:
    """(H, W, c) array -> (c, H, W) view of it; of a copy where the array is read-only, which torch cannot hold."""
    return torch.from_numpy(image if image.flags.writeable else image.copy()).permute(2, 0, 1)

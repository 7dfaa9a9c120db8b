"""Pictures of more than 8 bits: one scale for a data set, by their type or as told.

One thing is told by a picture's own values: where 8 bits hold them, they are taken for such, since on a scale of 16
bits nothing would be seen of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from aggmask.errors import UserError


class UnknownScale(UserError):
    """Pictures of this kind need `data.value_range`, or other files: none of them is damaged."""


WHITE = 65535  # of integers; floats are white at 1
Range = tuple[float, float]  # values that are black and white


def as_range(given: float | Sequence[float] | None) -> Range | None:
    """`data.value_range`: the value that is white, or those that are black and white; None: by the type.

    Raises:
        UserError: it is neither, or black is not below white.
    """
    if given is None:
        return None
    ends = (0, given) if isinstance(given, int | float) else tuple(given)
    if len(ends) != 2 or not all(isinstance(end, int | float) for end in ends) or not ends[0] < ends[1]:
        raise UserError(
            f"data.value_range={given}: use null, what is white (4095), or what is black and white ([0, 1])."
        )
    return float(ends[0]), float(ends[1])


def eight_bits(values: np.ndarray, value_range: Range | None = None) -> np.ndarray:
    """uint8 of deeper values, of any shape: integers / 257 or up to 255 as they are, floats * 255 (0 for no number).

    Args:
        value_range: what is black and white instead; values beyond are cut.

    Raises:
        UnknownScale: values outside of 0..65535, floats outside of 0..1.
    """
    floats = values.dtype.kind == "f"
    if floats:
        values = np.where(np.isfinite(values), values, 0)
    if value_range is not None:
        low, high = value_range
        return np.rint((values.clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)
    white = 1 if floats else WHITE
    if values.min() < 0 or values.max() > white:
        raise UnknownScale(
            f"its values lie in {values.min():g}..{values.max():g}, but those of a picture of {values.dtype} must lie "
            f"in 0..{white}: say data.value_range=[LOWEST,HIGHEST] of the data set"
        )
    if floats:
        return np.rint(values * 255).astype(np.uint8)
    return (values if values.max() <= 255 else (values.astype(np.int32) + 128) // 257).astype(np.uint8)


def shallow(image: Image.Image, value_range: Range | None = None) -> Image.Image:
    """A Pillow picture, of 8 bits where it has more; see `eight_bits`."""
    return Image.fromarray(eight_bits(np.asarray(image), value_range)) if is_deep(image) else image


def is_deep(image: Image.Image) -> bool:
    """Whether a Pillow picture has one channel of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def largest_share(image: Image.Image, value_range: Range | None = None) -> float | None:
    """Largest value of a picture that has just been opened, as a share of white; None where 8 bits hold it."""
    low, high = value_range or (0, 1 if image.mode == "F" else WHITE)
    if image.mode == "F":
        values = np.asarray(image)
        return (float(np.where(np.isfinite(values), values, 0).max()) - low) / (high - low)
    if image.mode.startswith("I"):
        largest = float(np.asarray(image).max())
        return None if value_range is None and largest <= 255 else (largest - low) / (high - low)
    if any(re.search(r";16[BLN]", str(tile.args)) for tile in image.tile):  # colors: Pillow gives their upper 8 bits
        if value_range is not None:
            raise UnknownScale("data.value_range is for pictures of one channel; save those in color with 8 bits")
        return float(np.asarray(image).max()) / 255
    return None


def too_dark(name: str, largest: float, value_range: Range | None = None) -> str:
    """What is wrong with deep pictures that use no more than the share `largest` of their range."""
    low, high = value_range or (0, WHITE)
    value = low + largest * (high - low)
    return (
        f"The largest value of {name} is {value:.6g} of {high:.6g}: made for another range, they are seen nearly "
        "black. data.value_range says what is white (12 bits: 4095); in color, write them anew with 8 bits."
    )

"""Pictures of more than 8 bits: one scale by their type, whatever their values, so that a data set has one, too."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from aggmask.errors import UserError

WHITE = 65535  # of integers; floats are white at 1


def eight_bits(values: np.ndarray) -> np.ndarray:
    """uint8 of deeper values, of any shape: integers / 257, floats * 255 (0 where they are no number).

    Raises:
        UserError: values outside of 0..65535, floats outside of 0..1.
    """
    floats = values.dtype.kind == "f"
    if floats:
        values = np.where(np.isfinite(values), values, 0)
    white = 1 if floats else WHITE
    if values.min() < 0 or values.max() > white:
        raise UserError(
            f"its values lie in {values.min():g}..{values.max():g}, but those of a picture of {values.dtype} must lie "
            f"in 0..{white}: save it with 8 or 16 bits, all pictures on the same scale"
        )
    return (np.rint(values * 255) if floats else (values.astype(np.int32) + 128) // 257).astype(np.uint8)


def largest_share(image: Image.Image) -> float | None:
    """Largest value of a picture that has just been opened, as a share of white; None where it has 8 bits."""
    if image.mode == "F":
        values = np.asarray(image)
        return float(np.where(np.isfinite(values), values, 0).max())
    if image.mode.startswith("I"):
        return float(np.asarray(image).max()) / WHITE
    if any(re.search(r";16[BLN]", str(tile.args)) for tile in image.tile):  # colors: Pillow gives their upper 8 bits
        return float(np.asarray(image).max()) / 255
    return None


def too_dark(name: str, largest: float) -> str:
    """What is wrong with deep pictures that use no more than the share `largest` of their range."""
    return (
        f"The largest value of {name} is {largest * WHITE:.0f} of {WHITE}: made for another range, they are seen "
        "nearly black. Write such pictures anew with all values multiplied by the same number (12 bits, 4095: by 16), "
        "or with 8 bits."
    )

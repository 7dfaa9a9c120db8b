"""From the original image to the network's canvas and back (method.md sections 7.7 and 8), side by side.

A frame says: resize the original to `scaled`, cut out the window that starts at `offset` and has the size `content`,
mirror it if `flip`, and lay it at the top left of a `padded` canvas. Points are continuous: the pixel in row r and
column c covers [c, c + 1) x [r, r + 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # (height, width)
CANVAS_MULTIPLE = 32  # of which the sides of a canvas are multiples: the coarsest stride of the backbone


@dataclass(frozen=True)
class Frame:
    """How one image lies on its canvas. All sizes are (height, width) in pixels."""

    original: Size
    scaled: Size
    content: Size  # what is visible on the canvas: `scaled`, unless a crop cuts it
    padded: Size
    offset: tuple[int, int] = (0, 0)  # (row, column) of the crop in the scaled image
    flip: bool = False

    @classmethod
    def resized(cls, original: Size, scaled: Size, flip: bool = False) -> Frame:
        """The whole image at a new size, on a canvas of just that size; `on_canvas` makes the canvas larger."""
        return cls(original, scaled, scaled, scaled, flip=flip)

    def on_canvas(self, padded: Size) -> Frame:
        """The same image on a larger canvas, its top left corner kept.

        Raises:
            ValueError: the content does not fit.
        """
        if padded[0] < self.content[0] or padded[1] < self.content[1]:
            raise ValueError(f"content {self.content} does not fit on a canvas {padded}")
        return replace(self, padded=padded)

    @property
    def scale(self) -> tuple[float, float]:
        """Network pixels per original pixel, (vertical, horizontal)."""
        return self.scaled[0] / self.original[0], self.scaled[1] / self.original[1]

    def points_to_network(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) float (x, y) points of the original frame -> the network frame (they may lie off the content)."""
        vertical, horizontal = self.scale
        out = points * np.array([horizontal, vertical]) - np.array(self.offset[::-1])
        if self.flip:
            out[..., 0] = self.content[1] - out[..., 0]
        return out

    def points_to_original(self, points: np.ndarray) -> np.ndarray:
        """The inverse of `points_to_network`."""
        out = np.array(points, dtype=np.float64)
        if self.flip:
            out[..., 0] = self.content[1] - out[..., 0]
        vertical, horizontal = self.scale
        return (out + np.array(self.offset[::-1])) / np.array([horizontal, vertical])

    def masks_to_original(self, masks: Tensor, chunk_pixels: int = 2**25, threshold: float = 0.5) -> Iterator[Tensor]:
        """Soft masks of the canvas -> bool masks of the original image, a few at a time.

        Bilinear to the padded size, cut to the content, bilinear to the original size, threshold
        (method.md section 7.7). Memory is bounded by the chunk, not by the number of masks.

        Args:
            masks: (n, h, w) probabilities; h x w covers the padded canvas at some stride.
            chunk_pixels: pixels of float mask held at once (at least one mask is).

        Yields:
            (k, H, W) bool in the original frame; nothing when n = 0.

        Raises:
            ValueError: the frame is a crop: what lies outside of it cannot be known.
        """
        per_mask = max(self.padded[0] * self.padded[1], self.original[0] * self.original[1])
        for part in masks.split(max(1, chunk_pixels // per_mask)) if len(masks) else ():
            yield self.maps_to_original(part, self.original) > threshold

    def maps_to_original(self, maps: Tensor, size: Size, mode: str = "bilinear") -> Tensor:
        """(n, h, w) maps of the canvas -> (n, *size) float: what they say of the whole original image, at some size.

        Args:
            mode: of the way to the padded size; "nearest" for maps of cells, whose edges are to be seen.

        Raises:
            ValueError: the frame is a crop: what lies outside of it cannot be known.
        """
        if self.content != self.scaled:
            raise ValueError(f"masks of a crop {self.content} of {self.scaled} cannot return to the original")
        full = F.interpolate(maps[:, None].float(), size=self.padded, mode=mode)
        full = full[..., : self.content[0], : self.content[1]]
        full = F.interpolate(full, size=size, mode="bilinear")[:, 0]
        return full.flip(-1) if self.flip else full

    def boxes_to_network(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 4) x1 y1 x2 y2 boxes of the original frame -> the network frame, clipped to the content."""
        corners = self.points_to_network(np.asarray(boxes, dtype=np.float64).reshape(-1, 2, 2))
        corners = np.clip(corners, 0, np.array(self.content[::-1], dtype=np.float64))
        return np.concatenate([corners.min(1), corners.max(1)], axis=1)


def pad_to_multiple(size: Size, multiple: int) -> Size:
    """The smallest (height, width) that holds `size` and is divisible by `multiple`."""
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def fit_within(size: Size, short_side: int, long_side: int) -> Size:
    """`size` scaled to `short_side`, or less where the long side would pass `long_side` (published: 800 / 1333).

    Each side is at least one pixel, and is rounded half up as in the published pipeline.
    """
    short, long = min(size), max(size)
    scale = min(short_side / short, long_side / long)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def content_mask(frames: list[Frame], device: torch.device | str = "cpu") -> Tensor:
    """(B, 1, H, W) bool: where each canvas shows its image and not padding."""
    height, width = frames[0].padded
    rows = torch.arange(height, device=device)[None, :, None]
    columns = torch.arange(width, device=device)[None, None, :]
    content = torch.tensor([f.content for f in frames], device=device)
    return ((rows < content[:, 0, None, None]) & (columns < content[:, 1, None, None]))[:, None]

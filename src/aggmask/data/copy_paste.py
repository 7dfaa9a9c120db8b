"""Objects of a second image laid over the first ("Simple Copy-Paste", Ghiasi et al., 2021).

Both images get frames of their own, and the chosen objects keep their place on the canvas. What they hide is taken from
the objects below: pixels, area, center of mass, box and mask; what is hidden wholly is gone. Only the network pixels of
one object at a time are painted, in the window that it touches.

Differences from the paper: objects are pasted into the content of the first image alone (its padding stays padding),
and borders are not blended, which the paper finds to make no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from aggmask.data.raster import Patch, Segmentation, patch_of, rasterize
from aggmask.errors import UserError
from aggmask.geometry.frame import Frame
from aggmask.structures import Objects, joined


@dataclass(frozen=True)
class CopyPaste:
    """How often and how much.

    Attributes:
        probability: of an image that gets objects of another one.
        max_objects: at most so many of them; None: at most all. Between 1 and this many are drawn.
    """

    probability: float = 0.5
    max_objects: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1 or (self.max_objects is not None and self.max_objects < 1):
            raise UserError(
                f"data.copy_paste: needs a probability in 0..1 and max_objects >= 1 or null, got {self.probability} "
                f"and {self.max_objects}."
            )

    def choose(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(k,) places of the objects that are pasted, of `count`, in their order."""
        most = count if self.max_objects is None else min(count, self.max_objects)
        return np.sort(rng.choice(count, int(rng.integers(1, most + 1)), replace=False)) if count else np.arange(0)


@dataclass(frozen=True)
class Framed:
    """An image in its frame with its objects, before it is a batch."""

    pixels: Tensor  # (C, h, w) uint8, the frame's content
    frame: Frame
    objects: Objects  # n
    segmentations: Sequence[Segmentation]  # of the n objects

    def __getitem__(self, keep: np.ndarray) -> Framed:
        """The same image with some of its objects, by their places."""
        segmentations = [self.segmentations[k] for k in keep]
        return replace(self, objects=self.objects[torch.from_numpy(keep)], segmentations=segmentations)


def pasting_frame(source: Frame, target: Frame) -> Frame:
    """The frame of an image whose objects are pasted: what of it lies on the target's content."""
    content = min(source.content[0], target.content[0]), min(source.content[1], target.content[1])
    return replace(source, content=content, padded=target.padded)


def paste(target: Framed, source: Framed, stride: int) -> Framed:
    """The target with all objects of the source over its own. Its pixels are changed in place.

    Args:
        source: in a `pasting_frame` of the target.
        stride: of the masks.
    """
    hidden = np.zeros(target.frame.content, bool)
    for segmentation in source.segmentations:
        patch = patch_of(segmentation, source.frame)
        if patch is not None:
            patch.of(hidden)[...] |= patch.pixels
    height, width = source.frame.content
    old, new = (pixels[:, :height, :width].permute(1, 2, 0).numpy() for pixels in (target.pixels, source.pixels))
    np.copyto(old, new, where=hidden[:height, :width, None])
    below = _uncovered(target, hidden, stride)
    segmentations = [*below.segmentations, *source.segmentations]
    return replace(below, objects=joined([below.objects, source.objects])[0], segmentations=segmentations)


def _uncovered(target: Framed, hidden: np.ndarray, stride: int) -> Framed:
    """What the (h, w) hidden pixels of the content leave of the target's objects."""
    objects, left = target.objects, []
    for k, segmentation in enumerate(target.segmentations):
        patch = patch_of(segmentation, target.frame)
        if patch is not None and (covered := patch.of(hidden) & patch.pixels).any():
            segmentation = Patch(patch.top, patch.left, patch.pixels & ~covered)
            masks, centers, areas = rasterize([segmentation], target.frame, stride)
            objects.masks[stride][k] = torch.from_numpy(masks[0])
            objects.centers[k], objects.areas[k] = torch.from_numpy(centers[0]), float(areas[0])
            if areas[0]:
                objects.boxes[k] = torch.tensor(segmentation.box)
        left.append(segmentation)
    return replace(target, objects=objects, segmentations=left)[np.flatnonzero(objects.areas > 0)]

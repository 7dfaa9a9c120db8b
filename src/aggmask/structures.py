"""The nouns of the package: what one room hands to another.

Letters in shapes: B images of a batch, n objects of one image, K asked cells, S category grid, T mask grid, C feature
channels, H x W and h x w map sizes. "Original frame" is the picture as a viewer shows it; "network frame" is the
resized (and maybe flipped or cropped) picture on its padded canvas, in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class GridLevel:
    """One head level: where its features lie, how its grids are cut, which objects it is responsible for.

    Attributes:
        stride: network-input pixels per feature cell.
        grid: S, cells along each side of the category grid.
        mask_grid: T <= S, cells along each side of the mask grid.
        min_size: smallest sqrt(width * height) of an object's box, network pixels, included.
        max_size: largest, included.
    """

    stride: int
    grid: int
    mask_grid: int
    min_size: float
    max_size: float


@dataclass(frozen=True)
class Cells:
    """K asked category cells of one level."""

    image: Tensor  # (K,) long: position of the image in the batch
    index: Tensor  # (K,) long: row-major cell on the S x S grid

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: Any) -> Cells:
        return Cells(self.image[key], self.index[key])


class MaskField(Protocol):
    """What a head knows about the masks of one level, without having painted any."""

    maps_per_cell: float  # (H, W) maps of an asked cell that are held at once, at most

    def at(self, cells: Cells) -> Tensor:
        """K cells, their images ascending -> (K, H, W) mask logits."""


@dataclass(frozen=True)
class LevelOutput:
    """What the head says about one level."""

    level: GridLevel
    mask_stride: int  # network pixels per pixel of the field's masks
    logits: Tensor  # (B, classes, S, S) category logits
    field: MaskField  # ask it for masks, of cells whose images ascend


@dataclass(frozen=True)
class GridTargets:
    """What one level should say about a batch: categories everywhere, masks at the K positive cells only."""

    labels: Tensor  # (B, S, S) long: class of the cell; the number of classes stands for background
    cells: Cells  # the K positive cells, by image, then by cell; repeated where a cell learns several masks
    masks: Tensor  # (n, h, w) uint8 0/1 at the level's output stride, one for each object that has cells
    which: Tensor  # (K,) long: the mask that each cell learns; masks[which] are as many as the cells

    def part(self, first: int, last: int) -> GridTargets:
        """Those of the images first to last - 1, which are counted from 0 again; the masks are not copied."""
        here = (self.cells.image >= first) & (self.cells.image < last)
        cells = Cells(self.cells.image[here] - first, self.cells.index[here])
        return GridTargets(self.labels[first:last], cells, self.masks, self.which[here])


def _each_tensor(record: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same record with `change` applied to every tensor in its fields."""

    def changed(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        return {key: changed(item) for key, item in value.items()} if isinstance(value, dict) else value

    return replace(record, **{f.name: changed(getattr(record, f.name)) for f in fields(record)})


class _Indexed:
    """Index all tensor fields at once; other fields (sizes, vocabularies) are kept as they are."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, keep: Any):
        return _each_tensor(self, lambda values: values[keep])


@dataclass
class Objects(_Indexed):
    """The n annotated objects of one image, in the network frame, in order of annotation (crowds left out).

    `masks` maps an output stride to bitmaps of the padded canvas at that stride; the finest is given, coarser ones are
    averaged from it when asked for.
    """

    labels: Tensor  # (n,) long, contiguous from 0
    boxes: Tensor  # (n, 4) float x1 y1 x2 y2, network pixels
    centers: Tensor  # (n, 2) double (x, y) center of mass of the full-resolution mask, pixel indices (no +0.5)
    areas: Tensor  # (n,) float, pixels of the full-resolution network-frame mask
    masks: dict[int, Tensor]  # stride -> (n, h, w) uint8 0/1

    def masks_at(self, stride: int) -> Tensor:
        """(n, h, w) uint8 bitmaps at `stride`: kept as given, else averaged from the finest and rounded half up."""
        if stride in self.masks:
            return self.masks[stride]
        finest = min(self.masks)
        if stride % finest:
            raise ValueError(f"masks at stride {stride} cannot be averaged from stride {finest}")
        if not len(self):
            h, w = self.masks[finest].shape[-2:]
            return self.masks[finest].new_zeros((0, h * finest // stride, w * finest // stride))
        return (F.avg_pool2d(self.masks[finest].float()[None], stride // finest)[0] >= 0.5).to(torch.uint8)

    def to(self, *args: Any, **kwargs: Any) -> Objects:
        return _each_tensor(self, lambda values: values.to(*args, **kwargs))

    def pin_memory(self) -> Objects:
        return _each_tensor(self, Tensor.pin_memory)


def joined(objects: Sequence[Objects]) -> tuple[Objects, Tensor]:
    """The objects of several images, one image after another, and (n,) long: the image of each.

    Args:
        objects: of at least one image. With masks on canvases of one size, at the strides that all of them have.

    Raises:
        ValueError: there are masks, but at no stride that all have.
    """
    counts = torch.tensor([len(found) for found in objects], device=objects[0].labels.device)
    images = torch.arange(len(objects), device=counts.device)
    given = [set(found.masks) for found in objects]
    strides = set.intersection(*given)
    if not strides and any(given):
        raise ValueError(f"objects with masks at strides {given} have none in common")
    values = {
        name: torch.cat([getattr(found, name) for found in objects]) for name in ("labels", "boxes", "centers", "areas")
    }
    masks = {stride: torch.cat([found.masks[stride] for found in objects]) for stride in sorted(strides)}
    return Objects(**values, masks=masks), images.repeat_interleave(counts, output_size=sum(map(len, objects)))


@dataclass
class ImageBatch:
    """B images on one padded canvas. `objects` is empty for pictures without annotations at hand (prediction)."""

    pixels: Tensor  # (B, channels, H, W) uint8, network frame; outside each image's content the values mean nothing
    frames: list  # of geometry.frame.Frame: how each image came from its original
    image_ids: list[int]
    objects: list[Objects] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # what was wrong with images that should have been here

    def __len__(self) -> int:
        return len(self.frames)

    def part(self, first: int, last: int) -> ImageBatch:
        """The images first to last - 1, on the same canvas."""
        here = slice(first, last)
        return ImageBatch(self.pixels[here], self.frames[here], self.image_ids[here], self.objects[here])

    def to(self, *args: Any, **kwargs: Any) -> ImageBatch:
        objects = [o.to(*args, **kwargs) for o in self.objects]
        return replace(self, pixels=self.pixels.to(*args, **kwargs), objects=objects)

    def pin_memory(self) -> ImageBatch:
        return replace(self, pixels=self.pixels.pin_memory(), objects=[o.pin_memory() for o in self.objects])


@dataclass
class Detections(_Indexed):
    """The n objects found in one image, in the network frame, best first, before they return to the original."""

    scores: Tensor  # (n,) float, after Matrix NMS
    labels: Tensor  # (n,) long, contiguous from 0
    masks: Tensor  # (n, h, w) float probabilities on the padded canvas
    levels: Tensor  # (n,) long: head level of the cell
    cells: Tensor  # (n,) long: row-major cell on that level's grid


@dataclass
class Instances(_Indexed):
    """n objects in the original image frame."""

    masks: Tensor  # (n, H, W) bool; `geometry.cropped.CroppedMasks` where they are only looked at one by one
    scores: Tensor  # (n,) float
    labels: Tensor  # (n,) long, contiguous from 0
    categories: Sequence[Category] = ()

    def __getitem__(self, keep: Any) -> Instances:
        return replace(self, masks=self.masks[keep], scores=self.scores[keep], labels=self.labels[keep])

    @classmethod
    def empty(cls, size: tuple[int, int], categories: Sequence[Category] = ()) -> Instances:
        """No object in an image of `size` (height, width)."""
        masks = torch.zeros((0, *size), dtype=torch.bool)
        return cls(masks, torch.zeros(0), torch.zeros(0, dtype=torch.long), categories)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return tuple(self.masks.shape[-2:])

    @property
    def boxes(self) -> Tensor:
        """(n, 4) float x1 y1 x2 y2 around each mask, half-open, original pixels; zeros for an empty mask."""
        boxes = torch.zeros(len(self), 4)
        for box, mask in zip(boxes, self.masks, strict=True):
            rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
            if len(rows):
                box[:] = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
        return boxes

    @property
    def names(self) -> list[str]:
        """Category name of each object; the class number where the categories are unknown."""
        return [self.categories[i].name if i < len(self.categories) else str(i) for i in self.labels.tolist()]


@dataclass(frozen=True)
class Category:
    """One category of a data set: its id in the annotation file and its name. Its label is its place in the list."""

    id: int
    name: str

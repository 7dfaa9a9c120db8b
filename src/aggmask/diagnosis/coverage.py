"""Which objects of a data set get a cell of the grids, and what becomes of the others.

Asked of the assigner that training uses, on each image alone on its canvas at the evaluation's size. (In training,
canvases and sizes vary from batch to batch, and with them the cells.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aggmask.data.index import AnnotationIndex, ImageAnnotations
from aggmask.data.raster import rasterize
from aggmask.data.transforms import Resize
from aggmask.diagnosis.structure import Progress
from aggmask.geometry.frame import CANVAS_MULTIPLE, Frame, pad_to_multiple
from aggmask.geometry.grid import MASK_STRIDE
from aggmask.structures import GridLevel, Objects, joined
from aggmask.supervision.assign import Assigner

FATES = ("whole", "in part", "overwritten", "out of range", "too small")  # all cells claimed, some of them, none, ...
WHOLE, IN_PART, OVERWRITTEN, OUT_OF_RANGE, TOO_SMALL = range(len(FATES))  # from the third on it is never learned
SIZES = ((0, 32**2, "small, < 32 x 32"), (32**2, 96**2, "medium"), (96**2, np.inf, "large, > 96 x 96"))  # of COCO


@dataclass(frozen=True)
class Population:
    """The m objects of N images of a data set, each on its image's canvas; no masks."""

    images: np.ndarray  # (N,) places in the index
    image: Tensor  # (m,) long: which of the N
    canvas: Tensor  # (m, 2) long (height, width), network pixels
    objects: Objects  # m, network frame
    original_areas: np.ndarray  # (m,) `area` of the annotations, pixels of the original
    ids: np.ndarray  # (m,) annotation ids


@dataclass(frozen=True)
class Coverage:
    """What L levels do with the m objects of a population."""

    levels: tuple[GridLevel, ...]
    claimed: Tensor  # (m, L) long: cells that an object claims
    owned: Tensor  # (m, L) long: cells that it gets
    fates: np.ndarray  # (m,) place in FATES

    def shares(self, chosen: np.ndarray | None = None) -> np.ndarray:
        """(len(FATES),) share of the objects (of the chosen ones, (m,) bool) that meet each fate."""
        fates = self.fates if chosen is None else self.fates[chosen]
        return np.bincount(fates, minlength=len(FATES)) / max(1, len(fates))

    @property
    def lost(self) -> np.ndarray:
        """(m,) bool: objects that no cell learns."""
        return self.fates >= OVERWRITTEN

    def overwritten_at(self, level: int) -> float:
        """Share of the objects in the level's range that lose all their cells of this level."""
        claimed, owned = self.claimed[:, level] > 0, self.owned[:, level] > 0
        return float((claimed & ~owned).sum() / claimed.sum().clamp(min=1))


def spread(count: int, most: int) -> np.ndarray:
    """(min(count, most),) numbers below `count`, evenly from the whole."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)) if count and most else np.arange(0)


def populate(index: AnnotationIndex, resize: Resize, images: np.ndarray, progress: Progress = iter) -> Population:
    """The objects of these images (places in the index) at the size that `resize` gives; no image is read."""
    canvases, found, areas, ids = [], [], [], []
    no_random = np.random.default_rng(0)
    for i in progress(images.tolist()):
        size = tuple(index.sizes[i].tolist())
        frame = resize(size, no_random, max(resize.short_sides))
        canvas = pad_to_multiple(frame.content, CANVAS_MULTIPLE)
        annotations = index.annotations(i)
        objects = _objects(annotations, frame.on_canvas(canvas))
        canvases += [canvas] * len(objects)
        found.append(objects)
        areas.append(annotations.areas[~annotations.crowd])
        ids.append(annotations.ids[~annotations.crowd])
    empty = Objects(torch.zeros(0).long(), torch.zeros(0, 4), torch.zeros(0, 2).double(), torch.zeros(0), {})
    together, owner = joined([empty, *found])
    return Population(
        images=images,
        image=owner - 1,
        canvas=torch.tensor(canvases, dtype=torch.long).reshape(-1, 2),
        objects=together,
        original_areas=np.concatenate([np.zeros(0), *areas]),
        ids=np.concatenate([np.zeros(0, np.int64), *ids]),
    )


def _objects(annotations: ImageAnnotations, frame: Frame) -> Objects:
    """The objects of an image as training sees them, also those without an area in the frame; no masks."""
    single = np.flatnonzero(~annotations.crowd)
    _, centers, areas = rasterize([annotations.segmentations[k] for k in single], frame, MASK_STRIDE)
    boxes = annotations.boxes[single].copy()
    boxes[:, 2:] += boxes[:, :2]
    return Objects(
        labels=torch.from_numpy(annotations.labels[single]),
        boxes=torch.from_numpy(frame.boxes_to_network(boxes)).float(),
        centers=torch.from_numpy(centers),
        areas=torch.from_numpy(areas).float(),
        masks={},
    )


def cover(population: Population, levels: Sequence[GridLevel], assigner: Assigner) -> Coverage:
    """Send a population to the cells of some levels."""
    counts = [_cells(population, level, assigner) for level in levels]
    claimed, owned = (torch.stack(columns, dim=1) for columns in zip(*counts, strict=True))
    fates = np.select(
        [(owned > 0).any(1) & (owned == claimed).all(1), (owned > 0).any(1), (claimed > 0).any(1),
         population.objects.areas >= assigner.min_area],
        [WHOLE, IN_PART, OVERWRITTEN, OUT_OF_RANGE], TOO_SMALL,
    )  # fmt: skip
    return Coverage(tuple(levels), claimed, owned, fates)


def _cells(population: Population, level: GridLevel, assigner: Assigner) -> tuple[Tensor, Tensor]:
    """(m,) cells that each object claims on a level, and how many of them it gets."""
    claimed = torch.zeros(len(population.image), dtype=torch.long)
    owned = claimed.clone()
    for canvas in population.canvas.unique(dim=0).tolist():
        here = (population.canvas == torch.tensor(canvas)).all(1).nonzero()[:, 0]
        images, image = population.image[here].unique(return_inverse=True)
        claimant, cell = assigner.claims(level, population.objects[here], image, tuple(canvas))
        gets = assigner.owners(claimant, cell, len(images) * level.grid**2)[cell] == claimant
        claimed[here] = torch.bincount(claimant, minlength=len(here))
        owned[here] = torch.bincount(claimant[gets], minlength=len(here))
    return claimed, owned

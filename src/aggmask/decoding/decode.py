"""Head outputs of a batch -> detections in the network frame (method.md section 7, steps 1 to 6).

Memory is bounded: candidates are aggregated a chunk at a time, sized to a budget, and of those seen no more than twice
`nms_pre` masks are kept, three times while the best are picked. A cell that is a candidate for several classes is
aggregated once, one that can no longer be among the best not at all.

How large a chunk is changes no bit of the result on a CPU (tried on one, for maps of 8 pixels or more): libraries round
differently where rows of a matrix are few or odd, so there the last cell of a chunk is repeated up to a multiple
of 8 cells, and `KernelBank` multiplies in tiles. On a GPU nobody promises as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aggmask.decoding.matrix_nms import Decay, matrix_decay
from aggmask.errors import UserError
from aggmask.geometry.cropped import CroppedMasks
from aggmask.geometry.frame import Frame
from aggmask.geometry.grid import MASK_STRIDE
from aggmask.structures import Category, Cells, Detections, Instances, LevelOutput

_TILE = 8  # cells that are aggregated together at least
_ROUNDING = 1e-6  # relative, of a mean of probabilities, which is no more than 1 but for that
_COPIED = 64  # masks that are copied together, by way of one more copy of them
_RETURN_BYTES = 13  # of a pixel on its way to the original image: twice a float, a copy of one, and a bool


class Decoder:
    """Args as published; `max_detections` is 100, and 300 for the published larger models.

    Args:
        score_threshold: a (cell, class) scores more than this to be a candidate.
        mask_threshold: pixels above belong to the object.
        nms_pre: candidates that enter Matrix NMS, best first.
        kernel, sigma: of Matrix NMS.
        keep_threshold: least score after it.
        max_detections: per image.
        memory_mb: MiB for the cells that are aggregated at once, and for the masks that return to the original image
            at once: at least 8 cells and one mask. The masks for Matrix NMS come on top: at most three times `nms_pre`,
            where more candidates are found than that, else twice what is found.

    Raises:
        UserError: there is no such kernel, or a number makes no sense.
    """

    def __init__(
        self,
        score_threshold: float = 0.1,
        mask_threshold: float = 0.5,
        nms_pre: int = 500,
        kernel: Literal["gaussian", "linear"] = "gaussian",
        sigma: float = 2.0,
        keep_threshold: float = 0.05,
        max_detections: int = 100,
        memory_mb: float = 256,
    ) -> None:
        if memory_mb <= 0:
            raise UserError(f"decoder.memory_mb={memory_mb}: must be more than 0")
        if kernel not in ("gaussian", "linear"):
            raise UserError(f"decoder.kernel={kernel}: must be gaussian or linear")
        for name, count in (("nms_pre", nms_pre), ("max_detections", max_detections)):
            if count < 1:
                raise UserError(f"decoder.{name}={count}: must be 1 or more")
        thresholds = {"score": score_threshold, "mask": mask_threshold, "keep": keep_threshold}
        for name, threshold in thresholds.items():
            if not 0 <= threshold <= 1:
                raise UserError(f"decoder.{name}_threshold={threshold}: must be from 0 to 1")
        if kernel == "gaussian" and not sigma > 0:
            raise UserError(f"decoder.sigma={sigma}: must be more than 0")
        self.score_threshold, self.mask_threshold = score_threshold, mask_threshold
        self.nms_pre, self.kernel, self.sigma = nms_pre, kernel, sigma
        self.keep_threshold, self.max_detections, self.memory_mb = keep_threshold, max_detections, memory_mb

    @property
    def pixels_at_once(self) -> int:
        """Of masks on their way to the original image, see `Frame.masks_to_original`."""
        return int(self.memory_mb * 2**20) // _RETURN_BYTES

    def cells_at_once(self, maps: float, mask_pixels: int, pixels: int) -> int:
        """Cells that are aggregated together.

        Args:
            maps: that the field holds for a cell, see `MaskField`.
            mask_pixels: of one of the field's masks.
            pixels: of a mask at the stride of Matrix NMS.
        """
        return max(1, int(self.memory_mb * 2**20 / cell_bytes(maps, mask_pixels, pixels)) // _TILE) * _TILE

    @torch.no_grad()
    def __call__(self, outputs: Sequence[LevelOutput], canvas: tuple[int, int]) -> list[Detections]:
        """Detections of each image, best first, at most `max_detections`.

        Args:
            outputs: one a level, for B images.
            canvas: (H, W) of the padded batch.
        """
        peaks = [category_peaks(o.logits) for o in outputs]
        return [self.decode_image(i, outputs, peaks, canvas) for i in range(len(peaks[0]))]

    def decode_image(
        self, image: int, outputs: Sequence[LevelOutput], peaks: Sequence[Tensor], canvas: tuple[int, int]
    ) -> Detections:
        """Detections of one image of the batch; `peaks` holds each level's (B, classes, S, S) scores."""
        found = self.candidates(image, outputs, peaks, canvas)
        found.scores = found.scores.float() * self.decay(found).factor
        return found[self.kept(found.scores)]

    def candidates(
        self, image: int, outputs: Sequence[LevelOutput], peaks: Sequence[Tensor], canvas: tuple[int, int]
    ) -> Detections:
        """What enters Matrix NMS: the best `nms_pre` of one image, by falling score (category score * maskness)."""
        empty = torch.zeros(0, dtype=torch.long, device=peaks[0].device)
        size = canvas[0] // MASK_STRIDE, canvas[1] // MASK_STRIDE
        seen = [Detections(empty.float(), empty, peaks[0].new_zeros((0, *size)), empty, empty)]
        least = 0.0  # a cell whose category scores are lower cannot come among the best any more
        for number, (output, scores) in enumerate(zip(outputs, peaks, strict=True)):
            scores = scores[image].flatten(1).T  # (S*S, classes)
            asked = (scores > self.score_threshold).any(1).nonzero()[:, 0]
            mask_pixels = (canvas[0] // output.mask_stride) * (canvas[1] // output.mask_stride)
            most = self.cells_at_once(output.field.maps_per_cell, mask_pixels, size[0] * size[1])
            for cells in asked.split(most) if len(asked) else ():
                cells = cells[scores[cells].amax(1) >= least]
                if not len(cells):
                    continue
                seen.append(self._candidates(output, number, image, *_filled(cells, scores[cells]), size))
                if sum(map(len, seen)) >= self.nms_pre:
                    seen = [self._best(seen)]
                    least = seen[0].scores[-1] * (1 - _ROUNDING)
        return self._best(seen)

    def decay(self, found: Detections) -> Decay:
        """What n candidates, best first, do to each other in Matrix NMS."""
        return matrix_decay(found.masks > self.mask_threshold, found.labels, self.kernel, self.sigma)

    def kept(self, scores: Tensor) -> Tensor:
        """(n,) scores after Matrix NMS -> (k,) long: which of them stay, best first."""
        order = scores.argsort(descending=True, stable=True)
        return order[scores[order] >= self.keep_threshold][: self.max_detections]

    def _best(self, seen: list[Detections]) -> Detections:
        """The best `nms_pre` of several, by falling score; the masks of each are let go as soon as they are copied."""
        best = torch.cat([part.scores for part in seen]).argsort(descending=True, stable=True)[: self.nms_pre]
        place = torch.full((sum(map(len, seen)),), -1, device=best.device)
        place[best] = torch.arange(len(best), device=best.device)
        masks = seen[0].masks.new_empty((len(best), *seen[0].masks.shape[1:]))
        others = [
            torch.cat(rows)[best] for rows in zip(*((d.scores, d.labels, d.levels, d.cells) for d in seen), strict=True)
        ]
        for places in place.split([len(part) for part in seen]):
            part = seen.pop(0)
            for rows in (places >= 0).nonzero()[:, 0].split(_COPIED):
                masks[places[rows]] = part.masks[rows]
        scores, labels, levels, cells = others
        return Detections(scores, labels, masks, levels, cells)

    def _candidates(
        self, output: LevelOutput, number: int, image: int, cells: Tensor, scores: Tensor, size: tuple[int, int]
    ) -> Detections:
        """Masks and scores of some cells of one level: (k,) cells, (k, classes) scores."""
        logits = output.field.at(Cells(torch.full_like(cells, image), cells))
        masks = logits.float().sigmoid()
        if masks.shape[-2:] != size:
            masks = F.interpolate(masks[:, None], size=size, mode="bilinear")[:, 0]
        inside = masks > self.mask_threshold
        area = inside.sum((1, 2))
        maskness = (masks * inside).sum((1, 2)) / area.clamp(min=1)
        scores = scores * (area > output.level.stride)[:, None]
        place, labels = (scores > self.score_threshold).nonzero(as_tuple=True)
        scores = scores[place, labels] * maskness[place]
        best = scores.argsort(descending=True, stable=True)[: self.nms_pre]  # before masks are copied for each class
        place, labels = place[best], labels[best]
        return Detections(
            scores=scores[best],
            labels=labels,
            masks=masks[place],
            levels=torch.full_like(place, number),
            cells=cells[place],
        )


def cell_bytes(maps: float, mask_pixels: int, pixels: int) -> float:
    """What an asked cell takes at most while its chunk is aggregated, enlarged and looked at; see `cells_at_once`."""
    return 4 * max(maps * mask_pixels, 2 * mask_pixels + 3.5 * pixels)


def _filled(cells: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """(k,) cells and (k, classes) scores; on a CPU filled up to whole tiles with a cell whose scores are 0 there."""
    missing = -len(cells) % _TILE if cells.device.type == "cpu" else 0
    return torch.cat([cells, cells[-1:].expand(missing)]), F.pad(scores, (0, 0, 0, missing))


def category_peaks(logits: Tensor) -> Tensor:
    """(B, classes, S, S) logits -> scores, kept only where no upper, left or upper-left neighbor is higher."""
    scores = logits.float().sigmoid()
    highest = F.max_pool2d(scores, 2, stride=1, padding=1)[..., :-1, :-1]
    return scores * (scores == highest)


def as_instances(
    found: Detections,
    frame: Frame,
    categories: Sequence[Category] = (),
    mask_threshold: float = 0.5,
    chunk_pixels: int = 2**25,
    crop: bool = False,
) -> Instances:
    """Detections of one image -> the same objects in its original frame, on the CPU.

    Args:
        chunk_pixels: see `Frame.masks_to_original`.
        crop: cut masks to their boxes: of many objects in a large picture, whole ones fill the memory.
    """
    parts = frame.masks_to_original(found.masks, chunk_pixels, mask_threshold)
    if crop:
        masks = CroppedMasks.of(frame.original, (mask for part in parts for mask in part.cpu().numpy()))
    else:
        masks, done = torch.empty((len(found), *frame.original), dtype=torch.bool), 0
        for part in parts:
            masks[done : done + len(part)] = part
            done += len(part)
    return Instances(masks, found.scores.cpu(), found.labels.cpu(), categories)

"""Inference of one picture, asked cells only against the dense formulation, stage by stage.

"Head" goes from a ready pyramid to the detections in the network frame; "network" from the picture's file to
run-length codes in the picture's own frame. Candidates and the masks' shapes are made up (`models.Shapes`), since a
network without training finds nothing; both forms get the same, and their scores are compared. The dense form paints
all T*T maps of each level (tests/oracle.py), copies the context to each candidate, looks at all candidates of a level
at once, and resizes and encodes all masks at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from aggmask.decoding import decode
from aggmask.geometry.frame import Frame
from aggmask.metrics import rle
from aggmask.model.head import Head
from benchmarks.models import Shapes, make_segmenter, pyramid_for, torch_convolutions
from benchmarks.pictures import picture_batches
from benchmarks.records import Figure
from benchmarks.settings import Settings
from benchmarks.stopwatch import UNCOUNTED, Stopwatch
from benchmarks.training import against_dense
from tests import oracle

STAGES = ("load", "backbone", "head", "aggregation", "candidates", "Matrix NMS", "resize", "RLE")


def lazy_detections(
    head: Head, pyramid: Sequence[Tensor], size: tuple[int, int], shapes: Shapes, watch: Stopwatch
) -> tuple[Tensor, Tensor]:
    """(n,) scores and (n, h, w) probabilities."""
    plain, decode.matrix_decay = decode.matrix_decay, watch.timed("Matrix NMS", decode.matrix_decay)
    try:
        with watch.stage("head"):
            outputs = head(pyramid)
        with watch.stage("candidates"):
            found = decode.Decoder(max_detections=100)(shapes.on(outputs, watch), size)[0]
    finally:
        decode.matrix_decay = plain
    return found.scores, found.masks


def dense_detections(
    head: Head, pyramid: Sequence[Tensor], size: tuple[int, int], shapes: Shapes, watch: Stopwatch
) -> tuple[Tensor, Tensor]:
    """The same as published, without bounds on memory."""
    with watch.stage("head"):
        levels = oracle.dense_head(head, pyramid)
    with watch.stage("candidates"):
        quarter = size[0] // 4, size[1] // 4
        nothing = shapes.logits[0].new_zeros(0)
        found = [(nothing, nothing.long(), nothing.reshape(0, 1, 1).expand(0, *quarter))]
        for number, (level, logits) in enumerate(zip(levels, shapes.logits, strict=True)):
            peaks = logits.sigmoid()
            peaks = peaks * (peaks == F.max_pool2d(peaks, 2, stride=1, padding=1)[..., :-1, :-1])
            labels, cells = (peaks[0].flatten(1) > 0.1).nonzero(as_tuple=True)
            if not len(cells):
                continue
            with watch.stage("aggregation"):
                masks = level.masks(0, cells.tolist())
            with watch.stage(UNCOUNTED):
                shapes.draw(number, cells.tolist(), masks)
            masks = F.interpolate(masks.sigmoid()[None], size=quarter, mode="bilinear")[0]
            inside = masks > 0.5
            area = inside.sum((1, 2))
            scores = peaks[0].flatten(1)[labels, cells] * (masks * inside).sum((1, 2)) / area.clamp(min=1)
            large = area > level.level.stride
            found.append((scores[large], labels[large], masks[large]))
        scores, labels, masks = map(torch.cat, zip(*found, strict=True))
        best = scores.argsort(descending=True)[:500]
        scores, labels, masks = scores[best], labels[best], masks[best]
        with watch.stage("Matrix NMS"):
            scores = scores * pairwise_decay(masks > 0.5, labels)
        best = scores.argsort(descending=True)[:100]
        best = best[scores[best] >= 0.05]
        return scores[best], masks[best]


def pairwise_decay(masks: Tensor, labels: Tensor, sigma: float = 2.0) -> Tensor:
    """Matrix NMS of n candidates, best first; (n,) factors. All pixels of all masks are floats at once."""
    if not len(masks):
        return masks.new_zeros(0, dtype=torch.float32)
    flat = masks.flatten(1).float()
    shared, areas = flat @ flat.T, flat.sum(1)
    same = (labels[:, None] == labels[None]).triu(diagonal=1)
    iou = shared / (areas[:, None] + areas[None] - shared) * same
    worst = iou.max(0).values[:, None]
    return torch.exp(-sigma * (iou.square() - worst.square())).masked_fill(~same, 1.0).min(0).values


DETECTIONS = {"lazy": lazy_detections, "plain": lazy_detections, "dense": dense_detections}


def head_decoding(
    form: str, experiment: str, size: Sequence[int], candidates: int, overrides: Sequence[str] = (), device="cpu"
) -> Callable[[], dict[str, float]]:
    """Case: from a ready pyramid to detections."""
    head, size = make_segmenter(experiment, overrides).head.to(device).eval(), tuple(size)
    pyramid = [features.detach().to(device) for features in pyramid_for(head, size, 1)]
    shapes, watch = Shapes(head.levels, candidates, size, device), Stopwatch(device)

    @torch.no_grad()
    def run() -> dict[str, float]:
        with torch_convolutions(form == "plain"):
            scores, _ = DETECTIONS[form](head, pyramid, size, shapes, watch)
        return {"check": float(scores.sum()), **watch.read()}

    return run


def network_inference(
    form: str, experiment: str, size: Sequence[int], candidates: int, overrides: Sequence[str] = ()
) -> Callable[[], dict[str, float]]:
    """Case: from the file to run-length codes."""
    segmenter, size, watch = make_segmenter(experiment, overrides).eval(), tuple(size), Stopwatch()
    shapes, load = Shapes(segmenter.head.levels, candidates, size), picture_batches(size, 1, 1)

    @torch.no_grad()
    def run() -> dict[str, float]:
        with watch.stage("load"):
            loaded = load()
        with watch.stage("backbone"):
            pyramid = segmenter.fpn(segmenter.backbone(segmenter.normalize(loaded)))
        scores, masks = DETECTIONS[form](segmenter.head, pyramid, size, shapes, watch)
        codes = CODES[form](masks, loaded.frames[0], watch)
        return {"check": float(scores.sum()) + len(codes), **watch.read()}

    return run


def lazy_codes(masks: Tensor, frame: Frame, watch: Stopwatch) -> list[bytes]:
    """Masks of the canvas -> codes in the picture's own frame, a few at a time."""
    codes: list[bytes] = []
    with watch.stage("resize"):
        for chunk in frame.masks_to_original(masks):
            with watch.stage("RLE"):
                codes += rle.encode(chunk)
    return codes


def dense_codes(masks: Tensor, frame: Frame, watch: Stopwatch) -> list[bytes]:
    """The same as published: all masks at once, then one call of pycocotools for each."""
    with watch.stage("resize"):
        full = F.interpolate(masks[None], size=frame.padded, mode="bilinear")
        full = full[..., : frame.content[0], : frame.content[1]]
        full = F.interpolate(full, size=frame.original, mode="bilinear")[0] > 0.5
    with watch.stage("RLE"):
        bitmaps = full.numpy().astype(np.uint8)
        return [coco_mask.encode(np.asfortranarray(bitmap))["counts"] for bitmap in bitmaps]


CODES = {"lazy": lazy_codes, "dense": dense_codes}


def figures(settings: Settings, tell: Callable[[str], None]) -> Iterator[Figure]:
    """Whole and by stage: time, and memory of the whole."""
    functions = {"head + decoding": "head_decoding", "network": "network_inference"}
    return against_dense(
        "inference", functions, {"candidates": settings.candidates}, STAGES, settings, tell, (2.0, 0.33)
    )

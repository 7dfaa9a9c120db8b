"""Inference of one picture, asked cells only against the dense formulation of tests/oracle.py, stage by stage.

"Head" goes from a ready pyramid to the detections in the network frame; "network" from the picture's file to
run-length codes in the picture's own frame. Candidates and the masks' shapes are made up (`models.Shapes`), since a
network without training finds nothing; both forms get the same, and their scores are compared. The dense form paints
all T*T maps of each level, copies the context to each candidate, compares masks pair by pair, and resizes and encodes
all at once.
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
from benchmarks.harness import Figure
from benchmarks.models import Shapes, make_segmenter, pyramid_for, torch_convolutions
from benchmarks.pictures import picture_batches
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
    """The same, everything painted first."""
    plain = oracle.dense_head, oracle.DenseLevel.masks, oracle.nms_by_loops

    def painted(*arguments) -> list[oracle.DenseLevel]:
        levels = plain[0](*arguments)
        for level, logits in zip(levels, shapes.logits, strict=True):
            level.logits = logits
        return levels

    def masks(level: oracle.DenseLevel, image: int, cells: Sequence[int]) -> Tensor:
        found = plain[1](level, image, cells)
        with watch.stage(UNCOUNTED):
            shapes.draw(head.levels.index(level.level), cells, found)
        return found

    oracle.dense_head, oracle.DenseLevel.masks = watch.timed("head", painted), watch.timed("aggregation", masks)
    oracle.nms_by_loops = watch.timed("Matrix NMS", plain[2])
    try:
        with watch.stage("candidates"):
            found = oracle.dense_detections(head, pyramid, size, every_cell=False)[0]
            return torch.tensor([d.score for d in found]), torch.stack([d.mask for d in found])
    finally:
        oracle.dense_head, oracle.DenseLevel.masks, oracle.nms_by_loops = plain


DETECTIONS = {"lazy": lazy_detections, "plain": lazy_detections, "dense": dense_detections}


def head_decoding(
    form: str, experiment: str, size: Sequence[int], candidates: int, overrides: Sequence[str] = ()
) -> Callable[[], dict[str, float]]:
    """Case: from a ready pyramid to detections."""
    head, size, watch = make_segmenter(experiment, overrides).head.eval(), tuple(size), Stopwatch()
    pyramid = [features.detach() for features in pyramid_for(head, size, 1)]
    shapes = Shapes(head.levels, candidates, size)

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

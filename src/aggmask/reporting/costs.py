"""What a variant costs: the size and the operations of its model, and what training logged of its steps."""

from __future__ import annotations

from statistics import fmean, median

import torch

from aggmask.accounting.flops import count
from aggmask.assembly.build import build
from aggmask.geometry.frame import CANVAS_MULTIPLE, pad_to_multiple
from aggmask.reporting.runs import Run
from aggmask.reporting.variants import Variant

COSTS = {  # name -> (heading, unit)
    "parameters": ("parameters", "M"),
    "multiply_adds": ("multiply-adds", "G"),
    "step_seconds": ("step", "ms"),
    "memory_mb": ("memory", "MB"),
}
CANDIDATES = 200  # cells of an image whose masks are computed


def costs_of(variant: Variant, classes: int) -> dict[str, float | None]:
    """By the names of COSTS, in their units; None where nothing was logged."""
    parameters, adds = model_size(variant.finished[0], classes)
    seconds = [median(values) for run in variant.finished if (values := _logged(run, "train/step_seconds"))]
    memory = [max(values) for run in variant.finished if (values := _logged(run, "train/memory_mb"))]
    step = 1000 * fmean(seconds) if seconds else None
    return dict(zip(COSTS, (parameters, adds, step, fmean(memory) if memory else None), strict=True))


def model_size(run: Run, classes: int) -> tuple[float, float]:
    """(millions of parameters, billions of multiply-adds) of a run's model.

    Multiply-adds are those of one image of the evaluation's largest size, with the masks of CANDIDATES cells
    shared out evenly over the levels. Nothing is computed: the model is built on the meta device.
    """
    model = run.config["model"]
    plain = {**model, "compile": None, "backbone": {**model["backbone"], "pretrained": False, "weights": None}}
    with torch.device("meta"):
        segmenter = build(plain, num_classes=classes)
    parts = count(segmenter, input_size(run))
    levels = len(segmenter.head.levels)
    operations = sum(part.lazy([CANDIDATES / levels] * levels) for part in parts)
    return sum(part.parameters for part in parts) / 1e6, operations / 2 / 1e9


def input_size(run: Run) -> tuple[int, int]:
    """(height, width) of the largest network input in evaluation, lying."""
    data = run.config["data"]
    short = data.get("evaluation_short_side") or data["short_side"]
    short = short if isinstance(short, int) else max(short)
    return pad_to_multiple((short, max(short, data["long_side"])), CANVAS_MULTIPLE)


def _logged(run: Run, name: str) -> list[float]:
    return [value for _, _, value in run.logged.get(name, [])]

"""What a variant costs: the size of its model, and what training logged of its steps."""

from __future__ import annotations

from statistics import fmean, median

from aggmask.assembly.build import load_module
from aggmask.reporting.runs import Run
from aggmask.reporting.variants import Variant

COSTS = {  # name -> (heading, unit)
    "parameters": ("parameters", "M"),
    "multiply_adds": ("multiply-adds", "G"),
    "step_seconds": ("step", "ms"),
    "memory_mb": ("memory", "MB"),
}


def costs_of(variant: Variant) -> dict[str, float | None]:
    """By the names of COSTS, in their units; None where nothing says it. Of the finished runs, which are not none."""
    size, adds = model_size(variant.finished[0])
    seconds = [median(values) for run in variant.finished if (values := _logged(run, "train/step_seconds"))]
    memory = [max(values) for run in variant.finished if (values := _logged(run, "train/memory_mb"))]
    step = 1000 * fmean(seconds) if seconds else None
    return dict(zip(COSTS, (size, adds, step, fmean(memory) if memory else None), strict=True))


def model_size(run: Run) -> tuple[float | None, float | None]:
    """(millions of parameters, billions of multiply-adds) of a run's model; None where they are not to be had."""
    checkpoint = next((run.folder / n for n in ("best.ckpt", "last.ckpt") if (run.folder / n).is_file()), None)
    if checkpoint is None:
        return None, None
    segmenter = load_module(checkpoint).segmenter
    return sum(parameter.numel() for parameter in segmenter.parameters()) / 1e6, None


def _logged(run: Run, name: str) -> list[float]:
    return [value for _, _, value in run.logged.get(name, [])]

"""The training step on a GPU: images a second and memory, with what may make it faster, each against eager float32.

Nothing of it is measured yet: it was written without a GPU at hand. Images and objects lie on the device; the stages
that compute whole maps are compiled or recorded as CUDA graphs, and what is asked per cell is not, since its size
changes at every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch

from aggmask.supervision.assign import Assigner
from aggmask.supervision.criterion import Criterion
from benchmarks.harness import Figure
from benchmarks.models import CLASSES, make_segmenter
from benchmarks.settings import MODELS, Settings
from tests.small import random_objects

EAGER = "eager float32"
COLUMNS = {  # name -> overrides of the model, autocast to bfloat16, CUDA graphs of backbone and pyramid
    EAGER: ((), False, False),
    "channels-last": (("model.channels_last=true",), False, False),
    "bf16": ((), True, False),
    "bf16, channels-last": (("model.channels_last=true",), True, False),
    "bf16, channels-last, compiled": (("model.channels_last=true", "model.compile=inductor"), True, False),
    "bf16, channels-last, CUDA graphs": (("model.channels_last=true",), True, True),
}


def training_step(column: str, model: str, settings: Settings, device: str) -> Callable[[], None]:
    """One step of a model's network, forward and backward."""
    options, bf16, graphs = COLUMNS[column]
    segmenter = make_segmenter(MODELS[model], (*settings.overrides, *options)).to(device).train()
    if graphs:
        for part in (segmenter.backbone, segmenter.fpn):
            part.compile(mode="reduce-overhead")
    images = torch.randn(settings.batch, segmenter.backbone.in_chans, *settings.size, device=device)
    objects = [
        random_objects(settings.objects, CLASSES, settings.size, seed).to(device) for seed in range(settings.batch)
    ]
    cast = torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()

    def step() -> None:
        segmenter.zero_grad(set_to_none=True)
        with cast:
            outputs = segmenter(images)
            losses = Criterion()(outputs, Assigner()(outputs, objects, settings.size))
        sum(losses.values()).backward()

    return step


def measure(step: Callable[[], None], images: int, repeats: int, steps: int = 10) -> tuple[list[float], list[float]]:
    """Images a second, and most megabytes allocated, of each repetition of so many steps."""
    rates, memory = [], []
    for number in range(repeats + 1):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
        if number:
            rates.append(images * steps / (time.perf_counter() - begin))
            memory.append(torch.cuda.max_memory_allocated() / 2**20)
    return rates, memory


def figures(settings: Settings, tell: Callable[[str], None]) -> Iterator[Figure]:
    """Nothing where there is no GPU."""
    if not torch.cuda.is_available():
        tell("no GPU here: nothing to measure")
        return
    for model in settings.models:
        found = {}
        for column in COLUMNS:
            tell(f"{model}, {column}")
            found[column] = measure(training_step(column, model, settings, "cuda"), settings.batch, settings.repeats)
        for column, (rates, memory) in found.items():
            yield Figure("gpu", f"{model}, {column}", "images/s", rates, EAGER, found[EAGER][0])
            yield Figure("gpu", f"{model}, {column}", "MB", memory, EAGER, found[EAGER][1], sense="share")

"""On a GPU: asked cells only against the dense formulation, and what may make a training step faster.

First the head, stage by stage, as `training` and `inference` measure it on a CPU, in float32 as torch does it (its
convolutions round to TF32 on recent GPUs). The GPU is waited for at the ends of stages.

Then the training step of whole networks, images and objects lying on the device: images a second and memory, each
column against eager float32. The stages that compute whole maps are compiled, or backbone and pyramid recorded as CUDA
graphs; what is asked per cell is not, since its size changes at every step.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from aggmask.supervision.assign import Assigner
from aggmask.supervision.criterion import Criterion
from benchmarks import inference, training
from benchmarks.harness import Case, Figure, interleaved
from benchmarks.models import CLASSES, make_segmenter
from benchmarks.settings import MODELS, Settings
from tests.small import random_objects

EAGER, HALF = "eager float32", "bf16, channels-last"
COLUMNS = {  # name -> overrides of the model, autocast to bfloat16, CUDA graphs of backbone and pyramid
    EAGER: ((), False, False),
    "channels-last": (("model.channels_last=true",), False, False),
    "bf16": ((), True, False),
    HALF: (("model.channels_last=true",), True, False),
    f"{HALF}, CUDA graphs": (("model.channels_last=true",), True, True),
    f"{HALF}, compiled": (("model.channels_last=true", "model.compile=inductor"), True, False),
}
_SCOPES = {"training step of head": ("training:head_step", training.STAGES)}
_SCOPES["head + decoding"] = ("inference:head_decoding", inference.STAGES)


def on_gpu(function: str, arguments: Mapping[str, Any]) -> Callable[[], dict[str, float]]:
    """Case: a case of another part on the GPU, with the most memory that it takes there."""
    module, _, name = function.partition(":")
    repetition = getattr(importlib.import_module(f"benchmarks.{module}"), name)(**arguments, device="cuda")

    def run() -> dict[str, float]:
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        return {**repetition(), "MB": (torch.cuda.max_memory_allocated() - start) / 2**20}

    return run


def against_dense(model: str, settings: Settings, tell: Callable[[str], None]) -> Iterator[Figure]:
    """Head, and head with decoding: time, memory and each stage of both forms."""
    asked = ({"batch": settings.batch, "objects": settings.objects}, {"candidates": settings.candidates})
    shared = {"experiment": MODELS[model], "size": settings.size, "overrides": settings.overrides}
    for (scope, (function, stages)), own in zip(_SCOPES.items(), asked, strict=True):
        cases = {
            form: Case("benchmarks.gpu:on_gpu", {"function": function, "arguments": {"form": form, **shared, **own}})
            for form in ("lazy", "dense")
        }
        label = f"{model}, {scope}"
        found = interleaved(
            cases,
            settings.repeats,
            settings.threads,
            lambda text, label=label: tell(f"{label}, {text}"),
            warmups=2,
            separate=False,  # memory is the device's, and a process would take longer to start than all its steps
        )
        lazy, dense = found["lazy"], found["dense"]
        yield Figure("gpu", label, "s", lazy["seconds"], "dense", dense["seconds"])
        yield Figure("gpu", label, "MB", lazy["MB"], "dense", dense["MB"], sense="share")
        for stage in stages:
            if stage in lazy:
                yield Figure("gpu", f"{label}: {stage}", "s", lazy[stage], "dense", dense[stage])


def training_step(column: str, model: str, settings: Settings, device: str) -> Callable[[], None]:
    """One step of a model's network, forward and backward."""
    options, bf16, graphs = COLUMNS[column]
    segmenter = make_segmenter(MODELS[model], (*settings.overrides, *options)).to(device).train()
    images = torch.randn(settings.batch, segmenter.backbone.in_chans, *settings.size, device=device)
    images = images.contiguous(memory_format=segmenter.memory_format)
    objects = [
        random_objects(settings.objects, CLASSES, settings.size, seed).to(device) for seed in range(settings.batch)
    ]

    def cast():
        return torch.autocast(device, torch.bfloat16, cache_enabled=not graphs) if bf16 else nullcontext()

    network: nn.Module = segmenter
    if graphs:
        with cast():
            whole = nn.Sequential(segmenter.backbone, segmenter.fpn)
            recorded = torch.cuda.make_graphed_callables(whole, (images,), allow_unused_input=True)
        network = nn.Sequential(recorded, segmenter.head)

    def step() -> None:
        segmenter.zero_grad(set_to_none=True)
        with cast():
            outputs = network(images)
            losses = Criterion()(outputs, Assigner()(outputs, objects, settings.size))
        sum(losses.values()).backward()

    return step


def measure(step: Callable[[], None], images: int, repeats: int, steps: int = 5) -> tuple[list[float], list[float]]:
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
        yield from against_dense(model, settings, tell)
    for model in settings.models:
        found = {}
        for column in COLUMNS if model in settings.tried else (EAGER, HALF):
            tell(f"{model}, {column}")
            try:
                step = training_step(column, model, settings, "cuda")
                found[column] = measure(step, settings.batch, settings.repeats)
            except RuntimeError as error:  # too little memory too; others are measured all the same
                tell(f"{model}, {column}, failed: {error}")
            step = None
            torch.cuda.empty_cache()
        for column, (rates, memory) in found.items():
            yield Figure("gpu", f"{model}, training step, {column}", "images/s", rates, EAGER, found[EAGER][0])
            yield Figure("gpu", f"{model}, training step, {column}", "MB", memory, EAGER, found[EAGER][1], "share")

"""On a GPU: asked cells only against the dense formulation, and what may make a training step faster.

First the head, as `training` and `inference` measure it on a CPU, in float32 as torch does it (its convolutions round
to TF32 on recent GPUs). The GPU is waited for at the ends of stages, which slows down what has many of them; a training
step is timed without that, once more. Masks that are painted again in the backward pass count as aggregation.

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
from unittest.mock import patch

import torch
from torch import nn

from aggmask.supervision.assign import Assigner
from aggmask.supervision.criterion import Criterion
from benchmarks import inference, training
from benchmarks.harness import Case
from benchmarks.models import CLASSES, make_segmenter
from benchmarks.records import Figure
from benchmarks.settings import MODELS, Settings
from benchmarks.stopwatch import Stopwatch
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


def on_gpu(function: str, arguments: Mapping[str, Any], whole: bool) -> Callable[[], dict[str, float]]:
    """Case: a case of another part on the GPU, with the most memory that it takes there.

    Args:
        whole: once more, without waiting at the ends of stages; its "seconds" are of that.
    """
    module, _, name = function.partition(":")
    repetition = getattr(importlib.import_module(f"benchmarks.{module}"), name)(**arguments, device="cuda")

    def run() -> dict[str, float]:
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        found = repetition()
        found["MB"] = (torch.cuda.max_memory_allocated() - start) / 2**20
        if whole:
            with patch.object(Stopwatch, "waits", False):
                torch.cuda.synchronize()
                begin = time.perf_counter()
                repetition()
                torch.cuda.synchronize()
                found["seconds"] = time.perf_counter() - begin
        return found

    return run


def against_dense(model: str, settings: Settings, tell: Callable[[str], None]) -> Iterator[Figure]:
    """Head, and head with decoding: time, memory and each stage of both forms."""
    shared = {"experiment": MODELS[model], "size": settings.size, "overrides": settings.overrides}
    step = {**shared, "batch": settings.batch, "objects": settings.objects}
    picture = {**shared, "candidates": settings.candidates}
    # The masks of made-up candidates are overwritten in between, so that decoding has no whole without its stages.
    for scope, function, asked, stages, whole in (
        ("training step of head", "training:head_step", step, training.STAGES, True),
        ("head + decoding", "inference:head_decoding", picture, inference.STAGES, False),
    ):
        cases = {
            form: Case(
                "benchmarks.gpu:on_gpu",
                {"function": function, "arguments": {"form": form, **asked}, "whole": whole},
            )
            for form in ("lazy", "dense")
        }
        # In this process: memory is the device's, and a process would take longer to start than all its steps.
        how = {"warmups": 2, "separate": False}
        yield from training.compared("gpu", f"{model}, {scope}", cases, stages, settings, tell, **how)


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
    """Nothing where there is no GPU. What fails, for want of memory too, is told and left out."""
    if not torch.cuda.is_available():
        tell("no GPU here: nothing to measure")
        return
    for model in settings.models:
        try:
            yield from against_dense(model, settings, tell)
        except (RuntimeError, ValueError) as error:  # the latter: in TF32 both forms may round too differently
            tell(f"{model}, against dense, failed: {error}")
    for model in settings.models:
        eager: tuple[list[float], list[float]] | None = None
        for column in COLUMNS if model in settings.tried else (EAGER, HALF):
            tell(f"{model}, {column}")
            try:
                found = measure(training_step(column, model, settings, "cuda"), settings.batch, settings.repeats)
            except RuntimeError as error:
                tell(f"{model}, {column}, failed: {error}")
                if eager is None:
                    break  # there is nothing to compare with
                continue
            finally:
                torch.cuda.empty_cache()
            eager = eager or found
            for unit, sense, values, against in zip(("images/s", "MB"), ("speed", "share"), found, eager, strict=True):
                yield Figure("gpu", f"{model}, training step, {column}", unit, values, EAGER, against, sense)

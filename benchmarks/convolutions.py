"""What each stage that consists of convolutions reaches, against plain convolutions of the same shapes.

A stage runs once while its convolutions are written down (shapes, strides, memory order, and which gradients were
asked); then the stage and those convolutions alone, on tensors that are there already, take turns in one process. What
the stage loses is norms, activations, resizing, sums and the making of tensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from aggmask.model.segmenter import Segmenter
from benchmarks.harness import Case, interleaved
from benchmarks.models import make_segmenter, pyramid_for, torch_convolutions
from benchmarks.records import Figure
from benchmarks.settings import MODELS, Settings

STAGES = {  # name -> model
    "backbone": "AggMask",
    "pyramid": "AggMask",
    "categories": "AggMask",
    "representations": "AggMask",
    "context": "AggMask",
    "representations, predicted": "AggMask*",
}
MODES = {"forward": False, "forward and backward": True}  # name -> with gradients
SIDES = ("stage", "alone")
_FORWARD, _BACKWARD = torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default


class Convolutions(TorchDispatchMode):
    """Writes down every convolution that runs inside the context, as calls that can be made again.

    Attributes:
        calls: (operator, arguments) with tensors of the same sizes and memory order, shared among equal ones.
        flops: two for each multiply-add.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable, tuple]] = []
        self.flops = 0.0
        self._tensors: dict[tuple, Tensor] = {}

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (_FORWARD, _BACKWARD):
            self.calls.append((func, tree_map(self._like, args)))
            weight, out = (args[1], result) if func == _FORWARD else (args[2], args[0])
            asked = 1 if func == _FORWARD else sum(args[-1][:2])
            self.flops += 2.0 * asked * weight[0].numel() * out.numel()
        return result

    def _like(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        last = value.dim() == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last)
        key = (tuple(value.shape), last)
        if key not in self._tensors:
            form = torch.channels_last if last else torch.contiguous_format
            self._tensors[key] = torch.randn(value.shape, dtype=value.dtype).contiguous(memory_format=form)
        return self._tensors[key]

    def run(self) -> None:
        """All of them, results thrown away."""
        for operator, arguments in self.calls:
            operator(*arguments)


def stage_of(name: str, segmenter: Segmenter, size: tuple[int, int], batch: int) -> tuple[Callable, Sequence[Tensor]]:
    """A function of the inputs that gives the stage's maps, and the inputs."""
    head = segmenter.head
    pyramid = pyramid_for(head, size, batch)
    if name == "backbone":
        return segmenter.backbone, [torch.randn(batch, segmenter.backbone.in_chans, *size)]
    if name == "pyramid":
        maps = [
            (c, size[0] // s, size[1] // s) for c, s in zip(segmenter.backbone.channels, (4, 8, 16, 32), strict=True)
        ]
        return lambda *c: segmenter.fpn(list(c)), [torch.randn(batch, *shape, requires_grad=True) for shape in maps]
    if name == "context":
        return lambda *p: [head.aggregation.context(p)], pyramid
    features = [features.detach().requires_grad_() for features in head.at_levels(pyramid)]
    if name == "categories":
        pairs = list(zip(features, head.levels, strict=True))
        return lambda *f: [head.category(x, v.grid)[1] for x, (_, v) in zip(f, pairs, strict=True)], features

    def representations(*maps: Tensor) -> list[Tensor]:
        banks = head.bank(maps[: len(features)], maps[len(features) :])
        shared = {id(maps): maps for bank in banks for maps in bank.features}
        kernels = [bank.kernels for bank in banks if len(bank.kernels) == batch and bank.kernels.grad_fn is not None]
        return [*shared.values(), *kernels]

    return representations, [*features, *pyramid]


class Mode:
    """A stage in evaluation or in training (forward and backward), and its convolutions."""

    def __init__(self, stage: str, segmenter: Segmenter, size: tuple[int, int], batch: int, train: bool) -> None:
        self.segmenter, self.train = segmenter, train
        self.function, self.inputs = stage_of(stage, segmenter, size, batch)
        with torch_convolutions(), Convolutions() as self.convolutions:  # what torch's own would have to do
            self.run()

    def run(self) -> None:
        self.segmenter.train(self.train).zero_grad(set_to_none=True)
        with torch.set_grad_enabled(self.train):
            outputs = self.function(*self.inputs)
        if self.train:
            outputs = [out for out in outputs if out.requires_grad]
            torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])

    def rates(self) -> tuple[float, float]:
        """GFLOP/s of the stage, and of its convolutions alone."""
        begin = time.perf_counter()
        self.run()
        middle = time.perf_counter()
        with torch.no_grad():
            self.convolutions.run()
        end = time.perf_counter()
        giga = self.convolutions.flops / 1e9
        return giga / (middle - begin), giga / (end - middle)


def reached(stage: str, experiment: str, size: Sequence[int], batch: int, overrides=()) -> Callable[[], dict]:
    """Case: a stage and its convolutions alone, one after the other, without and with gradients."""
    segmenter = make_segmenter(experiment, overrides)
    modes = {name: Mode(stage, segmenter, tuple(size), batch, train) for name, train in MODES.items()}

    def run() -> dict[str, float]:
        rates = {name: mode.rates() for name, mode in modes.items()}
        return {f"{name}, {of}": rate for name, both in rates.items() for of, rate in zip(SIDES, both, strict=True)}

    return run


def figures(settings: Settings, tell: Callable[[str], None]) -> Iterator[Figure]:
    for stage, model in STAGES.items():
        arguments = {
            "stage": stage.partition(",")[0],
            "experiment": MODELS[model],
            "size": settings.size,
            "batch": 1,
            "overrides": settings.overrides,
        }
        cases = {stage: Case("benchmarks.convolutions:reached", arguments)}
        found = interleaved(cases, settings.repeats, settings.threads, tell, separate=settings.separate)[stage]
        for mode in MODES:
            own, alone = (found[f"{mode}, {side}"] for side in SIDES)
            label, target = f"{stage}, {mode}", settings.target(0.7)
            yield Figure("convolutions", label, "GFLOP/s", own, "its convolutions alone", alone, target=target)

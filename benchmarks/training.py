"""A training step, asked cells only against the dense formulation of tests/oracle.py, stage by stage.

"Head" starts from a ready pyramid; "network" from the files of the pictures. Both forms have the same weights and
objects, and their losses are compared. The dense form paints all T*T representations of every level and S*S targets,
as the published code does, and copies the context to each positive cell. "Plain" is the lazy form with torch's own
convolutions, which the dense form has: what it gains is the formulation alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aggmask.model.head import Head
from aggmask.structures import Objects
from aggmask.supervision.assign import Assigner
from aggmask.supervision.criterion import Criterion
from benchmarks.harness import Case, interleaved
from benchmarks.models import CLASSES, TimedField, make_segmenter, pyramid_for, torch_convolutions
from benchmarks.pictures import picture_batches
from benchmarks.records import Figure
from benchmarks.settings import MODELS, Settings
from benchmarks.stopwatch import Stopwatch
from tests import oracle
from tests.small import random_objects

STAGES = ("load", "backbone", "head", "aggregation", "loss", "backward of head", "backward of backbone")


def losses(head: Head, pyramid: Sequence[Tensor], objects: Sequence[Objects], size, form: str, watch: Stopwatch):
    """The sum of the two losses, computed in one of the forms."""
    if form == "dense":
        plain = oracle.dense_head, oracle.DenseLevel.masks
        oracle.dense_head = watch.timed("head", plain[0])
        oracle.DenseLevel.masks = watch.timed("aggregation", plain[1])
        try:
            with watch.stage("loss"):
                return sum(oracle.dense_losses(head, pyramid, objects, size, every_cell=False).values())
        finally:
            oracle.dense_head, oracle.DenseLevel.masks = plain
    with watch.stage("head"):
        outputs = [replace(o, field=TimedField(o.field, watch)) for o in head(pyramid)]
    with watch.stage("loss"):
        return sum(Criterion()(outputs, Assigner()(outputs, objects, size)).values())


def head_step(
    form: str,
    experiment: str,
    size: Sequence[int],
    batch: int,
    objects: int,
    overrides: Sequence[str] = (),
    grid_factor: float = 1.0,
    device: str = "cpu",
) -> Callable[[], dict[str, float]]:
    """Case: forward and backward from a ready pyramid."""
    head, size = make_segmenter(experiment, overrides, grid_factor).head.to(device).train(), tuple(size)
    pyramid = [features.detach().to(device).requires_grad_() for features in pyramid_for(head, size, batch)]
    found = [random_objects(objects, CLASSES, size, seed=3 + i).to(device) for i in range(batch)]
    watch = Stopwatch(device)

    def run() -> dict[str, float]:
        with torch_convolutions(form == "plain"):
            loss = losses(head, pyramid, found, size, form, watch)
            with watch.stage("backward of head"):
                loss.backward()
        head.zero_grad(set_to_none=True)
        for features in pyramid:
            features.grad = None
        return {"check": loss.item(), **watch.read()}

    return run


def network_step(
    form: str, experiment: str, size: Sequence[int], batch: int, objects: int, overrides=(), **ranks
) -> Callable[[], dict[str, float]]:
    """Case: from the files of the pictures to the gradients of every weight; with `ranks`, averaged over them."""
    segmenter, size = make_segmenter(experiment, overrides).train(), tuple(size)
    load, watch = picture_batches(size, batch, objects), Stopwatch()
    trained = [p for p in segmenter.parameters() if p.requires_grad]
    if ranks:
        torch.distributed.init_process_group(
            "gloo", f"file://{ranks['store']}", rank=ranks["rank"], world_size=ranks["ranks"]
        )

    def run() -> dict[str, float]:
        segmenter.zero_grad(set_to_none=True)
        with watch.stage("load"):
            loaded = load()
        with watch.stage("backbone"):
            pyramid = segmenter.fpn(segmenter.backbone(segmenter.normalize(loaded)))
        cut = [features.detach().requires_grad_() for features in pyramid]  # so that each half is timed by itself
        loss = losses(segmenter.head, cut, loaded.objects, size, form, watch)
        with watch.stage("backward of head"):
            loss.backward()
        with watch.stage("backward of backbone"):
            torch.autograd.backward(pyramid, [features.grad for features in cut])
        if ranks:
            with watch.stage("averaging"):
                for parameter in trained:
                    torch.distributed.all_reduce(parameter.grad)
        return {"check": loss.item(), **watch.read()}

    return run


def figures(settings: Settings, tell: Callable[[str], None]) -> Iterator[Figure]:
    """Whole and by stage: time, and memory of the whole."""
    asked = {"batch": settings.batch, "objects": settings.objects}
    functions = {"head": "head_step", "network": "network_step"}
    return against_dense("training", functions, asked, STAGES, settings, tell, (1.8, 0.4))


def against_dense(
    part: str,
    functions: Mapping[str, str],
    asked: Mapping[str, Any],
    stages: Sequence[str],
    settings: Settings,
    tell: Callable[[str], None],
    targets: tuple[float, float],
) -> Iterator[Figure]:
    """Time, memory and each stage of the lazy form, against those of the dense one, for each scope and model.

    Args:
        functions: of `benchmarks.<part>`, by scope: first that of the head, then that of the whole network.
        asked: their arguments, apart from those that all have.
        targets: that AggMask's head has to reach: times as fast, share of the memory.
    """
    head, whole = functions
    scopes = [(head, name) for name in settings.models] + [(whole, name) for name in settings.whole]
    shared = {"size": settings.size, "overrides": settings.overrides, **asked}
    for scope, name in scopes:
        forms = ("lazy", "dense", "plain") if scope == head else ("lazy", "dense")
        cases = {
            form: Case(f"benchmarks.{part}:{functions[scope]}", {"form": form, "experiment": MODELS[name], **shared})
            for form in forms
        }
        aimed = targets if (scope, name) == (head, "AggMask") else (None, None)
        yield from compared(part, f"{name}, {scope}", cases, stages, settings, tell, aimed, separate=settings.separate)


def compared(
    part: str,
    label: str,
    cases: Mapping[str, Case],
    stages: Sequence[str],
    settings: Settings,
    tell: Callable[[str], None],
    targets: tuple[float | None, float | None] = (None, None),
    **how: Any,
) -> Iterator[Figure]:
    """The figures of one thing that is done "lazy" and "dense", and maybe "plain".

    Args:
        targets: times as fast, share of the memory.
        how: `interleaved` measures.
    """
    found = interleaved(cases, settings.repeats, settings.threads, lambda text: tell(f"{label}, {text}"), **how)
    lazy, dense = found["lazy"], found["dense"]
    speed, memory = (None if t is None else settings.target(t) for t in targets)
    yield Figure(part, label, "s", lazy["seconds"], "dense", dense["seconds"], target=speed)
    yield Figure(part, label, "MB", lazy["MB"], "dense", dense["MB"], sense="share", target=memory)
    if "plain" in found:
        plain = found["plain"]["seconds"]
        yield Figure(part, f"{label}, with torch's convolutions", "s", plain, "dense", dense["seconds"])
    for stage in stages:
        if stage in lazy:
            yield Figure(part, f"{label}: {stage}", "s", lazy[stage], "dense", dense[stage])

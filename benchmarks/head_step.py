"""Time and memory of a training step of the head: asked cells only, against the dense formulation.

`python -m benchmarks.head_step [--threads 1] [--steps 2] [--images 2] [--height 800] [--width 1344] [--objects 12]`

The head of `experiment=solo_r101_agg` (window 5, seven convolutions, 80 classes) on a ready pyramid, forward and
backward. The dense form (tests/oracle.py) paints all T*T representations of every level and S*S targets, as the
published code does, and copies the context to each positive cell. "plain" is the lazy form with torch's convolutions,
as the dense form has them: what it gains is the formulation alone. Processor time, the least of some steps; each form
in a process of its own, step by step in turn.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from aggmask.geometry.grid import make_levels
from aggmask.model import winograd
from aggmask.model.aggregation.dynamic import DynamicAggregation
from aggmask.model.category import CategoryBranch
from aggmask.model.head import Head
from aggmask.model.representation.constant import ConstantBank
from aggmask.supervision.assign import Assigner
from aggmask.supervision.criterion import Criterion
from tests.oracle import dense_losses
from tests.small import PUBLISHED_ROWS, make_pyramid, random_objects

FORMS = ("dense", "plain", "lazy")


def memory_mb(kind: str) -> float:
    """Of this process: "VmRSS" as it is, "VmHWM" at its peak since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) / 1024
    raise LookupError(kind)


def forget_peak() -> None:
    """The objects were made from bitmaps of full size, which must not count."""
    Path("/proc/self/clear_refs").write_text("5")


def step_of(form: str, options: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """A training step that returns its losses; everything that it needs is there already."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    canvas = (options.height, options.width)
    parts = {"category": partial(CategoryBranch), "bank": partial(ConstantBank), "aggregation": DynamicAggregation}
    head = Head(make_levels(PUBLISHED_ROWS), 256, 80, **parts)
    pyramid = make_pyramid(options.images, canvas, 256)
    objects = [
        random_objects(options.objects, num_classes=80, canvas=canvas, seed=3 + image)
        for image in range(options.images)
    ]
    if form == "plain":
        winograd.pays = lambda *_: False

    def step() -> dict[str, float]:
        for tensor in (*head.parameters(), *pyramid):
            tensor.grad = None
        if form == "dense":
            losses = dense_losses(head, pyramid, objects, canvas, every_cell=False)
        else:
            outputs = head(pyramid)
            losses = Criterion()(outputs, Assigner()(outputs, objects, canvas))
        sum(losses.values()).backward()
        return {name: value.item() for name, value in losses.items()}

    return step


def serve(form: str, options: argparse.Namespace, pipe: Connection) -> None:
    """A step for every message; answers what it took."""
    step = step_of(form, options)
    forget_peak()
    before = memory_mb("VmRSS")
    while pipe.recv():
        start = time.process_time()
        losses = step()
        pipe.send({"seconds": time.process_time() - start, "megabytes": memory_mb("VmHWM") - before, **losses})


def measure(options: argparse.Namespace, forms: Sequence[str] = FORMS) -> dict[str, dict[str, Any]]:
    """Each form's least seconds and all of them, megabytes above the start, and losses."""
    context, workers = multiprocessing.get_context("spawn"), {}
    for form in forms:
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(form, options, theirs), daemon=True)
        process.start()
        workers[form] = ours, process
    found: dict[str, list[dict[str, float]]] = {form: [] for form in forms}
    for _ in range(1 + options.steps):
        for form, (pipe, _) in workers.items():
            pipe.send(True)
            found[form].append(pipe.recv())
    for pipe, process in workers.values():
        pipe.send(False)
        process.join()
    steps = {form: [row["seconds"] for row in rows[1:]] for form, rows in found.items()}
    return {form: {**rows[-1], "seconds": min(steps[form]), "steps": steps[form]} for form, rows in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"threads": 1, "steps": 2, "images": 2, "height": 800, "width": 1344, "objects": 12}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    found = measure(parser.parse_args())
    dense = found["dense"]
    for form, row in found.items():
        print(
            f"{form:>5}: {row['seconds']:5.1f} s a step (to {max(row['steps']):.1f}), {row['megabytes']:5.0f} MB above "
            f"the start; losses {row['loss_mask']:.5f} {row['loss_category']:.5f}; dense / {form}: "
            f"{dense['seconds'] / row['seconds']:.2f} x time; {form} / dense: "
            f"{row['megabytes'] / dense['megabytes']:.2f} x memory"
        )


if __name__ == "__main__":
    main()

"""Time and memory of a training step of the head: asked cells only, against the dense formulation.

`python -m benchmarks.head_step [--threads 1] [--steps 3] [--height 800] [--width 1344] [--objects 12]`

The head of `experiment=solo_r101_agg` (window 5, seven convolutions, 80 classes) on a ready pyramid of one image,
forward and backward. The dense form (tests/oracle.py) paints all T*T representations of every level and S*S targets,
as the published code does, and copies the context to each positive cell. Each form runs in a process of its own, one
after the other.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from functools import partial

import torch

from aggmask.geometry.grid import make_levels
from aggmask.model.aggregation.dynamic import DynamicAggregation
from aggmask.model.category import CategoryBranch
from aggmask.model.head import Head
from aggmask.model.representation.constant import ConstantBank
from aggmask.supervision.assign import Assigner
from aggmask.supervision.criterion import Criterion
from tests.oracle import dense_losses
from tests.small import PUBLISHED_ROWS, make_pyramid, random_objects


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(form: str, options: argparse.Namespace) -> dict:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    canvas = (options.height, options.width)
    parts = {"category": partial(CategoryBranch), "bank": partial(ConstantBank), "aggregation": DynamicAggregation}
    head = Head(make_levels(PUBLISHED_ROWS), 256, 80, **parts)
    pyramid = make_pyramid(1, canvas, 256)
    objects = [random_objects(options.objects, num_classes=80, canvas=canvas, seed=3)]
    before, seconds = peak_mb(), []
    for _ in range(1 + options.steps):
        head.zero_grad(set_to_none=True)
        start = time.perf_counter()
        if form == "lazy":
            outputs = head(pyramid)
            losses = Criterion()(outputs, Assigner()(outputs, objects, canvas))
        else:
            losses = dense_losses(head, pyramid, objects, canvas, every_cell=False)
        sum(losses.values()).backward()
        seconds.append(time.perf_counter() - start)
    values = {name: value.item() for name, value in losses.items()}
    return {"seconds": seconds[1:], "megabytes": peak_mb() - before, **values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("threads", 1), ("steps", 3), ("height", 800), ("width", 1344), ("objects", 12)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--form", choices=("lazy", "dense"), help="one form in this process, as JSON")
    options = parser.parse_args()
    if options.form:
        print(json.dumps(measure(options.form, options)))
        return
    found = {}
    for form in ("lazy", "dense"):
        command = [sys.executable, "-m", "benchmarks.head_step", "--form", form, *sys.argv[1:]]
        found[form] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        row = found[form]
        spread = f"{min(row['seconds']):.1f} to {max(row['seconds']):.1f}"
        print(
            f"{form:>5}: {statistics.median(row['seconds']):5.1f} s a step ({spread}), "
            f"{row['megabytes']:5.0f} MB above the start; losses {row['loss_mask']:.5f} {row['loss_category']:.5f}"
        )
    lazy, dense = found["lazy"], found["dense"]
    slower = statistics.median(dense["seconds"]) / statistics.median(lazy["seconds"])
    print(f"dense / lazy: {slower:.2f} x time, {dense['megabytes'] / lazy['megabytes']:.2f} x memory")


if __name__ == "__main__":
    main()

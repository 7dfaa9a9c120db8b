"""What a table of means does not show: each run of a study by itself, and its masks without regard to categories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

from aggmask.files import write_whole
from aggmask.metrics import ground_truth
from aggmask.metrics.evaluators import evaluate
from aggmask.metrics.ground_truth import GroundTruth
from aggmask.reporting.runs import Run
from benchmarks.variants import is_of, name_of

_HEAD = (
    "variant",
    "seed",
    "AP",
    "AP, one category",
    "AR100, one category",
    "category loss",
    "mask loss",
    "steps",
    "step [ms]",
)
_NOTE = """
On the test images, x 100. One category: as if all objects and detections were of the same, so that only masks and
scores count. Losses: means over the last eighth of the training. Step: the median of what was logged.
"""


def write(file: Path, jobs: Sequence[Sequence[str]], runs: Sequence[Run], pool: Executor) -> None:
    """A Markdown table, the runs of a variant one below the other.

    Args:
        jobs: the overrides of each variant.
        runs: evaluated on test.
    """
    order = {run.folder: number for run in runs for number, job in enumerate(jobs) if is_of(run, job, jobs)}
    chosen = sorted((run for run in runs if run.folder in order), key=lambda run: (order[run.folder], run.seed))
    lines = ["| " + " | ".join(_HEAD) + " |", "|---" * len(_HEAD) + "|"]
    for run, values in zip(chosen, pool.map(numbers, chosen), strict=True):
        cells = [name_of(jobs[order[run.folder]]), run.seed, *values]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    text = "\n".join(lines) + "\n" + _NOTE
    write_whole(file, lambda opened: opened.write(text.encode()))


def numbers(run: Run) -> list[str]:
    """What stands behind variant and seed."""
    file = Path(run.config["data"]["root"], "annotations", "instances_test2017.json")
    content, results = json.loads(file.read_text()), run.results("test")
    truth = ground_truth.load(content, [category["id"] for category in content["categories"]])
    own = evaluate(truth, results, run.max_detections).summary()
    one = evaluate(of_one_category(truth), [{**r, "category_id": 1} for r in results], run.max_detections).summary()
    scores = [f"{100 * score:.1f}" for score in (own["AP"], one["AP"], one["AR100"])]
    losses = [f"{late(run, f'train/loss_{name}'):.3f}" for name in ("category", "mask")]
    seconds = median(value for *_, value in run.logged["train/step_seconds"])
    return [*scores, *losses, str(run.config["trainer"]["max_steps"]), f"{1000 * seconds:.0f}"]


def of_one_category(truth: GroundTruth) -> GroundTruth:
    """The same objects, all of category 1."""
    return replace(truth, categories={1: "object"}, annotations=[{**a, "category_id": 1} for a in truth.annotations])


def late(run: Run, name: str) -> float:
    """Mean of what was logged in the last eighth of a training."""
    values = [value for *_, value in run.logged[name]]
    return mean(values[-max(1, len(values) // 8) :])

"""A sweep in numbers: the mean and spread of each variant over seeds, its difference to the baseline, what it costs.

AP is computed anew from each run's `results.json` and the validation annotations, so that every number, and every
resample of the bootstrap, comes from the same evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aggmask.data.datamodule import CocoDataModule
from aggmask.errors import UserError
from aggmask.metrics import crowding, ground_truth
from aggmask.metrics.ground_truth import GroundTruth
from aggmask.metrics.resampling import Interval, paired_difference, resamples
from aggmask.reporting.costs import costs_of
from aggmask.reporting.places import validation_data
from aggmask.reporting.runs import FINISHED, Run, read_runs
from aggmask.reporting.scores import Scores, counted_results, scores_of, stacked, touching_less_apart, truth_of_all
from aggmask.reporting.variants import Variant, choose, group

_AGREED = 5e-4  # AP: metrics.csv holds float32


class Spread(NamedTuple):
    """Over seeds. The mean is NaN where there is no ground truth, the deviation where there is one seed."""

    mean: float
    deviation: float  # of a sample: divided by n - 1

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        return cls(float(np.mean(values)), deviation)


@dataclass(frozen=True)
class Row:
    """One variant; names are those of NUMBERS, and of `crowding.NAMES` where objects touch."""

    variant: Variant
    numbers: dict[str, Spread]
    categories: dict[int, Spread]  # by id
    differences: dict[str, Interval]  # to the baseline, of `crowding.MORE` too; empty for the baseline itself
    category_differences: dict[int, Interval]
    costs: dict[str, float | None]


@dataclass(frozen=True)
class Summary:
    """What the page shows."""

    folder: Path
    runs: list[Run]
    variants: list[Variant]
    rows: list[Row]  # of variants with a finished run
    baseline: Variant
    truth: GroundTruth
    data: CocoDataModule
    resamples: int
    notes: list[str]  # what a reader of the numbers must know
    split: str = "val"

    @property
    def category_names(self) -> dict[int, str]:
        """By id; where several categories have a name, each with its id behind it."""
        names = self.truth.categories
        counts = Counter(names.values())
        return {number: f"{name} ({number})" if counts[name] > 1 else name for number, name in names.items()}


def summarize(
    folder: str | Path,
    baseline: str | None = None,
    resample_count: int = 1000,
    root: str | None = None,
    split: str = "val",
) -> Summary:
    """Read a sweep and compute everything that is told about it.

    Args:
        baseline: what the others are compared with: a label, a setting or a run; None: the first variant.
        resample_count: of the bootstrap over images.
        root: where the validation data is now; None: where it was.
        split: "val", or another one on which all runs were evaluated since: `python -m aggmask.evaluate split=...`.

    Raises:
        UserError: there is no sweep, nothing in it is finished, its runs have no images in common, or the validation
            data is not there.
    """
    folder = Path(folder).expanduser()
    runs = read_runs(folder)
    variants, repeated = _each_seed_once(group(runs))
    finished = [run for variant in variants for run in variant.finished]
    if not finished:
        states = "".join(f"\n  {run.name}: {run.state}, {run.detail}" for run in runs)
        raise UserError(f"{folder}: none of its jobs is finished:{states}")
    ready = [variant for variant in variants if variant.finished]
    chosen = choose(ready, baseline)
    data = validation_data(finished, folder, root, split)
    truth = ground_truth.load(data.val.annotations, [category.id for category in data.categories])
    everything, (truth, notes) = truth, truth_of_all(finished, truth, split)
    notes += [*repeated, *_missing(runs)]
    weights = resamples(len(truth.sizes), resample_count)
    sorts = crowding.split(truth)
    # One run's results at a time: those of all may be larger than the memory.
    scores = {
        run.folder: scores_of(run, counted_results(run, everything, truth, split), truth, weights, sorts)
        for run in finished
    }
    notes += _disagreements(finished, scores) if split == "val" else []
    rows = [_row(variant, chosen, scores, len(data.categories)) for variant in ready]
    return Summary(folder, runs, variants, rows, chosen, truth, data, resample_count, notes, split)


def _each_seed_once(variants: Sequence[Variant]) -> tuple[list[Variant], list[str]]:
    """Variants without the runs that others repeat (two sweeps of the same jobs below one folder), and notes of them.

    A repetition says nothing about the spread over seeds. The last one counts.
    """
    kept, notes = [], []
    for variant in variants:
        by_seed: dict[Any, list[Run]] = {}
        for run in variant.finished:
            own = run.folder if run.seed is None else None  # nothing says that it is a repetition
            by_seed.setdefault((run.seed, run.config.get("data", {}).get("seed"), own), []).append(run)
        for (seed, *_), (*others, last) in by_seed.items():
            if others:
                told = ", ".join(run.name for run in others)
                notes.append(f"Seed {seed} of {variant.label} was run more than once: {last.name} counts, not {told}.")
        left_out = {run.folder for *others, _ in by_seed.values() for run in others}
        kept.append(replace(variant, runs=[run for run in variant.runs if run.folder not in left_out]))
    return kept, notes


def _missing(runs: Sequence[Run]) -> list[str]:
    missing = [run for run in runs if run.state != FINISHED]
    if not missing:
        return []
    told = "; ".join(f"{run.name} ({run.state}: {run.detail})" for run in missing)
    return [f"{len(missing)} of {len(runs)} jobs are not finished, and not in these numbers: {told}."]


def _row(variant: Variant, baseline: Variant, scores: dict[Path, Scores], classes: int) -> Row:
    ours, theirs = ([scores[run.folder] for run in each.finished] for each in (variant, baseline))
    told = []
    for kind in ("numbers", "categories"):
        own, other = ([getattr(score, kind) for score in side] for side in (ours, theirs))
        told.append({name: Spread.of(np.array([scored[name][0] for scored in own])) for name in own[0]})
        compared = () if variant is baseline else own[0]
        told.append({name: paired_difference(stacked(own, name), stacked(other, name)) for name in compared})
    spreads, differences, categories, category_differences = told
    if crowding.NAMES.keys() <= differences.keys():
        differences[crowding.MORE] = paired_difference(touching_less_apart(ours), touching_less_apart(theirs))
    return Row(variant, spreads, categories, differences, category_differences, costs_of(variant, classes))


def _disagreements(runs: Sequence[Run], scores: dict[Path, Scores]) -> list[str]:
    """A note where training logged another AP than its results give: the annotations may have changed since."""
    told = []
    for run in runs:
        best = max((value for _, _, value in run.logged.get("val/AP", [])), default=None)
        found = scores[run.folder].numbers["AP"][0]
        if best is not None and abs(best - found) > _AGREED:
            told.append(f"{run.name}: {found:.4f}, logged {best:.4f}")
    if not told:
        return []
    return [f"The results of {len(told)} runs give another AP than training logged ({'; '.join(told)})."]

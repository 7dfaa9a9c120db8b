"""AP of one run on all images and on resamples of them, from its `results.json` and the annotations."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aggmask.errors import UserError
from aggmask.metrics import crowding
from aggmask.metrics.ground_truth import GroundTruth
from aggmask.metrics.resampling import NUMBERS, Matches, average_precision, numbers, per_category
from aggmask.reporting.runs import Run

log = logging.getLogger(__name__)

Scored = dict[Any, tuple[float, np.ndarray]]  # name or category id -> AP on all images, and on each of R resamples


class Scores(NamedTuple):
    """Of one run: by name (NUMBERS, and `crowding.NAMES` where objects touch), and by category id."""

    numbers: Scored
    categories: Scored


def truth_of_all(runs: Sequence[Run], truth: GroundTruth, split: str) -> tuple[GroundTruth, list[str]]:
    """The ground truth of the images that all runs were evaluated on, and a note where these are not all.

    Raises:
        UserError: they have no image in common.
    """
    known = [ids for run in runs if (ids := run.evaluated(split)) is not None]
    common = set.intersection(*known) if known else set(truth.sizes)
    if common >= truth.sizes.keys():
        return truth, []
    if not (shared := truth.restricted_to(common)).sizes:
        raise UserError("the runs were evaluated on different images, none of which all of them have in common")
    return shared, [
        f"Evaluated on a part of the {len(truth.sizes)} images (trainer.limit_val_batches, or images that could not be "
        f"read): all numbers are over the {len(shared.sizes)} images that every run has in common."
    ]


def counted_results(run: Run, everything: GroundTruth, truth: GroundTruth, split: str) -> list[dict[str, Any]]:
    """A run's detections on the images that count.

    Args:
        everything: ground truth of all images.
        truth: of those that count.

    Raises:
        UserError: a detection is on an image that the annotations do not have.
    """
    results = run.results(split)
    strangers = {found["image_id"] for found in results} - everything.sizes.keys()
    if strangers:
        raise UserError(
            f"{run.results_file(split)}: image {min(strangers)} is not in the validation annotations, so these are "
            "others than the run was evaluated on; say where the right ones are: root=DIR"
        )
    return [found for found in results if found["image_id"] in truth.sizes]


def scores_of(
    run: Run, results: list[dict[str, Any]], truth: GroundTruth, weights: np.ndarray, sorts: Mapping[str, GroundTruth]
) -> Scores:
    """AP of one run.

    Args:
        weights: (R, images) how often each image is in each of R resamples.
        sorts: the ground truth of touching objects, and of those apart, by name.
    """
    matches = Matches.of(truth, results, run.max_detections)
    whole, drawn = average_precision(matches), average_precision(matches, weights)
    once, each = numbers(whole), numbers(drawn)
    log.info("%s: AP %.4f", run.name, once["AP"].item())
    pairs = zip(per_category(whole)[0].tolist(), per_category(drawn).T, strict=True)
    categories = dict(zip(matches.category_ids, pairs, strict=True))
    told = {n: (once[n].item(), each[n]) for n in NUMBERS}
    for name, sort in sorts.items():
        matches = Matches.of(sort, results, run.max_detections).of_all_sizes()
        own, resampled = (numbers(average_precision(matches, w))["AP"] for w in (None, weights))
        told[name] = own.item(), resampled
    return Scores(told, categories)


def touching_less_apart(scores: Sequence[Scores]) -> tuple[np.ndarray, np.ndarray]:
    """AP of touching objects less that of those apart, of s seeds: (s,) on all images, (s, R) on the resamples."""
    touching, apart = (stacked([score.numbers for score in scores], name) for name in crowding.NAMES)
    return touching[0] - apart[0], touching[1] - apart[1]


def stacked(scores: Sequence[Scored], name: str) -> tuple[np.ndarray, np.ndarray]:
    """One number of s seeds: (s,) on all images, (s, R) on the resamples."""
    once, each = zip(*(scored[name] for scored in scores), strict=True)
    return np.array(once), np.stack(each)

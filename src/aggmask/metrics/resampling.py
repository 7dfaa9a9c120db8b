"""COCO mask AP of resampled images: every image is matched once, and every resample only counts.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, with images as units; AP is COCO's.
A resample says how often it holds each image, and its AP is that of a data set in which the image stands so often
under different ids. Why counting is enough: precision is highest where a hit ends, so that only hits need their
precision; and copies of an image lie beside each other in the order of the scores, so that they move the counts of
hits and misses by whole numbers. (Copies of several detections that share image, category and score stand together
here; there is no order that COCO prescribes for them.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from aggmask.metrics.evaluators import AREAS, IOU_50, IOU_75, match
from aggmask.metrics.ground_truth import GroundTruth

RECALLS = np.linspace(0.0, 1.0, 101)
THRESHOLDS = 10  # IoU .50, .55, ..., .95
NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_CHUNK = 250  # resamples at a time: bounds memory


class Matched(NamedTuple):
    """The D detections and the ground truth of one category and one range of sizes, in all I images."""

    images: np.ndarray  # (D,) place of each detection's image; best score first, then in the order of images
    hits: np.ndarray  # (10, D) bool: at this IoU threshold it has found an object
    misses: np.ndarray  # (10, D) bool: it has not, and counts; what is neither is ignored
    objects: np.ndarray  # (I,) objects to find in each image


@dataclass(frozen=True)
class Matches:
    """What one run found, matched to the ground truth."""

    image_ids: np.ndarray  # (I,) ascending
    category_ids: list[int]  # of K categories
    cells: Mapping[tuple[int, int], Matched]  # by place of the category and of the size; only where there is anything

    @classmethod
    def of(cls, truth: GroundTruth, results: list[dict[str, Any]], max_detections: int = 100) -> Matches:
        """Match COCO results to all images of `truth`; arguments as in `evaluators.evaluate`."""
        image_ids = np.array(sorted(truth.sizes))
        category_ids = sorted(truth.categories)
        found: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for entry in match(truth, results, max_detections):
            place = category_ids.index(entry["category_id"]), _size(entry["aRng"])
            found.setdefault(place, []).append(entry)
        cells = {place: _joined(entries, image_ids, max_detections) for place, entries in found.items()}
        return cls(image_ids, category_ids, cells)

    def of_all_sizes(self) -> Matches:
        """Without what is matched again by size: AP over all sizes in a fourth of the time."""
        return replace(self, cells={place: cell for place, cell in self.cells.items() if place[1] == 0})


def _size(bounds: Sequence[float]) -> int:
    """Place in AREAS of a range of areas."""
    low, high = bounds
    if low == 0:
        return 0 if high > 96**2 else 1
    return 2 if high <= 96**2 else 3


def _joined(entries: list[dict[str, Any]], image_ids: np.ndarray, limit: int) -> Matched:
    entries = sorted(entries, key=lambda entry: entry["image_id"])
    places = np.searchsorted(image_ids, [entry["image_id"] for entry in entries])
    counts = [min(len(entry["dtScores"]), limit) for entry in entries]
    scores = np.concatenate([np.asarray(entry["dtScores"], dtype=float)[:limit] for entry in entries])
    matched, ignored = (
        np.concatenate([np.asarray(entry[key], dtype=bool).reshape(THRESHOLDS, -1)[:, :limit] for entry in entries], 1)
        for key in ("dtMatched", "dtIgnore")
    )
    order = np.argsort(-scores, kind="stable")
    objects = np.zeros(len(image_ids), dtype=np.int64)
    objects[places] = [len(entry["gtIgnore"]) - sum(entry["gtIgnore"]) for entry in entries]
    hits, misses = matched & ~ignored, ~matched & ~ignored
    return Matched(np.repeat(places, counts)[order], hits[:, order], misses[:, order], objects)


def resamples(images: int, count: int, seed: int = 0) -> np.ndarray:
    """(count, images) int64: how often each image is in each of `count` draws of as many images with replacement."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=count)


def average_precision(matches: Matches, weights: np.ndarray | None = None) -> np.ndarray:
    """AP of each resample.

    Args:
        weights: (R, I) how often each resample holds each image; None: one resample, every image once.

    Returns:
        (R, 10 IoU thresholds, K categories, 4 sizes as in AREAS) float64; NaN where nothing is to be found.
    """
    images = len(matches.image_ids)
    weights = np.ones((1, images)) if weights is None else np.asarray(weights, dtype=float)
    precision = np.full((len(weights), THRESHOLDS, len(matches.category_ids), len(AREAS)), np.nan)
    for start in range(0, len(weights), _CHUNK):
        part = np.ascontiguousarray(weights[start : start + _CHUNK].T)  # (I, r)
        for (category, size), cell in matches.cells.items():
            precision[start : start + _CHUNK, :, category, size] = _of_cell(cell, part)
    return precision


def _of_cell(cell: Matched, weights: np.ndarray) -> np.ndarray:
    """(r, 10) AP of one category and size; weights are (I, r)."""
    objects = cell.objects @ weights
    found = [_of_threshold(cell.images, h, m, objects, weights) for h, m in zip(cell.hits, cell.misses, strict=True)]
    return np.where(objects[:, None] > 0, np.stack(found, axis=1), np.nan)


def _of_threshold(
    images: np.ndarray, hits: np.ndarray, misses: np.ndarray, objects: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """(r,) mean precision at 101 recalls; 0 where there is no hit."""
    hit_places, miss_places = np.flatnonzero(hits), np.flatnonzero(misses)
    if not len(hit_places):
        return np.zeros(weights.shape[1])
    true = weights[images[hit_places]].cumsum(0)  # (hits, r)
    first = np.searchsorted(hit_places, miss_places)  # the hit that a miss comes right before
    counted = first < len(hit_places)
    places = torch.from_numpy(np.stack([first[counted], images[miss_places[counted]]]))
    shape = (len(hit_places), len(weights))
    between = torch.sparse_coo_tensor(
        places, torch.ones(places.shape[1], dtype=torch.float64), shape, check_invariants=False
    )
    false = torch.sparse.mm(between, torch.from_numpy(weights)).numpy().cumsum(0)
    precision = true / np.maximum(true + false, 1)  # no copy of any so far: 0 of 0
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(RECALLS, true / np.maximum(objects, 1), side="right")  # recalls up to this hit
    return (envelope * np.diff(reached, axis=0, prepend=0)).sum(0) / len(RECALLS)


def numbers(precision: np.ndarray) -> dict[str, np.ndarray]:
    """(R, 10, K, 4) as of `average_precision` -> NUMBERS, (R,) each; NaN where nothing is to be found."""
    parts = {"AP": precision[..., 0], "AP50": precision[:, IOU_50, :, 0], "AP75": precision[:, IOU_75, :, 0]}
    parts |= {f"AP{name}": precision[..., place] for place, name in enumerate(AREAS) if name}
    return {name: _mean(values.reshape(len(values), -1)) for name, values in parts.items()}


def per_category(precision: np.ndarray) -> np.ndarray:
    """(R, 10, K, 4) as of `average_precision` -> (R, K) AP of each category."""
    return precision[..., 0].mean(1)


def _mean(values: np.ndarray) -> np.ndarray:
    """(R, n) -> (R,) mean of what is there."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(1) / there.sum(1)


class Interval(NamedTuple):
    """A difference, and where the bootstrap puts it."""

    value: float
    low: float
    high: float


def paired_difference(
    ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray], level: float = 0.95
) -> Interval:
    """Ours minus theirs with its percentile interval; both saw the same resamples.

    Args:
        ours, theirs: ((s,) AP of s seeds on all images, (s, R) on each resample). Seeds are averaged inside a
            resample: the interval is about the images, with the trained models given.
        level: share of the resamples between the two ends.
    """
    differences = ours[1].mean(0) - theirs[1].mean(0)
    there = differences[~np.isnan(differences)]
    low, high = np.quantile(there, [(1 - level) / 2, (1 + level) / 2]) if len(there) else (np.nan, np.nan)
    return Interval(float(ours[0].mean() - theirs[0].mean()), float(low), float(high))

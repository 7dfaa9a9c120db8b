"""Counting equals evaluating again: on all images, on any multiset of them, and by hand."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from aggmask.metrics import ground_truth, resampling
from aggmask.metrics.evaluators import evaluate
from aggmask.metrics.resampling import (
    NUMBERS,
    Matches,
    average_precision,
    numbers,
    paired_difference,
    per_category,
    resamples,
)
from tests.metrics.made_up import CATEGORY_IDS, data_set, independent_results, with_specks


def _case(images=20, seed=0, distinct=True, specks=False):
    content, detections = data_set(images, seed)
    if specks:
        content, detections = with_specks(content, detections)
    results = independent_results(detections)
    if distinct:  # what ties are worth depends on the order of ids
        for number, result in enumerate(results):
            result["score"] += 1e-6 * number
    return ground_truth.load(content, CATEGORY_IDS), results


def _repeated(truth, results, weights):
    """The data set in which image i stands weights[i] times, under new ids."""
    new_ids, sizes, annotations, found = count(1), {}, [], []
    for image_id, times in zip(sorted(truth.sizes), weights, strict=True):
        for _ in range(times):
            copy = next(new_ids)
            sizes[copy] = truth.sizes[image_id]
            annotations += [{**a, "image_id": copy} for a in truth.annotations if a["image_id"] == image_id]
            found += [{**r, "image_id": copy} for r in results if r["image_id"] == image_id]
    annotations = [{**a, "id": number} for number, a in enumerate(annotations, start=1)]
    return ground_truth.GroundTruth(sizes, truth.categories, annotations), found


@pytest.mark.parametrize("limit", [3, 100, 300])
@pytest.mark.parametrize("distinct", [False, True])
def test_every_image_once_is_the_metric(limit, distinct):
    truth, results = _case(distinct=distinct, specks=True)
    expected = evaluate(truth, results, limit)
    assert expected.summary()["AP"] < evaluate(truth, results, limit + 20).summary()["AP"]
    precision = average_precision(Matches.of(truth, results, limit))
    ours = numbers(precision)
    for name in NUMBERS:
        assert ours[name].item() == pytest.approx(expected.summary()[name], abs=1e-12), name
    categories = expected.per_category(truth.categories)
    for category, ap in zip(sorted(truth.categories), per_category(precision)[0], strict=True):
        assert np.nan_to_num(ap, nan=-1) == pytest.approx(categories[category].ap, abs=1e-12)


def test_ids_of_images_and_categories_are_those_of_the_file():
    truth, results = _case()
    below = ground_truth.GroundTruth(
        {image_id - 940: size for image_id, size in truth.sizes.items()},
        truth.categories,
        [{**a, "image_id": a["image_id"] - 940} for a in truth.annotations],
    )
    matches = Matches.of(below, [{**r, "image_id": r["image_id"] - 940} for r in results])
    assert matches.image_ids.tolist() == sorted(below.sizes)
    expected = numbers(average_precision(Matches.of(truth, results)))
    assert numbers(average_precision(matches)) == expected


def test_a_resample_is_the_data_set_with_its_images_repeated(monkeypatch):
    monkeypatch.setattr(resampling, "_CHUNK", 10)  # so that 25 resamples are more than two parts
    truth, results = _case(12, seed=3)
    weights = resamples(12, 25, seed=1)
    ours = numbers(average_precision(Matches.of(truth, results), weights))
    for number, row in enumerate(weights):
        expected = evaluate(*_repeated(truth, results, row)).summary()
        for name in NUMBERS:
            assert np.nan_to_num(ours[name][number], nan=-1) == pytest.approx(expected[name], abs=1e-12), name


def test_the_interval_is_that_of_evaluating_every_resample_again():
    truth, results = _case(8, seed=5)
    other = [result for number, result in enumerate(results) if number % 3]
    weights = resamples(8, 40, seed=2)
    sides, brute = [], []
    for found in (results, other):
        matches = Matches.of(truth, found)
        sides.append(
            (numbers(average_precision(matches))["AP"], numbers(average_precision(matches, weights))["AP"][None])
        )
        brute.append([evaluate(*_repeated(truth, found, row)).summary()["AP"] for row in weights])
    interval = paired_difference(*sides)
    expected = np.quantile(np.subtract(*brute), [0.025, 0.975])
    assert [interval.low, interval.high] == pytest.approx(expected.tolist(), abs=1e-12)
    assert interval.value == pytest.approx(
        evaluate(truth, results).summary()["AP"] - evaluate(truth, other).summary()["AP"]
    )


def test_seeds_are_averaged_inside_a_resample():
    ours = np.array([0.4, 0.6]), np.array([[0.3, 0.5], [0.5, 0.9]])
    theirs = np.array([0.1, 0.3]), np.array([[0.2, 0.1], [0.0, 0.1]])
    interval = paired_difference(ours, theirs, level=1.0)
    assert interval == pytest.approx((0.3, 0.3, 0.6))


def test_resamples_hold_as_many_images_and_follow_from_the_seed():
    drawn = resamples(7, 50, seed=4)
    assert drawn.shape == (50, 7)
    assert (drawn.sum(1) == 7).all()
    assert (drawn == resamples(7, 50, seed=4)).all()
    assert (drawn != resamples(7, 50, seed=5)).any()


def test_no_detections_are_zero_and_no_objects_are_nan():
    truth, _ = _case(6)
    values = numbers(average_precision(Matches.of(truth, [])))
    assert values["AP"] == 0
    nothing = ground_truth.GroundTruth(truth.sizes, truth.categories, [])
    assert all(np.isnan(value) for value in numbers(average_precision(Matches.of(nothing, []))).values())


def test_by_hand():
    """Two images, one object each: found in the first, while the second has a better scored miss."""
    from aggmask.metrics.resampling import Matched

    cell = Matched(
        images=np.array([1, 0]),
        hits=np.tile([False, True], (10, 1)),
        misses=np.tile([True, False], (10, 1)),
        objects=np.array([1, 1]),
    )
    matches = SimpleNamespace(image_ids=np.array([4, 9]), category_ids=[1], cells={(0, 0): cell})
    ap = average_precision(matches, np.array([[1, 1], [2, 0], [0, 2], [3, 1]]))[:, 0, 0, 0]
    # Recalls 0 to 1/2 at precision 1/2; all at 1; nothing; recalls 0 to 3/4 at precision 3/4.
    assert ap == pytest.approx([51 / 101 / 2, 1, 0, 76 / 101 * 3 / 4])

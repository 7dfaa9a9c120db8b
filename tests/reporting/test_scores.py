"""What is said of one run, by hand; against the evaluator itself: test_summary.py."""

import numpy as np
import pytest

from aggmask.errors import UserError
from aggmask.metrics import crowding
from aggmask.reporting.scores import Scores, counted_results, stacked, touching_less_apart, truth_of_all


def _scored(once, *each):
    return once, np.array(each)


def test_numbers_of_seeds_are_stacked():
    seeds = [{"AP": _scored(0.5, 0.4, 0.6)}, {"AP": _scored(0.3, 0.2, 0.1)}]
    once, each = stacked(seeds, "AP")
    assert once.tolist() == [0.5, 0.3]
    assert each.tolist() == [[0.4, 0.6], [0.2, 0.1]]


def test_touching_less_apart_is_that_of_each_seed_and_resample():
    touching, apart = crowding.NAMES
    seed = Scores({touching: _scored(0.5, 0.25, 0.75), apart: _scored(0.25, 0.5, 0.5)}, {})
    once, each = touching_less_apart([seed])
    assert once.tolist() == [0.25]
    assert each.tolist() == [[-0.25, 0.25]]


class Evaluated:
    """As much of a run as is asked here."""

    def __init__(self, images, found=()):
        self.images, self.found = images, [{"image_id": number} for number in found]

    def evaluated(self, split):
        return self.images

    def results(self, split):
        return self.found

    def results_file(self, split):
        return f"{split}.json"


def test_only_images_that_all_runs_saw_count(summary):
    a, b, c, *_ = sorted(summary.truth.sizes)
    kept, notes = truth_of_all([Evaluated({a, b}), Evaluated(None), Evaluated({b, c})], summary.truth, "val")
    assert set(kept.sizes) == {b}
    assert [note.endswith("over the 1 images that every run has in common.") for note in notes] == [True]
    assert truth_of_all([Evaluated(None)], summary.truth, "val") == (summary.truth, [])
    with pytest.raises(UserError, match="none of which all of them have in common"):
        truth_of_all([Evaluated({a}), Evaluated({b})], summary.truth, "val")


def test_results_are_those_of_the_images_that_count(summary):
    a, b, *_ = sorted(summary.truth.sizes)
    part = summary.truth.restricted_to({b})
    assert counted_results(Evaluated(None, [a, b, b, a]), summary.truth, part, "val") == [{"image_id": b}] * 2
    stranger = max(summary.truth.sizes) + 1
    with pytest.raises(UserError, match=rf"test\.json: image {stranger} is not in"):
        counted_results(Evaluated(None, [a, stranger]), summary.truth, part, "test")

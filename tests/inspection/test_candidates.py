"""Fates by hand; levels of squares as in the tests of decoding."""

import pytest
import torch

from aggmask.decoding.decode import Decoder
from aggmask.inspection.candidates import Fate, best_of_each_category, examine
from tests.decoding.test_decode import APART, SQUARE, level_of, logit


def of(output, threshold=0.3, **options):
    return examine(Decoder(**options), [output], SQUARE, threshold)


def test_a_duplicate_names_who_lowered_it():
    output = level_of({(0, 1, 0): 0.8, (0, 1, 10): 0.7, (0, 1, 8): 0.6}, {0: APART[0], 10: APART[0], 8: APART[8]})
    found = of(output)
    assert found.found.cells.tolist() == [0, 10, 8]
    assert found.fates == [Fate.SHOWN, Fate.DUPLICATE, Fate.SHOWN]
    assert found.decay.by.tolist() == [-1, 0, -1]
    assert found.shown == [0, 2]
    assert found.removed == [1]
    torch.testing.assert_close(found.category_scores, torch.tensor([0.8, 0.7, 0.6]))
    torch.testing.assert_close(found.scores, torch.tensor([0.8, 0.7, 0.6]) * torch.tensor([1, 0.1353353, 1]))


def test_the_same_copy_of_another_class_is_shown():
    output = level_of({(0, 1, 0): 0.8, (0, 2, 10): 0.7}, {0: APART[0], 10: APART[0]})
    assert of(output).fates == [Fate.SHOWN, Fate.SHOWN]


def test_what_is_not_shown_is_in_the_order_of_the_scores_that_it_ends_with():
    output = level_of({(0, 1, 0): 0.8, (0, 1, 10): 0.7, (0, 1, 8): 0.25}, {0: APART[0], 10: APART[0], 8: APART[8]})
    found = of(output)
    assert found.fates == [Fate.SHOWN, Fate.DUPLICATE, Fate.WEAK]
    assert found.removed == [2, 1]  # 0.7 * 0.135 < 0.25


def test_every_other_fate():
    scores = {(0, 0, 0): 0.9, (0, 0, 2): 0.8, (0, 1, 8): 0.25, (0, 0, 10): 0.7, (0, 0, 5): 0.6}
    boxes = {0: APART[0], 2: APART[2], 8: APART[8], 10: (4, 4, 6, 6)}  # cell 10: 4 pixels at stride 8; 5: next to 0
    found = of(level_of(scores, boxes), max_detections=1)
    assert found.fates == [Fate.SHOWN, Fate.SURPLUS, Fate.WEAK]
    assert found.counts == {
        Fate.SHOWN: 1,
        Fate.DUPLICATE: 0,
        Fate.WEAK: 1,
        Fate.SURPLUS: 1,
        Fate.SMALL: 1,
        Fate.NEIGHBOR: 1,
    }
    assert found.removed == [1, 2]


def test_what_does_not_enter_for_want_of_room_is_told():
    found = of(level_of({(0, 0, cell): 0.5 + cell / 100 for cell in APART}, APART), nms_pre=1)
    assert found.found.cells.tolist() == [10]
    assert found.counts[Fate.SURPLUS] == 3
    assert found.counts[Fate.SMALL] == 0


def test_uncertain_masks_are_weak():
    output = level_of({(0, 0, 0): 0.5}, APART)
    output.field.maps[0, 0] = logit(0.55)
    assert of(output).fates == [Fate.WEAK]  # 0.5 * 0.55
    assert of(output, threshold=0.25).fates == [Fate.SHOWN]


def test_nothing_below_the_models_own_threshold_is_shown():
    output = level_of({(0, 1, 0): 0.5, (0, 1, 10): 0.3}, {0: APART[0], 10: APART[0]})
    assert of(output, 0.0).fates == [Fate.SHOWN, Fate.DUPLICATE]  # 0.3 * 0.135 < 0.05
    assert of(output, 0.0, keep_threshold=0.01).fates == [Fate.SHOWN, Fate.SHOWN]


def test_nothing_at_all():
    found = of(level_of({}, APART))
    assert found.shown == found.removed == []
    assert sum(found.counts.values()) == 0


def test_best_of_each_category():
    first, second = level_of({(0, 0, 3): 0.4, (0, 1, 0): 0.2}, {}), level_of({(0, 1, 9): 0.6, (0, 0, 1): 0.1}, {})
    (one, best, level, cell), other, none = best_of_each_category([first, second])
    assert (one, level, cell) == (1, 1, 9)
    assert best == pytest.approx(0.6)
    assert (other[0], other[2], other[3]) == (0, 0, 3)
    assert none[0] == 2
    assert none[1] < 1e-6

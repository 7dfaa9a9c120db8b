"""What a pile lets lie on it, and that a crowd has companions."""

import itertools

import numpy as np
import pytest

from aggmask.data.pile import Pile, crowd
from tests.data.test_outlines import disk_depth


@pytest.mark.parametrize(
    ("limits", "second", "fits"),
    [
        ({"min_visible": 0.4}, (14, 20), True),
        ({"min_visible": 0.9}, (14, 20), False),  # which hides a part of the first
        ({"min_distance": 9}, (32, 20), True),
        ({"min_distance": 21}, (32, 20), False),
        ({"min_area": 190}, (32, 20), True),
        ({"min_area": 210}, (32, 20), False),  # as a disk of radius 8 has 201 pixels
    ],
)
def test_a_pile_refuses_what_spoils_the_picture(limits, second, fits):
    pile = Pile((40, 40), **{"min_visible": 0.0, "min_distance": 0.0} | limits)
    assert pile.lay(disk_depth((20 if second[0] < 20 else 12, 20), 8.5))
    assert pile.lay(disk_depth(second, 8)) == fits
    assert len(pile.depths) == 1 + fits


def test_an_empty_pile_has_no_depths():
    assert Pile((40, 30), 0.4, 0).depths.shape == (0, 81, 61)


def test_about_half_of_a_crowd_is_joined_by_its_own_kind():
    laid = []

    def lay(label, center, side):
        laid.append((label, *center, side))
        return True

    labels = crowd(np.random.default_rng(0), (1000, 1000), np.full(400, 20.0), 50, (0.5, 1.0), lay)
    assert labels == [label for label, *_ in laid]
    joins = 0
    for (first, x, y, side), (second, u, v, _) in itertools.pairwise(laid):
        near = 0.5 * side <= np.hypot(u - x, v - y) <= side
        joins += first == second and near
    assert 0.4 < joins / 400 < 0.6


def test_large_objects_are_laid_first_and_what_finds_no_room_is_left_out():
    sides = []
    labels = crowd(np.random.default_rng(1), (100, 100), [5, 50, 20], 3, (0.5, 1.0), lambda *a: sides.append(a[2]))
    assert labels == []
    assert sides == [50] * 6 + [20] * 6 + [5] * 6

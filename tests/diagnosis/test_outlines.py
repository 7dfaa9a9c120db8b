import numpy as np
import pytest

from aggmask.diagnosis.outlines import crosses_itself, depths, reach_outside
from tests.data.make_coco import circle

NEAR = np.roll(circle(7, 7, 3), 9, axis=0)  # starts where it is closest to (2, 2)
SQUARE = np.array([(2, 2), (12, 2), (12, 12), (2, 12)], float)


@pytest.mark.parametrize(
    ("points", "crosses"),
    [
        (SQUARE, False),
        (SQUARE[[0, 2, 1, 3]], True),
        (circle(50, 50, 30, 60), False),
        (np.concatenate([SQUARE, SQUARE[:1]]), False),  # closed
        (np.repeat(SQUARE, 3, axis=0), False),
        (np.concatenate([SQUARE, SQUARE[:1], NEAR, NEAR[:1]]), False),  # a hole by a bridge
        (np.array([(0, 0), (10, 0), (10, 5), (5, 0.05), (5, 5)], float), False),  # a dent just short of the edge
        (np.array([(0, 0), (10, 0), (10, 5), (5, -0.05), (5, 5)], float), False),  # and just past it
        (np.array([(0, 0), (10, 0), (10, 5), (5, -2), (5, 5)], float), True),
        (np.array([(0, 0), (5, 5), (0, 0)], float), False),
        (np.zeros((5, 2)), False),
    ],
)
def test_crossing(points, crosses):
    for shift in range(len(points)):
        assert crosses_itself(np.roll(points, shift, axis=0)) == crosses
        assert crosses_itself(np.roll(points, shift, axis=0)[::-1]) == crosses


def test_reach_outside():
    assert reach_outside(SQUARE, (12, 12)) == 0
    assert reach_outside(SQUARE, (12, 10)) == 2
    assert reach_outside(SQUARE - [5, 6], (12, 12)) == 4


def test_depths():
    beside, disc = SQUARE + 20, circle(7, 7, 4)
    assert depths([]).tolist() == []
    assert depths([SQUARE]).tolist() == [0]
    assert depths([SQUARE, beside]).tolist() == [0, 0]
    assert depths([SQUARE, disc, beside]).tolist() == [0, 1, 0]
    assert depths([disc, SQUARE]).tolist() == [1, 0]
    assert depths([circle(7, 7, 2), SQUARE, circle(7, 7, 1), disc]).tolist() == [2, 0, 3, 1]
    corner = np.array([(2, 2), (12, 2), (2, 12)], float)  # the box of the circle lies inside, the circle does not
    assert depths([corner, circle(9, 9, 2)]).tolist() == [0, 0]


@pytest.mark.parametrize("again", [SQUARE, SQUARE[::-1], SQUARE + 1])
def test_a_hole_inside_two_outlines_is_no_deeper(again):
    assert depths([SQUARE, again, circle(8, 7, 2)]).tolist() == [0, 0, 1]

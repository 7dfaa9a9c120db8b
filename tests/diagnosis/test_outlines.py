import numpy as np
import pytest

from aggmask.diagnosis.outlines import crosses_itself, holes, reach_outside
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


def test_holes():
    beside = SQUARE + 20
    assert holes([SQUARE, beside]) == []
    assert holes([SQUARE, circle(7, 7, 2), beside]) == [1]
    assert holes([circle(7, 7, 2), SQUARE]) == [0]
    corner = np.array([(2, 2), (12, 2), (2, 12)], float)  # the box of the circle lies inside, the circle does not
    assert holes([corner, circle(9, 9, 2)]) == []
    assert holes([SQUARE]) == []

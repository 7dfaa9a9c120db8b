import numpy as np

from aggmask.geometry.polygon import clip_polygon


def test_clip_polygon_by_hand():
    clipped = clip_polygon(np.array([(-1.0, 1.0), (1.0, -1.0), (3.0, 1.0), (1.0, 3.0)]), (2, 2))  # a diamond around
    assert {tuple(p) for p in clipped.tolist()} == {(0, 0), (2, 0), (2, 2), (0, 2)}
    inside = np.array([(0.5, 0.5), (1.0, 0.5), (1.0, 1.0)])
    np.testing.assert_array_equal(clip_polygon(inside, (2, 2)), inside)
    assert len(clip_polygon(inside - 5, (2, 2))) == 0


def test_a_margin_around_the_image():
    slope = np.array([(0.0, 0.0), (10.0, 5.0), (0.0, 5.0)])
    assert {tuple(point) for point in clip_polygon(slope, (2, 2), 2).tolist()} == {(0, 0), (4, 2), (4, 4), (0, 4)}

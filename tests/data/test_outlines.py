"""From depths to annotations: exact outlines, pieces and holes."""

import numpy as np
import pytest

from aggmask.data.outlines import Scene, segment


def disk_depth(center, radius, size=(40, 40)):
    ys, xs = (np.arange(2 * extent + 1) / 2 for extent in size)
    return (radius - np.hypot(xs[None] - center[0], ys[:, None] - center[1])).astype(np.float32)


def test_a_hidden_middle_gives_two_polygons_and_a_covered_middle_gives_rle():
    disk = disk_depth((20, 20), 12)
    bar = np.broadcast_to(4 - np.abs(np.arange(81, dtype=np.float32) / 2 - 20), (81, 81))
    split = segment(np.minimum(disk, -bar))
    assert len(split["segmentation"]) == 2
    sagitta = 12**2 * np.arccos(4 / 12) - 4 * np.sqrt(12**2 - 4**2)  # area of each piece that the bar leaves
    assert split["area"] == pytest.approx(2 * sagitta, rel=0.01)
    # Sharp corners lose up to half a sampling step at each end.
    assert split["bbox"] == pytest.approx([8, 20 - np.sqrt(128), 24, 2 * np.sqrt(128)], abs=0.5)

    holed = segment(np.minimum(disk, -disk_depth((22, 20), 5)))
    assert holed["segmentation"]["size"] == [40, 40]
    assert holed["area"] == pytest.approx(np.pi * (12**2 - 5**2), rel=0.02)


def test_outlines_are_exact_below_the_pixel_and_reach_the_border():
    whole = segment(disk_depth((20.3, 18.6), 11))
    points = np.array(whole["segmentation"][0]).reshape(-1, 2)
    assert np.abs(np.hypot(*(points - (20.3, 18.6)).T) - 11).max() < 0.02
    assert len(points) < 80
    assert whole["area"] == pytest.approx(np.pi * 11**2, rel=0.01)
    assert segment(disk_depth((2, 38), 11))["bbox"] == pytest.approx([0, 27, 13, 13], abs=0.03)


def test_an_object_keeps_what_no_later_one_covers():
    depths = np.stack([disk_depth((15, 20), 8), disk_depth((24, 20), 8), disk_depth((24, 28), 8)])
    first, second, third = Scene(np.zeros((40, 40, 3), np.uint8), np.zeros(3, int), depths).visible > 0
    whole = depths > 0
    assert np.array_equal(third, whole[2])
    assert np.array_equal(second, whole[1] & (depths[2] < 0))
    assert np.array_equal(first, whole[0] & (depths[1] < 0) & (depths[2] < 0))


def test_what_is_left_of_nothing_is_no_annotation():
    assert segment(disk_depth((20, 20), 0.6)) is None

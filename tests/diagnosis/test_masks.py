import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from aggmask.diagnosis.repair import repaired
from aggmask.diagnosis.structure import examine
from tests.nasty.annotations import SIZE, file, other


def square(low: int, high: int) -> list[int]:
    return [low, low, high, low, high, high, low, high]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_an_island_in_a_hole_is_painted(order):
    expected = np.zeros(SIZE, bool)
    for low, high, value in ((2, 18, True), (5, 15, False), (8, 12, True)):
        expected[low:high, low:high] = value
    nested = [square(2, 18), square(5, 15), square(8, 12)]
    examination = examine(file(other(segmentation=[nested[i] for i in order])), "file.json")
    assert [finding.text for finding in examination.findings.of("filled-hole")] == ["2 of 3 polygons"]
    segmentation = json.loads(repaired(examination))["annotations"][1]["segmentation"]
    np.testing.assert_array_equal(coco_mask.decode(segmentation).astype(bool), expected)

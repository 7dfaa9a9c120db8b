"""The averages over the arrays of an evaluation, with the places of all axes."""

import numpy as np
import pytest

from aggmask.metrics.evaluators import NAMES, Evaluation, evaluate
from aggmask.metrics.ground_truth import GroundTruth


def test_each_number_is_read_from_its_own_place():
    # precision = 100 * limit + 10 * area + threshold / 10, so that each average names where it was taken.
    threshold, _, _, area, limit = np.indices((10, 101, 2, 4, 4)).astype(float)
    precision = 100 * limit + 10 * area + threshold / 10
    recall = precision[:, 0] + 1000
    numbers = Evaluation(precision, recall, [4, 9], [1, 10, 50, 100], max_detections=50).summary()
    assert tuple(numbers) == NAMES
    expected = dict.fromkeys(NAMES)
    expected |= {"AP": 200.45, "AP50": 200.0, "AP75": 200.5, "APs": 210.45, "APm": 220.45, "APl": 230.45}
    expected |= {"AR1": 1000.45, "AR10": 1100.45, "AR100": 1300.45}
    expected |= {"ARs": 1210.45, "ARm": 1220.45, "ARl": 1230.45}
    assert numbers == pytest.approx(expected)


def test_places_without_ground_truth_are_left_out_of_averages():
    precision = np.full((10, 101, 2, 4, 3), -1.0)
    precision[:, :, 1, 0] = 0.25
    evaluation = Evaluation(precision, np.full((10, 2, 4, 3), -1.0), [4, 9], [1, 10, 100], 100)
    assert evaluation.summary()["AP"] == 0.25
    assert evaluation.summary()["APs"] == -1
    assert evaluation.per_category({4: "a", 9: "b"}) == {4: ("a", -1, -1), 9: ("b", 0.25, 0.25)}


def test_no_such_backend():
    with pytest.raises(ValueError, match="hotcoco, pycocotools"):
        evaluate(GroundTruth({}, {}, []), [], backend="torchmetrics")

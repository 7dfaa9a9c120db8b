import gc

import pytest

from aggmask.metrics import evaluators, ground_truth, results
from aggmask.metrics.garbage import collector_put_off


def test_the_collector_waits_inside_and_goes_on_afterwards():
    with collector_put_off():
        assert not gc.isenabled()
        with collector_put_off():
            pass
        assert not gc.isenabled()  # the inner block found it off
    assert gc.isenabled()


def test_an_error_inside_does_not_leave_it_off():
    with pytest.raises(ZeroDivisionError), collector_put_off():
        _ = 1 / 0
    assert gc.isenabled()


def test_what_makes_a_container_for_each_mask_runs_without_it(monkeypatch):
    seen = []

    def watching(*arguments, **names):
        seen.append(gc.isenabled())
        return []

    class Record:
        labels = property(watching)

    with pytest.raises(AttributeError):
        results.as_coco([Record()], [1])
    monkeypatch.setattr(evaluators.rle, "area", watching)
    evaluators._data_sets(ground_truth.GroundTruth({}, {}, []), [])
    monkeypatch.setattr(ground_truth, "_clean", watching)
    ground_truth.load({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}, [1])
    assert seen == [False, False, False]

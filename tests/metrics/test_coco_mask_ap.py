"""The metric: equal to plain pycocotools, and right by hand where the answer is known."""

import copy
import json
import logging
import pickle

import numpy as np
import pytest
import torch

from aggmask.errors import UserError
from aggmask.metrics.coco_mask_ap import CocoMaskAP
from aggmask.metrics.evaluators import NAMES
from tests.metrics.made_up import (
    CATEGORY_IDS,
    compressed,
    data_set,
    independent_results,
    plain_evaluator,
    plain_pycocotools,
    with_specks,
)

BACKENDS = ["hotcoco", "pycocotools"]
pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method")


@pytest.fixture(scope="module")
def made_up():
    return data_set(images=20, seed=3)


def filled(truth, detections, **options) -> CocoMaskAP:
    metric = CocoMaskAP(truth, CATEGORY_IDS, **options)
    for image_id, found in detections.items():
        metric.update(image_id, *found)
    return metric


def values(metric: CocoMaskAP) -> np.ndarray:
    computed = metric.compute()
    assert tuple(computed) == NAMES
    assert all(value.dtype == torch.float64 and value.ndim == 0 for value in computed.values())
    return np.array([float(value) for value in computed.values()])


# --- equal to pycocotools ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_plain_pycocotools(seed, backend, tmp_path):
    truth, detections = data_set(seed=seed)
    expected = plain_pycocotools(truth, independent_results(detections), tmp_path)
    assert 0 < expected[0] < 0.9
    np.testing.assert_allclose(values(filled(truth, detections, backend=backend)), expected, rtol=0, atol=1e-12)


def test_a_file_is_read_lazily_and_gives_the_same(made_up, tmp_path):
    truth, detections = made_up
    metric = filled(tmp_path / "truth.json", detections)  # not yet there
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    assert (values(metric) == values(filled(truth, detections))).all()


def test_written_results_are_what_pycocotools_reads(made_up, tmp_path):
    truth, detections = made_up
    metric = filled(truth, detections)
    metric.write_results(tmp_path / "new folder" / "results.json")  # one process: no compute needed
    written = json.loads((tmp_path / "new folder" / "results.json").read_text())
    assert written == metric.results() == independent_results(detections)
    looked_at = json.loads((tmp_path / "new folder" / "evaluated.json").read_text())
    assert looked_at == sorted(detections)


@pytest.mark.parametrize("limit", [1, 3, 300])
@pytest.mark.parametrize("backend", BACKENDS)
def test_fewer_detections_are_the_best_ones_of_a_category_and_image(made_up, backend, limit, tmp_path):
    truth, detections = with_specks(*made_up)
    results = sorted(independent_results(detections), key=lambda result: -result["score"])
    best, taken = [], {}
    for result in results:
        key = result["image_id"], result["category_id"]
        taken[key] = taken.get(key, 0) + 1
        best += [result] if taken[key] <= limit else []
    expected = plain_pycocotools(truth, best, tmp_path, most=max(100, limit))
    found = values(filled(truth, detections, backend=backend, max_detections=limit))
    follows = [i for i, name in enumerate(NAMES) if name not in ("AR1", "AR10", "AR100")]
    np.testing.assert_allclose(found[follows], expected[follows], rtol=0, atol=1e-12)
    plain = values(filled(truth, detections))
    assert (found[6:9] == plain[6:9]).all()
    assert found[0] < plain[0] if limit < 100 else found[0] > plain[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_per_category_is_that_of_a_run_on_one_category(made_up, backend, tmp_path):
    truth, detections = made_up
    metric = filled(truth, detections, backend=backend)
    with pytest.raises(RuntimeError, match="compute"):
        metric.per_category()
    metric.compute()
    scores = metric.per_category()
    assert list(scores) == CATEGORY_IDS
    assert scores[7].name == "thing 7"
    assert scores[20] == ("thing 20", -1, -1)
    plain_pycocotools(truth, independent_results(detections), tmp_path)
    evaluator = plain_evaluator(tmp_path / "truth.json", tmp_path / "results.json")
    for category in (3, 7, 8):
        evaluator.params.catIds = [category]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        assert scores[category][1:] == pytest.approx(evaluator.stats[:2], rel=0, abs=1e-12)
    mean = np.mean([scores[category].ap for category in (3, 7, 8)])
    assert mean == pytest.approx(float(metric.compute()["AP"]), abs=1e-12)


def test_the_backends_give_the_same_bits(made_up):
    truth, detections = made_up
    hot, reference = (filled(truth, detections, backend=backend) for backend in BACKENDS)
    assert (values(hot) == values(reference)).all()
    assert hot.per_category() == reference.per_category()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("changes", [{}, {"area": 0}, {"iscrowd": 1}])
def test_an_rle_of_no_pixel_counts_as_in_pycocotools(made_up, backend, changes, tmp_path):
    truth, detections = copy.deepcopy(made_up)
    for image in truth["images"][:7]:
        size = [image["height"], image["width"]]
        nothing = {"size": size, "counts": [size[0] * size[1]]}
        new = {"image_id": image["id"], "category_id": CATEGORY_IDS[0], "area": 40, "iscrowd": 0} | changes
        truth["annotations"].append({"id": len(truth["annotations"]) + 1, "segmentation": nothing} | new)
    expected = plain_pycocotools(truth, independent_results(detections), tmp_path)
    np.testing.assert_allclose(values(filled(truth, detections, backend=backend)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ids_below_zero_change_no_number(made_up, backend):
    expected = filled(*made_up, backend=backend)
    truth, detections = copy.deepcopy(made_up)
    for a in truth["annotations"]:
        a["image_id"], a["category_id"] = a["image_id"] - 940, a["category_id"] - 7
    for image in truth["images"]:
        image["id"] -= 940
    for category in truth["categories"]:
        category["id"] -= 7
    metric = CocoMaskAP(truth, [category_id - 7 for category_id in CATEGORY_IDS], backend=backend)
    for image_id, found in detections.items():
        metric.update(image_id - 940, *found)
    assert (values(metric) == values(expected)).all()
    assert [s.ap for s in metric.per_category().values()] == [s.ap for s in expected.per_category().values()]
    assert min(a["image_id"] for a in metric.results()) < 0


# --- how it is fed ----------------------------------------------------------------------------------------------------


def test_chunks_are_the_dense_masks(made_up):
    truth, detections = made_up
    dense = filled(truth, detections)
    chunks = CocoMaskAP(truth, CATEGORY_IDS)
    for image_id, (masks, scores, labels) in detections.items():
        chunks.update(image_id, (masks[i : i + 3] for i in range(0, len(masks), 3)), scores, labels)
    assert chunks.results() == dense.results()
    assert (values(chunks) == values(dense)).all()


def test_a_repeated_image_counts_once_and_first(made_up):
    truth, detections = made_up
    once = filled(truth, detections)
    twice = filled(truth, detections)
    for image_id, (masks, _, labels) in list(detections.items())[:5]:
        twice.update(image_id, masks.flip(1), torch.ones(len(masks)), labels)
    assert twice.results() == once.results()
    assert (values(twice) == values(once)).all()


def test_seen_images_only_with_one_warning(made_up, caplog, tmp_path):
    truth, detections = made_up
    seen = dict(list(detections.items())[4:13])
    metric = filled(truth, seen)
    with caplog.at_level(logging.WARNING, logger="aggmask"):
        found = values(metric)
        metric.reset()
        assert values(filled_again(metric, seen)).tolist() == found.tolist()
    assert [record.getMessage() for record in caplog.records] == ["evaluating the 9 images seen of 20 annotated"]
    part = {
        "images": [i for i in truth["images"] if i["id"] in seen],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in seen],
        "categories": truth["categories"],
    }
    expected = plain_pycocotools(part, independent_results(seen), tmp_path)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def filled_again(metric: CocoMaskAP, detections) -> CocoMaskAP:
    for image_id, found in detections.items():
        metric.update(image_id, *found)
    return metric


def test_reset_forgets_and_a_second_epoch_is_like_the_first(made_up):
    truth, detections = made_up
    metric = filled(truth, detections)
    first = values(metric)
    metric.reset()
    assert metric.results() == []
    with pytest.raises(RuntimeError):
        metric.per_category()
    assert (values(filled_again(metric, detections)) == first).all()
    more = metric.results()
    metric.update(next(iter(detections)), *next(iter(detections.values())))
    assert metric.results() == more
    with pytest.raises(RuntimeError):
        metric.per_category()


def test_pickles_and_copies_without_the_ground_truth_it_read(made_up, tmp_path):
    truth, detections = made_up
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    metric = filled(str(tmp_path / "truth.json"), detections)
    before = len(pickle.dumps(metric))
    expected = values(metric)
    assert len(pickle.dumps(metric)) < before + 5000 < len(json.dumps(truth)) + before
    for twin in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        twin._computed = None
        assert (values(twin) == expected).all()
    assert metric.state_dict() == {}


# --- by hand ----------------------------------------------------------------------------------------------------------


def square(x: int, y: int, side: int, size=(200, 300)) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y : y + side, x : x + side] = True
    return mask


def annotated(masks_by_image, **extra):
    """Ground truth of one category with an annotation per mask; `extra` goes into every annotation."""
    annotations = [
        {
            "id": 0,
            "image_id": image_id,
            "category_id": 3,
            "segmentation": compressed(mask.numpy()),
            "area": float(mask.sum()),
            "iscrowd": 0,
        }
        | extra
        for image_id, masks in masks_by_image.items()
        for mask in masks
    ]
    for number, annotation in enumerate(annotations):
        annotation["id"] = number
    images = [{"id": image_id, "file_name": "x.jpg", "height": 200, "width": 300} for image_id in masks_by_image]
    return {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "square"}]}


def scored(truth, predictions, **options):
    """Numbers for image id -> [(mask, score), ...]."""
    metric = CocoMaskAP(truth, [3], **options)
    for image_id, found in predictions.items():
        masks = torch.stack([mask for mask, _ in found]) if found else torch.zeros((0, 200, 300), dtype=torch.bool)
        metric.update(image_id, masks, torch.tensor([s for _, s in found]), torch.zeros(len(found), dtype=torch.long))
    # COCOeval adds an epsilon to the denominator of precision: a perfect 1 is 1 - 2e-16 there.
    return {name: round(float(value), 12) for name, value in metric.compute().items()}


@pytest.mark.parametrize("backend", BACKENDS)
class TestByHand:
    def test_perfect(self, backend):
        # Annotation id 0: COCOeval alone takes it for "not matched" and gives 0.
        numbers = scored(annotated({1: [square(10, 10, 20)]}), {1: [(square(10, 10, 20), 0.3)]}, backend=backend)
        assert [numbers[name] for name in ("AP", "AP50", "AP75", "APs", "AR1", "AR100", "ARs")] == [1] * 7
        assert [numbers[name] for name in ("APm", "APl", "ARm", "ARl")] == [-1] * 4

    def test_a_better_scored_double_halves_precision_before_the_hit(self, backend):
        # Two objects A, B. By score: A (hit), A again (miss), B (hit): precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
        # Interpolated: 1 at the 51 recalls 0 .. .50, 2/3 at the 50 recalls .51 .. 1.
        a, b = square(10, 10, 20), square(100, 50, 20)
        found = {1: [(a, 0.9), (a, 0.8), (b, 0.7)]}
        numbers = scored(annotated({1: [a, b]}), found, backend=backend)
        assert numbers["AP"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101, abs=1e-12)
        assert numbers["AR1"] == 0.5
        assert numbers["AR10"] == 1

    def test_overlap_decides_at_how_many_thresholds(self, backend):
        # 20 x 20 moved by 4: iou = 16 / 24 = .667: a hit at .50, .55, .60, .65 of ten thresholds.
        numbers = scored(annotated({1: [square(10, 10, 20)]}), {1: [(square(14, 10, 20), 0.5)]}, backend=backend)
        assert numbers["AP"] == pytest.approx(0.4, abs=1e-12)
        assert (numbers["AP50"], numbers["AP75"]) == (1, 0)

    def test_a_crowd_swallows_detections(self, backend):
        # The better scored detection lies inside the crowd region: neither hit nor miss. Without the flag it is a
        # miss before the hit: precision 1/2 everywhere.
        hit, inside, region = square(10, 10, 20), square(210, 110, 15), square(200, 100, 80)
        truth = annotated({1: [hit, region]})
        found = {1: [(inside, 0.9), (hit, 0.5)]}
        truth["annotations"][1]["iscrowd"] = 1
        assert scored(truth, found, backend=backend)["AP"] == 1
        del truth["annotations"][1]
        assert scored(truth, found, backend=backend)["AP"] == pytest.approx(0.5, abs=1e-12)

    def test_an_image_without_ground_truth_lowers_ap(self, backend):
        # The best scored detection is on an empty image: precision 1/2 at every recall.
        a = square(10, 10, 20)
        found = {1: [(a, 0.5)], 2: [(a, 0.9)]}
        assert scored(annotated({1: [a], 2: []}), found, backend=backend)["AP"] == pytest.approx(0.5, abs=1e-12)

    def test_the_annotation_says_how_large_an_object_is(self, backend):
        # A mask of 20 x 20 is small; the file says 2000, which is medium (1024 to 9216).
        a = square(10, 10, 20)
        numbers = scored(annotated({1: [a]}, area=2000.0), {1: [(a, 0.5)]}, backend=backend)
        assert (numbers["APs"], numbers["APm"], numbers["APl"]) == (-1, 1, -1)

    def test_no_detection_is_zero(self, backend):
        numbers = scored(annotated({1: [square(10, 10, 20)], 2: []}), {1: [], 2: []}, backend=backend)
        assert {name for name, value in numbers.items() if value == 0} == {
            "AP", "AP50", "AP75", "APs", "AR1", "AR10", "AR100", "ARs"
        }  # fmt: skip
        assert all(numbers[name] == -1 for name in ("APm", "APl", "ARm", "ARl"))

    def test_nothing_annotated_is_minus_one(self, backend):
        assert set(scored(annotated({1: []}), {1: [(square(1, 1, 9), 0.5)]}, backend=backend).values()) == {-1.0}
        assert set(scored(annotated({1: []}), {}, backend=backend).values()) == {-1.0}


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_unknown_image():
    with pytest.raises(UserError, match="image 5 was predicted"):
        scored(annotated({1: []}), {5: []})


def test_masks_of_another_size():
    metric = CocoMaskAP(annotated({1: []}), [3])
    metric.update(1, torch.ones(1, 300, 200, dtype=torch.bool), torch.ones(1), torch.zeros(1, dtype=torch.long))
    with pytest.raises(UserError, match=r"image 1: masks of 300 x 200 .* 200 x 300"):
        metric.compute()


def test_a_label_without_category():
    metric = CocoMaskAP(annotated({1: []}), [3])
    with pytest.raises(UserError, match="label 1 was predicted, but only 1 categories"):
        metric.update(1, square(1, 1, 5)[None], torch.ones(1), torch.ones(1, dtype=torch.long))


def test_inconsistent_arguments():
    metric = CocoMaskAP(annotated({1: []}), [3])
    none = torch.zeros(0, dtype=torch.long)
    with pytest.raises(ValueError, match="1 masks, 0 scores and 0 labels"):
        metric.update(1, square(1, 1, 5)[None], torch.zeros(0), none)
    with pytest.raises(ValueError, match="different sizes"):
        metric.update(1, iter([torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)]), torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="no evaluator 'coco'"):
        CocoMaskAP(annotated({1: []}), [3], backend="coco")
    with pytest.raises(UserError, match=r"metric\.max_detections=0: must be 1 or more"):
        CocoMaskAP(annotated({1: []}), [3], max_detections=0)

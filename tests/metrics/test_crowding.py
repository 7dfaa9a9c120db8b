"""Which objects touch, and what AP over them alone counts."""

from itertools import combinations

import numpy as np
import pytest
import torch

from aggmask.geometry.cropped import dilated
from aggmask.metrics import crowding, rle
from aggmask.metrics.evaluators import evaluate
from aggmask.metrics.ground_truth import GroundTruth
from aggmask.metrics.resampling import Matches, average_precision, numbers

SIZE = (40, 60)


def box(left, top, right, bottom):
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    counts = rle.encode(torch.from_numpy(mask)[None])[0].decode()
    return {"size": list(SIZE), "counts": counts}


def truth_of(*objects, images=(1, 2)):
    """(image, category, box[, crowd]) each."""
    annotations = [
        {
            "id": number, "image_id": image, "category_id": category, "iscrowd": int(bool(crowd)),
            "area": float(rle.area([box(*place)])[0]), "segmentation": box(*place),
        }
        for number, (image, category, place, *crowd) in enumerate(objects, start=1)
    ]  # fmt: skip
    return GroundTruth(dict.fromkeys(images, SIZE), {1: "a", 2: "b"}, annotations)


def found_of(*objects):
    return [{"image_id": i, "category_id": c, "score": s, "segmentation": box(*place)} for i, c, place, s in objects]


@pytest.mark.parametrize(
    ("second", "touch"),
    [
        ((1, 1, (20, 10, 30, 20)), True),
        ((1, 1, (21, 10, 30, 20)), True),  # one pixel between
        ((1, 1, (22, 10, 30, 20)), False),  # two pixels
        ((1, 1, (21, 21, 30, 30)), True),  # the same across a corner
        ((1, 1, (12, 12, 18, 18)), True),  # on top of it
        ((1, 2, (20, 10, 30, 20)), False),  # of another category
        ((2, 1, (20, 10, 30, 20)), False),  # in another image
        ((1, 1, (20, 10, 30, 20), True), False),  # a crowd
    ],
)
def test_objects_touch_where_less_than_two_pixels_are_between(second, touch):
    found = crowding.touching(truth_of((1, 1, (10, 10, 20, 20)), second))
    assert found == ({1, 2} if touch else set())


def test_an_object_of_no_pixel_stands_apart():
    assert crowding.touching(truth_of((1, 1, (0, 0, 5, 5)), (1, 1, (1, 1, 1, 1)), (1, 1, (3, 3, 3, 3)))) == set()


@pytest.mark.parametrize("gap", [0, 1, 2, 5])
def test_random_objects_touch_as_their_masks_say(gap):
    """Every pair of masks, compared pixel by pixel; a few have no pixel."""
    rng = np.random.default_rng(gap)
    corners = zip(rng.integers(0, 55, 60).tolist(), rng.integers(0, 35, 60).tolist(), strict=True)
    places = [(x, y, x + int(rng.integers(0, 6)), y + int(rng.integers(1, 6))) for x, y in corners]
    truth = truth_of(*((1 + number % 2, 1 + number % 3 % 2, place) for number, place in enumerate(places)))
    masks = {a["id"]: rle.decode(a["segmentation"]["counts"], SIZE) for a in truth.annotations}
    expected = set()
    for one, other in combinations(truth.annotations, 2):
        alike = all(one[key] == other[key] for key in ("image_id", "category_id"))
        if alike and (dilated(masks[one["id"]], gap) & masks[other["id"]]).any():
            expected |= {one["id"], other["id"]}
    assert crowding.touching(truth, gap) == expected
    assert 0 < len(expected) < len(places)


def test_masks_are_compared_only_where_their_boxes_meet(monkeypatch):
    """150 objects with three pixels between them, and one more that is near to four of them."""
    compared, meet = [], crowding._meet
    monkeypatch.setattr(crowding, "_meet", lambda *given: compared.append(given) or meet(*given))
    apart = [(1, 1, (x, y, x + 1, y + 1)) for x in range(0, 60, 4) for y in range(0, 40, 4)]
    assert crowding.touching(truth_of(*apart)) == set()
    assert len(compared) == 0
    assert len(crowding.touching(truth_of(*apart, (1, 1, (22, 22, 23, 23))))) == 5
    assert len(compared) == 4


def test_boxes_that_meet_are_not_enough():
    l_shape = np.zeros(SIZE, bool)
    l_shape[5:35, 5:8] = l_shape[32:35, 5:35] = True
    truth = truth_of((1, 1, (5, 5, 35, 35)), (1, 1, (20, 5, 30, 15)))
    counts = rle.encode(torch.from_numpy(l_shape)[None])[0].decode()
    truth.annotations[0]["segmentation"] = {"size": list(SIZE), "counts": counts}
    assert crowding.touching(truth) == set()
    assert crowding.touching(truth, gap=13) == {1, 2}


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_objects_of_the_other_sort_are_ignored_with_what_is_found_of_them(backend):
    """Two that touch, of which one is found; two apart, both found; and a detection of nothing."""
    pair, alone = [(1, 1, (5, 5, 15, 15)), (1, 1, (15, 5, 25, 15))], [(1, 1, (40, 25, 50, 35)), (2, 1, (5, 5, 15, 15))]
    truth = truth_of(*pair, *alone)
    found = found_of(
        (1, 1, (5, 5, 15, 15), 0.9), (1, 1, (40, 25, 50, 35), 0.8), (2, 1, (40, 5, 50, 15), 0.7),
        (2, 1, (5, 5, 15, 15), 0.6),
    )  # fmt: skip
    aps = {name: evaluate(sort, found, backend=backend).summary()["AP"] for name, sort in crowding.split(truth).items()}
    assert aps["APt"] == pytest.approx(51 / 101)  # precision 1 up to half of the recall
    assert aps["APa"] == pytest.approx((51 + 50 * 2 / 3) / 101)  # the miss lies before the second hit
    assert aps["APt"] < evaluate(truth, found, backend=backend).summary()["AP"] < aps["APa"]


def test_resampling_counts_the_same():
    truth = truth_of((1, 1, (5, 5, 15, 15)), (1, 1, (15, 5, 25, 15)), (2, 1, (5, 5, 15, 15)), (2, 2, (30, 5, 50, 15)))
    found = found_of((1, 1, (5, 5, 15, 15), 0.9), (2, 1, (5, 6, 15, 16), 0.8), (2, 2, (30, 5, 48, 15), 0.7))
    for sort in crowding.split(truth).values():
        matches = Matches.of(sort, found)
        whole = numbers(average_precision(matches))["AP"].item()
        assert whole == pytest.approx(evaluate(sort, found).summary()["AP"])
        assert numbers(average_precision(matches.of_all_sizes()))["AP"].item() == whole
        assert len(matches.of_all_sizes().cells) < len(matches.cells)


def test_where_nothing_touches_there_is_no_split():
    assert crowding.split(truth_of((1, 1, (5, 5, 15, 15)))) == {}

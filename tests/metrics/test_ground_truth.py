"""Annotation files as people have them: incomplete ones are completed, unusable ones named."""

import json
import logging

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from aggmask.errors import UserError
from aggmask.metrics.ground_truth import load

SQUARE = [[2, 3, 6, 3, 6, 9, 2, 9]]  # 24 pixels


def image(**changes):
    return {"file_name": "x.jpg", "height": 10, "width": 12, **changes}


def file(**changes):
    content = {
        "images": [image(id=5), image(id=6, height=20)],
        "annotations": [{"id": 0, "image_id": 5, "category_id": 3, "segmentation": SQUARE}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    return {**content, **changes}


def annotation(**changes):
    return {"id": 4, "image_id": 5, "category_id": 3, "segmentation": SQUARE, **changes}


def test_missing_fields_are_completed():
    truth = load(file(), [3])
    assert truth.sizes == {5: (10, 12), 6: (20, 12)}
    assert truth.categories == {3: "cat", 1: "dog"}
    (only,) = truth.annotations
    assert (only["id"], only["area"], only["iscrowd"]) == (1, 24.0, 0)


def test_given_fields_are_kept():
    (only,) = load(file(annotations=[annotation(area=7, iscrowd=True)]), [3]).annotations
    assert (only["area"], only["iscrowd"]) == (7.0, 1)


def test_equal_ids_are_told_apart():
    assert [a["id"] for a in load(file(annotations=[annotation(), annotation()]), [3]).annotations] == [1, 2]


def test_what_belongs_to_nothing_listed_is_ignored():
    strangers = [annotation(image_id=99), annotation(category_id=99)]
    assert load(file(annotations=strangers), [3]).annotations == []


def test_annotations_without_a_mask_are_named(caplog):
    with caplog.at_level(logging.WARNING, logger="aggmask"):
        nothing = [annotation(id=i, segmentation=s) for i, s in ((11, []), (12, None), (13, [[1, 2, 3, 4]]))]
        assert len(load(file(annotations=[annotation(), *nothing]), [3]).annotations) == 1
    assert "3 annotations without a mask are left out: 11, 12, 13" in caplog.text


def warnings_of(caplog, content):
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="aggmask"):
        load(content, [3])
    return caplog.text


def test_areas_that_keep_objects_from_counting_are_told(caplog):
    told = warnings_of(caplog, file(annotations=[annotation(area=-1), annotation(area=-1, iscrowd=1), annotation()]))
    assert "1 of 2 objects have an `area` below 0 and are not counted" in told
    assert warnings_of(caplog, file(annotations=[annotation(area=0), annotation(area=None)])) == ""


def test_categories_that_the_model_does_not_know_are_told(caplog):
    told = warnings_of(caplog, file(annotations=[annotation(), annotation(category_id=1)]))
    assert "the given annotations: categories that the model does not know count as AP 0: 1 (dog)" in told
    assert warnings_of(caplog, file(annotations=[annotation(), annotation(category_id=1, iscrowd=1)])) == ""


def test_nothing_to_find_is_told(caplog):
    assert "no object to find, so there is no AP" in warnings_of(caplog, file(annotations=[annotation(iscrowd=1)]))


def test_restriction():
    truth = load(file(annotations=[annotation(), annotation(image_id=6)]), [3]).restricted_to({6, 1000})
    assert list(truth.sizes) == [6]
    assert [a["image_id"] for a in truth.annotations] == [6]


def test_files(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(file()))
    assert load(tmp_path / "a.json", [3]) == load(str(tmp_path / "a.json"), [3]) == load(file(), [3])


def test_content_may_hold_what_encoders_and_numpy_return():
    counts = coco_mask.encode(np.ones((10, 12), np.uint8, order="F"))["counts"]
    given = annotation(area=np.float32(7), image_id=np.int64(5), segmentation={"size": [10, 12], "counts": counts})
    (only,) = load(file(annotations=[given]), [3]).annotations
    assert (only["image_id"], only["area"]) == (5, 7.0)
    assert only["segmentation"] == {"size": [10, 12], "counts": counts.decode()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "not a COCO annotation file"),
        ({"images": []}, "not a COCO annotation file"),
        (file(images=[{"id": 5, "file_name": "x.jpg"}]), r"missing required field `height` - at `\$\.images\[0\]`"),
        (file(categories=[{"id": 8, "name": "dog"}]), "none of the model's categories: the file lists the ids 8, the"),
        (
            file(annotations=[annotation(segmentation={"size": [12, 10], "counts": [120]})]),
            r"annotation 4 of image 5: its RLE is for an image of \(12, 10\) pixels, but the image has \(10, 12\)",
        ),
    ],
)
def test_unusable(content, message, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.json", [3])


def test_no_file_or_no_json(tmp_path):
    with pytest.raises(UserError, match=r"There is no annotation file .*missing\.json"):
        load(tmp_path / "missing.json", [3])
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="not a whole JSON file"):
        load(tmp_path / "broken.json", [3])

"""Annotation files as people have them: incomplete ones are completed, unusable ones named."""

import gzip
import json
import logging

import pytest

from aggmask.errors import UserError
from aggmask.metrics.ground_truth import load

SQUARE = [[2, 3, 6, 3, 6, 9, 2, 9]]  # 24 pixels


def file(**changes):
    content = {
        "images": [{"id": 5, "height": 10, "width": 12}, {"id": 6, "height": 20, "width": 12}],
        "annotations": [{"id": 0, "image_id": 5, "category_id": 3, "segmentation": SQUARE}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 1}],
    }
    return {**content, **changes}


def annotation(**changes):
    return {"id": 4, "image_id": 5, "category_id": 3, "segmentation": SQUARE, **changes}


def test_missing_fields_are_completed():
    truth = load(file(), [3])
    assert truth.sizes == {5: (10, 12), 6: (20, 12)}
    assert truth.categories == {3: "cat", 1: "1"}
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


def test_a_file_without_categories_takes_the_models():
    assert load(file(categories=[]), [3, 8]).categories == {3: "3", 8: "8"}


def test_annotations_without_a_mask_are_named(caplog):
    with caplog.at_level(logging.WARNING, logger="aggmask"):
        nothing = [annotation(id=i, segmentation=s) for i, s in ((11, []), (12, None), (13, [[1, 2, 3, 4]]))]
        assert len(load(file(annotations=[annotation(), *nothing]), [3]).annotations) == 1
    assert "3 annotations without a mask are left out: 11, 12, 13" in caplog.text


def test_restriction():
    truth = load(file(annotations=[annotation(), annotation(image_id=6)]), [3]).restricted_to({6, 1000})
    assert list(truth.sizes) == [6]
    assert [a["image_id"] for a in truth.annotations] == [6]


def test_files(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(file()))
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(file()).encode()))
    assert load(tmp_path / "a.json", [3]) == load(str(tmp_path / "a.json.gz"), [3]) == load(file(), [3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "not a COCO annotation file"),
        ({"images": []}, "not a COCO annotation file"),
        (file(images=[{"id": 5}]), "image 5 has no height and width"),
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
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "missing.json", [3])
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load(tmp_path / "broken.json", [3])

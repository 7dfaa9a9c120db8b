"""Shapes that `segmentation` and the other keys take in the wild, and what faulty files are told."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from aggmask.data.packing import pack
from aggmask.errors import UserError

SQUARE = [1, 1, 5, 1, 5, 4, 1, 4]  # 4 wide, 3 high
CATEGORIES = [{"id": 3, "name": "cat"}]


def bitmap():
    mask = np.zeros((6, 8), np.uint8, order="F")
    mask[1:4, 2:7] = 1
    return mask


def compressed():
    rle = coco_mask.encode(bitmap())
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def uncompressed():
    return {"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 3, 3, 3, 3, 8]}  # columns 2..6, rows 1..3


def coco(*annotations, **changes):
    """A file with one 6 x 8 image, id 5, and these annotations."""
    file = {
        "info": {"description": "unknown keys are ignored"},
        "images": [{"id": 5, "file_name": "a.jpg", "height": 6, "width": 8, "license": 1}],
        "categories": CATEGORIES,
        "annotations": [{"id": 10 + k, "image_id": 5, "category_id": 3, **a} for k, a in enumerate(annotations)],
    }
    file.update(changes)
    return {key: value for key, value in file.items() if value is not None}


def packed(*annotations, indent=None, **changes):
    return pack(json.dumps(coco(*annotations, **changes), indent=indent).encode(), "file.json")


def complaint(*annotations, **changes):
    with pytest.raises(UserError) as caught:
        packed(*annotations, **changes)
    assert "file.json" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("segmentation", [[SQUARE], SQUARE, [[float(v) for v in SQUARE]], [SQUARE, [1, 2, 3, 4], []]])
def test_one_polygon(segmentation, indent):
    arrays, facts = packed({"segmentation": segmentation}, indent=indent)
    np.testing.assert_array_equal(arrays["points"], np.reshape(SQUARE, (4, 2)))
    np.testing.assert_array_equal(arrays["point_ends"], [0, 4])
    np.testing.assert_array_equal(arrays["polygon_ends"], [0, 1])
    assert facts["told"] == {}


@pytest.mark.parametrize("rle", [compressed(), uncompressed()])
def test_rle(rle):
    arrays, _ = packed({"segmentation": rle, "iscrowd": 1})
    decoded = coco_mask.decode({"size": [6, 8], "counts": arrays["rles"].tobytes()})
    np.testing.assert_array_equal(decoded, bitmap())
    assert arrays["crowd"].tolist() == [True]


@pytest.mark.parametrize(
    "segmentation",
    [None, [], [[]], [[1, 2, 3, 4]], [1, 2, 3, 4], [[1, 2, 3, 4, 5, 6, 7]]]
    + [{"size": [6, 8], "counts": counts} for counts in ("", [], [48])],
)
def test_without_a_mask_is_dropped_and_counted(segmentation):
    arrays, facts = packed({"segmentation": segmentation}, {"segmentation": [SQUARE]}, {})
    assert facts["told"] == {"without a usable mask were left out": 2}
    assert arrays["ids"].tolist() == [11]
    assert arrays["annotation_ends"].tolist() == [0, 1]


def test_points_as_pairs_are_counted_by_themselves():
    _, facts = packed({"segmentation": [[1, 1], [5, 1], [5, 4]]}, {"segmentation": [[1, 1], [5, 1]]})
    assert facts["told"] == {"with points as pairs were left out": 1, "without a usable mask were left out": 1}


@pytest.mark.parametrize("given", [{}, {"area": None, "bbox": None, "iscrowd": None}])
@pytest.mark.parametrize(
    ("segmentation", "area", "box"),
    [([SQUARE], 12, [1, 1, 4, 3]), ([SQUARE, [5, 1, 7, 1, 7, 6]], 17, [1, 1, 6, 5]), (compressed(), 15, [2, 1, 5, 3])],
)
def test_missing_values_come_from_the_mask(segmentation, area, box, given):
    arrays, _ = packed({"segmentation": segmentation, **given})
    assert arrays["areas"].tolist() == [area]
    assert arrays["boxes"].tolist() == [box]
    assert arrays["crowd"].tolist() == [False]


@pytest.mark.parametrize("box", [[], [0, 0, 0, 0], [1, 1, 0, 3], [1, 1, 4, -3], [None] * 4])
def test_a_box_without_extent_is_that_of_the_mask_and_counted(box):
    arrays, facts = packed({"segmentation": [SQUARE], "bbox": box}, {"segmentation": compressed()})
    assert arrays["boxes"].tolist() == [[1, 1, 4, 3], [2, 1, 5, 3]]
    assert facts["told"] == {"with a box of no width or height got that of their mask": 1}


@pytest.mark.parametrize(
    ("marks", "target"),
    [({"ignore": 1}, False), ({"ignore": True}, False), ({"ignore": 0}, True), ({"ignore": None, "iscrowd": 0}, True),
     ({"ignore": []}, True), ({"ignore": 0, "iscrowd": 1}, False)],
)  # fmt: skip
def test_what_is_marked_ignore_is_no_target(marks, target):
    arrays, facts = packed({"segmentation": [SQUARE], **marks})
    assert arrays["crowd"].tolist() == [not target]
    assert facts["told"] == ({"marked `ignore` are not trained on": 1} if marks["ignore"] else {})


@pytest.mark.parametrize(("objects", "crowds", "told"), [(0, 5, True), (44, 5, True), (45, 5, False), (0, 4, False)])
def test_many_crowds_are_told(objects, crowds, told):
    given = [{"segmentation": [SQUARE]}] * objects + [{"segmentation": uncompressed(), "iscrowd": 1}] * crowds
    arrays, facts = packed(*given)
    assert arrays["crowd"].sum() == crowds
    assert [(what.split(" (")[0], count) for what, count in facts["told"].items()] == (
        [(f"of {objects + crowds} are crowds, which are never trained on", crowds)] if told else []
    )


def test_given_values_are_kept():
    arrays, _ = packed({"segmentation": [SQUARE], "area": 7, "bbox": [0, 0, "2.5", 3], "iscrowd": False, "id": 4.0})
    assert arrays["areas"].tolist() == [7.0]
    assert arrays["boxes"].tolist() == [[0, 0, 2.5, 3]]
    assert arrays["ids"].tolist() == [4]


def test_labels_are_places_among_sorted_category_ids():
    categories = [{"id": 90, "name": "z"}, {"id": 0, "name": "a"}, {"id": 7, "name": "m"}]
    given = [{"segmentation": [SQUARE], "category_id": id} for id in (7, 90, 0)]
    arrays, facts = packed(*given, categories=categories)
    assert arrays["labels"].tolist() == [1, 2, 0]
    assert facts["categories"] == [(0, "a"), (7, "m"), (90, "z")]


def test_empty_lists():
    arrays, _ = packed(images=[], categories=[], annotations=None)
    assert arrays["sizes"].shape == (0, 2)
    assert arrays["boxes"].shape == (0, 4)
    assert arrays["annotation_ends"].tolist() == [0]


@pytest.mark.parametrize(
    ("annotation", "evidence"),
    [
        ({"segmentation": [SQUARE], "image_id": 99}, "annotation 10 belongs to image 99"),
        ({"segmentation": [SQUARE], "category_id": 4}, "annotation 10 belongs to category 4"),
        ({"segmentation": [[1, 2, None, 4, 5, 6]]}, "annotation 10 of image 5"),
        ({"segmentation": [[[1, 2], [3, 4], [5, 6]]]}, "annotation 10 of image 5"),
        ({"segmentation": "polygon"}, "annotation 10 of image 5"),
        ({"segmentation": {"size": [6, 9], "counts": [54]}}, "(6, 9)"),
        ({"segmentation": {"size": [6, 8], "counts": [3, 4]}}, "add up to 7"),
        ({"segmentation": {"size": [6, 8], "counts": [-1, 49]}}, "annotation 10 of image 5"),
        ({"segmentation": [SQUARE], "bbox": [1, 2, 3]}, "$.annotations[0].bbox"),
        ({"segmentation": [SQUARE], "id": "ten"}, "$.annotations[0].id"),
    ],
)
def test_faulty_annotation_is_named(annotation, evidence):
    assert evidence in complaint(annotation)


def test_repeated_ids_are_named():
    image = coco()["images"][0]
    assert "image id 5 is listed twice" in complaint(images=[image, image])
    assert "category id 3 is listed twice" in complaint(categories=CATEGORIES * 2)


@pytest.mark.parametrize("key", ["images", "categories"])
def test_not_a_coco_file(key):
    assert f"`{key}`" in complaint(**{key: None})


@pytest.mark.parametrize("size", [{"height": 0}, {"width": None}])
def test_image_without_a_size(size):
    image = {**coco()["images"][0], **size}
    assert "$.images[0]" in complaint(images=[image])


@pytest.mark.parametrize(
    ("data", "evidence"),
    [
        (b"", "not a whole JSON"),
        (b"hello", "not a whole JSON"),
        (json.dumps(coco({"segmentation": [SQUARE]})).encode()[:-20], "truncated"),
        (b'{"images": "\xff"}', "file.json"),
        (b"[]", "got `array`"),
        (b"{}", "`images`"),
    ],
)
def test_not_json(data, evidence):
    with pytest.raises(UserError, match=r"file\.json") as caught:
        pack(data, "file.json")
    assert evidence in str(caught.value)

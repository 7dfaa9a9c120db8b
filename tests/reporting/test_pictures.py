import json
import re
import shutil

import numpy as np
import pytest

from aggmask.drawing.overlay import draw
from aggmask.errors import UserError
from aggmask.reporting.page import render
from aggmask.reporting.pictures import side_by_side
from aggmask.reporting.summary import summarize


def test_the_first_images_with_objects_are_shown_for_every_variant(summary):
    strips, left_out = side_by_side(summary, 4)
    assert left_out == []
    assert [strip.image_id for strip in strips] == [1005, 1015, 1025, 1045]  # 1035 is empty
    assert {len(strip.pictures) for strip in strips} == {4}
    pixels, truth = summary.data.val_dataset.original(1005)
    expected = draw(pixels, truth)
    expected.thumbnail((480, 480))
    assert np.array_equal(strips[0].pictures[0], expected)
    shown = [np.asarray(picture) for picture in strips[0].pictures]
    assert all((shown[0] != other).any() for other in shown[1:])
    assert len({picture.size for picture in strips[0].pictures}) == 1


def test_perfect_results_are_drawn_as_the_ground_truth_is(sweep):
    summary = summarize(sweep, resample_count=2)
    found = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "score": 1.0, "segmentation": a["segmentation"]}
        for a in summary.truth.annotations
        if not a["iscrowd"]
    ]
    (sweep / "0" / "results.json").write_text(json.dumps(found))
    for strip in side_by_side(summary, 2)[0]:
        assert np.array_equal(strip.pictures[0], strip.pictures[1])


def test_none_may_be_asked_for(summary):
    assert side_by_side(summary, 0) == ([], [])


def test_a_bad_image_is_left_out_and_named(summary, tmp_path):
    annotations, images = summary.data.val.annotations, tmp_path / "val2017"
    shutil.copytree(summary.data.val.images, images)
    (images / "00001.jpg").write_bytes(b"")
    (images / "00002.jpg").unlink()
    summary.data.val = type(summary.data.val)("val", annotations, str(images))
    strips, left_out = side_by_side(summary, 4)
    assert [strip.image_id for strip in strips] == [1005, 1045]
    assert [re.match(r"No picture of image (\d+): .*(0000\d\.jpg)", text).groups() for text in left_out] == [
        ("1015", "00001.jpg"), ("1025", "00002.jpg"),
    ]  # fmt: skip
    assert re.findall(r'<p class="note">No picture of image (\d+): ', render(summary, 4)) == ["1015", "1025"]


def test_images_that_are_gone_are_named(summary, tmp_path):
    summary.data.val = type(summary.data.val)("val", summary.data.val.annotations, str(tmp_path / "gone"))
    with pytest.raises(UserError, match="gone"):
        side_by_side(summary, 1)

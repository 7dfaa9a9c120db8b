"""Each nasty annotation file ends in a right result or in a message that names what is wrong, for all who read it."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from aggmask.cocofile.records import parse
from aggmask.data.index import AnnotationIndex
from aggmask.data.packing import pack
from aggmask.data.raster import bitmap
from aggmask.diagnosis.findings import KINDS
from aggmask.diagnosis.repair import repaired
from aggmask.diagnosis.structure import examine
from aggmask.errors import UserError
from aggmask.metrics import ground_truth, rle
from tests.nasty.annotations import CASES, FILE, SIZE, file, other

cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@cases
def test_the_doctor_finds_just_that(case):
    found = examine(case.data, "file.json").findings
    assert set(found.counts()) == case.kinds
    told = "\n".join(map(str, found.found))
    assert all(name in told for name in case.names), told


@cases
def test_the_index_reads_it_or_names_the_fault(case):
    if case.refused is None:
        assert sorted(pack(case.data, "file.json")[0]["ids"].tolist()) == list(case.kept)
        return
    with pytest.raises(UserError) as caught:
        pack(case.data, "file.json")
    assert "file.json" in str(caught.value)
    assert case.refused in str(caught.value)


@cases
def test_a_clean_copy_is_clean(case):
    examination = examine(case.data, "file.json")
    if case.hopeless:
        with pytest.raises(UserError, match=r"no clean copy of file\.json"):
            repaired(examination)
        return
    copy = repaired(examination)
    again = examine(copy, "copy.json")
    assert again.findings.faults == 0, again.findings.found
    assert repaired(again) is copy or json.loads(repaired(again)) == json.loads(copy)  # flat lists and the like, too
    ids = pack(copy, "copy.json")[0]["ids"].tolist()
    assert len(ids) == len(set(ids))
    content = json.loads(copy)
    assert content["info"] == FILE["info"]
    assert content["images"][0]["license"] == 7  # what nobody here reads is kept


@cases
def test_training_and_evaluation_see_the_same_annotations(case, tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(case.data)
    if case.refused is not None:
        with pytest.raises(UserError, match=r"file\.json"):
            AnnotationIndex.open(path)
        return
    index = AnnotationIndex.open(path)
    found, truth = index.annotations(0), ground_truth.load(path, [1])
    with_mask = [a for a in parse(case.data, "").annotations if rle.from_annotation(a.segmentation, SIZE) is not None]
    pairs = zip(with_mask, truth.annotations, strict=True)
    pairs = [(given, evaluated) for given, evaluated in pairs if given.id in case.kept]  # an RLE of nothing is not
    assert truth.sizes == dict(zip(index.image_ids.tolist(), map(tuple, index.sizes.tolist()), strict=True))
    assert truth.categories == {category.id: category.name for category in index.categories}
    assert len(found) == len(pairs) == len(case.kept)
    for k, (given, evaluated) in enumerate(pairs):
        painted = bitmap(found.segmentations[k], SIZE)
        np.testing.assert_array_equal(painted, coco_mask.decode(evaluated["segmentation"]).astype(bool))
        assert found.crowd[k] == (not given.is_target)  # what is marked `ignore` is no target either
        assert evaluated["iscrowd"] == bool(given.iscrowd)
        assert evaluated["image_id"] == index.image_ids[0]
        assert evaluated["category_id"] == index.categories[found.labels[k]].id
        if given.area is not None:  # else that of the outline, and that of its pixels
            assert evaluated["area"] == found.areas[k]


def test_a_parent_category_is_left_out_of_a_clean_copy():
    copy = json.loads(repaired(examine(CASES["parent category"].data, "file.json")))
    assert [category["name"] for category in copy["categories"]] == ["cat", "dog"]


def test_a_file_to_evaluate_on_keeps_what_training_may_have_objects_of():
    examination = examine(CASES["parent category"].data, "file.json", training=False)
    assert "unused-category" in {finding.kind for finding in examination.findings.found}
    copy = json.loads(repaired(examination))
    assert [category["name"] for category in copy["categories"]] == ["animals", "cat", "dog"]


def test_points_as_pairs_are_one_polygon_in_a_clean_copy():
    copy = json.loads(repaired(examine(CASES["points as pairs"].data, "file.json")))
    assert copy["annotations"][1]["segmentation"] == [[15, 5, 25, 5, 25, 15]]


def test_a_record_that_cannot_be_written_again_is_named():
    data = file({**other(bbox=[0, 0, 1, 1]), "note": 0}).replace(b'"note": 0', b'"note": 1e999')
    with pytest.raises(UserError, match=r"file\.json: annotations\[1\].*out of range"):
        repaired(examine(data, "file.json"))


def test_every_fault_of_an_annotation_file_has_a_case():
    seen = set().union(*(case.kinds for case in CASES.values()))
    of_files = {
        "empty",
        "missing-category",
        "ambiguous-category",
        "no-target",
        "missing",
        "near-name",
        "no-size",
        "outside-folder",
        "unreadable",
        "wrong-size",
        "stored-frame",
        "turned",
        "too-dark",
        "no-scale",
        "no-images",
    }
    assert seen | of_files | {"too-large"} == set(KINDS)

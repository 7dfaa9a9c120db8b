import json

import pytest

from aggmask.diagnosis.repair import repaired
from aggmask.diagnosis.structure import examine
from tests.nasty.annotations import CASES, GOOD, file, other, rle


@pytest.mark.parametrize(
    ("change", "mended"),
    [
        ({}, True),
        ({10: {"iscrowd": 1}}, False),  # a polygon that is a crowd
        ({11: {"iscrowd": 0}, 16: {"id": 16, "iscrowd": 1}}, False),  # an RLE that is none
    ],
)
def test_crowds_are_objects_in_a_clean_copy_where_all_masks_are_crowds(change, mended):
    given = {a["id"]: a for a in json.loads(CASES["each mask a crowd"].data)["annotations"]}
    if 16 in change:
        given[16] = {**given[15], "segmentation": rle(2, 21, 9, 25)}
    given = [{**a, **change.get(id, {})} for id, a in given.items()]
    examination = examine(file(annotations=given), "file.json")
    assert len(examination.findings.of("many-crowds")) == 1
    copy = json.loads(repaired(examination))["annotations"]
    expected = [0] * 6 if mended else [a.get("iscrowd", 0) for a in given]
    assert [a.get("iscrowd", 0) for a in copy] == expected


def test_as_few_crowds_as_coco_has_are_crowds():
    objects = [{**GOOD, "id": k, "segmentation": [[k % 20, 1, k % 20 + 5, 1, 25, k // 20 + 5]]} for k in range(60)]
    crowds = [other(id=100 + k, segmentation=rle(2, 15 + k, 9, 25), iscrowd=1) for k in range(6)]
    examination = examine(file(annotations=objects + crowds), "file.json")
    assert len(examination.findings.of("crowd")) == 6
    assert not examination.findings.of("many-crowds")
    assert not [change for change in examination.repairs.changes.values() if "iscrowd" in (change or {})]

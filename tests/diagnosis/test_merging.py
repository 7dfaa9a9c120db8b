import json

import pytest

from aggmask.diagnosis.repair import repaired
from aggmask.diagnosis.structure import examine
from tests.nasty.annotations import FILE, file, other

IMAGE, CATEGORY = FILE["images"][0], FILE["categories"][0]


def clean(data: bytes, **options) -> dict:
    return json.loads(repaired(examine(data, "file.json", **options)))


def owners(copy: dict) -> list[tuple[int, int, int]]:
    return [(a["id"], a["image_id"], a["category_id"]) for a in copy["annotations"]]


@pytest.mark.parametrize("change", [{"file_name": "c.jpg"}, {"height": 40, "width": 60}])
def test_images_of_one_id_that_contradict_each_other_go_with_their_annotations(change):
    second = {**IMAGE, "id": 6, "file_name": "b.jpg"}
    images = [IMAGE, second, {**second, **change}, {**IMAGE, "id": 7, "file_name": "c.jpg"}, IMAGE]
    copy = clean(file(other(image_id=6), other(id=12, image_id=7), images=images))
    assert [image["id"] for image in copy["images"]] == [5, 7]
    assert owners(copy) == [(10, 5, 1), (12, 7, 1)]


def test_categories_of_one_id_that_contradict_each_other_go_with_their_annotations():
    names = {2: ("dog", "cow"), 3: ("cow",), 4: ("pig", "pig")}
    categories = [CATEGORY, *({"id": id, "name": name} for id, found in names.items() for name in found)]
    copy = clean(file(*(other(id=10 + id, category_id=id) for id in (2, 3, 4)), categories=categories))
    assert [(c["id"], c["name"]) for c in copy["categories"]] == [(1, "cat"), (3, "cow"), (4, "pig")]
    assert owners(copy) == [(10, 5, 1), (13, 5, 3), (14, 5, 4)]


@pytest.mark.parametrize(
    ("size", "kept", "expected"),
    [((40, 60), 6, [(11, 6, 1)]), ((20, 30), 5, [(10, 5, 1), (12, 5, 1)]), (None, 5, [(10, 5, 1), (12, 5, 1)])],
)
def test_of_images_of_one_file_that_of_its_size_stays_with_all_objects_made_for_it(size, kept, expected):
    images = [IMAGE, {**IMAGE, "id": 6, "height": 40, "width": 60}, {**IMAGE, "id": 7}]
    data = file(other(image_id=6), other(id=12, image_id=7), images=images)
    copy = clean(data, size_of={"a.jpg": size}.get)
    assert [image["id"] for image in copy["images"]] == [kept]
    assert owners(copy) == expected
    told = [str(finding) for finding in examine(data, "file.json").findings.of("repeated-file")]
    assert told == [
        "images 5 and 6: 'a.jpg', for (20, 30) and (40, 60) (height, width)",
        "images 5 and 7: 'a.jpg'",
    ]

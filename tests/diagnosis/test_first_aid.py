import json
from functools import partial

import pytest

from aggmask.data.packing import pack
from aggmask.data.storage import open_storage
from aggmask.diagnosis.pictures import size_in
from aggmask.diagnosis.repair import repaired
from aggmask.diagnosis.structure import examine
from tests.nasty import pictures
from tests.nasty.annotations import CASES, FILE, GOOD, file, other

IMAGE = FILE["images"][0]


def test_ids_of_letters_get_numbers_and_references_follow():
    copy = json.loads(repaired(examine(CASES["ids as words"].data, "file.json")))
    assert [image["id"] for image in copy["images"]] == [5, 1]
    assert [category["id"] for category in copy["categories"]] == [1, 2]
    expected = [(10, 5, 1), (1, 1, 2), (2, 1, 2), (3, 1, 2)]
    assert [(a["id"], a["image_id"], a["category_id"]) for a in copy["annotations"]] == expected
    assert copy["annotations"][0]["segmentation"] == GOOD["segmentation"]


def test_a_size_is_read_without_decoding(tmp_path):
    """A file may take a thousand times as long to be decoded; whether it is whole, a later look tells."""
    (tmp_path / "cut.jpg").write_bytes(pictures.pictures()["rgb.jpg"].data[:-100])
    (tmp_path / "none.jpg").write_bytes(b"")
    sizes = partial(size_in, open_storage(tmp_path))
    assert [sizes(name) for name in ("cut.jpg", "none.jpg", "missing.jpg")] == [(20, 30), None, None]


def test_a_size_is_that_of_the_only_file_with_nearly_the_name(tmp_path):
    for name in ("a.jpg", "b.jpg", "B.jpg"):
        (tmp_path / name).write_bytes(pictures.pictures()["rgb.jpg"].data)
    sizes = partial(size_in, open_storage(tmp_path))
    assert [sizes(name) for name in ("A.JPG", "B.JPG", "../a.jpg")] == [(20, 30), None, None]


def test_a_reference_to_nothing_stays_a_fault():
    examination = examine(file(other(image_id="nowhere")), "file.json")
    assert set(examination.findings.counts()) == {"record"}


def test_a_number_that_others_look_for_in_vain_is_not_given_to_an_id_of_letters():
    images = [IMAGE, {**IMAGE, "id": "x", "file_name": "b.jpg"}]
    examination = examine(file(other(image_id=1), other(id=12, image_id="x"), images=images), "file.json")
    assert [finding.text[:14] for finding in examination.findings.of("unknown-image")] == ["annotation 11 "]
    copy = json.loads(repaired(examination))
    assert [image["id"] for image in copy["images"]] == [5, 2]
    assert [(a["id"], a["image_id"]) for a in copy["annotations"]] == [(10, 5), (12, 2)]


def test_names_of_digits_become_text_and_keep_their_objects():
    copy = json.loads(repaired(examine(CASES["names that are numbers"].data, "file.json")))
    assert copy["categories"] == [{"id": 1, "name": "7"}, {"id": 2, "name": "0.5"}]
    assert [(a["id"], a["category_id"]) for a in copy["annotations"]] == [(10, 1), (11, 2)]


@pytest.mark.parametrize(
    ("case", "ids"),
    [
        ("id of letters beside one beyond 64 bits", [10, 1]),
        ("id beyond 64 bits as text", [10, 1]),
        ("largest id, repeated", [10, 2**63 - 1, 1]),
    ],
)
def test_new_ids_are_ids(case, ids):
    copy = json.loads(repaired(examine(CASES[case].data, "file.json")))
    assert [a["id"] for a in copy["annotations"]] == ids


def test_sizes_come_from_the_image_files():
    """Where the file tells them; the annotations of the image are then looked at and kept."""
    images = [IMAGE, *({"id": k, "file_name": f"{k}.jpg"} for k in (6, 7)), {**IMAGE, "id": 8, "height": None}]
    data = file(other(image_id=6), other(id=12, image_id=7), images=images)
    sizes = {"6.jpg": (20, 30), "a.jpg": (20, 30)}
    looked_at = []
    examination = examine(data, "file.json", lambda items: looked_at.append(len(items)) or items, size_of=sizes.get)
    assert looked_at == [4, 1, 3, 3]  # images, categories and annotations for what is missing; annotations
    found = [str(finding) for finding in examination.findings.of("no-size")]
    assert found == [
        "images[1]: '6.jpg' is 20 x 30 (height x width)",
        "images[3]: 'a.jpg' is 20 x 30 (height x width)",
    ]
    assert "images[2]" in str(examination.findings.of("record")[0])
    arrays, _ = pack(repaired(examination), "copy.json")
    assert arrays["ids"].tolist() == [10, 11]
    assert arrays["sizes"].tolist() == [[20, 30], [20, 30]]  # image 8 has the file of image 5

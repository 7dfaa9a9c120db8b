import gzip
import json

import pytest

from aggmask.cocofile.records import parse, parse_leniently, problems_of
from aggmask.errors import UserError
from tests.nasty.annotations import FILE, GOOD, file, other


def test_lenient_reading_gives_the_sound_records_and_their_places():
    data = file(other(id="eleven"), other(id=12), other(id=13, bbox=[1]), images=[7, FILE["images"][0]])
    with pytest.raises(UserError, match=r"\$\.images\[0\]"):
        parse(data, "file.json")
    found = parse_leniently(data, "file.json")
    assert [a.id for a in found.file.annotations] == [10, 12]
    assert found.positions == {"images": [1], "categories": [0], "annotations": [0, 2]}
    assert [(p.list, p.position) for p in found.problems] == [("images", 0), ("annotations", 1), ("annotations", 3)]


def test_problems_come_all_and_with_their_places():
    annotations = [other(image_id=6), other(category_id=9, area="inf")]
    content = json.loads(file(*annotations, images=FILE["images"] * 2))
    found = list(problems_of(parse(json.dumps(content).encode(), "file.json")))
    assert [(p.kind, p.position) for p in found] == [
        ("repeated-image-id", 1), ("unknown-image", 1), ("not-a-number", 2), ("unknown-category", 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "hint"),
    [(gzip.compress(b"{}"), "unpack it"), ('{"images": []}'.encode("utf-16"), "Save it as UTF-8")],
    ids=["gzip", "UTF-16"],
)
def test_other_kinds_of_file_are_told_apart(data, hint):
    with pytest.raises(UserError, match=hint):
        parse(data, "file.json")


def test_a_file_with_nan_is_told_what_json_knows():
    with pytest.raises(UserError, match="NaN or Infinity"):
        parse(file({**GOOD, "area": float("nan")}), "file.json")

import pytest

from aggmask.errors import UserError
from aggmask.lit_module import matching_ids
from aggmask.structures import Category

OWN = [Category(1, "disk"), Category(5, "ring")]


def test_ids_follow_the_names():
    assert matching_ids(OWN, [Category(5, "disk"), Category(9, "ring"), Category(10, "more")], "f") == [5, 9]


def test_renamed_categories_are_matched_by_id_with_a_warning(caplog):
    assert matching_ids(OWN, [Category(1, "disc"), Category(5, "annulus")], "f") == [1, 5]
    assert "matched by id" in caplog.text


def test_a_missing_category_is_named():
    with pytest.raises(UserError, match=r"f has no category for 5 \(ring\)"):
        matching_ids(OWN, [Category(1, "disk")], "f")

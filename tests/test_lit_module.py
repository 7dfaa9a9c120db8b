import pytest

from aggmask.errors import UserError
from aggmask.lit_module import matching_ids
from aggmask.structures import Category

OWN = [Category(1, "disk"), Category(5, "ring")]


def test_ids_follow_the_names():
    assert matching_ids(OWN, [Category(5, "disk"), Category(9, "ring"), Category(10, "more")], "f") == [5, 9]


def test_equal_ids_with_other_names_are_refused():
    with pytest.raises(UserError, match="f has no category disk, ring, which the model knows; it has disc, annulus"):
        matching_ids(OWN, [Category(1, "disc"), Category(5, "annulus")], "f")


def test_a_missing_category_is_named():
    with pytest.raises(UserError, match="f has no category ring, which"):
        matching_ids(OWN, [Category(1, "disk")], "f")

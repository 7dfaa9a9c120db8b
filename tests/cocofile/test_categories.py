import pytest

from aggmask.cocofile.categories import matching_ids
from aggmask.errors import UserError
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


def test_equal_names_are_told_apart_by_their_ids():
    cranes = [Category(1, "crane"), Category(2, "crane")]
    assert matching_ids(cranes, cranes[::-1], "f") == [1, 2]
    assert matching_ids(cranes[1:], cranes, "f") == [2]


@pytest.mark.parametrize(
    ("own", "found", "told"),
    [
        ([1, 2], [5, 6], r"'crane' under the ids \[5, 6\], the model under \[1, 2\]"),
        ([1, 2], [2, 3], r"'crane' under the ids \[2, 3\], the model under \[1, 2\]"),
        ([1, 2], [1], r"'crane' under the ids \[1\], the model under \[1, 2\]"),
        ([3], [1, 2], r"'crane' under the ids \[1, 2\], the model under \[3\]"),
    ],
)
def test_a_name_that_stands_for_several_categories_is_refused(own, found, told):
    with pytest.raises(UserError, match="f has " + told):
        matching_ids([Category(id, "crane") for id in own], [Category(id, "crane") for id in found], "f")

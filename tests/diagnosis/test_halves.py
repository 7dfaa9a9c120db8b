import pytest

from aggmask.data.packing import pack
from aggmask.diagnosis.halves import compare_categories, examine_use
from aggmask.diagnosis.structure import examine
from tests.nasty.annotations import CASES, FILE, GOOD, file, other

CAT, DOG = FILE["categories"][0], {"id": 2, "name": "dog"}
CAT2 = {**CAT, "id": 2}


def found(data: bytes, training: bool = True, skip_empty: bool = True) -> set[str]:
    examination = examine(data, "file.json", training=training)
    examine_use(examination, training, skip_empty)
    return set(examination.findings.counts()) & {"empty", "no-target"}


@pytest.mark.parametrize("change", [{"iscrowd": 1}, {"ignore": 1}, {"segmentation": []}, None])
def test_a_training_file_without_an_object_that_has_a_mask(change):
    data = file(annotations=[] if change is None else [{**GOOD, **change}])
    assert found(data) == {"no-target"}
    assert found(data, skip_empty=False) == found(data, training=False) == set()


def test_a_file_without_images():
    data = file(images=[], annotations=[])
    assert found(data) == found(data, skip_empty=False) == found(data, training=False) == {"empty"}


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.refused is None])
def test_there_is_an_object_where_the_index_has_one(case):
    assert (found(case.data) == set()) == (not pack(case.data, "file.json")[0]["crowd"].all())


@pytest.mark.parametrize(
    ("train", "val", "missing", "ambiguous"),
    [
        ([CAT, DOG], [CAT], ["category 2 ('dog') of train.json"], []),
        ([CAT], [DOG, {**CAT, "id": 7}], [], []),
        ([CAT, CAT2], [CAT2, CAT], [], []),
        ([CAT, CAT2], [CAT], [], ["category 2 ('cat') of train.json"]),
        ([CAT], [CAT2, {**CAT, "id": 3}], [], ["category 1 ('cat') of train.json"]),
        ([CAT, CAT2], [DOG], ["category 1 ('cat') of train.json", "category 2 ('cat') of train.json"], []),
        ([CAT], None, [], []),
        (None, [CAT], [], []),
    ],
)
def test_categories_that_a_file_to_evaluate_on_does_not_list(train, val, missing, ambiguous):
    def half(name, categories):
        return examine(b"" if categories is None else file(other(category_id=2), categories=categories), name)

    examination = half("val.json", val)
    compare_categories(half("train.json", train), examination)
    assert [str(finding) for finding in examination.findings.of("missing-category")] == missing
    assert [str(finding) for finding in examination.findings.of("ambiguous-category")] == ambiguous

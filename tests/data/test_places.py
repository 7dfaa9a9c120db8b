import pytest

from aggmask.data.places import Split, existing, is_found, require
from aggmask.errors import UserError


def test_what_is_not_named_lies_at_its_usual_place(tmp_path):
    split = Split.of("train", {"annotations": "mine.json", "images": None}, tmp_path)
    assert split == Split("train", "mine.json", str(tmp_path / "train2017"))
    assert Split.of("val", None, tmp_path).annotations == str(tmp_path / "annotations" / "instances_val2017.json")
    assert Split.of("val", None, None) == Split("val", None, None)


def test_unknown_key(tmp_path):
    with pytest.raises(UserError, match=r"data\.val\.image: unknown"):
        Split.of("val", {"image": "x"}, tmp_path)


def test_a_zip_stands_in_for_a_folder_only_where_there_is_none(tmp_path):
    place = str(tmp_path / "val2017")
    assert existing(place) == place
    assert not is_found(place)
    (tmp_path / "val2017.zip").write_bytes(b"")
    assert existing(place) == place + ".zip"
    assert is_found(place)
    (tmp_path / "val2017").mkdir()
    assert existing(place) == place


def test_urls_are_taken_on_trust():
    assert is_found("https://example.org/val2017")
    assert not is_found(None)


def test_require_names_every_place(tmp_path):
    (tmp_path / "val2017").mkdir()
    with pytest.raises(UserError) as error:
        require(Split.of("train", None, None), Split.of("val", None, tmp_path))
    text = str(error.value)
    assert "data.train.images: not given" in text
    assert f"{tmp_path / 'val2017'} (found)" in text
    assert "instances_val2017.json (missing)" in text
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").touch()
    require(Split.of("val", None, tmp_path))

"""A made data set is written once, whole, and only where allowed."""

import shutil

import pytest

from aggmask.data import shapes, written
from aggmask.data.shapes import write_shapes
from aggmask.errors import UserError
from tests.data.test_shapes import contents


def test_a_folder_of_others_is_never_touched(tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="was not written by the shapes"):
        write_shapes(tmp_path / "coco", 2, 1)
    assert [p.name for p in (tmp_path / "coco").iterdir()] == ["precious.txt"]
    (tmp_path / "empty").mkdir()
    write_shapes(tmp_path / "empty", 2, 1)
    assert (tmp_path / "empty" / "shapes.json").exists()


def test_what_was_made_with_other_settings_is_not_replaced_under_a_training(tmp_path):
    write_shapes(tmp_path / "data", 2, 1, color_hint=0)
    before = contents(tmp_path / "data")
    with pytest.raises(UserError, match=r"with train_images=2 \(asked for: 3\), color_hint=0 \(asked for: 0.8\)"):
        write_shapes(tmp_path / "data", 3, 1, color_hint=0.8)
    assert contents(tmp_path / "data") == before


def test_another_version_of_the_drawing_code_makes_it_anew(tmp_path, monkeypatch):
    write_shapes(tmp_path / "data", 2, 1)
    (tmp_path / "data" / "val2017" / "mine.txt").write_text("of the old one")
    monkeypatch.setattr(shapes, "VERSION", shapes.VERSION + 1)
    write_shapes(tmp_path / "data", 2, 1)
    assert not (tmp_path / "data" / "val2017" / "mine.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["data"]  # no temporary folder stays


def test_a_failure_leaves_nothing_half_written(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    write_shapes(tmp_path / "data", 2, 1)
    before = contents(tmp_path / "data")
    monkeypatch.setattr(shapes, "VERSION", shapes.VERSION + 1)
    monkeypatch.setattr(written.simplejpeg, "encode_jpeg", fail)
    with pytest.raises(OSError, match="disk full"):
        write_shapes(tmp_path / "data", 2, 1)
    assert contents(tmp_path / "data") == before
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_another_process_that_was_first_wins(tmp_path, monkeypatch):
    """Two ranks write at once: the second finds a complete folder at the end, and both are content."""
    real, calls = written.os.rename, []

    def rename(old, new):
        if not calls:
            calls.append(shutil.copytree(old, new))  # the other one finishes just before
        real(old, new)

    monkeypatch.setattr(written.os, "rename", rename)
    write_shapes(tmp_path / "data", 2, 1)
    assert calls
    assert len(contents(tmp_path / "data")) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["data"]

"""A made data set is written once, whole, and only where allowed."""

import shutil

import pytest

from aggmask.data import written
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


def test_a_failure_leaves_nothing_half_written(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    write_shapes(tmp_path / "data", 2, 1)
    before = contents(tmp_path / "data")
    monkeypatch.setattr(written.simplejpeg, "encode_jpeg", fail)
    with pytest.raises(OSError, match="disk full"):
        write_shapes(tmp_path / "data", 3, 1)
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

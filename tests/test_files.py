import errno
import os
from pathlib import Path

import pytest

from aggmask.errors import UserError
from aggmask.files import disk_fault, read_json, remove_drafts, write_json, write_whole
from tests.disks import disk, make_read_only, small_files_only


def test_what_was_written_comes_back(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, 0.1, None]})
    assert read_json(tmp_path / "a.json") == {"a": [1, 0.1, None]}
    assert read_json(tmp_path / "b.json") is None
    (tmp_path / "c.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"c\.json: is damaged \(.+\); put a copy of it back, or remove it"):
        read_json(tmp_path / "c.json")


def test_the_old_content_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def interrupted(file):
        file.write(b"ne")
        file.flush()
        assert path.read_bytes() == b"old"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, interrupted)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    write_whole(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"


def _write(path, size):
    write_whole(path, lambda file: file.write(b"n" * size))


def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    """After a power cut there may otherwise be a name without content."""
    done, rename = [], Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append(f"{os.fstat(file).st_size} bytes on the disk"))
    monkeypatch.setattr(Path, "replace", lambda draft, target: done.append("renamed") or rename(draft, target))
    _write(tmp_path / "a", 3)
    assert done == ["3 bytes on the disk", "renamed"]


def test_a_full_disk_is_named_and_keeps_what_was_there(tmp_path):
    with disk(tmp_path / "disk", 256) as place:
        _write(place / "a", 100_000)
        with pytest.raises(UserError, match=r"disk/a: the disk is full .*0 MB are left.*output_dir=DIR.*unharmed"):
            _write(place / "a", 200_000)  # beside the old one there is no room for it
        assert os.listdir(place) == ["a"]
        assert (place / "a").stat().st_size == 100_000
        with pytest.raises(UserError, match="is full") as error:
            _write(place / "b", 300_000)
        assert "unharmed" not in str(error.value)


def test_a_limit_of_file_sizes_is_named(tmp_path):
    _write(tmp_path / "a", 10)
    with small_files_only(1000), pytest.raises(UserError, match=r"may not become so large.*ulimit -f"):
        _write(tmp_path / "a", 2000)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"n" * 10


def test_a_disk_that_can_only_be_read(tmp_path):
    with disk(tmp_path / "disk", 256) as place:
        _write(place / "a", 10)
        make_read_only(place)
        with pytest.raises(UserError, match=r"disk/a: the disk can only be read.*choose a place where"):
            _write(place / "a", 20)
        assert (place / "a").stat().st_size == 10


def test_a_place_below_a_file(tmp_path):
    _write(tmp_path / "a", 10)
    with pytest.raises(UserError, match="a part of this path is a file"):
        _write(tmp_path / "a" / "b", 10)


def test_a_name_longer_than_any_file_has(tmp_path):
    with pytest.raises(UserError, match=r"the name is too long .*choose a shorter one"):
        _write(tmp_path / ("a" * 300), 10)


def test_other_errors_are_not_explained_away(tmp_path):
    with pytest.raises(FileNotFoundError):
        _write(tmp_path / "nowhere" / "a", 1)
    with pytest.raises(ZeroDivisionError):
        write_whole(tmp_path / "a", lambda file: 1 / 0)
    assert disk_fault(FileNotFoundError(errno.ENOENT, "no such file", "a")) is None
    assert disk_fault(PermissionError(errno.EPERM, "not permitted")) is None  # to send a signal, perhaps


def test_an_open_file_does_not_say_its_name():
    assert disk_fault(OSError(errno.ENOSPC, "No space left on device")).startswith("the disk is full (No space left")


@pytest.mark.parametrize("links", [True, False])
def test_the_content_before_can_be_kept_under_another_name(links, tmp_path, monkeypatch):
    if not links:

        def refused(self, target):
            raise PermissionError

        monkeypatch.setattr(Path, "hardlink_to", refused)
    for content in (b"1", b"2", b"3"):
        write_whole(tmp_path / "a", lambda file, content=content: file.write(content), keep="b")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"3", "b": b"2"}


def test_drafts_that_a_kill_has_left_are_removed(tmp_path):
    names = [".last[1].ckpt.77.part", ".last[1].ckpt.part", ".other.77.part", "last[1].ckpt"]
    for name in names:
        (tmp_path / name).touch()
    remove_drafts(tmp_path / "last[1].ckpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])

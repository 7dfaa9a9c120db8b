from pathlib import Path

import pytest

from aggmask.files import read_json, remove_drafts, write_json, write_whole


def test_what_was_written_comes_back(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, 0.1, None]})
    assert read_json(tmp_path / "a.json") == {"a": [1, 0.1, None]}
    assert read_json(tmp_path / "b.json") is None


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

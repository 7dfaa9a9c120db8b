import pytest

from aggmask.files import read_json, write_json, write_whole


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

"""Which of a folder's checkpoints is taken; what becomes of those that cannot be read is in test_resume.py."""

import pytest
import torch

from aggmask.checkpoints.run_folder import BEFORE, BEST, LAST, checkpoint_file, checkpoints_of, newest
from aggmask.errors import UserError


def write(folder, **steps: int) -> None:
    for name, step in steps.items():
        torch.save({"global_step": step}, folder / {"last": LAST, "before": BEFORE, "best": BEST}[name])


def test_the_newest_comes_first(tmp_path):
    assert newest(tmp_path) is None
    assert newest(tmp_path / "nowhere") is None
    write(tmp_path, best=1)
    assert newest(tmp_path) == (tmp_path / BEST, {"global_step": 1})
    write(tmp_path, before=2, last=3)
    assert newest(tmp_path) == (tmp_path / LAST, {"global_step": 3})
    assert [path.name for path in checkpoints_of(tmp_path)] == [LAST, BEFORE, BEST]


def test_a_checkpoint_that_is_not_there_is_told_with_what_is(tmp_path):
    with pytest.raises(UserError, match=r"checkpoint=.*nowhere\.ckpt: there is no such file$"):
        checkpoint_file(tmp_path / "nowhere.ckpt")
    write(tmp_path, last=1)
    assert checkpoint_file(tmp_path / LAST) == tmp_path / LAST
    with pytest.raises(UserError, match=r"best\.ckpt: there is no such file; there is .*last\.ckpt"):
        checkpoint_file(tmp_path / BEST)
    with pytest.raises(UserError, match=r"resume=.*: is a folder; say a file in it: .*last\.ckpt"):
        checkpoint_file(tmp_path, "resume")


def test_what_cannot_be_read_is_named_and_passed_over(tmp_path, caplog):
    write(tmp_path, best=1, before=2, last=3)
    for name in (LAST, BEFORE):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-200])
    assert newest(tmp_path)[0].name == BEST
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "last.ckpt: not a checkpoint, or a damaged one" in caplog.text
    assert "last-1.ckpt: not a checkpoint, or a damaged one" in caplog.text


def test_nothing_that_can_be_read(tmp_path):
    (tmp_path / LAST).touch()
    expected = r"no checkpoint in .* can be read:\n.*last\.ckpt: not a checkpoint.*\nRemove them"
    with pytest.raises(UserError, match=expected):
        newest(tmp_path)

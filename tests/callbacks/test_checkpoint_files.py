import os

import pytest
import torch

from aggmask.callbacks.checkpoint_files import WholeCheckpoints
from aggmask.errors import UserError
from tests.disks import disk, small_files_only


def test_a_checkpoint_is_read_back(tmp_path):
    files, path = WholeCheckpoints(), tmp_path / "new" / "last.ckpt"
    files.save_checkpoint({"step": 1, "weights": torch.ones(3)}, path)
    assert files.load_checkpoint(path)["step"] == 1
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_an_interrupted_write_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    files, path = WholeCheckpoints(), tmp_path / "last.ckpt"
    files.save_checkpoint({"step": 1}, path)

    def interrupted(checkpoint, file):
        file.write(b"half a checkp")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.save_checkpoint({"step": 2}, path)
    assert files.load_checkpoint(path) == {"step": 1}


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    files = WholeCheckpoints()
    with disk(tmp_path / "disk", 1024) as place:
        files.save_checkpoint({"step": 1, "weights": torch.ones(150_000)}, place / "last.ckpt")
        with pytest.raises(UserError, match=r"disk/last\.ckpt: the disk is full .*What was there before is unharmed"):
            files.save_checkpoint({"step": 2, "weights": torch.ones(150_000)}, place / "last.ckpt")
        assert os.listdir(place) == ["last.ckpt"]
        kept = files.load_checkpoint(place / "last.ckpt")
        assert kept["step"] == 1
        assert float(kept["weights"].sum()) == 150_000


def test_torchs_own_error_is_seen_through(tmp_path):
    """It makes a RuntimeError of what the system says."""
    with small_files_only(10_000), pytest.raises(UserError, match="may not become so large"):
        WholeCheckpoints().save_checkpoint({"weights": torch.ones(150_000)}, tmp_path / "last.ckpt")
    assert os.listdir(tmp_path) == []


def test_of_the_last_checkpoint_the_one_before_stays(tmp_path):
    files = WholeCheckpoints()
    for step in range(3):
        for name in ("last.ckpt", "best.ckpt"):
            files.save_checkpoint({"step": step}, tmp_path / name)
    steps = {path.name: files.load_checkpoint(path)["step"] for path in tmp_path.iterdir()}
    assert steps == {"last.ckpt": 2, "last-1.ckpt": 1, "best.ckpt": 2}

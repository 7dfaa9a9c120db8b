import os

import pytest

from aggmask.errors import UserError
from aggmask.launcher import locks
from aggmask.launcher.locks import held, is_held


def test_a_lock_is_free_when_it_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    lock = tmp_path / "lock"
    assert not is_held(lock)
    assert not lock.exists()  # asking leaves nothing
    with held(lock, "busy"):
        assert is_held(lock)
        with pytest.raises(UserError, match="busy"), held(lock, "busy"):
            pass
    assert not is_held(lock)


@pytest.mark.skipif(os.geteuid() != 0, reason="a lock of somebody else's needs another user")
def test_whether_somebody_elses_lock_is_held_can_be_seen(tmp_path):
    lock = tmp_path / "lock"
    with held(lock, "busy"):
        assert as_nobody(is_held, lock) is True
    assert as_nobody(is_held, lock) is False


def as_nobody(function, path):
    """In a process of a user who may only read there."""
    for folder in (path, *path.parents[:4]):
        folder.chmod(folder.stat().st_mode | 0o055)
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        status = b"?"
        try:
            os.setgid(65534)
            os.setuid(65534)
            status = b"1" if function(path) else b"0"
        finally:
            os.write(write, status)
            os._exit(0)
    os.waitpid(child, 0)
    said = os.read(read, 1)
    os.close(read), os.close(write)
    return {b"1": True, b"0": False}.get(said)

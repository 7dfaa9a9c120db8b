"""A file that the machine does not give is not called damaged; what other files are is in tests/test_convert.py."""

import builtins
import errno
import io
import os

import pytest
import torch

from aggmask.checkpoints.reading import read_file
from aggmask.checkpoints.run_folder import BEFORE, LAST, newest
from aggmask.errors import MachineFault, UserError

FAULTS = {
    "permission": (PermissionError(errno.EACCES, "Permission denied"), "this user may not do that"),
    "disk": (OSError(errno.EIO, "Input/output error"), "the disk fails"),
    "server": (OSError(errno.ESTALE, "Stale file handle"), "the server of this disk has lost the file"),
    "allocation": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        "the memory is too small for its 0 MB",
    ),
    "mapping": (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory is too small"),
    "python": (MemoryError(), "the memory is too small"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_the_machine_is_named_and_no_older_checkpoint_is_taken(kind, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise error

    error, said = FAULTS[kind]
    for name in (LAST, BEFORE):
        torch.save({"global_step": 1}, tmp_path / name)
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(MachineFault, match=rf"^resume={tmp_path / LAST}: {said}"):
        newest(tmp_path)
    with pytest.raises(MachineFault, match=rf"^checkpoint=.*{said}"):
        read_file(tmp_path / LAST)


def test_a_disk_that_fails_on_the_way_is_named(tmp_path, monkeypatch):
    """Of which torch says no more than that the file 'has no attribute read'."""

    class Failing(io.FileIO):
        def read(self, *size):
            return self._where_it_may(super().read, *size)

        def readinto(self, buffer):
            return self._where_it_may(super().readinto, buffer)

        def _where_it_may(self, read, *arguments):
            if self.tell() > 4096:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return read(*arguments)

    def failing(name, *arguments, **options):
        return Failing(name) if str(name).endswith(LAST) else whole(name, *arguments, **options)

    torch.save({"weight": torch.zeros(99_999)}, tmp_path / LAST)
    whole = builtins.open
    monkeypatch.setattr(builtins, "open", failing)
    with pytest.raises(MachineFault, match=r"last\.ckpt: the disk fails"):
        read_file(tmp_path / LAST)


def test_what_is_damaged_is_no_fault_of_the_machine(tmp_path):
    torch.save({"weight": torch.zeros(9)}, tmp_path / LAST)
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:-200])
    with pytest.raises(UserError, match="not a checkpoint, or a damaged one") as error:
        read_file(tmp_path / LAST)
    assert not isinstance(error.value, MachineFault)

import os

import pytest

from aggmask.data.datamodule import CocoDataModule
from aggmask.data.processors import SHARE, processor_share, processors


def test_all_processors_of_this_process(monkeypatch):
    monkeypatch.delenv(SHARE, raising=False)
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 7})
        assert processors() == processor_share() == 3
        monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert processors() == processor_share() == 6


@pytest.mark.parametrize(("said", "workers"), [("3", 3), ("64", 8), ("1", 1)])
def test_a_job_that_shares_a_machine_takes_its_share_of_loader_processes(said, workers, tmp_path, monkeypatch):
    monkeypatch.setenv(SHARE, said)
    assert CocoDataModule(str(tmp_path)).num_workers == workers
    assert CocoDataModule(str(tmp_path), num_workers=5).num_workers == 5  # what the user says

import os

import pytest

from aggmask.data.datamodule import CocoDataModule
from aggmask.data.processors import SHARE, global_rank, processor_share, processors


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


@pytest.mark.parametrize(
    ("said", "rank"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "1"}, 1),  # Lightning starts the others
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, 1),  # the same, in a shell of SLURM's
        ({"SLURM_PROCID": "5"}, 5),  # srun
        ({"RANK": "9", "LOCAL_RANK": "1", "SLURM_PROCID": "1"}, 9),  # torchrun
    ],
)
def test_the_rank_is_what_the_launcher_says(said, rank, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert global_rank() == rank

import os

import pytest

from aggmask.data.processors import SHARE
from aggmask.errors import UserError
from aggmask.launcher import resources
from aggmask.launcher.resources import (
    asked_of_a_cluster,
    environment,
    gpus_at_hand,
    gpus_needed,
    granted,
    ranks_of,
    refuse_nodes,
)


def test_a_job_inherits_nothing_of_another_distributed_run(monkeypatch):
    names = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_PORT", "PL_GLOBAL_SEED", "SLURM_NTASKS")
    for name in names:
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("WANDB_MODE", "offline")
    env = environment({"devices": 1}, [], 1)
    assert not set(names) & set(env)
    assert env["WANDB_MODE"] == "offline"
    assert env["AGGMASK_PARENT"] == str(os.getpid())


@pytest.mark.parametrize(
    ("trainer", "gpus", "n_jobs", "threads"),
    [
        ({"devices": 1}, [], 2, "6"),
        ({"devices": 2}, [], 2, "3"),
        ({"devices": "auto"}, ["0", "1", "2"], 2, "2"),
        ({"devices": 1}, [], 40, "1"),
        ({"devices": 1}, [], 1, None),
    ],
)
def test_threads_are_shared_out(trainer, gpus, n_jobs, threads, monkeypatch):
    for name in ("OMP_NUM_THREADS", SHARE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(resources, "processors", lambda: 12)
    assert environment(trainer, gpus, n_jobs).get("OMP_NUM_THREADS") == threads
    assert environment(trainer, gpus, n_jobs).get(SHARE) == threads  # for processes that load data
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment(trainer, gpus, n_jobs)["OMP_NUM_THREADS"] == "5"
    assert environment(trainer, gpus, n_jobs).get(SHARE) == threads


@pytest.mark.parametrize(
    ("trainer", "total", "n_jobs", "needed"),
    [
        ({"devices": 2, "accelerator": "gpu"}, 4, 2, 2),
        ({"devices": "auto", "accelerator": "auto"}, 4, 2, 2),
        ({"devices": -1, "accelerator": "cuda"}, 4, 1, 4),
        ({"devices": "auto", "accelerator": "gpu"}, 2, 8, 1),
        ({"devices": "2", "accelerator": "gpu"}, 2, 1, 2),
        ({"devices": 2, "accelerator": "cpu"}, 4, 1, 0),
        ({"devices": 2, "accelerator": "auto"}, 0, 1, 0),
    ],
)
def test_gpus_that_a_job_takes(trainer, total, n_jobs, needed):
    assert gpus_needed(trainer, total, n_jobs) == needed


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"devices": 3, "accelerator": "gpu"}, r"trainer\.devices=3: there are 2 GPUs"),
        ({"devices": [0, 1], "accelerator": "gpu"}, r"trainer\.devices=\[0, 1\]: in a sweep this is a number"),
        ({"devices": "0,1", "accelerator": "gpu"}, r"sweep\.gpus says which"),
    ],
)
def test_what_a_job_cannot_have(trainer, message):
    with pytest.raises(UserError, match=message):
        gpus_needed(trainer, 2, 1)


def test_one_machine_does_not_do_for_two_nodes():
    refuse_nodes({"num_nodes": 1}, "processes")
    with pytest.raises(UserError, match=r"trainer\.num_nodes=2: hydra/launcher=ray .*hydra/launcher=slurm on several"):
        refuse_nodes({"num_nodes": 2}, "ray")


def test_a_cluster_is_asked_for_a_number_of_devices():
    assert asked_of_a_cluster({"devices": "3"}, "slurm", None) == 3
    with pytest.raises(UserError, match=r"trainer\.devices=auto: .*say trainer\.devices=N"):
        asked_of_a_cluster({"devices": "auto"}, "slurm", None)
    with pytest.raises(UserError, match=r"sweep\.gpus=\[0\]: hydra/launcher=ray leaves it to the cluster"):
        asked_of_a_cluster({"devices": 1}, "ray", [0])


def test_ranks_of_a_job():
    assert [ranks_of({"devices": devices}) for devices in (1, 2, "3", "auto", -1)] == [1, 2, 3, None, None]


def test_a_gpu_that_is_listed_twice_serves_two_jobs_but_not_one_job_twice():
    assert granted(["0", "0", "1"], 1) == ["0"]
    assert sorted(granted(["0", "0", "1"], 2)) == ["0", "1"]
    assert granted(["0", "0"], 2) is None
    assert granted([], 0) == []


def test_gpus_at_hand_keep_the_names_that_they_were_given(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_at_hand() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-17,9")
    assert gpus_at_hand() == ["5", "GPU-17"]

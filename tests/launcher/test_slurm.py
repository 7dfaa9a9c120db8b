"""Jobs through submitit: on its own processes, and on commands that stand for SLURM's."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from aggmask.assembly.config import conf_dir, plain
from aggmask.errors import UserError
from aggmask.launcher.ledger import Job
from aggmask.launcher.schedule import Schedule
from aggmask.launcher.slurm import Slurm
from tests.data.make_coco import make_coco
from tests.launcher import fake_slurm
from tests.launcher.processes import children_of, is_alive, python_path, until
from tests.launcher.stub_job import number_of
from tests.launcher.stub_sweep import MODULE, freeze
from tests.runs import SMALL, composed

pytest.importorskip("submitit", reason="the extra slurm is not installed")


@pytest.fixture(autouse=True)
def _places(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def commands(monkeypatch, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    fake_slurm.install(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def engine(cluster="local", module=MODULE, n_jobs=2, gpus=None, gpus_per_node=None, **parameters) -> Slurm:
    return Slurm(module, n_jobs, gpus, cluster, 3, gpus_per_node, {"timeout_min": 60} | parameters)


def test_jobs_run_as_rank_0_of_their_own_whatever_the_parent_was(tmp_path, monkeypatch):
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "PL_GLOBAL_SEED", "MASTER_PORT"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("STUB_FAILS", "1")
    jobs = [freeze(tmp_path, seed) for seed in range(2)]
    Schedule(engine()).run(jobs)
    assert jobs[0].outcome == {"state": "done", "objective": number_of(0, 4)}
    assert jobs[1].outcome == {"state": "failed", "error": "ValueError: seed 1 is not liked"}
    env = json.loads((jobs[0].folder / "seen.json").read_text())["env"]
    assert (env["RANK"], env["LOCAL_RANK"], env["WORLD_SIZE"], env["PL_GLOBAL_SEED"]) == ("0", "0", "1", None)


def test_a_preempted_job_is_queued_again_and_goes_on(tmp_path):
    job, slurm = freeze(tmp_path, 0, epochs=40), engine()
    started = slurm.start(job, [])
    until((job.folder / "last.ckpt").exists)
    before = job.attempt["pid"]
    (task,) = children_of(started.submitted._process.pid)
    os.kill(task, signal.SIGUSR2)  # what SLURM sends
    until(started.ended, seconds=60)
    assert job.outcome["objective"] == number_of(0, 40)
    assert job.attempt["count"] == 2
    assert not is_alive(before)
    assert len((job.folder / "epochs.txt").read_text().split()) <= 41
    assert not (job.folder / "NOT ALONE").exists()


def test_an_interrupted_sweep_cancels_its_jobs(tmp_path):
    job, slurm = freeze(tmp_path, 0, epochs=1000), engine()
    started = slurm.start(job, [])
    until((job.folder / "last.ckpt").exists)
    slurm.end([started])
    until(lambda: job.state == "interrupted", seconds=30)
    until(lambda: not is_alive(job.attempt["pid"]), seconds=5)


def test_what_slurm_is_asked_for(tmp_path, commands, monkeypatch):
    from submitit.slurm.slurm import SlurmJob

    text, limits = [], set()

    def submit(executor, command):
        text.append(executor._make_submission_file_text(command, ""))
        limits.add(executor.max_num_timeout)
        return SlurmJob(executor.folder, fake_slurm.JOB)

    monkeypatch.setattr("submitit.SlurmExecutor._submit_command", submit)

    def asked(slurm: Slurm, **trainer) -> set[str]:
        slurm.start(freeze(tmp_path, 0, **trainer), [])
        return {line.removeprefix("#SBATCH --") for line in text.pop().splitlines() if line.startswith("#SBATCH")}

    large = asked(engine("slurm", slurm_partition="big", mem_gb=64), num_nodes=2, devices=4, accelerator="gpu")
    assert large >= {"nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "partition=big", "mem=64GB", "time=60"}
    assert not any(line.startswith("gpus-per-node=4") for line in asked(engine("slurm"), devices=4))
    assert "gpus-per-node=2" in asked(engine("slurm", gpus_per_node=2), devices=4)
    configured = OmegaConf.to_container(OmegaConf.load(Path(conf_dir(), "hydra/launcher/slurm.yaml")).parameters)
    lines = asked(engine("slurm", **configured | {"slurm_account": "me"}), accelerator="cpu")
    assert lines >= {"time=1440", "cpus-per-task=5", "signal=USR2@120", "account=me"}
    assert not any(line.startswith(("gpus-per-node=1", "partition", "mem")) for line in lines)
    assert limits == {3}


def test_without_submitit(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install 'aggmask\[slurm\]'"):
        engine()


@pytest.mark.parametrize(
    ("options", "trainer", "message"),
    [
        ({"cluster": "slurm"}, {}, 'hydra/launcher=slurm: Could not detect "srun"'),
        ({"slurm_partitoin": "x"}, {}, "Unknown argument 'partitoin'"),
        ({}, {"devices": "auto"}, r"trainer\.devices=auto"),
        ({"gpus": [0]}, {}, r"sweep\.gpus=\[0\]"),
    ],
)
def test_what_cannot_be_submitted_stops_the_sweep_before_it_starts(options, trainer, message, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    job = freeze(tmp_path, 0, **trainer)
    with pytest.raises(UserError, match=message):
        Schedule(engine(**options)).run([job])
    assert job.state == "waiting"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_nodes_of_slurm_train_one_model(tmp_path, commands):
    """Preempted in the middle; both ranks are stopped and go on."""
    coco, folder = make_coco(tmp_path / "coco", images=4, val_images=2), tmp_path / "0"
    job = frozen(coco, folder, "trainer.num_nodes=2", "trainer.max_epochs=30")
    slurm = engine("slurm", "aggmask.train")
    slurm.check(job)
    started = slurm.start(job, [])
    until((folder / "last.ckpt").exists)
    task = int(Path(f"/proc/{job.attempt['pid']}/stat").read_text().rpartition(")")[2].split()[1])  # its parent
    os.kill(task, signal.SIGUSR2)
    until(started.ended, seconds=600)
    assert job.state == "done", job.outcome
    assert job.attempt["count"] == 2
    ranks = sorted(path.name for path in (tmp_path / "ranks").iterdir())
    assert ranks == ["0_0.json", "0_1.json"]
    assert all(json.loads(path.read_text())["world"] == 2 for path in (tmp_path / "ranks").iterdir())
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 60


def frozen(coco: Path, folder: Path, *overrides: str) -> Job:
    """A job of real training."""
    small = [value for value in SMALL if not value.startswith("trainer.max_epochs")]
    settings = ["experiment=solo_r50_agg", "name=x", f"output_dir={folder}", f"data.root={coco}", *small]
    settings += ["trainer=ddp", "trainer.devices=1", "data.batch_size=1", "data.skip_empty=false"]
    settings += ["trainer.limit_val_batches=1", "trainer.check_val_every_n_epoch=30"]
    record = ["+callbacks.record._target_=tests.launcher.recorder.RecordRank"]
    record += [f"+callbacks.record.folder={folder.parent}/ranks"]
    return Job.freeze(folder, 0, overrides, os.getcwd(), plain(composed(*settings, *record, *overrides)))

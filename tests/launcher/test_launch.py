"""Sweeps as the command starts them, with jobs that start in half a second."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from hydra.core.plugins import Plugins

import hydra_plugins
from aggmask import train
from aggmask.errors import UserError
from aggmask.launcher import launch, schedule
from aggmask.launcher.ledger import Job, Ledger
from tests.launcher.processes import is_alive, python_path
from tests.launcher.stub_job import number_of
from tests.runs import command

STUB = ["experiment=demo", "hydra.launcher.module=tests.launcher.stub_job", "trainer.max_epochs=3"]
PLUGINS = Path(__file__).parent / "plugins" / "hydra_plugins"


@pytest.fixture
def sweep(monkeypatch, capsys, tmp_path):
    """Start a sweep in `tmp_path/sweep`; (exit status, what it said)."""
    monkeypatch.setenv("PYTHONPATH", python_path())

    def start(*arguments: str) -> tuple[int, str]:
        place = [] if any(a.startswith("sweep.resume=") for a in arguments) else [f"hydra.sweep.dir={tmp_path}/sweep"]
        return command(monkeypatch, capsys, train, "--multirun", *arguments, *place)

    return start


def jobs_of(tmp_path):
    return Ledger.read(tmp_path / "sweep").jobs()


def test_each_job_has_its_frozen_configuration(sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("PL_GLOBAL_SEED", "13")
    status, said = sweep(*STUB, "seed=4,5", "logger=wandb")
    assert status == 0, said
    first, second = jobs_of(tmp_path)
    for job, seed in ((first, 4), (second, 5)):
        assert job.outcome == {"state": "done", "objective": number_of(seed, 3)}
        seen = json.loads((job.folder / "seen.json").read_text())
        assert seen["config"] == job.config
        assert seen["env"]["LOCAL_RANK"] is seen["env"]["WORLD_SIZE"] is seen["env"]["PL_GLOBAL_SEED"] is None
        assert (job.config["seed"], job.config["data"]["seed"]) == (seed, seed)
        assert job.config["output_dir"] == str(job.folder) == str(tmp_path / "sweep" / str(job.number))
        assert job.config["callbacks"]["best"]["dirpath"] == str(job.folder)
        assert job.config["name"] == "demo"
        assert job.config["sweep"] == {"name": "sweep"}
        assert job.config["logger"]["wandb"]["group"] == "sweep"
    assert "#1 seed=5: done in" in said


def test_the_launcher_of_a_cluster_is_a_word_that_a_resumed_sweep_remembers(sweep, tmp_path):
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    status, said = sweep(*STUB, "seed=0,1", "sweep.n_jobs=2", "hydra/launcher=slurm", "hydra.launcher.cluster=local")
    assert status == 0, said
    assert [job.outcome["objective"] for job in jobs_of(tmp_path)] == [number_of(0, 3), number_of(1, 3)]
    (jobs_of(tmp_path)[1].folder / "outcome.json").unlink()
    status, said = sweep(f"sweep.resume={tmp_path}/sweep")
    assert status == 0, said
    assert "#0 seed=0: done before" in said
    assert "#1 seed=1: interrupted, starts as local job" in said


def test_resume_skips_goes_on_and_tries_again(sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_FAILS", "1")
    status, said = sweep(*STUB, "seed=0,1,2", "sweep.n_jobs=2")
    assert status == 2
    assert "1 of 3 jobs are not done:\n  #1 seed=1: ValueError: seed 1 is not liked\n" in said
    assert f"python -m tests.launcher.stub_job sweep.resume={tmp_path}/sweep" in said
    (tmp_path / "sweep" / "2" / "outcome.json").unlink()  # as if it had been killed
    monkeypatch.delenv("STUB_FAILS")
    status, said = sweep(f"sweep.resume={tmp_path}/sweep", "sweep.n_jobs=1")  # the other arguments are known
    assert status == 0, said
    jobs = jobs_of(tmp_path)
    assert [job.outcome["objective"] for job in jobs] == [number_of(seed, 3) for seed in range(3)]
    assert [job.attempt["count"] for job in jobs] == [1, 2, 2]
    assert "#0 seed=0: done before" in said
    assert "#1 seed=1: failed, starts" in said
    assert "#2 seed=2: interrupted, starts" in said


def test_resume_with_more_jobs_keeps_the_old_ones(sweep, tmp_path):
    assert sweep(*STUB, "seed=0,1")[0] == 0
    status, said = sweep(*STUB, "seed=2,1,3", f"sweep.resume={tmp_path}/sweep", "sweep.n_jobs=2")
    assert status == 0, said
    jobs = jobs_of(tmp_path)
    assert [(job.number, job.config["seed"]) for job in jobs] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert [job.attempt["count"] for job in jobs] == [1, 1, 1, 1]


def test_stop_at_the_first_failure(sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_FAILS", "0")
    status, said = sweep(*STUB, "seed=0,1", "sweep.on_fail=stop")
    assert status == 2
    assert "job 0 failed, and sweep.on_fail=stop" in said
    assert [job.state for job in jobs_of(tmp_path)] == ["failed", "waiting"]


@pytest.mark.parametrize(
    ("name", "code", "told"), [("SIGINT", 130, "stopped: "), ("SIGTERM", 143, "ended by SIGTERM: ")]
)
def test_a_sweep_that_is_interrupted_says_how_it_goes_on(name, code, told, sweep, tmp_path, monkeypatch):
    """What runs is ended and can be continued."""

    pressed = []

    def sleep(seconds, sleeps=schedule.time.sleep):
        sleeps(seconds)
        if not pressed and (tmp_path / "sweep" / "0" / "epochs.txt").exists():
            pressed.append(True)  # once: waiting for the job's end sleeps too
            os.kill(os.getpid(), signal.Signals[name])

    monkeypatch.setattr(schedule.time, "sleep", sleep)
    status, said = sweep(*STUB[:2], "seed=0,1", "trainer.max_epochs=1000")
    assert status == code
    assert f"{told}python -m tests.launcher.stub_job sweep.resume={tmp_path}/sweep" in said
    first, second = jobs_of(tmp_path)
    assert (first.state, second.state) == ("interrupted", "waiting")
    assert not is_alive(first.attempt["pid"])


def test_the_same_job_twice_runs_once(sweep, tmp_path):
    assert sweep(*STUB, "seed=0,0")[0] == 0
    assert [job.attempt["count"] for job in jobs_of(tmp_path)] == [1]


def test_gpus_come_from_the_list(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 6)
    assert sweep(*STUB, "seed=0,1", "sweep.n_jobs=2", "sweep.gpus=[3,5]")[0] == 0
    notes = [json.loads((job.folder / "seen.json").read_text()) for job in jobs_of(tmp_path)]
    assert {note["env"]["CUDA_VISIBLE_DEVICES"] for note in notes} == {"3", "5"}


def test_gpus_that_are_not_there_are_refused(sweep, tmp_path, monkeypatch):
    """On the CPU, where the jobs would land, they would take days."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    status, said = sweep(*STUB, "seed=0,1", "sweep.gpus=[0,3]")
    assert status == 2
    assert "no GPU 3 on this machine; there are 0, 1" in said
    assert not (tmp_path / "sweep").exists()  # what is refused leaves nothing


def test_a_value_that_cannot_be_is_found_before_any_job_starts(sweep, tmp_path):
    status, said = sweep(*STUB, "model.aggregation.window=5,7")
    assert status == 2
    assert "model.aggregation.window=7: must be 1 or 4 or 5 or 9 or 25" in said
    assert not (tmp_path / "sweep").exists()


def test_resume_alone_goes_on_with_added_jobs_too(sweep, tmp_path):
    assert sweep(*STUB, "seed=0")[0] == 0
    assert sweep(*STUB, "seed=1", f"sweep.resume={tmp_path}/sweep")[0] == 0
    first, added = jobs_of(tmp_path)
    assert added.overrides == (*first.overrides[:-1], "seed=1")  # not how it was started
    (added.folder / "outcome.json").unlink()  # as if it had been killed
    status, said = sweep(*STUB, "seed=0", "logger=csv", f"sweep.resume={tmp_path}/sweep")  # asks for another job
    assert status == 0, said
    assert jobs_of(tmp_path)[1].state == "interrupted"
    status, said = sweep(f"sweep.resume={tmp_path}/sweep")
    assert status == 0, said
    assert jobs_of(tmp_path)[1].state == "done"
    assert "#1 seed=1: interrupted, starts" in said
    assert f"compare them: python -m aggmask.report {tmp_path}/sweep" in said


def test_another_list_of_jobs_asks_for_other_jobs(sweep, tmp_path):
    listed = [*STUB, "hydra/sweeper=list"]
    assert sweep(*listed, "hydra.sweeper.jobs=[['seed=0'],['seed=1']]")[0] == 0
    for job in jobs_of(tmp_path):
        (job.folder / "outcome.json").unlink()  # as if they had been killed
    status, said = sweep(*listed, "hydra.sweeper.jobs=[['seed=1']]", f"sweep.resume={tmp_path}/sweep")
    assert status == 0, said
    assert [job.state for job in jobs_of(tmp_path)] == ["interrupted", "done"]


def test_a_job_that_was_added_and_fails_again_fails_the_sweep(sweep, tmp_path, monkeypatch):
    assert sweep(*STUB, "seed=0")[0] == 0
    monkeypatch.setenv("STUB_FAILS", "1")
    assert sweep(*STUB, "seed=1", f"sweep.resume={tmp_path}/sweep")[0] == 2
    status, said = sweep(f"sweep.resume={tmp_path}/sweep")
    assert status == 2
    assert "1 of 2 jobs are not done:\n  #1 seed=1: ValueError: seed 1 is not liked\n" in said


def test_a_wrong_key_stops_the_sweep_before_it_starts(sweep, tmp_path):
    status, said = sweep(*STUB, "seed=0,1", "+decoder.sigmaa=1")
    assert status == 2
    assert "job 0 (" in said
    assert "did you mean 'sigma'" in said
    assert not (tmp_path / "sweep").exists()


def test_a_folder_holds_one_sweep(sweep, tmp_path):
    assert sweep(*STUB, "seed=0")[0] == 0
    status, said = sweep(*STUB, "seed=1")
    assert status == 2
    assert f"holds a sweep already: sweep.resume={tmp_path}/sweep goes on with it" in said
    status, said = sweep(*STUB, "seed=1", f"sweep.resume={tmp_path}/other place")
    assert status == 2
    assert "other place: there is no sweep.json" in said


def test_a_sweep_that_slurm_has_queued_again_goes_on(sweep, tmp_path, monkeypatch):
    assert sweep(*STUB, "seed=0,1")[0] == 0
    (jobs_of(tmp_path)[1].folder / "outcome.json").unlink()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    status, said = sweep(*STUB, "seed=0,1")
    assert status == 0, said
    assert "#0 seed=0: done before" in said
    assert "#1 seed=1: interrupted, starts" in said
    status, said = sweep(*STUB, "seed=2,3")  # another line of the same script
    assert status == 2
    assert "holds a sweep already" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["output_dir=runs/mine"],
            "output_dir=runs/mine: each job of a sweep has a folder of its own; hydra.sweep",
        ),
        (["+sweep.njobs=2"], "sweep.njobs: a sweep has no such key; did you mean 'n_jobs'"),
    ],
)
def test_what_a_sweep_cannot_heed_is_refused(words, told, sweep, tmp_path):
    status, said = sweep(*STUB, "seed=0,1", *words)
    assert status == 2
    assert told in said
    assert not list(tmp_path.glob("sweep/*/job.json"))


def test_jobs_inside_one_another_are_refused(tmp_path):
    jobs = [Job(tmp_path / name, number, (f"x={name}",), "/", {}) for number, name in enumerate(("a", "b", "a/c/d"))]
    with pytest.raises(UserError, match=r"gives the job x=a/c/d a folder inside that of the job x=a, .*/a$"):
        launch._refuse_shared_folders(jobs)
    launch._refuse_shared_folders(jobs[:2])


def test_a_training_of_somebody_else_is_not_gone_on_with(sweep, tmp_path):
    (tmp_path / "sweep" / "0").mkdir(parents=True)
    (tmp_path / "sweep" / "0" / "last.ckpt").touch()
    status, said = sweep(*STUB, "seed=0")
    assert status == 2
    assert "sweep/0: holds a training already (last.ckpt)" in said


def test_jobs_in_one_folder_are_refused(sweep, tmp_path):
    status, said = sweep(*STUB, "seed=0,1", "hydra.sweep.subdir=same")
    assert status == 2
    assert "hydra.sweep.subdir gives the jobs" in said


def test_a_sweep_that_was_moved_is_not_gone_on_with(sweep, tmp_path):
    assert sweep(*STUB, "seed=0")[0] == 0
    (tmp_path / "sweep" / "0" / "outcome.json").unlink()  # as if it had been killed
    (tmp_path / "sweep").rename(tmp_path / "moved")
    status, said = sweep(f"sweep.resume={tmp_path}/moved")
    assert status == 2
    assert f"moved/0: this job's paths lead to {tmp_path}/sweep/0, where it was frozen; move it back" in said
    assert "has changed" not in said
    assert [path.name for path in (tmp_path / "moved").glob("*/outcome.json")] == []


@pytest.mark.parametrize("begun", [False, True])
def test_a_job_that_has_a_checkpoint_stays_what_it_was(begun, sweep, tmp_path):
    """The configurations changed between two starts; the overrides, which are the key, did not."""
    assert sweep(*STUB, "seed=0")[0] == 0
    (job,) = jobs_of(tmp_path)
    (job.folder / "outcome.json").unlink()
    if not begun:
        (job.folder / "last.ckpt").unlink()
    changed = {**job.config, "name": "as it was"}
    job.freeze(job.folder, job.number, job.overrides, job.cwd, changed)
    status, said = sweep(f"sweep.resume={tmp_path}/sweep")
    assert status == 0, said
    (job,) = jobs_of(tmp_path)
    assert job.config["name"] == ("as it was" if begun else "demo")
    assert ("has changed since this job began" in said) == begun


def test_a_sampler_is_told_what_its_trials_gave(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(hydra_plugins, "__path__", [*hydra_plugins.__path__, str(PLUGINS)])
    from hydra_plugins.ask_tell import AskTell

    Plugins.instance().register(AskTell)
    status, said = sweep(*STUB, "hydra/sweeper=ask_tell")
    assert status == 0, said
    told = json.loads((tmp_path / "sweep" / "told.json").read_text())
    jobs = jobs_of(tmp_path)
    assert [entry["number"] for entry in told] == [number_of(3, 3)] * 2
    assert [entry["asked"] for entry in told] == [f"optim.lr={job.config['optim']['lr']!r}" for job in jobs]
    assert len({entry["asked"] for entry in told}) == 2


def test_a_sweep_is_not_started_by_every_rank(sweep, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    status, said = sweep(*STUB, "seed=0")
    assert status == 2
    assert "not by each that torchrun starts" in said

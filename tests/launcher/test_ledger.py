import json
import os

import pytest

from aggmask.errors import UserError
from aggmask.launcher.ledger import Job, Ledger, digest, key_of, labels
from aggmask.launcher.locks import held

CONFIG = {"seed": 1, "optim": {"lr": 1e-05, "milestones": [0.75, 11 / 12]}, "resume": None}


def frozen(root, number: int = 0, *overrides: str) -> Job:
    return Job.freeze(root / str(number), number, overrides or ["seed=1"], "/", CONFIG)


def test_a_frozen_configuration_comes_back_to_the_last_digit(tmp_path):
    job = frozen(tmp_path, 3, "seed=1", "optim.lr=1e-5")
    again = Job.read(job.folder)
    assert again == job
    assert again.config == CONFIG
    assert (again.number, again.overrides, again.cwd) == (3, ("seed=1", "optim.lr=1e-5"), "/")


def test_a_configuration_that_was_edited_is_refused(tmp_path):
    job = frozen(tmp_path)
    file = job.folder / "job.json"
    content = json.loads(file.read_text())
    content["config"]["seed"] = 2
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"job\.json: the configuration is not the one that was frozen"):
        Job.read(job.folder)


def test_a_folder_without_a_job_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: there is no job\.json"):
        Job.read(tmp_path / "nowhere")


def test_equal_configurations_have_equal_digests():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5}) != digest({"a": "1.5"})


def test_the_key_of_a_job_is_what_it_trains():
    assert key_of(["seed=1", "a=2"]) == key_of(["a=2", "seed=1", "sweep.n_jobs=4", "hydra.launcher.x=1"])
    assert key_of(["seed=1"]) != key_of(["seed=2"])


def test_a_state_is_read_from_what_happened(tmp_path):
    job = frozen(tmp_path)
    assert job.state == "waiting"
    with held(job.lock, "busy"):
        job.begin()
        assert job.state == "running"
    assert job.state == "interrupted"
    job.fail("first")
    job.fail("second")
    assert job.state == "failed"
    assert job.outcome["error"] == "first"
    job.reopen()
    assert job.state == "interrupted"
    job.finish(0.5)
    job.fail("too late")
    assert (job.state, job.outcome["objective"]) == ("done", 0.5)
    assert job.attempt["count"] == 1
    assert job.attempt["pid"] == os.getpid()


def test_files_below_a_job_and_files_of_others_are_no_jobs(tmp_path):
    frozen(tmp_path, 3, "experiment=demo")
    for folder, text in (
        ("3/artifacts", '{"name": "x"}'),
        ("3/wandb", "no json"),
        ("tool", '{"name": "x"}'),
        (".", "[]"),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "job.json").write_text(text)
    assert [job.number for job in Ledger(tmp_path).jobs()] == [3]
    with pytest.raises(UserError, match=r"no job\.json of ours"):
        Job.read(tmp_path / "tool")
    (tmp_path / "3" / "job.json").write_text('{"digest"')
    with pytest.raises(UserError, match=r"3/job\.json: is damaged \(.+\); put a copy of it back, or remove it"):
        Ledger(tmp_path).jobs()


def test_jobs_come_in_order_and_are_told_apart(tmp_path):
    for number in (10, 2):
        frozen(tmp_path, number, "experiment=demo", f"seed={number}")
    jobs = Ledger(tmp_path).jobs()
    assert [job.number for job in jobs] == [2, 10]
    assert labels(jobs) == ["seed=2", "seed=10"]
    assert labels(jobs[:1]) == ["experiment=demo seed=2"]
    assert labels([]) == []


def test_a_sweep_is_written_down_once(tmp_path):
    with pytest.raises(UserError, match=r"there is no sweep\.json"):
        Ledger.read(tmp_path)
    Ledger(tmp_path).open(["seed=0,1"], "/first")
    again = Ledger.read(tmp_path)
    again.open(["other"], "/second")
    assert Ledger.read(tmp_path).sweep == {"arguments": ["seed=0,1"], "cwd": "/first"}


def test_of_two_sweeps_that_start_in_one_folder_the_second_changes_nothing(tmp_path):
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    first.open(["seed=0,1"], "/first")
    with pytest.raises(UserError, match="another sweep was started here at the same time"):
        second.open(["other"], "/second")
    assert Ledger.read(tmp_path).sweep == {"arguments": ["seed=0,1"], "cwd": "/first"}

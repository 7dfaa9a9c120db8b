"""Real processes: jobs that start in half a second, and kills at every moment of them."""

import itertools
import json
import os
import random
import signal
import time

import pytest

from aggmask.errors import UserError
from aggmask.launcher.ledger import Ledger
from aggmask.launcher.processes import Processes
from aggmask.launcher.schedule import Schedule
from tests.launcher.processes import children_of, finish, is_alive, kill, python_path, start, until
from tests.launcher.stub_job import number_of
from tests.launcher.stub_sweep import MODULE, freeze


@pytest.fixture(autouse=True)
def _places(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", python_path())


def outcomes(root) -> dict[int, float]:
    return {job.number: (job.outcome or {}).get("objective") for job in Ledger(root).jobs()}


def started(root) -> int:
    return sum(json.loads(path.read_text())["count"] for path in root.rglob("attempt.json"))


def seen(root, number: int) -> dict:
    return json.loads((root / str(number) / "seen.json").read_text())


def test_kills_at_any_moment_lose_nothing(tmp_path):
    """The parent, the children and all of them in turn: each start goes on, and the last one finishes the same set."""
    chance, seeds, epochs = random.Random(0), 3, 20
    for kills in range(6):
        attempts = started(tmp_path)
        parent = start("tests.launcher.stub_sweep", str(tmp_path), "2", str(seeds), str(epochs))
        if kills < 5:  # the last one hits the parent before it has started anything
            until(lambda before=attempts: started(tmp_path) > before)
        time.sleep(chance.uniform(0, 0.5))
        children = children_of(parent.pid)
        for pid in ([parent.pid], [*children, parent.pid], [parent.pid, *children])[kills % 3]:
            kill(pid)
        parent.communicate()
    finish(start("tests.launcher.stub_sweep", str(tmp_path), "2", str(seeds), str(epochs)))
    jobs = Ledger(tmp_path).jobs()
    assert outcomes(tmp_path) == {seed: number_of(seed, epochs) for seed in range(seeds)}
    assert started(tmp_path) >= seeds + 4  # most kills hit a job
    for job in jobs:
        begun = [int(line) for line in (job.folder / "epochs.txt").read_text().split()]
        assert sorted(set(begun)) == list(range(epochs))
        assert len(begun) <= epochs + job.attempt["count"] - 1  # at most the epoch of each kill is repeated
        assert not (job.folder / "NOT ALONE").exists()


def test_children_end_with_a_killed_parent(tmp_path):
    parent = start("tests.launcher.stub_sweep", str(tmp_path), "2", "2", "1000")
    until(lambda: len(list(tmp_path.rglob("epochs.txt"))) == 2)
    children = children_of(parent.pid)
    assert all(map(is_alive, children))
    assert [job.state for job in Ledger(tmp_path).jobs()] == ["running", "running"]
    kill(parent.pid)
    until(lambda: not any(map(is_alive, children)), seconds=5)
    parent.communicate()
    assert [job.state for job in Ledger(tmp_path).jobs()] == ["interrupted", "interrupted"]


def test_a_killed_child_is_a_failed_job_and_the_others_go_on(tmp_path):
    parent = start("tests.launcher.stub_sweep", str(tmp_path), "1", "2", "40")
    until((tmp_path / "0" / "last.ckpt").exists)
    kill(children_of(parent.pid)[0])
    finish(parent)
    first, second = Ledger(tmp_path).jobs()
    assert first.state == "failed"
    assert "SIGKILL" in first.outcome["error"]
    assert second.outcome["objective"] == number_of(1, 40)
    finish(start("tests.launcher.stub_sweep", str(tmp_path), "1", "2", "40"))
    assert outcomes(tmp_path) == {0: number_of(0, 40), 1: number_of(1, 40)}
    assert first.attempt["count"] == 2
    assert second.attempt["count"] == 1


def test_a_job_that_is_told_to_end_is_not_failed_and_the_others_go_on(tmp_path):
    parent = start("tests.launcher.stub_sweep", str(tmp_path), "1", "2", "40")
    until((tmp_path / "0" / "last.ckpt").exists)
    os.kill(children_of(parent.pid)[0], signal.SIGTERM)
    said = finish(parent)
    first, second = Ledger(tmp_path).jobs()
    assert (first.state, first.outcome) == ("interrupted", None)
    assert second.outcome["objective"] == number_of(1, 40)
    assert "interrupted by SIGTERM; goes on when the sweep does" in said
    finish(start("tests.launcher.stub_sweep", str(tmp_path), "1", "2", "40"))
    assert outcomes(tmp_path) == {0: number_of(0, 40), 1: number_of(1, 40)}
    assert first.attempt["count"] == 2


def test_a_job_that_runs_elsewhere_is_left_alone(tmp_path, monkeypatch):
    """Somebody continues a job by hand while the sweep is started again."""
    monkeypatch.setenv("STUB_PATIENCE", "0.1")
    job = freeze(tmp_path, 0, epochs=60)
    by_hand = start(MODULE, f"job={job.folder}")
    until((job.folder / "epochs.txt").exists)
    Schedule(Processes(MODULE)).run([job])
    assert job.state == "running"
    assert job.attempt["pid"] == by_hand.pid
    finish(by_hand)
    assert outcomes(tmp_path) == {0: number_of(0, 60)}
    assert not (job.folder / "NOT ALONE").exists()


def test_failures_are_told_and_the_rest_is_done(tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_FAILS", "1")
    jobs = [freeze(tmp_path, seed) for seed in range(3)]
    Schedule(Processes(MODULE)).run(jobs)
    assert [job.state for job in jobs] == ["done", "failed", "done"]
    assert jobs[1].outcome["error"] == "ValueError: seed 1 is not liked"
    monkeypatch.delenv("STUB_FAILS")
    Schedule(Processes(MODULE)).run(jobs)
    assert outcomes(tmp_path) == {seed: number_of(seed, 4) for seed in range(3)}
    assert (tmp_path / "1" / "epochs.txt").read_text().split() == ["0", "1", "2", "2", "3"]  # from its checkpoint
    assert [job.attempt["count"] for job in jobs] == [1, 2, 1]


def test_stop_ends_the_others_which_can_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_FAILS", "1")
    jobs = [freeze(tmp_path, 0, epochs=1000), freeze(tmp_path, 1), freeze(tmp_path, 2)]
    with pytest.raises(UserError, match=r"job 1 failed, and sweep\.on_fail=stop: ValueError: seed 1 is not liked"):
        Schedule(Processes(MODULE, n_jobs=2), "stop").run(jobs)
    assert [job.state for job in jobs] == ["interrupted", "failed", "waiting"]
    assert not is_alive(jobs[0].attempt["pid"])


def test_gpus_and_threads_are_shared_out(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("aggmask.launcher.resources.processors", lambda: 8)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    jobs = [freeze(tmp_path, seed, 30, accelerator="gpu", devices=n) for seed, n in enumerate((1, 2, 1, 1))]
    Schedule(Processes(MODULE, n_jobs=3, gpus=["4", "5", "6"])).run(jobs)
    notes = [seen(tmp_path, seed) for seed in range(4)]
    taken = [note["env"]["CUDA_VISIBLE_DEVICES"].split(",") for note in notes]
    assert [len(gpus) for gpus in taken] == [1, 2, 1, 1]
    assert [note["env"]["OMP_NUM_THREADS"] for note in notes] == ["2", "1", "2", "2"]
    for i, one in enumerate(notes):  # at no time two jobs on one GPU
        for j, other in enumerate(notes[:i]):
            if one["began"] < other["ended"] and other["began"] < one["ended"]:
                assert not set(taken[i]) & set(taken[j])
    assert notes[1]["began"] < notes[0]["ended"]  # beside each other
    assert all((tmp_path / str(seed) / "output.log").is_file() for seed in range(4))


def test_no_more_jobs_than_allowed_run_at_once(tmp_path):
    jobs = [freeze(tmp_path, seed) for seed in range(3)]
    Schedule(Processes(MODULE, n_jobs=1)).run(jobs)
    times = sorted((seen(tmp_path, seed)["began"], seen(tmp_path, seed)["ended"]) for seed in range(3))
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times))


def test_a_job_that_cannot_even_start_says_so(tmp_path):
    job = freeze(tmp_path, 0)
    Schedule(Processes("tests.launcher.no_such_module")).run([job])
    assert job.state == "failed"
    assert "exit code 1" in job.outcome["error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"on_fail": "halt"}, r"sweep\.on_fail=halt: must be continue or stop"), ({"n_jobs": 0}, r"sweep\.n_jobs=0")],
)
def test_arguments_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        Schedule(Processes(MODULE, options.get("n_jobs", 1)), options.get("on_fail", "stop"))

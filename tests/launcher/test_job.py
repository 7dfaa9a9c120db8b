import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from aggmask.errors import UserError
from aggmask.launcher import job as job_module
from aggmask.launcher import locks
from aggmask.launcher.job import frozen_folder, run_frozen
from aggmask.launcher.locks import held
from aggmask.launcher.processes import Processes
from aggmask.launcher.schedule import Schedule
from aggmask.signals import Interrupted
from tests.launcher.processes import environment, is_alive, kill, until
from tests.launcher.stub_sweep import MODULE, freeze


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    handlers, level = logging.root.handlers[:], logging.root.level
    monkeypatch.chdir(Path.cwd())
    monkeypatch.setenv(job_module.PARENT, "")
    monkeypatch.setattr(job_module, "end_with_parent", lambda: None)  # which would end the tests with the first job
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [(["job=/a b/c"], Path("/a b/c")), (["job=/a", "seed=1"], None), (["experiment=demo"], None), ([], None)],
)
def test_the_argument_of_a_frozen_job(arguments, folder):
    assert frozen_folder(arguments) == folder


def test_a_job_runs_its_configuration_where_it_belongs(tmp_path):
    job = freeze(tmp_path, 3)
    got = {}

    def work(config: dict) -> float:
        got.update(config, cwd=os.getcwd(), state=job.state)
        return 0.25

    run_frozen(job.folder, work)
    assert got == {**job.config, "resume": None, "cwd": job.cwd, "state": "running"}
    assert job.outcome == {"state": "done", "objective": 0.25}
    run_frozen(job.folder, lambda config: pytest.fail("a job that is done was run again"))
    assert job.attempt["count"] == 1


def test_a_job_that_another_process_finishes_meanwhile_is_not_run_again(tmp_path, monkeypatch):
    job = freeze(tmp_path, 3)

    @contextmanager
    def waited(lock, refusal):
        job.finish(0.25)
        yield

    monkeypatch.setattr(job_module, "held", waited)
    run_frozen(job.folder, lambda config: pytest.fail("a job that is done was run again"))
    assert job.outcome == {"state": "done", "objective": 0.25}


def test_no_rank_waits_for_the_others_of_a_job_that_is_done(tmp_path, monkeypatch):
    job = freeze(tmp_path, 3)
    job.finish(0.25)
    monkeypatch.setenv("LOCAL_RANK", "1")
    run_frozen(job.folder, lambda config: pytest.fail("the main rank has ended, and this one would wait for it"))


def test_a_job_goes_on_from_its_last_checkpoint(tmp_path):
    job = freeze(tmp_path, 0)
    (job.folder / "last-1.ckpt").touch()
    run_frozen(job.folder, lambda config: {"auto": 1.0}[config["resume"]])
    assert job.outcome["objective"] == 1.0


def test_a_job_that_a_signal_ends_is_interrupted_and_neither_done_nor_failed(tmp_path):
    job = freeze(tmp_path, 0)

    def work(config: dict) -> float:
        raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        run_frozen(job.folder, work)
    assert (job.state, job.outcome, job.fault) == ("interrupted", None, "interrupted by SIGTERM")
    run_frozen(job.folder, lambda config: 1.0)
    assert job.state == "done"
    assert "interrupted" not in job.attempt


def test_a_failure_leaves_its_reason_and_can_be_tried_again(tmp_path):
    job = freeze(tmp_path, 0)
    with pytest.raises(ZeroDivisionError):
        run_frozen(job.folder, lambda config: 1 / 0)
    assert job.outcome == {"state": "failed", "error": "ZeroDivisionError: division by zero"}
    run_frozen(job.folder, lambda config: None)
    assert job.outcome == {"state": "done", "objective": None}
    assert job.attempt["count"] == 2


def test_a_fault_of_the_machine_is_explained_in_the_ledger(tmp_path):
    job = freeze(tmp_path, 0)

    def killed(config):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    with pytest.raises(RuntimeError):
        run_frozen(job.folder, killed)
    assert job.outcome["error"].startswith("a process that loads data has died: DataLoader worker (pid 7) is killed")
    assert "data.num_workers=2" in job.outcome["error"]


def test_another_rank_takes_no_lock_and_tells_its_own_failure(tmp_path, monkeypatch):
    """The main rank is killed when another one fails, so only that one knows why."""
    job = freeze(tmp_path, 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with held(job.lock, "busy"), pytest.raises(ZeroDivisionError):
        run_frozen(job.folder, lambda config: 1 / 0)
    assert job.outcome["error"] == "rank 1: ZeroDivisionError: division by zero"
    assert not (job.folder / "train.log").exists()
    assert job.attempt["count"] == 0


def test_two_processes_do_not_share_a_folder(tmp_path):
    job = freeze(tmp_path, 0)
    with held(job.lock, "busy"):
        job.begin()
        with pytest.raises(UserError, match=rf"process {os.getpid()} works on this job already"):
            run_frozen(job.folder, lambda config: pytest.fail("ran beside another process"))
    assert job.outcome is None


def test_a_job_that_was_moved_does_not_write_where_it_was(tmp_path):
    job = freeze(tmp_path, 0)
    moved = job.folder.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=rf"moved: this job's paths lead to {job.folder}"):
        run_frozen(moved, lambda config: pytest.fail("ran"))


def test_a_job_whose_relative_paths_start_nowhere_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "started").mkdir()
    monkeypatch.chdir(tmp_path / "started")
    job, done = freeze(tmp_path, 0), freeze(tmp_path, 1)
    done.finish(1.0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "started").rmdir()
    told = rf"0: the folder where its sweep was started is gone: {tmp_path}/started, from which relative paths"
    with pytest.raises(UserError, match=told):
        run_frozen(job.folder, lambda config: pytest.fail("ran"))
    with pytest.raises(UserError, match=told):
        Schedule(Processes(MODULE)).run([done, job])
    assert (job.state, job.attempt["count"]) == ("waiting", 0)
    Schedule(Processes(MODULE)).run([done])


@pytest.mark.parametrize("platform", ["linux", "other"])
def test_a_process_ends_with_its_parent(platform, tmp_path):
    child = (
        "import os, sys, time; from aggmask.launcher import job; sys.platform = sys.argv[1]; job.end_with_parent();"
        "open(sys.argv[2], 'w').write(str(os.getpid())); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys, time; os.environ['AGGMASK_PARENT'] = str(os.getpid());"
        "subprocess.Popen([sys.executable, '-c', *sys.argv[1:]]); time.sleep(60)"
    )
    note = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", parent, child, platform, str(note)], env=environment())
    until(lambda: note.exists() and note.read_text())
    pid = int(note.read_text())
    assert is_alive(pid)
    kill(process.pid)
    process.wait()
    until(lambda: not is_alive(pid), seconds=5)


def test_a_process_whose_parent_is_gone_does_not_begin():
    code = "from aggmask.launcher import job; job.end_with_parent(); print('began')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(AGGMASK_PARENT="1"), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")


def test_what_a_job_wrote_is_whole_json(tmp_path):
    job = freeze(tmp_path, 0)
    run_frozen(job.folder, lambda config: 1.0)
    assert all(json.loads(path.read_text()) for path in job.folder.glob("*.json"))
    assert not list(job.folder.glob(".*.part"))

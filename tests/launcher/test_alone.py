import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from aggmask import train
from aggmask.errors import UserError
from aggmask.launcher import alone, locks
from aggmask.launcher.alone import alone_in
from aggmask.launcher.locks import held, is_held
from tests.disks import disk, make_read_only
from tests.launcher.processes import children_of, environment, is_alive, until
from tests.runs import SMALL, command

HOLDER = """
import os, sys, time
from aggmask.launcher.alone import alone_in
with alone_in(sys.argv[1]):
    if len(sys.argv) > 2 and os.fork() == 0:
        time.sleep(60)  # a process that loads data does not know yet that its parent is gone
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def start(tmp_path):
    """Starts a process that holds the folder `run`, and ends it at the latest with the test."""
    started = []

    def start(*more: str) -> subprocess.Popen:
        arguments = [sys.executable, "-c", HOLDER, str(tmp_path / "run"), *more]
        process = subprocess.Popen(
            arguments, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_second_process_is_refused_and_told_of_the_first(start, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(alone, "PATIENCE", 0.1)
    holder = start()
    refusal = rf"run: another process trains in this folder already \(process {holder.pid} on .*output_dir=DIR"
    with pytest.raises(UserError, match=refusal), alone_in(tmp_path / "run"):
        pass
    assert "waiting 0.1 s for a process that is just ending" in caplog.text


def test_a_killed_process_leaves_no_false_alarm(start, tmp_path, monkeypatch):
    monkeypatch.setattr(alone, "PATIENCE", 5.0)
    holder = start()
    holder.kill()
    with alone_in(tmp_path / "run"):  # not even with the wait for its end
        assert (tmp_path / "run" / "run.lock").read_text().startswith(f"process {os.getpid()} on ")
    with alone_in(tmp_path / "run"):
        pass


def test_a_process_that_loads_data_holds_nothing(start, tmp_path, monkeypatch):
    monkeypatch.setattr(alone, "PATIENCE", 2.0)
    holder = start("fork")
    (child,) = children_of(holder.pid)
    holder.kill()
    holder.wait()
    began = time.monotonic()
    with alone_in(tmp_path / "run"):
        assert is_alive(child)
        assert time.monotonic() - began < 1


def test_training_is_refused_before_it_writes_anything(start, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(alone, "PATIENCE", 0.1)
    start()
    (tmp_path / "run" / "config.yaml").write_text("of the first")
    few = ["data.prepare.train_images=4", "data.prepare.val_images=2", f"data.root={tmp_path}/shapes"]
    arguments = ["experiment=demo", f"output_dir={tmp_path}/run", f"hydra.run.dir={tmp_path}/hydra", *SMALL, *few]
    status, said = command(monkeypatch, capsys, train, *arguments)
    assert status == 2
    assert "another process trains in this folder already" in said
    assert "Traceback" not in said
    assert (tmp_path / "run" / "config.yaml").read_text() == "of the first"
    assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_locks_is_warned_of(number, tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), alone_in(tmp_path / "run"):
        assert "run.lock: this disk knows no locks" in caplog.text
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]
    assert not is_held(tmp_path / "run" / "run.lock")


def test_a_place_that_cannot_be_written_is_another_error(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    with disk(tmp_path / "disk", 64) as place:
        make_read_only(place)
        with pytest.raises(OSError, match="Read-only file system"), held(place / "job.lock", "busy"):
            pass


def test_the_folder_is_made(tmp_path):
    with alone_in(tmp_path / "a" / "b"):
        assert is_held(tmp_path / "a" / "b" / "run.lock")
    until(lambda: not is_held(tmp_path / "a" / "b" / "run.lock"), seconds=1)

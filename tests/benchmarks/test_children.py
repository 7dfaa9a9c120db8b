"""A study's processes: what they hear of a signal to it, and that none is left when it is killed."""

import os
import signal
import sys
import threading

import pytest

from aggmask import train
from aggmask.errors import UserError
from aggmask.launcher.job import PARENT
from aggmask.signals import ENDING, Interrupted
from benchmarks.children import run_to_its_end
from tests.launcher.processes import end_all, is_alive, start, until

SAVES = """
trap 'echo x >> told; sleep 0.3; touch saved; exit' INT TERM
echo $$ > begun; while :; do sleep 0.05; done
"""
HANGS = SAVES.replace("sleep 0.3", "while :; do sleep 0.05; done")
RUN = """
import sys
from benchmarks.children import run_to_its_end
child = "import os, time; from aggmask.launcher.job import end_with_parent; end_with_parent();"
child += "print(os.getpid(), file=open('begun', 'w'), flush=True); time.sleep(300)"
run_to_its_end([sys.executable, "-c", child])
"""
POOL = """
import os, time
from benchmarks.children import fresh_processes
if __name__ == "__main__":
    with fresh_processes(1) as pool:
        print(pool.submit(os.getpid).result(), file=open("begun", "w"), flush=True)
        pool.submit(time.sleep, 300).result()
"""


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    assert before == {number: signal.getsignal(number) for number in ENDING}
    end_all()


def send(number, *marks):
    """The signal to this process, as soon as the child has left each of these files."""

    def wait_and_send():
        for mark in marks:
            until(lambda name=mark: os.path.isfile(name))
            os.kill(os.getpid(), number)

    threading.Thread(target=wait_and_send, daemon=True).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_told_to_end_hears_it_once_and_saves(number, tmp_path):
    send(number, "begun")
    with pytest.raises(Interrupted) as stop:
        run_to_its_end(["sh", "-c", SAVES])
    assert stop.value.number == number
    assert (tmp_path / "saved").is_file()
    assert (tmp_path / "told").read_text() == "x\n"


def test_a_second_ctrl_c_kills(tmp_path):
    send(signal.SIGINT, "begun", "told")
    with pytest.raises(KeyboardInterrupt):
        run_to_its_end(["sh", "-c", HANGS])
    assert not is_alive(int((tmp_path / "begun").read_text()))


def test_of_a_terminal_s_signals_a_command_hears_from_here_alone():
    asks = "import os, sys; sys.exit(40 + (os.getsid(0) == os.getpid()))"
    assert run_to_its_end([sys.executable, "-c", asks]) == 41


@pytest.mark.parametrize("code", [RUN, POOL], ids=["command", "pool"])
def test_none_outlives_a_study_that_is_killed(code, tmp_path):
    (tmp_path / "its_main.py").write_text(code)
    process = start("its_main", cwd=tmp_path)
    until(lambda: (tmp_path / "begun").is_file() and (tmp_path / "begun").read_text())
    process.kill()
    until(lambda: not is_alive(int((tmp_path / "begun").read_text())), seconds=20)


@pytest.mark.parametrize(("parent", "bound"), [(os.getppid(), [1]), (os.getpid(), [])], ids=["parent", "another"])
def test_a_sweep_ends_with_the_study_that_started_it(parent, bound, monkeypatch):
    ends = []
    monkeypatch.setattr(train, "end_with_parent", lambda: ends.append(1))
    monkeypatch.setattr(train.sys, "argv", ["train"])
    monkeypatch.setenv(PARENT, str(parent))  # or what an earlier training in this process has left there
    with pytest.raises(UserError, match="say which experiment"):
        train._named_experiment()
    assert ends == bound
    assert os.environ[PARENT] == str(os.getpid())

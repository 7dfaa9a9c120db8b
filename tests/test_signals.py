"""What is noted, what is raised, and what is left alone."""

import os
import signal

import pytest

from aggmask.signals import ENDING, Ending, Interrupted, end_at_once


@pytest.fixture(autouse=True)
def _handlers():
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_signal_is_noted_and_a_ctrl_c_after_it_ends_at_once(capfd):
    ending = Ending()
    ending.listen()
    assert ending.received == 0
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert ending.received == signal.SIGUSR1
    assert "SIGUSR1: ends after this step and saves" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_nobody_is_told_of_a_checkpoint_that_is_not_written(capfd):
    ending = Ending()
    ending.listen()
    ending.listen(saves=False)
    os.kill(os.getpid(), signal.SIGINT)
    assert "SIGINT: ends after this batch; Ctrl-C ends at once" in capfd.readouterr().err


def test_before_there_is_something_to_lose_a_run_ends_where_it_is():
    end_at_once()
    with pytest.raises(Interrupted) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert (stop.value.name, stop.value.number, stop.value.code) == ("SIGTERM", 15, 143)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # by nohup, say
    ending = Ending()
    ending.listen()
    os.kill(os.getpid(), signal.SIGINT)
    assert ending.received == 0


def test_only_one_rank_tells():
    assert [Interrupted(signal.SIGINT, tell).code for tell in (True, False)] == [130, 0]
    assert not isinstance(Interrupted(signal.SIGINT), Exception)

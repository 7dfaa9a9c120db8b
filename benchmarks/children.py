"""Processes that a study starts: none outlives it, and a signal that ends it lets them save first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from aggmask.launcher.job import PARENT, end_with_parent
from aggmask.signals import ENDING, Ending, Interrupted

_POLL = 0.1  # seconds


def run_to_its_end(words: Sequence[str]) -> int:
    """Run a command; its exit status. A signal to end is passed on, and what the command then does is waited for.

    It has a session of its own: of a Ctrl-C, or of a SIGTERM to all, it hears once, from here. A second signal would
    cut short the sweep's wait for its jobs.

    Raises:
        Interrupted: this process was told to end, and the command has ended.
        KeyboardInterrupt: told so a second time, by Ctrl-C: the command was killed.
    """
    before = {number: signal.getsignal(number) for number in ENDING}
    told, passed_on = Ending(), False
    told.listen()
    try:
        env = {**os.environ, PARENT: str(os.getpid())}
        process = subprocess.Popen(words, env=env, start_new_session=True)
        try:
            while process.poll() is None:
                if told.received and not passed_on:
                    process.send_signal(told.received)
                    passed_on = True
                time.sleep(_POLL)
        except KeyboardInterrupt:
            process.kill()
            process.wait()
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if told.received:
        raise Interrupted(told.received)
    return process.returncode


def fresh_processes(count: int) -> ProcessPoolExecutor:
    """A pool whose processes end with this one, without a word."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, spawn, initializer=_begin, initargs=(os.getpid(),))


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler prints a traceback
    os.environ[PARENT] = str(parent)
    end_with_parent()

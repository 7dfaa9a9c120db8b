"""The process of one job: takes its folder, runs what is frozen there, leaves an outcome.

It is started by the parent of a sweep, by Lightning (the other ranks of the same job), by torchrun or by hand; all of
them read the same file, so nothing is composed a second time.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from aggmask.assembly.explain import explain
from aggmask.data.processors import global_rank
from aggmask.launcher.ledger import Job
from aggmask.launcher.locks import held
from aggmask.signals import Interrupted

PARENT = "AGGMASK_PARENT"  # process id: when that process ends, so does this one
_PREFIX = "job="
_PR_SET_PDEATHSIG = 1


def frozen_folder(arguments: Sequence[str]) -> Path | None:
    """DIR of the single argument `job=DIR`."""
    if len(arguments) == 1 and arguments[0].startswith(_PREFIX):
        return Path(arguments[0].removeprefix(_PREFIX)).expanduser().resolve()
    return None


def run_frozen(folder: Path, function: Callable[[dict[str, Any]], float | None]) -> None:
    """Run a job's configuration from its last checkpoint, if it has one.

    Args:
        folder: of the job.
        function: from the configuration to the number that a sweep compares.

    Raises:
        UserError: no such job, another process works in the folder, or see `Job.refuse_lost`.
    """
    end_with_parent()
    job, main_rank = Job.read(folder), global_rank() == 0
    if job.state != "done":
        job.refuse_lost()
    elif not main_rank:  # the main one will say so and end, and this one would wait for it
        return
    refusal = f"{folder}: process {job.attempt.get('pid')} works on this job already; end it, or let it finish"
    with held(job.lock, refusal) if main_rank else nullcontext():
        if main_rank:
            if job.state == "done":  # asked only now: it may have been another process that held the lock
                print(f"done before: {folder}")
                return
            job.reopen()
            job.begin()
        os.environ[PARENT] = str(os.getpid())  # for the ranks that this one starts
        os.chdir(job.cwd)
        _log_to(folder / "train.log" if main_rank else None)
        # The checkpoint that the sweep was told to begin with counts until the job has one of its own.
        resume = "auto" if job.has_checkpoint else job.config.get("resume")
        try:
            objective = function({**job.config, "resume": resume})
        except Interrupted as stop:
            if main_rank:
                job.interrupt(stop.name)
            raise
        except Exception as error:
            rank = "" if main_rank else f"rank {global_rank()}: "
            job.fail(f"{rank}{explain(error) or _innermost(error)}")
            raise
        if main_rank:
            job.finish(objective)


def _innermost(error: BaseException) -> str:
    """What Hydra wraps in "Error in call to target"."""
    while type(error).__name__ == "InstantiationException" and error.__cause__:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def end_with_parent() -> None:
    """See to it that this process does not outlive the one that started it, not even when that one is killed.

    Otherwise an orphan would go on writing into a folder which a second start of the sweep takes up.
    """
    parent = int(os.environ.get(PARENT) or 0)
    if not parent:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before this line
        os._exit(1)


def _watch(parent: int, seconds: float = 0.2) -> None:
    while os.getppid() == parent:
        time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def _log_to(file: Path | None) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if file:
        handlers.append(logging.FileHandler(file))
    style = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"  # Hydra's
    logging.basicConfig(level=logging.INFO, format=style, handlers=handlers, force=True)

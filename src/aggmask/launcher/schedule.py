"""Starts jobs, a few at a time, each as a fresh process, and watches them to their end.

One thread: Linux takes the end of the thread that started a process for the end of its parent (`end_with_parent`).
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from aggmask.errors import UserError
from aggmask.launcher.ledger import Job, labels
from aggmask.launcher.resources import environment, gpus_needed, granted

log = logging.getLogger(__name__)
_POLL = 0.1  # seconds
_GRACE = 10.0  # seconds that a job has to end when it is told to


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen
    gpus: list[str]
    since: float


class Schedule:
    """How the jobs of a sweep share a machine.

    Args:
        module: started as `python -m MODULE job=FOLDER`.
        n_jobs: at the same time.
        gpus: what the jobs share; a job waits until there are enough for it.
        on_fail: continue, or stop: a job that fails ends the sweep, and those that run beside it are interrupted.

    Raises:
        UserError: an argument makes no sense.
    """

    def __init__(self, module: str, n_jobs: int = 1, gpus: Sequence[str] = (), on_fail: str = "continue") -> None:
        if on_fail not in ("continue", "stop"):
            raise UserError(f"sweep.on_fail={on_fail}: must be continue or stop")
        if n_jobs < 1:
            raise UserError(f"sweep.n_jobs={n_jobs}: must be at least 1")
        self.module, self.n_jobs, self.gpus, self.on_fail = module, n_jobs, [str(gpu) for gpu in gpus], on_fail
        self._labels: dict[Path, str] = {}

    def run(self, jobs: Sequence[Job]) -> None:
        """Bring all jobs to an outcome; those that are done are skipped.

        Raises:
            UserError: a job failed, and on_fail=stop.
        """
        self._labels = dict(zip((job.folder for job in jobs), labels(jobs), strict=True))
        needs = {job.folder: self._gpus_needed(job) for job in jobs}  # before anything is started
        waiting, running, free = deque(jobs), [], list(self.gpus)
        try:
            while waiting or running:
                while waiting and len(running) < self.n_jobs:
                    if waiting[0].state == "done":
                        self._say(waiting.popleft(), "done before")
                        continue
                    gpus = granted(free, needs[waiting[0].folder])
                    if gpus is None:
                        break
                    for gpu in gpus:
                        free.remove(gpu)
                    running.append(self._start(waiting.popleft(), gpus))
                time.sleep(_POLL)
                for item in [item for item in running if item.process.poll() is not None]:
                    running.remove(item)
                    free += item.gpus
                    self._conclude(item)
        finally:
            _end(running)

    def _gpus_needed(self, job: Job) -> int:
        return gpus_needed(job.config["trainer"], len(set(self.gpus)), self.n_jobs)

    def _start(self, job: Job, gpus: list[str]) -> _Running:
        self._say(job, f"{job.state}, starts" + (f" on GPU {','.join(gpus)}" if gpus else ""))
        if job.state == "failed":
            job.reopen()
        with _output(job, self.n_jobs) as output:
            process = subprocess.Popen(
                [sys.executable, "-m", self.module, f"job={job.folder}"],
                env=environment(job.config["trainer"], gpus, self.n_jobs),
                cwd=job.cwd,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,  # so that a Ctrl-C comes here only, and all ranks can be ended together
            )
        return _Running(job, process, gpus, time.monotonic())

    def _conclude(self, item: _Running) -> None:
        job, code = item.job, item.process.returncode
        if code < 0:
            _signal(item, signal.SIGKILL)  # ranks that outlived the main one
        began = job.attempt.get("pid") == item.process.pid
        if job.outcome is None and (began or job.state != "running"):  # else another process is in its folder
            job.fail(_reason(code, job))
        outcome = job.outcome or {"state": "failed", "error": "another process works on it already"}
        minutes, seconds = divmod(round(time.monotonic() - item.since), 60)
        if outcome["state"] == "done":
            number = outcome["objective"]
            self._say(job, f"done in {minutes} min {seconds} s" + ("" if number is None else f": {number:.4f}"))
            return
        self._say(job, f"failed: {outcome['error']}", logging.ERROR)
        if self.on_fail == "stop":
            raise UserError(f"job {job.number} failed, and sweep.on_fail=stop: {outcome['error']} ({job.folder})")

    def _say(self, job: Job, what: str, level: int = logging.INFO) -> None:
        log.log(level, "#%d %s: %s", job.number, self._labels[job.folder], what)


def _output(job: Job, n_jobs: int) -> AbstractContextManager[IO[bytes] | None]:
    """Where a job prints: here, or into its folder where several would mix."""
    return (job.folder / "output.log").open("ab") if n_jobs > 1 else nullcontext()


def _reason(code: int, job: Job) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (" (too little memory, if nobody sent it)" if name == "SIGKILL" else "")
    return f"exit code {code} without a reason; see {job.folder}"


def _signal(item: _Running, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(item.process.pid, number)


def _end(running: Sequence[_Running]) -> None:
    """End jobs that still run: they keep their checkpoints and count as interrupted."""
    for item in running:
        _signal(item, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    for item in running:
        with suppress(subprocess.TimeoutExpired):
            item.process.wait(max(0, deadline - time.monotonic()))
        _signal(item, signal.SIGKILL)
        item.process.wait()

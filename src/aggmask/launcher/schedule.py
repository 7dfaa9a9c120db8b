"""Starts jobs as long as there is room for them, and watches them to their end; an engine knows how.

One thread: Linux takes the end of the thread that started a process for the end of its parent (`end_with_parent`).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aggmask.errors import UserError
from aggmask.launcher.ledger import Job, labels

log = logging.getLogger(__name__)


class Started(Protocol):
    """A job that an engine has started."""

    where: str  # " on GPU 1"

    def ended(self) -> str | None:
        """None while it runs; then what there is to say of a job that left no outcome."""

    def wrote(self, attempt: Mapping[str, Any]) -> bool:
        """Whether an attempt on the job is this one."""


class Engine(Protocol):
    """Where the jobs of a sweep run: `python -m MODULE job=FOLDER`, or one of these for each rank."""

    module: str
    n_jobs: int  # at the same time
    poll: float  # seconds

    def check(self, job: Job) -> None:
        """Raises UserError: the job cannot run here."""

    def has_room(self, job: Job, running: Sequence[Any]) -> bool:
        """Whether there is what a job needs, beside those that run."""

    def start(self, job: Job, running: Sequence[Any]) -> Started:
        """Start a job that there is room for."""

    def end(self, running: Sequence[Any]) -> None:
        """End jobs that still run: they keep their checkpoints and count as interrupted."""


@dataclass
class _Item:
    job: Job
    started: Started
    since: float


class Schedule:
    """Brings jobs to an outcome.

    Args:
        engine: starts them.
        on_fail: continue, or stop: a job that fails ends the sweep, and those that run beside it are interrupted.

    Raises:
        UserError: on_fail or n_jobs makes no sense.
    """

    def __init__(self, engine: Engine, on_fail: str = "continue") -> None:
        if on_fail not in ("continue", "stop"):
            raise UserError(f"sweep.on_fail={on_fail}: must be continue or stop")
        if engine.n_jobs < 1:
            raise UserError(f"sweep.n_jobs={engine.n_jobs}: must be at least 1")
        self.engine, self.on_fail = engine, on_fail
        self._labels: dict[Path, str] = {}

    def run(self, jobs: Sequence[Job]) -> None:
        """Bring all jobs to an outcome; those that are done are skipped.

        Raises:
            UserError: a job cannot run here, or was moved (then nothing is started); or one failed, and on_fail=stop.
        """
        self._labels = dict(zip((job.folder for job in jobs), labels(jobs), strict=True))
        for job in jobs:
            if job.state != "done":
                job.refuse_lost()
            self.engine.check(job)
        waiting, running = deque(jobs), []
        try:
            while waiting or running:
                while waiting and self._take_up(waiting[0], running):
                    waiting.popleft()
                time.sleep(self.engine.poll)
                for item in list(running):
                    if reason := item.started.ended():
                        running.remove(item)
                        self._conclude(item, reason)
        finally:
            self.engine.end([item.started for item in running])

    def _take_up(self, job: Job, running: list[_Item]) -> bool:
        """Start it, if it is not done and there is room; whether it need not wait any more."""
        state = job.state
        if state == "done":
            self._say(job, "done before")
            return True
        beside = [item.started for item in running]
        if len(running) >= self.engine.n_jobs or not self.engine.has_room(job, beside):
            return False
        if state == "failed":
            job.reopen()
        started = self.engine.start(job, beside)
        self._say(job, f"{state}, starts{started.where}")
        running.append(_Item(job, started, time.monotonic()))
        return True

    def _conclude(self, item: _Item, reason: str) -> None:
        job = item.job
        ours = item.started.wrote(job.attempt)
        if ours and job.outcome is None and job.attempt.get("interrupted"):
            self._say(job, f"{job.fault}; goes on when the sweep does", logging.WARNING)
            return
        if job.outcome is None and (ours or job.state != "running"):
            job.fail(reason)  # else another process is in its folder
        minutes, seconds = divmod(round(time.monotonic() - item.since), 60)
        if job.state == "done":
            number = job.outcome["objective"]
            self._say(job, f"done in {minutes} min {seconds} s" + ("" if number is None else f": {number:.4f}"))
            return
        self._say(job, f"failed: {job.fault}", logging.ERROR)
        if self.on_fail == "stop":
            raise UserError(f"job {job.number} failed, and sweep.on_fail=stop: {job.fault} ({job.folder})")

    def _say(self, job: Job, what: str, level: int = logging.INFO) -> None:
        log.log(level, "#%d %s: %s", job.number, self._labels[job.folder], what)

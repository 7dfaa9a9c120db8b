"""`hydra/launcher=processes`: each job as a process of this machine, whose GPUs the jobs share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from aggmask.launcher.job import PARENT
from aggmask.launcher.ledger import Job
from aggmask.launcher.resources import (
    checked_gpus,
    environment,
    gpus_at_hand,
    gpus_needed,
    granted,
    refuse_nodes,
    without_ranks,
)

_GRACE = 30.0  # seconds that a job has to finish a step and save, when it is told to end; SLURM's KillWait too


@dataclass
class Running:
    """A process that works on a job."""

    job: Job
    process: subprocess.Popen
    gpus: list[str]

    @property
    def where(self) -> str:
        return f" on GPU {','.join(self.gpus)}" if self.gpus else ""

    def ended(self) -> str | None:
        code = self.process.poll()
        if code is None:
            return None
        if code < 0:
            _signal(self.process, signal.SIGKILL)  # ranks that outlived the main one
        return _reason(code, self.job)

    def wrote(self, attempt: Mapping[str, Any]) -> bool:
        return attempt.get("pid") == self.process.pid


class Processes:
    """See `aggmask.launcher.schedule.Engine`.

    Args:
        module: started as `python -m MODULE job=FOLDER`.
        n_jobs: at the same time.
        gpus: what the jobs share; a job waits until there are enough for it. None: all there are.
    """

    poll = 0.1

    def __init__(self, module: str, n_jobs: int = 1, gpus: Sequence[int | str] | None = ()) -> None:
        self.module, self.n_jobs = module, n_jobs
        self.gpus = gpus_at_hand() if gpus is None else checked_gpus(gpus)

    def check(self, job: Job) -> None:
        refuse_nodes(job.config["trainer"], "processes")
        self._needed(job)

    def has_room(self, job: Job, running: Sequence[Running]) -> bool:
        return self._granted(job, running) is not None

    def start(self, job: Job, running: Sequence[Running]) -> Running:
        gpus = self._granted(job, running) or []
        with _output(job, self.n_jobs) as output:
            process = _start(self.module, job, environment(job.config["trainer"], gpus, self.n_jobs), output)
        return Running(job, process, gpus)

    def end(self, running: Sequence[Running]) -> None:
        _end([item.process for item in running])

    def _granted(self, job: Job, running: Sequence[Running]) -> list[str] | None:
        free = list(self.gpus)
        for gpu in (gpu for other in running for gpu in other.gpus):
            free.remove(gpu)
        return granted(free, self._needed(job))

    def _needed(self, job: Job) -> int:
        return gpus_needed(job.config["trainer"], len(set(self.gpus)), self.n_jobs)


def run_task(module: str, job: Job, ranks: Mapping[str, str]) -> None:
    """Run a job, or one rank of it, from a process that a cluster started; it ends with that process.

    Args:
        module: see `Processes`.
        ranks: variables that say which rank this is; empty where the job starts its ranks itself.

    Raises:
        RuntimeError: it ended with another exit code than 0.
    """
    process = _start(module, job, without_ranks(os.environ) | {PARENT: str(os.getpid())} | ranks)
    try:
        while (code := process.poll()) is None:
            time.sleep(0.2)  # while it waits for a process, Python does not hear that Ray cancels a task
    finally:  # also when the cluster takes the machine back: the job goes on from its checkpoint
        _end([process])
    if code:
        raise RuntimeError(_reason(code, job))


def _start(module: str, job: Job, env: Mapping[str, str], output: IO[bytes] | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", module, f"job={job.folder}"],
        env=env,
        cwd=job.cwd,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        start_new_session=True,  # so that signals come to the parent only, and all ranks can be ended together
    )


def _output(job: Job, n_jobs: int) -> AbstractContextManager[IO[bytes] | None]:
    """Where a job prints: here, or into its folder where several would mix."""
    return Path(job.folder, "output.log").open("ab") if n_jobs > 1 else nullcontext()


def _reason(code: int, job: Job) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (" (too little memory, if nobody sent it)" if name == "SIGKILL" else "")
    return f"exit code {code} without a reason; see {job.folder}"


def _signal(process: subprocess.Popen, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """End jobs that still run: they keep their checkpoints and count as interrupted."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0, deadline - time.monotonic()))
        _signal(process, signal.SIGKILL)
        process.wait()

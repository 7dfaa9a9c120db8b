"""The ledger of a sweep: what each job is and how far it came, in files that a kill at any moment leaves whole.

    SWEEP/sweep.json           the arguments of the sweep and where it was started
    SWEEP/sweep.lock           held by the process that starts its jobs
    SWEEP/JOB/job.json         a job's overrides (its key) and its resolved configuration
    SWEEP/JOB/job.lock         held by the process that works in the folder
    SWEEP/JOB/attempt.json     who started the job last, how often that happened, and which signal ended it cleanly
    SWEEP/JOB/progress.json    how far its training is
    SWEEP/JOB/outcome.json     done with a number, or failed with a reason

A job's state is read from these files and never stored, so that it cannot be out of date. The locks are the operating
system's: it frees them when their process ends, however it ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aggmask.checkpoints.run_folder import checkpoints_of
from aggmask.errors import UserError
from aggmask.files import read_json, write_json
from aggmask.launcher.locks import is_held

STATES = ("done", "failed", "running", "interrupted", "waiting")


def digest(config: Any) -> str:
    """What equal configurations have in common, whatever the order of their keys: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def key_of(overrides: Sequence[str]) -> tuple[str, ...]:
    """What makes two jobs of a sweep the same: their overrides, but not those that say how the sweep is run."""
    return tuple(sorted(o for o in overrides if not o.startswith(("sweep.", "hydra.", "hydra/"))))


@dataclass(frozen=True)
class Job:
    """One run of a sweep: a folder and the configuration that is frozen in it."""

    folder: Path
    number: int
    overrides: tuple[str, ...]
    cwd: str  # where relative paths of the configuration start
    config: Mapping[str, Any]

    @classmethod
    def freeze(cls, folder: Path, number: int, overrides: Sequence[str], cwd: str, config: Mapping[str, Any]) -> Job:
        """Write a job down. From now on it is this configuration, whatever happens to the files it was made of."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {"number": number, "overrides": list(overrides), "cwd": cwd, "config": config}
        write_json(folder / "job.json", {"digest": digest(config), **content})
        return cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> Job:
        """The job of a folder.

        Raises:
            UserError: there is none, or its configuration was changed by hand.
        """
        content = read_json(folder / "job.json")
        if not _is_job(content):
            raise UserError(f"job={folder}: there is no job.json of ours, so this is no folder of a sweep's job")
        return cls._of(folder, content)

    @classmethod
    def _of(cls, folder: Path, content: Mapping[str, Any]) -> Job:
        if digest(content["config"]) != content["digest"]:
            raise UserError(
                f"{folder / 'job.json'}: the configuration is not the one that was frozen; a job of other values is "
                "another job: give them as overrides to a sweep"
            )
        return cls(folder, content["number"], tuple(content["overrides"]), content["cwd"], content["config"])

    @property
    def key(self) -> tuple[str, ...]:
        return key_of(self.overrides)

    def refuse_lost(self) -> None:
        """
        Raises:
            UserError: the paths of the configuration lead elsewhere: the job was moved, or relative ones start in a
                folder that is gone.
        """
        if (frozen_in := self.config["output_dir"]) != str(self.folder):
            raise UserError(f"{self.folder}: this job's paths lead to {frozen_in}, where it was frozen; move it back")
        if not Path(self.cwd).is_dir():
            raise UserError(
                f"{self.folder}: the folder where its sweep was started is gone: {self.cwd}, from which relative paths "
                "of the configuration start; move it back, or make an empty one where all paths are absolute"
            )

    @property
    def lock(self) -> Path:
        return self.folder / "job.lock"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return bool(checkpoints_of(self.folder))

    @property
    def outcome(self) -> dict[str, Any] | None:
        """{"state": "done", "objective": number or None} or {"state": "failed", "error": text}."""
        return read_json(self.folder / "outcome.json")

    @property
    def progress(self) -> dict[str, Any]:
        return read_json(self.folder / "progress.json") or {}

    @property
    def attempt(self) -> dict[str, Any]:
        return read_json(self.folder / "attempt.json") or {"count": 0}

    @property
    def state(self) -> str:
        """One of STATES."""
        if outcome := self.outcome:
            return outcome["state"]
        if is_held(self.lock):
            return "running"
        return "interrupted" if self.attempt["count"] else "waiting"

    def begin(self) -> None:
        """Note a new attempt of this process, which holds the lock."""
        now = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        write_json(self.folder / "attempt.json", {"count": self.attempt["count"] + 1, **now})

    def interrupt(self, signal: str) -> None:
        """Note that this attempt was told to end, and has saved where it stands."""
        write_json(self.folder / "attempt.json", {**self.attempt, "interrupted": signal})

    @property
    def fault(self) -> str:
        """Why a job that has ended is not done."""
        if outcome := self.outcome:
            return outcome["error"]
        if signal := self.attempt.get("interrupted"):
            return f"interrupted by {signal}"
        return "another process works on it"

    def finish(self, objective: float | None) -> None:
        write_json(self.folder / "outcome.json", {"state": "done", "objective": objective})

    def fail(self, error: str) -> None:
        """Note a failure, unless something is noted already: of several ranks, the first one to fail knows why."""
        if self.outcome is None:
            write_json(self.folder / "outcome.json", {"state": "failed", "error": error})

    def reopen(self) -> None:
        """Forget a failure, so that the job can be tried again."""
        (self.folder / "outcome.json").unlink(missing_ok=True)


def _is_job(content: Any) -> bool:
    """Whether a `job.json` is a job of a sweep, and not some other program's."""
    return isinstance(content, dict) and content.keys() >= {"digest", "number", "overrides", "cwd", "config"}


def labels(jobs: Sequence[Job]) -> list[str]:
    """What tells each job from the others: its overrides without those that all of them have."""
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    return [" ".join(o for o in job.overrides if o not in shared) for job in jobs]


class Ledger:
    """All jobs of a sweep's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sweep = read_json(root / "sweep.json")

    @classmethod
    def read(cls, root: str | Path) -> Ledger:
        """The ledger of a sweep that was started before.

        Raises:
            UserError: there is none.
        """
        ledger = cls(Path(root).expanduser().resolve())
        if ledger.sweep is None:
            raise UserError(f"{root}: there is no sweep.json, so no sweep was started here")
        return ledger

    def open(self, arguments: Sequence[str], cwd: str) -> None:
        """Write down what the sweep is, the first time that it is started; whoever does so holds the lock.

        Raises:
            UserError: somebody else has since this ledger was made.
        """
        if self.sweep is None:
            if read_json(self.root / "sweep.json") is not None:
                raise UserError(f"{self.root}: another sweep was started here at the same time; start this one again")
            self.sweep = {"arguments": list(arguments), "cwd": cwd}
            write_json(self.root / "sweep.json", self.sweep)

    @property
    def lock(self) -> Path:
        return self.root / "sweep.lock"

    def jobs(self) -> list[Job]:
        """In the order of their numbers.

        Raises:
            UserError: a file of a job is damaged, or was changed by hand.
        """
        found = []
        for folder, below, files in os.walk(self.root):
            content = read_json(Path(folder, "job.json")) if "job.json" in files else None
            if _is_job(content):
                found.append(Job._of(Path(folder), content))
                below.clear()  # what a job writes is its own
        return sorted(found, key=lambda job: job.number)

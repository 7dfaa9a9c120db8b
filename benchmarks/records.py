"""What a record is made of: figures, and what they depend on besides the code."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aggmask import files
from aggmask.errors import UserError


@dataclass(frozen=True)
class Figure:
    """One measured thing, against what was measured beside it.

    Attributes:
        part, name, unit: what it is; the unit also says what is good: more of "x/s", less of anything else.
        values: one a repetition.
        baseline: its name; `against`: its values, repetition by repetition.
        sense: how `ratio` reads: "speed", times as fast, or "share", this much of it.
        target: what the ratio must reach.
        curve, x: of a point on a growth curve, which one and where.
        time, commit: when it was measured, and of which code.
    """

    part: str
    name: str
    unit: str
    values: list[float]
    baseline: str
    against: list[float]
    sense: Literal["speed", "share"] = "speed"
    target: float | None = None
    curve: str | None = None
    x: float | None = None
    time: str = ""
    commit: str = ""

    @property
    def ratios(self) -> list[float]:
        """One a repetition: how many times as fast as the baseline, or how much of it."""
        faster = self.sense == "speed" and not self.unit.endswith("/s")
        pairs = zip(self.against, self.values, strict=True) if faster else zip(self.values, self.against, strict=True)
        return [over / under if under else float("nan") for over, under in pairs]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def reached(self) -> bool | None:
        """Whether the ratio reaches the target, where there is one."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.sense == "speed" else self.ratio <= self.target


def machine(threads: int) -> dict[str, Any]:
    """What the figures depend on besides the code."""
    import torch

    names = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("model name", "Model", "Hardware"))
    }
    return {
        "processor": ", ".join(sorted(names)) or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_at_start": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "commit": commit(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def commit() -> str | None:
    """What git says of the code; None where it says nothing."""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return None


def make_folder(folder: Path, word: str) -> None:
    """Make what `word` of the command line names.

    Raises:
        SystemExit: nothing can be written there.
    """
    try:
        files.make_folder(folder, word)
    except UserError as error:
        sys.exit(str(error))

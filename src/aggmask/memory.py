"""How much memory this process may still take, as the machine and its control groups (containers, SLURM) say; which
errors say that there was too little."""

from __future__ import annotations

import re
from pathlib import Path

_SIGNS = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")  # of CUDA, the CPU, its libraries


def says_too_little(error: BaseException) -> bool:
    """Whether an error's words are those of an allocation that failed."""
    return any(sign in str(error) for sign in _SIGNS)


def free_bytes(root: Path = Path("/")) -> int | None:
    """The least of what the machine has available and what the process's control groups leave it; None: nobody says.

    Args:
        root: where /proc and /sys are.
    """
    try:
        available = re.search(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text())
        return min([1024 * int(available[1]), *_left_by_groups(root)]) if available else None
    except OSError:
        return None


def _left_by_groups(root: Path) -> list[int]:
    """What each control group of this process (version 1 or 2) leaves; pages of files can be given back."""
    left, groups = [], root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, used, files = "", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, used, files = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        top = root / "sys/fs/cgroup" / base
        place = top / path.lstrip("/")
        for folder in (place, *(p for p in place.parents if p.is_relative_to(top))):
            if (folder / limit).is_file() and (text := (folder / limit).read_text().strip()) != "max":
                statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                taken = int((folder / used).read_text()) - int(statistics.get(files, 0))
                left.append(max(0, int(text) - taken))
    return left

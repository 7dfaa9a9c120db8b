"""How many processors the processes of a job may keep busy; free of heavy imports."""

from __future__ import annotations

import os

SHARE = "AGGMASK_PROCESSORS"  # a whole number: of a rank, where jobs share a machine


def processors() -> int:
    """Those that the system lets this process use, all of its ranks and loader processes together."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share() -> int:
    """Those that this rank should be content with: what the environment says, else all."""
    return int(os.environ.get(SHARE) or processors())

"""What a process of a job may ask before anything heavy is imported: its rank, how many processors it may use, whether
it was queued again."""

from __future__ import annotations

import os

SHARE = "AGGMASK_PROCESSORS"  # a whole number: of a rank, where jobs share a machine


def processors() -> int:
    """Those that the system lets this process use, all of its ranks and loader processes together."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_share() -> int:
    """Those that this rank should be content with: what the environment says, else all."""
    return int(os.environ.get(SHARE) or processors())


def queued_again() -> bool:
    """Whether SLURM has started this job before: the same command in the same folder, which it goes on in."""
    return bool(int(os.environ.get("SLURM_RESTART_COUNT") or 0))


def global_rank() -> int:
    """Rank of this process as its launcher says, before any process group exists."""
    return int(next((os.environ[k] for k in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if k in os.environ), 0))

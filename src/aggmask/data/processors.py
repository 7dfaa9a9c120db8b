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


def slurm_job() -> str:
    """The id of this SLURM job, as `scontrol` wants it."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def queued_again() -> bool:
    """Whether SLURM has started this job before: the same command in the same folder, which it goes on in."""
    return bool(int(os.environ.get("SLURM_RESTART_COUNT") or 0))


def global_rank() -> int:
    """Rank of this process as its launcher says, before any process group exists."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    # The ranks that Lightning starts in a shell of SLURM's have a LOCAL_RANK, and inherit that shell's task number, 0.
    return max(int(os.environ.get(name) or 0) for name in ("SLURM_PROCID", "LOCAL_RANK"))

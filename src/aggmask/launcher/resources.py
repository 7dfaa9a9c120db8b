"""What a job of a sweep gets of the machine: its GPUs, its share of the processor, a clean environment."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from aggmask.data.processors import SHARE, processors
from aggmask.errors import UserError
from aggmask.launcher.job import PARENT

# Left by another distributed run, these would make a job believe that it is one rank of it.
_OF_A_RANK = (
    *("LOCAL_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *("PL_GLOBAL_SEED", "AGGMASK_RUN_STAMP"),
)
# An allocation of SLURM is used, its tasks are not: the job starts its own ranks.
_OF_A_TASK = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")


def gpus_at_hand() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES spells them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def checked_gpus(gpus: Sequence[int | str]) -> list[str]:
    """Names of the GPUs that jobs are to share. Numbers are looked up; others (GPU-..., MIG-...) are taken as they are.

    Raises:
        UserError: one is not on this machine, and the jobs would silently do without.
    """
    names, at_hand = [str(gpu) for gpu in gpus], gpus_at_hand() if gpus else []
    missing = sorted({name for name in names if name.isdecimal() and name not in at_hand})
    if missing:
        there_are = f"there are {', '.join(at_hand)}" if at_hand else "there is none that torch can use"
        raise UserError(f"sweep.gpus={names}: no GPU {', '.join(missing)} on this machine; {there_are}")
    return names


def ranks_of(trainer: Mapping[str, Any]) -> int | None:
    """Processes of a job on each of its machines: what `trainer.devices` says; None for as many as it gets.

    Raises:
        UserError: it names devices.
    """
    devices = trainer.get("devices", "auto")
    if devices in ("auto", -1, "-1", None):
        return None
    if str(devices).isdecimal() and int(devices) > 0:
        return int(devices)
    raise UserError(
        f"trainer.devices={devices}: in a sweep this is a number, and sweep.gpus says which ones the jobs share"
    )


def refuse_nodes(trainer: Mapping[str, Any], launcher: str) -> None:
    """
    Raises:
        UserError: the job needs several machines, and a launcher gives it one.
    """
    if trainer.get("num_nodes", 1) != 1:
        raise UserError(
            f"trainer.num_nodes={trainer['num_nodes']}: hydra/launcher={launcher} runs each job on one machine; "
            "hydra/launcher=slurm on several (pip install 'aggmask[slurm]')"
        )


def asked_of_a_cluster(trainer: Mapping[str, Any], launcher: str, gpus: Any) -> int:
    """Devices that a job asks a cluster for, on each of its machines.

    Raises:
        UserError: their number is not known, or they are given as if they were on this machine.
    """
    if gpus is not None:
        raise UserError(f"sweep.gpus={gpus}: hydra/launcher={launcher} leaves it to the cluster which GPUs a job gets")
    devices = ranks_of(trainer)
    if devices is None:
        raise UserError(
            f"trainer.devices={trainer.get('devices', 'auto')}: hydra/launcher={launcher} asks the cluster for as many "
            "as the job says; say trainer.devices=N"
        )
    return devices


def gpus_needed(trainer: Mapping[str, Any], total: int, n_jobs: int) -> int:
    """How many of a machine's `total` GPUs a job takes."""
    if not total or trainer.get("accelerator", "auto") not in ("auto", "gpu", "cuda"):
        return 0
    needed = ranks_of(trainer) or max(1, total // n_jobs)
    if needed > total:
        raise UserError(f"trainer.devices={needed}: there are {total} GPUs to share out (sweep.gpus)")
    return needed


def granted(free: Sequence[str], count: int) -> list[str] | None:
    """`count` different GPUs of those that are free; one that is listed twice serves two jobs. None: too few."""
    # The one with most room first, so that jobs spread out.
    found = [gpu for gpu, _ in Counter(free).most_common(count)]
    return found if len(found) == count else None


def without_ranks(env: Mapping[str, str]) -> dict[str, str]:
    """An environment without what another distributed run left in it."""
    return {name: value for name, value in env.items() if name not in _OF_A_RANK}


def environment(trainer: Mapping[str, Any], gpus: Sequence[str], n_jobs: int) -> dict[str, str]:
    """Environment of a job's process."""
    env = {name: value for name, value in without_ranks(os.environ).items() if name not in _OF_A_TASK}
    env[PARENT] = str(os.getpid())
    if gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if n_jobs > 1:  # alone, a job has all threads, which Lightning shares out among its ranks
        ranks = len(gpus) or ranks_of(trainer) or 1
        share = str(max(1, processors() // n_jobs // ranks))
        env.setdefault("OMP_NUM_THREADS", share)
        env.setdefault(SHARE, share)  # of loader processes, where data.num_workers=null
    return env

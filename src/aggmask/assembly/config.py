"""Configurations: where they are, and what their names resolve to."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from aggmask.data.processors import global_rank, slurm_job


def conf_dir() -> str:
    """The folder of configurations: beside the package when installed, at the top of a checkout otherwise.

    Raises:
        FileNotFoundError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError(f"no conf/train.yaml in {package} nor in {package.parents[1]}")


def experiments() -> list[str]:
    """Names of all experiments, sorted."""
    return sorted(path.stem for path in Path(conf_dir(), "experiment").glob("*.yaml"))


def register_resolvers() -> None:
    """What the configurations may ask for.

    `${run_stamp:}`: one name for this run on all of its ranks and nodes. `${main_rank_only:x}`: null on other ranks.
    `${log_file:x}`: nowhere on other ranks. `${sweep_folder:x}`: x, or where there is none a new folder.
    """
    OmegaConf.register_new_resolver("run_stamp", run_stamp, replace=True)
    OmegaConf.register_new_resolver("main_rank_only", lambda value: None if global_rank() else value, replace=True)
    OmegaConf.register_new_resolver("sweep_folder", lambda x: x or f"sweeps/{run_stamp()}", replace=True)
    OmegaConf.register_new_resolver("log_file", lambda path: os.devnull if global_rank() else path, replace=True)


def run_stamp() -> str:
    """The start time; under SLURM and torchrun the job's id with a digest of the command's words: all ranks and a
    requeued job agree on both."""
    env = os.environ
    if "AGGMASK_RUN_STAMP" not in env:
        torchrun = env.get("TORCHELASTIC_RUN_ID", "none")
        if "SLURM_JOB_ID" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
            stamp = f"slurm-{slurm_job()}-{_words()}"
        elif torchrun != "none":
            stamp = f"torchrun-{torchrun[:8]}-{_words()}"
        else:
            stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
            if env.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
                stamp = _first_said(stamp)
        env["AGGMASK_RUN_STAMP"] = stamp  # processes that Lightning starts for other ranks inherit it
    return env["AGGMASK_RUN_STAMP"]


def _words() -> str:
    """Of the command: a job may run several, and repeats its own when it is started again."""
    return hashlib.sha256("\n".join(sys.argv[1:]).encode()).hexdigest()[:4]


def _first_said(stamp: str) -> str:
    """The stamp of the first rank that asks: torchrun --master-addr names no run, and clocks differ by a second."""
    from torch.distributed import TCPStore

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return store.compare_set("aggmask/run_stamp", "", stamp).decode()


def plain(node: Any) -> Any:
    """A resolved copy in plain dicts and lists, which checkpoints may hold."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node

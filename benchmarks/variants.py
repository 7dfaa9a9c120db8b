"""Configurations that are measured; the variants of a study: the jobs of a sweep of conf/sweep, and whose a run is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from aggmask.assembly.config import conf_dir, plain, register_resolvers

if TYPE_CHECKING:
    from aggmask.reporting.runs import Run

_ALONE = {"study": "model/aggregation=none model.aggregation.init=zero", "study_solov2": "model/aggregation=none"}
BASELINES = {f"{name}{form}": job for name, job in _ALONE.items() for form in ("", "_main")}  # sweep -> its baseline


def composed(command: str, *overrides: str) -> dict[str, Any]:
    """The configuration of `python -m aggmask.COMMAND` with these words."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return plain(compose(command, overrides=list(overrides)))


def jobs_of(sweep: str) -> list[list[str]]:
    """The variants of a sweep of conf/sweep: their overrides."""
    content = OmegaConf.load(Path(conf_dir(), "sweep", f"{sweep}.yaml"))
    return [list(job) for job in content.hydra.sweeper.jobs]


def name_of(job: Sequence[str]) -> str:
    """A variant as tables and records call it."""
    return " ".join(job)


def compared_keys(sweep: str) -> set[str]:
    """What the variants of a sweep differ in; groups are written as the keys that they fill."""
    return {text.partition("=")[0].replace("/", ".") for job in jobs_of(sweep) for text in job}


def experiment_of(sweep: str) -> str:
    """What the variants of a sweep are variants of."""
    return sweep.removesuffix("_main")


def quoted(jobs: Sequence[Sequence[str]]) -> str:
    """A list of jobs as one override of `hydra/sweeper=list`."""
    return "hydra.sweeper.jobs=[" + ",".join("[" + ",".join(f"'{text}'" for text in job) + "]" for job in jobs) + "]"


def is_of(run: Run, job: Sequence[str], jobs: Sequence[Sequence[str]]) -> bool:
    """Whether a run is of this job, by what tells it from the others."""
    return set(run.overrides) & {text for other in jobs for text in other} == set(job)

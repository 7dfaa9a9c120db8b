"""`hydra/launcher=processes`. Hydra looks for plugins in this namespace only, and imports all of them at each start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ProcessLauncher(Launcher):
    """Runs each job of a sweep as a fresh process; the arguments are those of `aggmask.launcher.launch.Launch`."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.launch_jobs: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from aggmask.launcher.launch import Launch

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if self.launch_jobs is None:
            self.launch_jobs = Launch(self.loader, self.config, **self.options)
        return self.launch_jobs.run(job_overrides, initial_job_idx)

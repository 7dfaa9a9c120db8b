"""`hydra/launcher=processes`, `slurm` and `ray`: Hydra finds plugins only here, and imports all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_class
from omegaconf import DictConfig


class ProcessLauncher(Launcher):
    """Runs each job of a sweep as fresh processes.

    Args:
        engine: dotted name of the class that starts them: see `aggmask.launcher.schedule.Engine`.
        resume, on_fail: see `aggmask.launcher.launch.Launch`.
        options: arguments of the engine.
    """

    def __init__(self, engine: str, resume: str | None, on_fail: str, **options: Any) -> None:
        self.engine, self.options = engine, options
        self.resume, self.on_fail = resume, on_fail
        self.launch_jobs: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from aggmask.errors import UserError
        from aggmask.launcher.launch import Launch, forget_refused

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        try:
            if self.launch_jobs is None:
                engine = get_class(self.engine)(**self.options)
                self.launch_jobs = Launch(self.loader, self.config, engine, self.resume, self.on_fail)
            return self.launch_jobs.run(job_overrides, initial_job_idx)
        except UserError:
            if not self.resume:
                forget_refused(Path(str(self.config.hydra.sweep.dir)))
            raise

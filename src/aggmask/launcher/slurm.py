"""`hydra/launcher=slurm`: each job is one job of SLURM, submitted by submitit, whose tasks are the job's ranks.

A job that is preempted, or reaches its time limit, is queued again and goes on from its last checkpoint. Jobs outlive a
killed parent, as is usual there; interrupting the parent cancels them. The folders are on a disk that all nodes share.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aggmask.errors import UserError
from aggmask.launcher.ledger import Job
from aggmask.launcher.processes import run_task
from aggmask.launcher.resources import asked_of_a_cluster


@dataclass(frozen=True)
class Task:
    """What each task of a SLURM job does."""

    module: str
    job: Job

    def __call__(self) -> None:
        import submitit
        from submitit.helpers import TorchDistributedEnvironment

        for name in ("MASTER_ADDR", "MASTER_PORT"):  # they may be those of another run
            os.environ.pop(name, None)
        # Lightning knows SLURM's variables by itself, but not those of submitit's other executors.
        met, node = TorchDistributedEnvironment(), submitit.JobEnvironment().node
        ranks = {"RANK": met.rank, "LOCAL_RANK": met.local_rank, "NODE_RANK": node, "WORLD_SIZE": met.world_size}
        ranks |= {"MASTER_ADDR": met.master_addr, "MASTER_PORT": met.master_port}
        run_task(self.module, self.job, {name: str(value) for name, value in ranks.items()})

    def checkpoint(self) -> Any:
        """What is queued again; submitit asks for it when the job has to make room."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass
class _Submitted:
    job: Job
    submitted: Any
    attempts: int  # before this one
    cluster: str

    @property
    def where(self) -> str:
        return f" as {self.cluster} job {self.submitted.job_id}"

    def ended(self) -> str | None:
        if not self.submitted.done():
            return None
        os.listdir(self.job.folder)  # or a network file system may not show yet what the job has left
        return f"{self.cluster} job {self.submitted.job_id}: {self.submitted.state}; see {self.submitted.paths.stderr}"

    def wrote(self, attempt: Mapping[str, Any]) -> bool:
        return attempt["count"] > self.attempts


class Slurm:
    """See `aggmask.launcher.schedule.Engine`.

    Args:
        module, n_jobs: see `Processes`.
        gpus: has to be None.
        cluster: slurm, or local: submitit's processes on this machine, to try out what will be submitted.
        max_timeouts: how often a job is queued again when it reaches its time limit.
        gpus_per_node: None: as many as devices, or none for accelerator=cpu.
        parameters: of submitit's `AutoExecutor.update_parameters`; those that are None are left out.

    Raises:
        UserError: submitit is not installed.
    """

    poll = 1.0

    def __init__(
        self, module: str, n_jobs: int, gpus: Any, cluster: str, max_timeouts: int, gpus_per_node: int | None,
        parameters: Mapping[str, Any],
    ) -> None:  # fmt: skip
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise UserError("hydra/launcher=slurm: submitit is not installed: pip install 'aggmask[slurm]'") from None
        self.module, self.n_jobs, self.gpus, self.cluster = module, n_jobs, gpus, cluster
        self.max_timeouts, self.gpus_per_node, self.parameters = max_timeouts, gpus_per_node, dict(parameters)

    def check(self, job: Job) -> None:
        try:
            self._executor(job)
        except (RuntimeError, NameError, ValueError, AssertionError) as error:  # submitit's, about parameters
            raise UserError(f"hydra/launcher=slurm: {error}") from error

    def has_room(self, job: Job, running: Sequence[_Submitted]) -> bool:
        return True  # the cluster has a queue of its own

    def start(self, job: Job, running: Sequence[_Submitted]) -> _Submitted:
        from submitit.helpers import clean_env

        attempts = job.attempt["count"]
        with clean_env():  # where the parent is itself in an allocation
            return _Submitted(job, self._executor(job).submit(Task(self.module, job)), attempts, self.cluster)

    def end(self, running: Sequence[_Submitted]) -> None:
        for item in running:
            item.submitted.cancel()

    def _executor(self, job: Job) -> Any:
        import submitit

        limits = {f"{cluster}_max_num_timeout": self.max_timeouts for cluster in ("slurm", "local")}
        executor = submitit.AutoExecutor(job.folder / "slurm", self.cluster, **limits)
        executor.update_parameters(**self._asked(job))
        return executor

    def _asked(self, job: Job) -> dict[str, Any]:
        """For `AutoExecutor.update_parameters`: a task for each device on each node."""
        trainer = job.config["trainer"]
        devices = asked_of_a_cluster(trainer, "slurm", self.gpus)
        gpus = 0 if trainer.get("accelerator") == "cpu" else devices
        size = {"nodes": trainer.get("num_nodes", 1), "tasks_per_node": devices}
        size["gpus_per_node"] = gpus if self.gpus_per_node is None else self.gpus_per_node
        # A rank that fails would leave the others waiting for it.
        return {"name": f"aggmask-{job.number}", "slurm_srun_args": ["--kill-on-bad-exit=1"], **size, **self.parameters}

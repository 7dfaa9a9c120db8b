"""`hydra/launcher=ray`: each job is a task of Ray on one machine, where it starts its own ranks.

A task whose machine is taken away is started again by Ray, and goes on from its last checkpoint. The folders are on a
disk that all machines share.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aggmask.errors import UserError
from aggmask.launcher.ledger import Job
from aggmask.launcher.processes import run_task
from aggmask.launcher.resources import asked_of_a_cluster, refuse_nodes


@dataclass
class _Sent:
    job: Job
    result: Any  # Ray's reference to it
    attempts: int  # before this one
    where: str = " on Ray"

    def ended(self) -> str | None:
        import ray

        if not ray.wait([self.result], timeout=0)[0]:
            return None
        os.listdir(self.job.folder)  # or a network file system may not show yet what the job has left
        try:
            ray.get(self.result)
        except (ray.exceptions.RayError, RuntimeError) as error:
            return str(error).strip().rpartition("\n")[2]
        return "ended without a reason"

    def wrote(self, attempt: Mapping[str, Any]) -> bool:
        return attempt["count"] > self.attempts


class Ray:
    """See `aggmask.launcher.schedule.Engine`.

    Args:
        module, n_jobs: see `Processes`.
        gpus: has to be None.
        address: of a running cluster, or auto; None: one that is started on this machine and ends with the parent.
        cpus_per_device: of a job.
        max_retries: how often Ray starts a job again whose machine is gone.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """

    poll = 0.5

    def __init__(
        self, module: str, n_jobs: int, gpus: Any, address: str | None, cpus_per_device: float, max_retries: int
    ) -> None:
        try:
            import ray
        except ImportError:
            raise UserError("hydra/launcher=ray: Ray is not installed: pip install 'aggmask[ray]'") from None
        self.module, self.n_jobs, self.gpus = module, n_jobs, gpus
        self.cpus_per_device, self.max_retries = cpus_per_device, max_retries
        try:
            ray.init(address or "local", include_dashboard=False if address is None else None, ignore_reinit_error=True)
        except (ConnectionError, ValueError) as error:
            raise UserError(f"hydra.launcher.address={address}: {error}") from error

    def check(self, job: Job) -> None:
        refuse_nodes(job.config["trainer"], "ray")
        asked_of_a_cluster(job.config["trainer"], "ray", self.gpus)

    def has_room(self, job: Job, running: Sequence[_Sent]) -> bool:
        return True  # the cluster has a queue of its own

    def start(self, job: Job, running: Sequence[_Sent]) -> _Sent:
        import ray

        devices = asked_of_a_cluster(job.config["trainer"], "ray", self.gpus)
        gpus = 0 if job.config["trainer"].get("accelerator") == "cpu" else devices
        asked = {"num_cpus": self.cpus_per_device * devices, "num_gpus": gpus, "max_retries": self.max_retries}
        task = ray.remote(run_task).options(**asked, name=f"aggmask-{job.number}")
        return _Sent(job, task.remote(self.module, job, {}), job.attempt["count"])

    def end(self, running: Sequence[_Sent]) -> None:
        import ray

        for item in running:
            ray.cancel(item.result)  # raises KeyboardInterrupt in it

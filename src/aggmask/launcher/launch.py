"""From a sweeper's overrides to frozen jobs, and back to the numbers that it asked for.

Hydra composes each job here, once. Nothing is composed in a job's processes: when Lightning starts the other ranks of a
job by running its command again, they read the same file, whatever a sampler would suggest by then.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from aggmask.assembly.checking import check, sweep_problems
from aggmask.assembly.config import plain
from aggmask.checkpoints.run_folder import refuse_another
from aggmask.data.processors import queued_again
from aggmask.errors import Stopped, UserError
from aggmask.launcher.ledger import Job, Ledger, digest, key_of, labels
from aggmask.launcher.locks import held, is_held
from aggmask.launcher.schedule import Engine, Schedule
from aggmask.signals import Interrupted

log = logging.getLogger(__name__)


class _Composed(NamedTuple):
    job: Job
    cfg: DictConfig  # with its node `hydra`


class Launch:
    """One start of a sweep.

    Args:
        loader: of the application's configurations.
        master: the sweep's configuration, with its node `hydra`.
        engine, on_fail: see `Schedule`.
        resume: folder of the sweep to go on with; None starts one in `hydra.sweep.dir`.

    Raises:
        UserError: there is a sweep in the folder already, which only a job that SLURM has queued again goes on with; or
            there is none to go on with; a key of `sweep` is unknown; see `Schedule`.
    """

    def __init__(
        self, loader: ConfigLoader, master: DictConfig, engine: Engine, resume: str | None, on_fail: str
    ) -> None:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            raise UserError(
                "a sweep is started by one process, not by each that torchrun starts: python -m aggmask.train "
                "--multirun ...; each job then starts its own ranks"
            )
        if problems := sweep_problems(master):
            raise UserError("\n".join(problems))
        self.loader, self.master = loader, master
        self.schedule = Schedule(engine, on_fail)
        self._first = True
        self.ledger = Ledger.read(resume) if resume else Ledger(Path(str(master.hydra.sweep.dir)).resolve())
        if not resume and self.ledger.sweep is not None and not (queued_again() and self._began_it()):
            raise UserError(
                f"{self.ledger.root} holds a sweep already: sweep.resume={self.ledger.root} goes on with it"
            )

    def _began_it(self) -> bool:
        """Whether the sweep in the folder asks for the same jobs: a script may start several in one folder."""
        return _job_arguments(self._arguments()) == _job_arguments(self.ledger.sweep["arguments"])

    def _arguments(self) -> list[str]:
        given = self.master.hydra.overrides
        return [*given.hydra, *given.task]

    def run(self, all_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Bring the jobs of some overrides to an outcome, those that have one from an earlier start included.

        Args:
            all_overrides: of each job.
            first: number of the first one.

        Raises:
            UserError: a configuration has something wrong with it (then nothing is started); somebody else works on
                this sweep; it was stopped; see `Schedule.run`.
            Interrupted: a signal has ended the sweep, which can be taken up again.
        """
        arguments = self._arguments()
        self.ledger.root.mkdir(parents=True, exist_ok=True)
        with held(self.ledger.lock, f"{self.ledger.root}: another process works on this sweep already", patience=2):
            self.ledger.open(arguments, os.getcwd())
            before = self.ledger.jobs()
            composed = self._freeze(all_overrides, first, before)
            unique = {c.job.folder: c.job for c in composed}
            others = [job for job in before if job.folder not in unique]
            if not self._first or _job_arguments(arguments) != _job_arguments(self.ledger.sweep["arguments"]):
                others = []  # jobs that an earlier resume added are gone on with where nothing else is asked for
            self._first = False
            jobs = sorted([*unique.values(), *others], key=lambda job: job.number)
            log.info("%d jobs in %s", len(jobs), self.ledger.root)
            try:
                self.schedule.run(jobs)
            except KeyboardInterrupt:
                raise Stopped(f"stopped: {self._how_to_go_on()}") from None
            except Interrupted as stop:
                print(f"ended by {stop.name}: {self._how_to_go_on()}", flush=True)
                raise
            except UserError as error:
                raise UserError(f"{error}\n{self._how_to_go_on()}") from error
            if any(job.state != "done" for job in others):
                raise self._failure(jobs)
            if all(job.state == "done" for job in jobs):
                log.info("compare them: python -m aggmask.report %s", shlex.quote(str(self.ledger.root)))
            return [self._returned(c, jobs) for c in composed]

    def _freeze(self, all_overrides: Sequence[Sequence[str]], first: int, before: Sequence[Job]) -> list[_Composed]:
        known = {job.key: job for job in before}
        composed, fresh = [], []
        for number, overrides in enumerate(all_overrides, first):
            job = known.get(key_of(overrides))
            if job is None:  # its number may be taken by a job that this start does not ask for
                number = max([number, *(other.number + 1 for other in known.values())])
            cfg, config = self._compose(overrides, job.number if job else number, job and job.folder)
            folder = Path(cfg.hydra.runtime.output_dir)
            if job is None:
                own = tuple(o for o in overrides if not o.startswith("sweep."))  # the others say how the sweep is run
                job = Job(folder, number, own, self.ledger.sweep["cwd"], config)
                refuse_another(folder)  # of somebody else's, which this job would go on with
                fresh.append(job)
            elif digest(config) == digest(job.config) or job.state == "done":
                pass
            elif not job.has_checkpoint and job.state != "running":
                job = replace(job, config=config)
                fresh.append(job)
            elif job.config["output_dir"] == str(folder):  # else it was moved, and `Schedule` refuses it
                log.warning("#%d: conf/ has changed since this job began; it stays what it was", job.number)
            known[job.key] = job
            composed.append(_Composed(job, cfg))
        _refuse_shared_folders(known.values())
        for job in fresh:
            self.schedule.engine.check(job)
        for job in fresh:  # not before all of them are known to be right
            Job.freeze(job.folder, job.number, job.overrides, job.cwd, job.config)
        return composed

    def _compose(self, overrides: Sequence[str], number: int, folder: Path | None) -> tuple[DictConfig, dict[str, Any]]:
        """(with `hydra`, plain and resolved); where it has no folder yet, `hydra.sweep.subdir` says which."""
        job_overrides = [o for o in overrides if not o.startswith("sweep.")]
        cfg = self.loader.load_sweep_config(self.master, job_overrides)
        with open_dict(cfg):
            cfg.hydra.job.id = cfg.hydra.job.num = number
            cfg.sweep = {"name": self.ledger.root.name}
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(cfg)  # what `${hydra:...}` reads
        try:
            folder = folder or self.ledger.root / str(cfg.hydra.sweep.subdir)
            with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
                cfg.hydra.runtime.output_dir = str(folder)
            HydraConfig.instance().set_config(cfg)
            task = deepcopy(cfg)
            with read_write(task), open_dict(task):
                del task["hydra"]
            check(task, str(cfg.hydra.job.config_name))
            config = plain(task)
            if config["output_dir"] != str(folder):
                raise UserError(
                    f"output_dir={config['output_dir']}: each job of a sweep has a folder of its own; "
                    "hydra.sweep.dir=DIR names that of the sweep"
                )
            return cfg, config
        except UserError as error:
            raise UserError(f"job {number} ({' '.join(job_overrides)}): {error}") from error
        finally:
            HydraConfig.instance().cfg = before

    def _failure(self, jobs: Sequence[Job]) -> UserError:
        lines = [
            f"  #{job.number} {label}: {job.fault}"
            for job, label in zip(jobs, labels(jobs), strict=True)
            if job.state != "done"
        ]
        return UserError("\n".join([f"{len(lines)} of {len(jobs)} jobs are not done:", *lines, self._how_to_go_on()]))

    def _returned(self, composed: _Composed, jobs: Sequence[Job]) -> JobReturn:
        job, cfg = composed
        returned = JobReturn(overrides=list(job.overrides), hydra_cfg=cfg, working_dir=str(job.folder))
        returned.cfg, returned.task_name = OmegaConf.create(dict(job.config)), str(cfg.hydra.job.name)
        if job.state == "done":
            returned.status, returned.return_value = JobStatus.COMPLETED, job.outcome["objective"]
        else:  # whoever asks for the number gets an exception that tells of all jobs
            returned.status, returned.return_value = JobStatus.FAILED, self._failure(jobs)
        return returned

    def _how_to_go_on(self) -> str:
        resume = shlex.quote(f"sweep.resume={self.ledger.root}")
        return f"python -m {self.schedule.engine.module} {resume} goes on with what is left"


def forget_refused(root: Path) -> None:
    """Remove what a sweep without a job has left in its folder; a folder that holds anything else stays."""
    left = {"multirun.yaml", "sweep.json", "sweep.lock"}
    if root.is_dir() and not is_held(root / "sweep.lock") and {path.name for path in root.iterdir()} <= left:
        for name in left:
            (root / name).unlink(missing_ok=True)
        root.rmdir()


def _refuse_shared_folders(jobs: Iterable[Job]) -> None:
    owners: dict[Path, Job] = {}
    for job in jobs:
        other = owners.setdefault(job.folder, job)
        if other is not job:
            raise UserError(
                f"hydra.sweep.subdir gives the jobs {' '.join(other.overrides)} and {' '.join(job.overrides)} the same "
                f"folder, {job.folder}"
            )
    for folder, job in owners.items():
        if outer := next((owners[parent] for parent in folder.parents if parent in owners), None):
            raise UserError(
                f"hydra.sweep.subdir gives the job {' '.join(job.overrides)} a folder inside that of the job "
                f"{' '.join(outer.overrides)}, {outer.folder}"
            )


def _job_arguments(arguments: Sequence[str]) -> set[str]:
    """The arguments that decide which jobs there are: a sweeper's own too, such as a list of jobs."""
    sweepers = {argument for argument in arguments if argument.startswith(("hydra.sweeper.", "hydra/sweeper="))}
    return {*key_of(arguments), *sweepers}

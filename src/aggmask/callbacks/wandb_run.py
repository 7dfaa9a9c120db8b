"""A W&B run that works without an account or a server, goes on after a resume, and never stops or holds a training."""

from __future__ import annotations

import logging
import secrets
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only
from wandb.sdk.lib.module import unset_globals

from aggmask.errors import UserError
from aggmask.files import write_whole

log = logging.getLogger(__name__)
_MODES = (None, "online", "offline", "disabled")
_ID = "wandb_id.txt"  # in the run's folder
_GRACE = 5.0  # seconds that W&B's own process has to end when it has not sent everything in time


class WandbRun(WandbLogger):
    """Lightning's logger, except for what happens where there is no server, and for checkpoints.

    Lightning keeps the checkpoints of each `ModelCheckpoint` under the alias `best`, the last one too.

    Args:
        checkpoints: when the training ends, the file of every `ModelCheckpoint` becomes a version of the artifact
            `model-<run id>`, under the file's name (`best`, `last`).
        options: of `WandbLogger`.
    """

    def __init__(self, checkpoints: bool, **options: Any) -> None:
        super().__init__(**options)
        del self._wandb_init["anonymous"]  # which W&B warns of, whatever its value
        self.checkpoints = checkpoints
        self._files: dict[str, Path] = {}
        self._told: set[str] = set()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of `wandb`: started when it is first asked for, offline where the server does not answer."""
        started = self._experiment is not None
        run = self._run()
        if not started and not run.disabled:
            _keep_id(Path(self.save_dir), run.id)  # a sweep's agent has given it another one than we did
        return run

    def _run(self) -> Any:
        try:
            return super().experiment
        except (wandb.Error, OSError) as error:
            if self._wandb_init["mode"] != "online":
                raise
            log.warning("W&B: %s. This run is kept offline; send it later with `wandb sync`", f"{error}".rstrip(". \n"))
            wandb.teardown()  # which still holds the run's id
            self._wandb_init.update(mode="offline", resume=None)
            return super().experiment

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        if self.checkpoints and checkpoint_callback.best_model_path:
            path = Path(checkpoint_callback.best_model_path)
            self._files[path.stem] = path

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        with self._telling("the configuration"):
            super().log_hyperparams(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Tables ask the server in this thread (19 seconds where none answers), all else is sent by another process."""
        with self._telling(f"{', '.join(metrics)} of step {step}"):
            super().log_metrics(metrics, step)

    @rank_zero_only
    def summarize(self, key: str, value: Any) -> None:
        """Set a number that runs are compared by."""
        with self._telling(key):
            self.experiment.summary[key] = value

    @rank_zero_only
    def finalize(self, status: str) -> None:
        for name, path in self._files.items():
            with self._telling(path.name):
                artifact = wandb.Artifact(f"model-{self.version}", type="model")
                artifact.add_file(str(path), name=path.name)
                self.experiment.log_artifact(artifact, aliases=[name])
        self._files = {}

    def end(self, failed: bool) -> None:
        """End the run, if it was started. What is not sent after `finish_timeout` seconds stays on the disk."""
        if self._experiment is None:
            return
        run, seconds = self._experiment, self._wandb_init["settings"].finish_timeout
        process = _process_of(run)
        # W&B keeps to the time itself, as long as its own process is well.
        problem = _within(seconds + _GRACE if seconds else None, lambda: run.finish(exit_code=int(failed)))
        if problem:
            place = shlex.quote(str(Path(run.dir).parent))
            log.warning("W&B: not all of this run was sent (%s). Send it later: wandb sync %s", problem, place)
            _give_up(process)

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Whatever W&B fails with, a training goes on. Each failure is told once: it may come with every step."""
        _ = self.experiment  # a run that cannot even start offline is worth stopping for
        try:
            yield
        except Exception as error:
            said = _said(error)
            log.log(
                logging.DEBUG if said in self._told else logging.WARNING,
                "W&B did not take %s: %s. The training goes on; metrics.csv has all numbers", what, said,
            )  # fmt: skip
            self._told.add(said)


def _said(error: BaseException) -> str:
    return str(error).rstrip(". \n") or type(error).__name__


def _process_of(run: Any) -> Any:
    """W&B's own process, which sends what a run logs. There is no public way to it."""
    with suppress(Exception):
        return run._wl.assert_service()._proc._process
    return None


def _within(seconds: float | None, act: Callable[[], Any]) -> str | None:
    """Do what may hang, or fail with anything; what was wrong, or None."""
    problems = ["it hangs"]

    def run() -> None:
        try:
            act()
            problems.clear()
        except (Exception, SystemExit) as error:  # `teardown` exits with what its process ended with
            problems[:] = [_said(error)]

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return problems[0] if problems else None


def _give_up(process: Any) -> None:
    """End W&B's process, and its module's memory of the run, which the next run of this process would go on with."""
    with suppress(Exception):  # there is no public way, if the run could not end
        unset_globals()
    if _within(_GRACE, wandb.teardown) and process is not None:
        process.kill()
        process.wait()


@contextmanager
def finished(loggers: Iterable[Logger]) -> Iterator[None]:
    """End the W&B runs of these loggers with the block, as failed if it fails: another may follow in this process."""
    failed = True
    try:
        yield
        failed = False
    finally:
        for logger in loggers:
            if isinstance(logger, WandbRun):
                logger.end(failed)


def wandb_logger(
    save_dir: str,
    project: str,
    mode: str | None = None,
    name: str | None = None,
    entity: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    checkpoints: bool = False,
    init_timeout: float = 60,
    finish_timeout: float = 600,
) -> WandbRun:
    """A logger whose run id is kept in `<save_dir>/wandb_id.txt`, so that a resumed run goes on as one.

    Args:
        save_dir: the run's folder.
        project, name, entity, group, tags: of `wandb.init`.
        mode: online, offline or disabled; None: online where there is an account, else offline with a warning.
        checkpoints: see `WandbRun`.
        init_timeout: seconds that a start waits for the server; then the run is offline.
        finish_timeout: seconds that the end waits for what is not sent yet; it stays on the disk.

    Raises:
        UserError: there is no such mode.
    """
    if mode not in _MODES:
        raise UserError(f"logger.wandb.mode={mode}: must be online, offline, disabled or null")
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"project": project, "name": name, "entity": entity, "group": group, "tags": list(tags)}
    # W&B would wait for ever at the end, and a sweep with it.
    waits = {"init_timeout": init_timeout, "finish_timeout": finish_timeout, "finish_timeout_raises": True}
    options["settings"] = wandb.Settings(**waits)
    if rank_zero_only.rank == 0:
        mode = mode or _mode_at_hand()
        kept = folder / _ID
        if not kept.is_file():
            _keep_id(folder, secrets.token_hex(4))
        options["id"] = kept.read_text().strip()
        options["resume"] = "allow" if mode == "online" else None
    return WandbRun(checkpoints, save_dir=str(folder), mode=mode, **options)


def _keep_id(folder: Path, run_id: str) -> None:
    write_whole(folder / _ID, lambda file: file.write(run_id.encode()))


def _mode_at_hand() -> str:
    import os

    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if wandb.api.api_key:
        return "online"
    log.warning("W&B: no account (wandb login, or WANDB_API_KEY): this run is kept offline; send it with `wandb sync`")
    return "offline"

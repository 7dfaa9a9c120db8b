"""`last.ckpt`: after every epoch, before every evaluation, every so many steps, and when a signal ends the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from aggmask.checkpoints.run_folder import LAST
from aggmask.errors import UserError
from aggmask.signals import Interrupted


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt`. What `Interruption` tells it comes on top of the end of each epoch.

    Args:
        dirpath: the run's folder.
        every_n_steps: of the optimizer, from one writing inside an epoch to the next; None: after epochs only.

    Attributes:
        due: whether the run is ended by a signal where there is something to save.

    Raises:
        UserError: every_n_steps makes no sense.
    """

    def __init__(self, dirpath: str, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise UserError(f"callbacks.last.every_n_steps={every_n_steps}: must be at least 1, or null")
        stem = Path(LAST).stem
        super().__init__(dirpath, stem, save_on_train_epoch_end=True, enable_version_counter=False)
        self.every_n_steps, self.due = every_n_steps, False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:  # the last evaluation of a training, which was cut short before
            fit = trainer.fit_loop
            fit.epoch_loop._batches_that_stepped = trainer.global_step  # as after its batch and its epoch
            if fit.epoch_progress.current.processed < fit.epoch_progress.current.started:
                fit.epoch_progress.increment_processed()
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: its one file is replaced, wherever the run's folder was before."""

    def between_steps(self, trainer: pl.Trainer) -> None:
        """Called where `is_between_steps`: save, if there are so many steps again."""
        if self.every_n_steps is None or trainer.global_step % self.every_n_steps:
            return
        if not self._should_skip_saving_checkpoint(trainer):
            self._save(trainer)

    def before_evaluation(self, trainer: pl.Trainer) -> None:
        """Save, so that an evaluation which fails or is killed loses no training; the end of the epoch saves anew."""
        if not trainer.fast_dev_run:
            self._save(trainer)
            self._last_global_step_saved = 0

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        # Here, because the other callbacks have put right by now what an evaluation changes for a while.
        if self.due and isinstance(exception, Interrupted):
            self.due = False
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        with _cut_evaluation(trainer) if trainer.validating else _next_batch_not_begun(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


def is_between_steps(trainer: pl.Trainer) -> bool:
    """At the start of a batch: whether a step of the optimizer, in this epoch, ended with the batch before.

    Gradients are not kept, so that there is no going on from within a step.
    """
    with _next_batch_not_begun(trainer) as batches:
        return batches.current.ready > 0 and not trainer.fit_loop._should_accumulate()


@contextmanager
def _next_batch_not_begun(trainer: pl.Trainer) -> Iterator[object]:
    """Lightning's counters as they were after the batch before.

    Only there are all of them, the callbacks' states and the loggers' rows, those of whole steps.
    """
    batches = trainer.fit_loop.epoch_loop.batch_progress
    is_last = batches.is_last_batch
    for counts in (batches.total, batches.current):
        counts.ready -= 1
    batches.is_last_batch = False
    try:
        yield batches
    finally:
        for counts in (batches.total, batches.current):
            counts.ready += 1
        batches.is_last_batch = is_last


@contextmanager
def _cut_evaluation(trainer: pl.Trainer) -> Iterator[object]:
    """Counters that say: its first batch was started, and not finished. A resume then evaluates all of it."""
    batches = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    before = batches.state_dict()
    batches.reset()
    batches.increment_ready()
    batches.increment_started()
    try:
        yield batches
    finally:
        batches.load_state_dict(before)

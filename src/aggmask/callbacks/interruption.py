"""Ends a run that is told to by a signal, where it can be taken up again exactly.

That is between two steps of the optimizer, before an epoch, and anywhere in an evaluation, which then counts as not
begun. Lightning's own handlers do it elsewhere: for SIGTERM ranks talk to each other in the middle of a step, and for
SLURM's SIGUSR1 a checkpoint is written there.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn

from aggmask.callbacks.last_checkpoint import LastCheckpoint, is_between_steps
from aggmask.signals import Ending, Interrupted

_EVERY = 4  # batches of an evaluation, after which ranks ask each other whether to end


class Interruption(pl.Callback):
    """All ranks end at the same step, whichever of them got the signal; `LastCheckpoint` saves.

    Has to be the first callback: of a batch that is not begun, no other one may know.
    """

    def __init__(self) -> None:
        self._ending = Ending()
        self._common = 0.0  # batches that every rank evaluates

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Put right what Lightning 2.6 makes of the end of an epoch, which checkpoints are written just before.

        Where `max_steps` is set, it takes the epoch for unfinished and counts it twice: an epoch of steps is lost.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        trainer.fit_loop._iteration_based_training = lambda: False
        for counts in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
            if counts["processed"] == counts["ready"]:
                counts["completed"] = counts["processed"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _count_no_step_twice(trainer)
        self._listen(trainer)  # after Lightning, which restores the handlers of before when it ends
        self._end_if_told(trainer, save=False)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_if_told(trainer, save=False)  # the epoch before has saved

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if is_between_steps(trainer):
            self._end_if_told(trainer)
            if last := _last(trainer):
                last.between_steps(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._listen(trainer)  # there may be no training before
        # What a resume has taken up again is no longer half done.
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()
        self._common = float(sum(trainer.num_val_batches))
        if trainer.world_size > 1:
            common = torch.tensor(self._common, device=trainer.strategy.root_device)
            self._common = float(trainer.strategy.reduce(common, reduce_op="min"))
        self._end_if_told(trainer)
        if _may_save(trainer) and (last := _last(trainer)):
            last.before_evaluation(trainer)

    def on_validation_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        # A rank that has more batches than others would ask alone.
        if trainer.world_size == 1 or (batch_idx < self._common and batch_idx % _EVERY == 0):
            self._end_if_told(trainer)

    def _listen(self, trainer: pl.Trainer) -> None:
        self._ending.listen(saves=_is_fitting(trainer) and _last(trainer) is not None)

    def _end_if_told(self, trainer: pl.Trainer, save: bool = True) -> None:
        """
        Raises:
            Interrupted: on all ranks, when one of them was told to end.
        """
        number = self._ending.received
        if trainer.world_size > 1:
            numbers = torch.tensor(number, device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(numbers, reduce_op="max"))
        if not number or (_is_fitting(trainer) and not _may_save(trainer)):
            return
        if save and _is_fitting(trainer) and (last := _last(trainer)):
            last.due = True
        raise Interrupted(number, tell=trainer.is_global_zero)


def _count_no_step_twice(trainer: pl.Trainer) -> None:
    """Put right Lightning's 2.6 count of logged steps where a resume passes over an evaluation inside an epoch.

    It then counts the step before that evaluation, which a checkpoint written during the evaluation lacks. One written
    at the start of the batch after it does not.
    """
    fit = trainer.fit_loop
    batches = fit.epoch_loop
    if (
        batches.restarted_on_last
        and not batches.val_loop.restarted_mid_evaluation
        and not batches._should_accumulate()
        and batches._batches_that_stepped == trainer.global_step
        and batches._should_check_val_fx(fit._data_fetcher)
    ):
        batches._batches_that_stepped -= 1


def _is_fitting(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _may_save(trainer: pl.Trainer) -> bool:
    """Whether a training stands where it can be taken up again: not in an evaluation between two batches of a step."""
    return _is_fitting(trainer) and not (trainer.validating and trainer.fit_loop._should_accumulate())


def _last(trainer: pl.Trainer) -> LastCheckpoint | None:
    return next((own for own in trainer.checkpoint_callbacks if isinstance(own, LastCheckpoint)), None)

"""The end of a training is evaluated, wherever between two evaluations it comes."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl


class LastEvaluation(pl.Callback):
    """Sees to an evaluation after the last step (`max_steps`, `max_epochs`), if none is due there.

    Inside the fit, so that checkpoints, averages and loggers take it like any other.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.fit_loop.epoch_loop.val_loop.restarted_mid_evaluation:  # that of the end was cut short
            self.on_train_batch_end(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        fit = trainer.fit_loop
        batches = fit.epoch_loop
        ends = 0 <= trainer.max_steps <= trainer.global_step or (
            batches.batch_progress.is_last_batch and 0 <= trainer.max_epochs <= trainer.current_epoch + 1
        )
        if ends and not batches._should_check_val_fx(fit._data_fetcher):
            trainer.check_val_every_n_epoch = None
            trainer.val_check_batch = batches.total_batch_idx + 1

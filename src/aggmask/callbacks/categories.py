"""AP of each category after every evaluation: a table in W&B, curves in TensorBoard."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from aggmask.callbacks.keys import CATEGORIES, logged_step

COLUMNS = ("step", "id", "category", "AP", "AP50")


class CategoryScores(pl.Callback):
    """A category without ground truth has no AP: an empty field, no point of the curve `val_AP/<category>`."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        scores, step = pl_module.metric.per_category(), logged_step(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                rows = [[step, i, s.name, *(v if v >= 0 else None for v in (s.ap, s.ap50))] for i, s in scores.items()]
                logger.log_table(CATEGORIES, list(COLUMNS), rows, step=step)
            elif isinstance(logger, TensorBoardLogger):
                found = {f"val_AP/{score.name}": score.ap for score in scores.values() if score.ap >= 0}
                logger.log_metrics(found, step)

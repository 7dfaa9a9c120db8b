"""Under which names and steps callbacks send to loggers, for those who look for it there; free of heavy imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytorch_lightning as pl

STEP = "trainer/global_step"  # Lightning's, the x axis of everything in W&B
BEST = "best/AP"  # in a W&B run's summary
PICTURES = "val/pictures"
CATEGORIES = "val/categories"


def logged_step(trainer: pl.Trainer) -> int:
    """The step that Lightning itself logs the numbers of this evaluation under (it counts them from 0)."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped

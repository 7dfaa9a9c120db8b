"""Keeps `results.json` in step with the best checkpoint, and says each evaluation's numbers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from aggmask.callbacks.best_checkpoint import best_state
from aggmask.callbacks.keys import BEST
from aggmask.callbacks.wandb_run import WandbRun

log = logging.getLogger(__name__)


class BestResults(pl.Callback):
    """Writes the detections of the best evaluation so far; its AP is what W&B compares runs by (`best/AP`).

    Args:
        path: COCO results file to write.
    """

    def __init__(self, path: str) -> None:
        self.path, self.best = Path(path), float("-inf")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or "val/AP" not in trainer.callback_metrics:
            return
        ap, ap50, ap75 = (float(trainer.callback_metrics[f"val/{name}"]) for name in ("AP", "AP50", "AP75"))
        if trainer.is_global_zero:
            log.info("step %d: mask AP %.4f, AP50 %.4f, AP75 %.4f", trainer.global_step, ap, ap50, ap75)
        if ap > self.best:
            self.best = ap
            pl_module.metric.write_results(self.path)
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, WandbRun):
                logger.summarize(BEST, self.best)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As when the best checkpoint of the folder was written; without one the results themselves must be there."""
        if (best := best_state(self.path.parent, self.state_key)) is not None:
            self.best = best["best"]
        elif self.path.is_file():
            self.best = state["best"]

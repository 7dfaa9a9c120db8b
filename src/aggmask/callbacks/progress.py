"""How far a run is, in a small file that others may read at any time."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from aggmask.errors import UserError
from aggmask.files import write_json


class ProgressFile(pl.Callback):
    """Writes {"epoch", "epochs", "step", "steps", "ap", "updated", "seconds_left"}; global rank 0 only.

    `ap` is the best so far, as a job's number is. What is not known (yet) is None.

    Args:
        path: the file.
        every: least seconds from one writing to the next; an evaluation is written at once.
    """

    def __init__(self, path: str, every: float = 5.0) -> None:
        self.path, self.every = Path(path), every
        self.ap: float | None = None
        self._began, self._first_step, self._written = 0.0, 0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began, self._first_step = time.monotonic(), trainer.global_step
        self._write(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if time.monotonic() - self._written >= self.every:
            self._write(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking and "val/AP" in trainer.callback_metrics:
            self.ap = max(float(trainer.callback_metrics["val/AP"]), self.ap or 0.0)
            self._write(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        self._written = time.monotonic()
        if not trainer.is_global_zero:
            return
        step, steps = trainer.global_step, trainer.estimated_stepping_batches
        steps = None if steps == float("inf") else int(steps)
        done = step - self._first_step  # by this process: an earlier one may have been faster or slower
        left = (self._written - self._began) / done * (steps - step) if done and steps else None
        epochs = trainer.max_epochs if (trainer.max_epochs or 0) > 0 else None
        counts = {"epoch": trainer.current_epoch, "epochs": epochs, "step": step, "steps": steps}
        with suppress(UserError):  # of a full disk: what is worth stopping for says so itself
            write_json(self.path, {**counts, "ap": self.ap, "updated": time.time(), "seconds_left": left})

    def state_dict(self) -> dict[str, Any]:
        return {"ap": self.ap}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ap = state["ap"]

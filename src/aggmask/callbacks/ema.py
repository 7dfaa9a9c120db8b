"""An exponential moving average of the weights, which evaluation, checkpoints and the end of the training use.

Lightning's `WeightAveraging` does the work: it evaluates the averaged weights and keeps them as a checkpoint's
`state_dict`, with the trained ones beside them for a resume. Added here: a decay that grows from the first step on.
Lightning's own `EMAWeightAveraging` has none, and where it starts late it evaluates and keeps the untrained weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from aggmask.errors import UserError


class EMA(WeightAveraging):
    """After every step of the optimizer: average = d * average + (1 - d) * weights, d = min(decay, (1 + n) / (10 + n)).

    n counts the steps averaged before; the first step is copied. Running statistics of norms are averaged like weights.

    Args:
        decay: d in the long run; the average then spans about 1 / (1 - decay) steps.
    """

    def __init__(self, decay: float = 0.9998) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"callbacks.ema.decay={decay}: must be at least 0 and less than 1")
        super().__init__(use_buffers=True, multi_avg_fn=self._average)
        self.decay = decay
        self._evaluated = False  # whether the module holds the average, as during an evaluation and after a training
        self._ended = False  # the training

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device  # the module is not there yet, and the average would stay behind
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._evaluated = self._ended = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the module the average. Lightning drops the trained weights; an evaluation after the end saves them."""
        self._swap_models(pl_module)
        self._ended = True

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._ended:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._ended:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._evaluated:
            average, trained = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = average, trained

    def decay_after(self, averaged: int) -> float:
        """d, when `averaged` steps have been averaged."""
        return min(self.decay, (1 + averaged) / (10 + averaged))

    @torch.no_grad()
    def _average(self, averages: Sequence[Tensor], weights: Sequence[Tensor], averaged: Tensor) -> None:
        if averages[0].is_floating_point():
            # lerp leaves what did not change (frozen weights) exactly as it is
            torch._foreach_lerp_(averages, weights, 1 - self.decay_after(int(averaged)))
        else:  # counters
            for average, value in zip(averages, weights, strict=True):
                average.copy_(value)

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._evaluated = not self._evaluated

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Put the trained weights back when an evaluation is cut short, before anybody keeps them."""
        if self._evaluated and not self._ended:
            self._swap_models(pl_module)

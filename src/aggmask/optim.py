"""How weights are updated (method.md section 8): optimizer, learning rate for the batch, warm-up, schedule."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from aggmask.errors import UserError

log = logging.getLogger(__name__)


class OptimizerRecipe:
    """Published: SGD at 0.01 for 16 images, 500 steps of warm-up from a third, x0.1 at 27/36 and 33/36 of the training.

    Args:
        lr: learning rate for `reference_batch` images a step.
        optimizer: maker of the optimizer from (parameters, lr=...).
        schedule: progress of the training 0..1 -> factor of the learning rate.
        warmup_steps: steps of linear warm-up.
        warmup_start: factor of the learning rate at step 0.
        reference_batch: images a step that `lr` is meant for; another batch scales the rate in proportion, and the
            rule is logged. None: `lr` is taken as it is.
        layer_decay: factor of the learning rate for each layer of the backbone that lies between a parameter and the
            backbone's end (BEiT, arXiv:2106.08254): the last layer has it once, the one before twice. None: one rate.
    """

    def __init__(
        self,
        lr: float,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[[float], float],
        warmup_steps: int = 500,
        warmup_start: float = 1 / 3,
        reference_batch: int | None = 16,
        layer_decay: float | None = None,
    ) -> None:
        if lr <= 0:
            raise UserError(f"optim.lr={lr}: must be more than 0")
        if layer_decay is not None and not 0 < layer_decay <= 1:
            raise UserError(f"optim.layer_decay={layer_decay}: must be more than 0 and at most 1, or null")
        self.lr, self.optimizer, self.schedule = lr, optimizer, schedule
        self.warmup_steps, self.warmup_start, self.reference_batch = warmup_steps, warmup_start, reference_batch
        self.layer_decay = layer_decay

    def scaled_lr(self, images_per_step: int) -> float:
        """The learning rate for a batch; logs the rule where it changes the rate."""
        if self.reference_batch in (None, images_per_step):
            return self.lr
        lr = self.lr * images_per_step / self.reference_batch
        log.info(
            "learning rate %.3g for %d images a step becomes %.3g for %d (reference_batch=null: as it is)",
            self.lr,
            self.reference_batch,
            lr,
            images_per_step,
        )
        return lr

    def configure(
        self,
        parameters: Iterable[nn.Parameter],
        total_steps: int,
        images_per_step: int,
        layer_depths: Callable[[], Mapping[nn.Parameter, int]] = dict,
    ) -> dict[str, Any]:
        """What `LightningModule.configure_optimizers` returns; the schedule advances with every step.

        Args:
            layer_depths: says how often `layer_decay` applies to a parameter; never, where it names none.
        """
        lr = self.scaled_lr(images_per_step)
        if self.layer_decay is not None:
            parameters = self._by_layer(parameters, lr, layer_depths())
        optimizer = self.optimizer(parameters, lr=lr)
        scheduler = LambdaLR(optimizer, lambda step: self.factor(step, total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _by_layer(
        self, parameters: Iterable[nn.Parameter], lr: float, depths: Mapping[nn.Parameter, int]
    ) -> list[dict[str, Any]]:
        """Groups of parameters with one rate each, the highest first."""
        groups: dict[int, list[nn.Parameter]] = {}
        for parameter in parameters:
            groups.setdefault(depths.get(parameter, 0), []).append(parameter)
        return [{"params": groups[depth], "lr": lr * self.layer_decay**depth} for depth in sorted(groups)]

    def factor(self, step: int, total_steps: int) -> float:
        """Factor of the learning rate at a step, counted from 0."""
        factor = self.schedule(step / max(total_steps, 1))
        if step < self.warmup_steps:
            factor *= self.warmup_start + (1 - self.warmup_start) * step / self.warmup_steps
        return factor


class StepSchedule:
    """x`gamma` at each milestone, a share of the training (27 of 36 epochs = 0.75)."""

    def __init__(self, milestones: Sequence[float] = (27 / 36, 33 / 36), gamma: float = 0.1) -> None:
        if any(not 0 <= m <= 1 for m in milestones):
            raise UserError(f"optim.schedule.milestones={list(milestones)}: shares of the training, each from 0 to 1")
        self.milestones, self.gamma = tuple(milestones), gamma

    def __call__(self, progress: float) -> float:
        # A milestone counts as reached within rounding: 33/36 of 90 epochs is a whole number of steps.
        return self.gamma ** sum(progress >= milestone - 1e-9 for milestone in self.milestones)

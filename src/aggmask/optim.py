"""How weights are updated (method.md section 8): optimizer, learning rate for the batch, warm-up, schedule."""

from __future__ import annotations

import logging
import math
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
        decay_norms_and_biases: False: weight decay is for weights of convolutions and linear layers alone.
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
        decay_norms_and_biases: bool = True,
        layer_decay: float | None = None,
    ) -> None:
        if lr <= 0:
            raise UserError(f"optim.lr={lr}: must be more than 0")
        if reference_batch is not None and reference_batch < 1:
            raise UserError(
                f"optim.reference_batch={reference_batch}: must be 1 or more, or null for the rate as it is"
            )
        if layer_decay is not None and not 0 < layer_decay <= 1:
            raise UserError(f"optim.layer_decay={layer_decay}: must be more than 0 and at most 1, or null")
        self.lr, self.optimizer, self.schedule = lr, optimizer, schedule
        self.warmup_steps, self.warmup_start, self.reference_batch = warmup_steps, warmup_start, reference_batch
        self.decay_norms_and_biases = decay_norms_and_biases
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
        parameters: Iterable[tuple[str, nn.Parameter]],
        total_steps: int,
        images_per_step: int,
        layer_depths: Callable[[], Mapping[nn.Parameter, int]] = dict,
    ) -> dict[str, Any]:
        """What `LightningModule.configure_optimizers` returns; the schedule advances with every step.

        Args:
            parameters: (name, parameter), those that are trained.
            layer_depths: says how often `layer_decay` applies to a parameter; never, where it names none.
        """
        lr = self.scaled_lr(images_per_step)
        if total_steps <= self.warmup_steps:
            log.warning(
                "optim.warmup_steps=%d, and the whole training has %d steps: its learning rate will not be reached. "
                "Say fewer, or train longer",
                self.warmup_steps,
                total_steps,
            )
        depths = {} if self.layer_decay is None else layer_depths()
        rates = {parameter: lr * self.layer_decay**depth for parameter, depth in depths.items()}
        optimizer = self.optimizer(parameter_groups(parameters, self.decay_norms_and_biases, rates), lr=lr)
        scheduler = LambdaLR(optimizer, lambda step: self.factor(step, total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def factor(self, step: int, total_steps: int) -> float:
        """Factor of the learning rate at a step, counted from 0."""
        factor = self.schedule(step / max(total_steps, 1))
        if step < self.warmup_steps:
            factor *= self.warmup_start + (1 - self.warmup_start) * step / self.warmup_steps
        return factor


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    decay_norms_and_biases: bool = True,
    rates: Mapping[nn.Parameter, float] | None = None,
) -> list[dict[str, Any]]:
    """Named parameters -> the optimizer's groups: with its own weight decay or without any, and of one rate each.

    Norms and biases are the parameters of at most one dimension; that is the rule of timm, too.

    Args:
        rates: learning rates of the parameters that have another than the optimizer's.
    """
    groups: dict[tuple[bool, float | None], list[nn.Parameter]] = {}
    for _, parameter in parameters:
        decayed = decay_norms_and_biases or parameter.ndim > 1
        groups.setdefault((decayed, (rates or {}).get(parameter)), []).append(parameter)
    return [
        {"params": members} | ({} if decayed else {"weight_decay": 0.0}) | ({} if rate is None else {"lr": rate})
        for (decayed, rate), members in groups.items()
    ]


class StepSchedule:
    """x`gamma` at each milestone, a share of the training (27 of 36 epochs = 0.75)."""

    def __init__(self, milestones: Sequence[float] = (27 / 36, 33 / 36), gamma: float = 0.1) -> None:
        if any(not 0 <= m <= 1 for m in milestones):
            raise UserError(f"optim.schedule.milestones={list(milestones)}: shares of the training, each from 0 to 1")
        self.milestones, self.gamma = tuple(milestones), gamma

    def __call__(self, progress: float) -> float:
        # A milestone counts as reached within rounding: 33/36 of 90 epochs is a whole number of steps.
        return self.gamma ** sum(progress >= milestone - 1e-9 for milestone in self.milestones)


class CosineSchedule:
    """From 1 along half a cosine to `final`, a share of the first rate, at the end of the training (SGDR, 2017)."""

    def __init__(self, final: float = 0.0) -> None:
        if not 0 <= final <= 1:
            raise UserError(f"optim.schedule.final={final}: a share of the learning rate, from 0 to 1")
        self.final = final

    def __call__(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2

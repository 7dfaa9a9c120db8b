"""A step whose loss or gradient is not finite: the run stops and leaves what replays it, or leaves the step out.

Looked at once an optimizer step, before the update: weights, momentum and statistics of norms are never touched by what
is not finite. With accumulated gradients the step is the unit: all of its batches are kept, and left out.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from aggmask.callbacks.first_non_finite import Look, look, not_finite
from aggmask.checkpoints.non_finite import write_rank, write_state
from aggmask.errors import UserError, listed
from aggmask.structures import ImageBatch

log = logging.getLogger(__name__)
FOLDER = "non_finite"  # in the run's folder


class NonFinite(pl.Callback):
    """Watches every step; all ranks decide the same.

    The first such step is written to `<run folder>/non_finite` in either mode. Under 16-mixed a finite loss with
    infinite gradients is how the scaler finds its scale, and is left to it, until the scale has come down below 1.

    Args:
        on_nan: "stop", or "skip": no update, and a list of what was left out at the end.
        patience: steps in a row that may be left out.
    """

    def __init__(self, on_nan: Literal["stop", "skip"] = "stop", patience: int = 20) -> None:
        self.on_nan, self.patience = on_nan, patience
        self.skipped: list[dict[str, Any]] = []  # {"step": optimizer steps before it, "image_ids": of all ranks}
        self._in_a_row = 0
        self._batches: list[ImageBatch] = []  # of the step
        self._loss_broke: Tensor | None = None  # () bool; read once a step, so that a GPU need not be waited for
        self._buffers: list[Tensor] = []
        self._kept: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped = list(state_dict["skipped"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # which a resume in the middle of an epoch does not call

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Frozen norms do not train, and keep their statistics anyway.
        self._buffers = [b for m in pl_module.modules() if m.training for b in m.buffers(recurse=False)]
        self._kept = [buffer.clone() for buffer in self._buffers]
        self._batches = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: ImageBatch, batch_idx: int
    ) -> None:
        if not self._batches:
            _copy(self._buffers, self._kept)
            self._loss_broke = torch.zeros((), dtype=torch.bool, device=pl_module.device)
        self._batches.append(batch)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self._loss_broke |= ~loss.detach().isfinite().all()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """
        Raises:
            UserError: on every rank: what was not finite, in which images, and the folder that replays it.
        """
        loss_broke, gradients_broke = self._broken(trainer, optimizer)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if not loss_broke and (not gradients_broke or (scaler is not None and scaler.get_scale() >= 1)):
            self._batches, self._in_a_row = [], 0
            return
        _copy(self._kept, self._buffers)
        message = self._record(trainer, pl_module, optimizer)
        self._in_a_row += 1
        if self.on_nan == "stop" or self._in_a_row > self.patience:
            raise UserError(message)
        if trainer.is_global_zero:
            log.warning("skipped: %s", message)
        for parameter in _parameters(optimizer):
            parameter.grad = None  # which every optimizer passes over: no momentum, no decay
        self._batches = []

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.skipped and trainer.is_global_zero:
            lines = "".join(f"\n  step {s['step']}: images {listed(s['image_ids'])}" for s in self.skipped)
            log.warning("trainer.on_nan=skip: steps skipped: %d%s", len(self.skipped), lines)

    def _broken(self, trainer: pl.Trainer, optimizer: Optimizer) -> tuple[bool, bool]:
        """Whether a loss, and a gradient, of any rank is not finite."""
        gradients = [p.grad for p in _parameters(optimizer) if p.grad is not None]
        norm = get_total_norm(gradients).to(self._loss_broke.device)
        loss_broke, gradients_broke = _anywhere(trainer, self._loss_broke, ~norm.isfinite())
        if gradients_broke:  # or only the sum of squares has overflowed
            exact = torch.stack([~gradient.isfinite().all() for gradient in gradients]).any()
            (gradients_broke,) = _anywhere(trainer, exact)
        return loss_broke, gradients_broke

    def _record(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Optimizer) -> str:
        """Count the step; the first one, and one that stops the run, is looked into and written."""
        ids = [i for batch in self._batches for i in batch.image_ids]
        everyones = [i for rank in _gathered(trainer, ids) for i in rank]
        self.skipped.append({"step": trainer.global_step, "image_ids": everyones})
        if self.on_nan == "skip" and len(self.skipped) > 1 and self._in_a_row < self.patience:
            return f"step {trainer.global_step} is not finite; images {listed(everyones)}"
        folder = Path(trainer.default_root_dir, FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        gradients = [n for n, p in module.named_parameters() if p.grad is not None and not_finite(p.grad)]
        looks = self._looks(trainer, module)
        _copy(self._kept, self._buffers)
        # Where the forward pass shows nothing, any batch may have done it.
        suspects = [i for b, seen in zip(self._batches, looks, strict=True) if seen.found for i in b.image_ids]
        own = {
            "first": next((seen.found[0] for seen in looks if seen.found), None),
            "suspects": suspects,
            "losses": [seen.losses for seen in looks],
            "gradients": gradients,
        }
        message = self._message(trainer, folder, _gathered(trainer, own), everyones)
        write_rank(folder, trainer.global_rank, self._batches, own)
        if trainer.is_global_zero:
            write_state(folder, _state(trainer, module, optimizer), message)
        trainer.strategy.barrier()  # or the first rank to stop would end the others before they have written
        return message

    def _looks(self, trainer: pl.Trainer, module: pl.LightningModule) -> list[Look]:
        """The step's forward passes again; all ranks together, because criterion and norms may ask each other."""
        return [look(module, batch, trainer.precision_plugin.forward_context()) for batch in self._batches]

    def _message(self, trainer: pl.Trainer, folder: Path, ranks: Sequence[dict[str, Any]], everyones: list) -> str:
        suspects = [i for own in ranks for i in own["suspects"]] or everyones
        names = ranks[0]["gradients"]
        lines = [f"step {trainer.global_step} is not finite; images {listed(suspects)}"]
        for rank, own in enumerate(ranks):
            if own["first"]:
                lines.append(f"  first{f' on rank {rank}' if trainer.world_size > 1 else ''}: {own['first']}")
        lines.append(f"  gradients that are not finite: {len(names)}{f' ({listed(names, 3)})' if names else ''}")
        lines.append(f"Run the step again: python -m aggmask.replay {shlex.quote(str(folder))}")
        if self.on_nan == "stop":
            lines.append("Leave such steps out: trainer.on_nan=skip")
        elif self._in_a_row >= self.patience:
            lines.append(f"{self._in_a_row + 1} steps in a row: the training has diverged (a lower optim.lr may help)")
        return "\n".join(lines)


def _state(trainer: pl.Trainer, module: pl.LightningModule, optimizer: Optimizer) -> dict[str, Any]:
    return {
        "hyper_parameters": dict(module.hparams),
        "state_dict": module.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "epoch": trainer.current_epoch,
        "global_step": trainer.global_step,
        "precision": trainer.precision,
        "ranks": trainer.world_size,
    }


def _parameters(optimizer: Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@torch.no_grad()
def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    if source:
        torch._foreach_copy_(list(target), list(source))


def _anywhere(trainer: pl.Trainer, *flags: Tensor) -> list[bool]:
    """Whether each flag, () bool, is set on some rank: the same answer on all of them."""
    counts = torch.stack(flags).float()
    if trainer.world_size > 1:
        counts = trainer.strategy.reduce(counts, reduce_op="sum")
    return [count > 0 for count in counts.tolist()]


def _gathered(trainer: pl.Trainer, own: Any) -> list[Any]:
    """Of every rank."""
    everyones = [own] * trainer.world_size
    if trainer.world_size > 1:
        dist.all_gather_object(everyones, own)
    return everyones

"""A training step that goes on where memory ends: the batch in pieces, with the gradients of the whole.

Targets and normalizers belong to the whole batch (`SegmentationModule.targets`), so losses of pieces are shares of its
loss and their gradients add up to its gradient; what is normalized over a batch (BatchNorm that trains) sees pieces.

Ranks: DDP reduces a bucket of gradients as soon as its last parameter has its gradient, in the middle of a backward
pass, and cannot start that pass again. It need not: autograd gives a parameter its gradient once, when it is complete.
So when memory ends, every parameter either has the gradient of the whole batch (and may be reduced already) or none.
Those of the latter are computed in pieces beside DDP, and handed to it by one more backward pass, as if the first had
gone on. Every rank then has taken part in the same reductions, in the same order, and the others have only waited.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn

from aggmask.errors import UserError
from aggmask.memory import says_too_little

log = logging.getLogger(__name__)
Losses = Callable[[int, int], dict[str, Tensor]]


class Step:
    """One batch, forward and backward.

    Args:
        losses: (first, last) -> by name, the share of these images in the losses of the whole batch, () with graph.
        images: of the batch.
        parameters: that learn; those of the optimizer.
        split: False lets the error of memory pass.

    Attributes:
        pieces: that the batch was computed in; 1: as a whole.
    """

    def __init__(self, losses: Losses, images: int, parameters: Sequence[nn.Parameter], split: bool = True) -> None:
        self._losses, self._images, self._parameters, self._split = losses, images, list(parameters), split
        self.pieces = 1
        self._loss: Tensor | None = None  # with the graph, which nobody else holds
        self._gradients: list[Tensor | None] = []  # of pieces, where not even the forward pass had room
        self._scale = 1.0

    def forward(self, scale: float = 1.0) -> dict[str, Tensor]:
        """The losses by name, without graph.

        Args:
            scale: what gradients of float16 are likely to be multiplied by.

        Raises:
            UserError: a single image does not fit.
        """
        try:
            losses = self._losses(0, self._images)
            self._loss = sum(losses.values())
            return {name: value.detach() for name, value in losses.items()}
        except RuntimeError as error:
            self._raise_unless_oom(error)
        self._scale = scale
        self._gradients, values = self._in_pieces(self._parameters, torch.tensor(scale))
        return values

    def backward(self, factor: Tensor) -> None:
        """Add the gradients of factor * loss to the parameters. Once after each `forward`.

        Raises:
            UserError: a single image does not fit.
        """
        if self._loss is None:
            gradients, self._gradients = self._gradients, []
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_((factor / self._scale).to(gradient.device))
            _deliver(self._parameters, gradients)
        elif missing := self._whole(factor):
            _deliver(missing, self._in_pieces(missing, factor)[0])
        del self._losses  # which holds the batch

    def _whole(self, factor: Tensor) -> list[nn.Parameter]:
        """The backward pass over all images; the parameters that have no gradient of it when memory ends."""
        missing = dict.fromkeys(self._parameters)
        handles = [p.register_post_accumulate_grad_hook(missing.pop) for p in self._parameters]
        loss, self._loss = self._loss, None
        try:
            loss.backward(factor)
            return []
        except RuntimeError as error:
            if not missing:
                raise
            self._raise_unless_oom(error)
        finally:
            for handle in handles:
                handle.remove()
        return list(missing)

    def _raise_unless_oom(self, error: RuntimeError) -> None:
        """Raise again what more memory would not mend."""
        if not self._split or not is_out_of_memory(error):
            raise error

    def _in_pieces(
        self, parameters: Sequence[nn.Parameter], factor: Tensor
    ) -> tuple[list[Tensor | None], dict[str, Tensor]]:
        """Gradients of factor * loss for some parameters, and the losses, in as few halvings as memory takes."""
        gradients: list[Tensor | None] = [None] * len(parameters)
        values: dict[str, Tensor] = {}
        self.pieces, todo = 0, _halves(0, self._images)
        while todo:
            first, last = todo.pop(0)
            found = self._piece(first, last, parameters, factor)
            if found is None:
                todo = _halves(first, last) + todo
                continue
            self.pieces += 1
            for i, own in enumerate(found[0]):  # not in place: autograd may give one tensor to two parameters
                gradients[i] = own if gradients[i] is None else gradients[i] if own is None else gradients[i] + own
            values = {name: value + values.get(name, 0) for name, value in found[1].items()}
        return gradients, values

    def _piece(
        self, first: int, last: int, parameters: Sequence[nn.Parameter], factor: Tensor
    ) -> tuple[Sequence[Tensor | None], dict[str, Tensor]] | None:
        """The same of some images; None: they are still too many. DDP sees nothing of it."""
        _free()
        try:
            losses = self._losses(first, last)
            loss = sum(losses.values())
            gradients = torch.autograd.grad(loss, parameters, factor.to(loss), allow_unused=True)
            return gradients, {name: value.detach() for name, value in losses.items()}
        except RuntimeError as error:
            self._raise_unless_oom(error)
        return None


class OutOfMemory(pl.Callback):
    """Says when the first step is split, and how many were at the end.

    Args:
        on_oom: "split" the batch of such a step, or "raise" the error.
    """

    def __init__(self, on_oom: Literal["split", "raise"] = "split") -> None:
        self.on_oom = on_oom
        self.steps = 0  # of this rank, that were split
        self.pieces = 0  # the most that one was split into

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        together = any(isinstance(m, nn.SyncBatchNorm) for m in pl_module.modules())
        if together and self.on_oom == "split" and trainer.is_global_zero:
            log.warning(
                "trainer.on_oom=split has no effect with trainer.sync_batchnorm=true: norms of all ranks wait for each "
                "other, and one rank cannot run more passes than the others"
            )
        pl_module.split_steps = self.on_oom == "split" and not together

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        pieces = pl_module.step.pieces
        if pieces == 1:
            return
        if not self.steps:
            log.warning(
                "out of memory in step %d%s: its batch is run in %d pieces, with the gradients of the whole, and so is "
                "every batch that does not fit. Each is tried as a whole first, which costs time: a smaller "
                "data.batch_size with more trainer.accumulate_grad_batches does without",
                trainer.global_step, f" on rank {trainer.global_rank}" if trainer.world_size > 1 else "", pieces,
            )  # fmt: skip
        self.steps, self.pieces = self.steps + 1, max(self.pieces, pieces)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        every = [(self.steps, self.pieces)] * trainer.world_size
        if trainer.world_size > 1:
            dist.all_gather_object(every, every[0])
        steps, pieces = zip(*every, strict=True)
        if sum(steps) and trainer.is_global_zero:
            where = f" (by rank: {', '.join(map(str, steps))})" if trainer.world_size > 1 else ""
            log.warning(
                "trainer.on_oom=split: batches split: %d%s, into %d pieces at most", sum(steps), where, max(pieces)
            )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may mend it. What a communication library lacks, no batch gives back."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return not isinstance(error, dist.DistError) and says_too_little(error)


class _Delivered(torch.autograd.Function):
    """A zero whose gradients are given."""

    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.gradients


def _deliver(parameters: Sequence[nn.Parameter], gradients: list[Tensor | None]) -> None:
    """Add gradients to parameters through autograd, so that whoever waits for them hears of it."""
    _Delivered.apply(gradients, *parameters).backward()


def _halves(first: int, last: int) -> list[tuple[int, int]]:
    if last - first < 2:
        raise UserError(
            "out of memory: a single image does not fit into a training step. Lower data.short_side or "
            "criterion.max_cells, or set trainer.precision=bf16-mixed or model.backbone.grad_checkpointing=true"
        )
    middle = (first + last) // 2
    return [(first, middle), (middle, last)]


def _free() -> None:
    """Give back what a failed pass held: tensors in cycles, and pieces of GPU memory too small for what comes."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()

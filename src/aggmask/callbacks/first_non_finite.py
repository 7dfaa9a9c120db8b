"""Where in a step the first value is not finite: forward hooks in order of time, then hooks on gradients.

`torch.autograd.detect_anomaly` names an operation of autograd and not a module, and sees NaN but no infinity.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from aggmask.structures import ImageBatch


@dataclass(frozen=True)
class Look:
    """What one batch showed.

    Attributes:
        found: what was not finite, in the order in which it appeared; empty: all was.
        losses: by name.
    """

    found: list[str]
    losses: dict[str, float]


def look(
    module: pl.LightningModule,
    batch: ImageBatch,
    context: AbstractContextManager[Any] | None = None,
    backward: bool = False,
) -> Look:
    """Run a batch and see where values are first not finite.

    Args:
        module: has `losses(batch)`, a dict of scalars.
        context: of the forward pass (mixed precision).
        backward: run the backward pass too, which adds to the gradients that are there.
    """
    # What is compiled would call no hook of its inner modules.
    with _watched(module) as found, torch.compiler.set_stance("force_eager"), torch.set_grad_enabled(backward):
        with context or nullcontext():
            losses = module.losses(batch)
        found += [f"loss '{name}'" for name, value in losses.items() if not_finite(value)]
        if backward:
            sum(losses.values()).backward()
    return Look(found, {name: float(value.detach()) for name, value in losses.items()})


def not_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds a NaN or an infinity."""
    return not bool(tensor.detach().isfinite().all())


@contextmanager
def _watched(module: nn.Module) -> Iterator[list[str]]:
    found = [f"weight {name}" for name, value in module.named_parameters() if not_finite(value)]
    found += [f"buffer {name}" for name, value in module.named_buffers() if not_finite(value)]

    def gradient(name: str, value: Tensor | None) -> None:
        if value is not None and not_finite(value):  # None: of one of several outputs that nobody asked for
            found.append(f"gradient of {name}")

    def output(name: str, _module: nn.Module, _inputs: Any, outputs: Any) -> None:
        values = list(_tensors(outputs))
        if any(not_finite(value) for value in values):
            found.append(f"output of {name}")
        for value in values:
            if value.requires_grad:
                value.register_hook(partial(gradient, f"the output of {name}"))

    handles = [m.register_forward_hook(partial(output, name)) for name, m in module.named_modules() if name]
    handles += [p.register_hook(partial(gradient, name)) for name, p in module.named_parameters() if p.requires_grad]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))

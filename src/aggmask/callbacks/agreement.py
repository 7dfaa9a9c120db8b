"""Ranks that were started with different configurations stop before they train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist

from aggmask.errors import UserError


class SameConfiguration(pl.Callback):
    """Compares the configurations of all ranks when they first meet.

    Without it a rank that was started with other values (a sampler that was asked twice, a file that was edited while
    the job waited) trains another model on its share of the data, and nothing fails.

    Args:
        config: plain, resolved configuration of this rank.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """
        Raises:
            UserError: on every rank, with the keys that differ.
        """
        if trainer.world_size == 1:
            return
        everyones: list[Any] = [None] * trainer.world_size
        dist.all_gather_object(everyones, self.config)
        for rank, config in enumerate(everyones):
            if config != everyones[0]:
                lines = [f"  {key}: {ours!r} on rank 0, {theirs!r} on rank {rank}" for key, ours, theirs in
                         differences(everyones[0], config)]  # fmt: skip
                raise UserError("\n".join([f"rank {rank} was started with another configuration than rank 0:", *lines]))


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, our value, their value) wherever two plain configurations differ; None: not there."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in sorted({*ours, *theirs}, key=str):
            yield from differences(ours.get(key), theirs.get(key), f"{path}.{key}" if path else str(key))
    elif ours != theirs:
        yield path, ours, theirs

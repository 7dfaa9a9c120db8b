"""Checkpoints that a kill cannot damage.

Lightning writes one to /tmp and moves it: where the run's folder is on another disk, that is a copy over the checkpoint
before, and a kill in the middle of it leaves neither.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from aggmask.checkpoints.run_folder import BEFORE, LAST
from aggmask.errors import UserError
from aggmask.files import write_whole


class WholeCheckpoints(TorchCheckpointIO):
    """Local checkpoints are written beside their place and renamed; those in object stores as Lightning does it.

    Of `last.ckpt` the one before stays, for the disk that loses what it said was written.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        keep = BEFORE if Path(path).name == LAST else None
        write_whole(path, lambda file: torch.save(checkpoint, file), keep)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = lambda storage, _: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Plain values and tensors only, wherever the file lies; Lightning would run the code that one of a URL names.

        Raises:
            UserError: the file names code, or is damaged.
        """
        try:
            return super().load_checkpoint(path, map_location, weights_only=True)
        except pickle.UnpicklingError as error:
            raise UserError(
                f"resume={path}: damaged, or it holds more than plain values and tensors, and reading that would run "
                "code which the file names: refused. Go on from a last.ckpt that this package wrote"
            ) from error

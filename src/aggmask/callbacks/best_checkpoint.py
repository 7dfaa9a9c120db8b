"""`best.ckpt`: the checkpoint of the best evaluation, wherever the run's folder is now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from aggmask.checkpoints.reading import read_file
from aggmask.checkpoints.run_folder import BEST
from aggmask.errors import UserError

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class BestCheckpoint(ModelCheckpoint):
    """Knows the best score so far by the checkpoint that has it.

    Lightning goes by the folder's path: of a run that was moved, or whose disk has another name on another machine, it
    forgets the score, and the next evaluation replaces a better checkpoint. Here the score is that of the checkpoint
    which lies in the run's folder; in a new folder the best is yet to come.
    """

    @property
    def state_key(self) -> str:
        """Lightning's own, under which checkpoints of earlier versions have it."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.VALIDATING:
            super().on_validation_end(trainer, pl_module)
        elif self._last_global_step_saved != trainer.global_step:  # the last evaluation of a training, cut short before
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "://" in str(self.dirpath):
            super().load_state_dict(state_dict)
            return
        own = Path(self.dirpath, f"{self.filename}{self.FILE_EXTENSION}")
        state = state_in(own, self.state_key) or state_dict
        best = state["best_model_path"]
        if not best or not self._here(best).is_file():
            return
        moved = {key: str(self._here(state[key])) for key in _PATHS if state.get(key)}
        scores = {str(self._here(path)): score for path, score in state.get("best_k_models", {}).items()}
        super().load_state_dict({**state, **moved, "dirpath": self.dirpath, "best_k_models": scores})

    def _here(self, path: str) -> Path:
        return Path(self.dirpath, Path(path).name)


def state_in(checkpoint: Path, key: str) -> dict[str, Any] | None:
    """The state of a callback in a checkpoint; None where there is no such file, it cannot be read or has none."""
    if not checkpoint.is_file():
        return None
    try:
        return read_file(checkpoint).get("callbacks", {}).get(key)
    except UserError:
        return None


def best_state(folder: Path, key: str) -> dict[str, Any] | None:
    """The state of a callback when the best checkpoint of a run's folder was written; None where there is none."""
    return state_in(folder / BEST, key)

"""`best.ckpt`: the checkpoint of the best evaluation, also of a run whose folder has moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from aggmask.checkpoints.run_folder import BEST


class BestCheckpoint(ModelCheckpoint):
    """Knows the best score so far by the checkpoint that has it.

    Lightning goes by the folder's path: of a run that was moved, or whose disk has another name on another machine, it
    forgets the score, and the next evaluation replaces a better checkpoint. Here the score counts where its checkpoint
    lies in the run's folder, and in a new folder the best is yet to come.
    """

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.VALIDATING:
            super().on_validation_end(trainer, pl_module)
        elif self._last_global_step_saved != trainer.global_step:  # the fit before it ended between two evaluations
            # An average has taken the trained weights' place by now: whoever trains on has these in last.ckpt.
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not has_best(self.dirpath):
            return

        def here(path: str) -> str:
            return str(Path(self.dirpath, Path(path).name)) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {key: here(state_dict[key]) for key in paths if key in state_dict}
        scores = {here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict({**state_dict, **moved, "dirpath": self.dirpath, "best_k_models": scores})


def has_best(folder: str | Path) -> bool:
    """Whether the best checkpoint so far lies in a run's folder: a score of before is that one's."""
    return Path(folder, BEST).is_file()

"""A callback that tests add to a run: what each rank was given."""

import json
import os
from pathlib import Path

import pytorch_lightning as pl


class RecordRank(pl.Callback):
    """Writes `<folder>/<name of the run's folder>_<rank>.json`."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        where, rank = Path(trainer.default_root_dir), trainer.global_rank
        self.folder.mkdir(parents=True, exist_ok=True)
        note = {
            "root": str(where),
            "lr": pl_module.hparams["optim"]["lr"],
            "world": trainer.world_size,
            "pid": os.getpid(),
            "first_weight": float(next(pl_module.parameters()).flatten()[0]),
        }
        (self.folder / f"{where.name}_{rank}.json").write_text(json.dumps(note))

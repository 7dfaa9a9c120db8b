"""`metrics.csv` that goes on after a resume.

Lightning's logger deletes the file of an earlier start in the same folder, and writes rows in place.
"""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment

from aggmask.errors import UserError
from aggmask.files import write_whole

log = logging.getLogger(__name__)
_ROWS = "metrics_rows"


class ContinuedCSVLogger(CSVLogger):
    """Keeps the rows of earlier starts up to where training is taken up; arguments as in Lightning.

    A checkpoint says how many rows there were (`KeptRows`). Where none does, rows from the first logged step on go.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = _Rows(self.log_dir)
        return self._experiment


class _Rows(ExperimentWriter):
    def __init__(self, log_dir: str) -> None:
        self._kept: list[dict[str, Any]] = []
        self._told = False
        self._exact = False
        super().__init__(log_dir)

    def __len__(self) -> int:
        return len(self._kept) + len(self.metrics)

    def keep(self, rows: int) -> None:
        """Forget what an earlier start logged after so many rows."""
        self._kept, self._exact = self._kept[:rows], True

    def _check_log_dir_exists(self) -> None:
        file = Path(self.metrics_file_path)
        if file.is_file():
            with file.open(newline="") as lines:
                self._kept = [{k: v for k, v in row.items() if v} for row in csv.DictReader(lines)]

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics_dict, step)
        if len(self.metrics) == 1 and not self._exact:
            # What an earlier start logged beyond its last checkpoint is done again.
            self._kept = [row for row in self._kept if int(row["step"]) < self.metrics[0]["step"]]

    def save(self) -> None:
        if not self.metrics:
            return
        rows = [*self._kept, *self.metrics]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=sorted(set().union(*rows)))
        writer.writeheader()
        writer.writerows(rows)
        try:
            write_whole(self.metrics_file_path, lambda file: file.write(text.getvalue().encode()))
            self._told = False
        except UserError as error:  # every row is still here, and the next time may do; a checkpoint is not so patient
            if not self._told:
                log.warning("%s. The rows are kept in memory, and written as soon as that is possible", error)
            self._told = True


class KeptRows(pl.Callback):
    """Tells checkpoints how many rows `metrics.csv` has, and the logger when one is taken up."""

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        rows = _rows(trainer)
        if rows is not None:
            checkpoint[_ROWS] = len(rows)

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        rows = _rows(trainer)
        if rows is not None and _ROWS in checkpoint and trainer.state.fn == "fit":
            rows.keep(checkpoint[_ROWS])


def _rows(trainer: pl.Trainer) -> _Rows | None:
    if not trainer.is_global_zero:
        return None
    return next((own.experiment for own in trainer.loggers if isinstance(own, ContinuedCSVLogger)), None)

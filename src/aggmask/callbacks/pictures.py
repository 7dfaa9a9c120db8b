"""The same few validation pictures at every evaluation: ground truth beside prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from aggmask.decoding.decode import as_instances
from aggmask.drawing.overlay import beside, contact_sheet, draw
from aggmask.structures import Detections, ImageBatch, Instances


class ValidationPictures(pl.Callback):
    """Writes PNG files, and sends the pictures to W&B (as mask overlays) and TensorBoard where these are used.

    Args:
        folder: for `<image id>.png` and `sheet.png` with all of them; written anew at every evaluation.
        count: how many: the first that global rank 0 evaluates, always the same ones.
        score_threshold: objects below are not drawn.
    """

    def __init__(self, folder: str, count: int = 8, score_threshold: float = 0.3) -> None:
        self.folder, self.count, self.score_threshold = Path(folder), count, score_threshold
        self._pictures: list[Image.Image] = []
        self._overlays: list[Any] = []

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pictures, self._overlays = [], []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: list[Detections],
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        for image_id, frame, found in zip(batch.image_ids, batch.frames, outputs, strict=True):
            if len(self._pictures) == self.count:
                return
            found = found[found.scores >= self.score_threshold]
            instances = as_instances(found, frame, pl_module.categories, pl_module.decoder.mask_threshold)
            self._show(trainer, image_id, instances)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._pictures:
            contact_sheet(self._pictures, columns=2).save(self.folder / "sheet.png")
        for logger in trainer.loggers:
            if self._overlays and isinstance(logger, WandbLogger):
                logger.experiment.log({"val/pictures": self._overlays, "trainer/global_step": trainer.global_step})

    def _show(self, trainer: pl.Trainer, image_id: int, found: Instances) -> None:
        pixels, truth = trainer.datamodule.val_dataset.original(image_id)
        picture = beside(draw(pixels, truth), draw(pixels, found, self.score_threshold))
        self._pictures.append(picture)
        self.folder.mkdir(parents=True, exist_ok=True)
        picture.save(self.folder / f"{image_id}.png")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                self._overlays.append(_wandb_image(image_id, pixels, truth, found))
            elif isinstance(logger, TensorBoardLogger):
                name, step = f"val/pictures/{image_id}", trainer.global_step
                logger.experiment.add_image(name, np.asarray(picture), step, dataformats="HWC")


def _wandb_image(image_id: int, pixels: np.ndarray, truth: Instances, found: Instances) -> Any:
    import wandb

    masks = {"ground_truth": _flat(truth), "prediction": _flat(found)}
    return wandb.Image(pixels, caption=str(image_id), masks=masks)


def _flat(instances: Instances) -> dict[str, Any]:
    """W&B shows one id a pixel, and hides id 0: objects are numbered from 1, better ones lie on top."""
    flat = np.zeros(instances.size, dtype=np.uint8)
    for number in range(min(len(instances), 255) - 1, -1, -1):
        flat[instances.masks[number].cpu().numpy()] = number + 1
    names = {i + 1: f"{name} {i + 1}" for i, name in enumerate(instances.names[:255])}
    return {"mask_data": flat, "class_labels": {0: "background", **names}}

"""The same few validation pictures at every evaluation: ground truth beside prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import wandb
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from aggmask.callbacks.keys import PICTURES, logged_step
from aggmask.decoding.decode import as_instances
from aggmask.drawing.overlay import draw
from aggmask.drawing.sheets import beside, contact_sheet
from aggmask.errors import UserError
from aggmask.files import write_whole
from aggmask.geometry.cropped import cropped
from aggmask.structures import Detections, ImageBatch, Instances

_IDS = 255  # that a W&B mask has beside 0, the background, which is not shown
_LARGEST = 1280  # pixels of the long side: all pictures of an evaluation are held at once


class _Shown(NamedTuple):
    """A picture that is written, and what W&B draws by itself, where it is used."""

    image_id: int
    picture: Image.Image
    pixels: np.ndarray | None  # (H, W, 3) uint8, as large as it is drawn
    layers: dict[str, dict[str, Any]]


class ValidationPictures(pl.Callback):
    """Writes PNG files, and sends the pictures to W&B (as mask overlays) and TensorBoard where these are used.

    The files are written anew at every evaluation, of images of at most 1280 pixels: larger ones are shrunk before
    they are drawn on. What is sent stays, so it has a budget: `count` pictures, three files each in W&B, at `sends`
    evaluations at most, which are spread over the training.

    Args:
        folder: for `<image id>.png` and `sheet.png` with all of them.
        count: how many: the first that global rank 0 evaluates, always the same ones.
        score_threshold: objects below are not drawn.
        sends: evaluations whose pictures are sent, the last one among them; of fewer, all.
    """

    def __init__(self, folder: str, count: int = 8, score_threshold: float = 0.3, sends: int = 12) -> None:
        if count < 0 or sends < 0:
            raise UserError(f"callbacks.pictures: count={count}, sends={sends}: must not be negative")
        self.folder, self.count, self.score_threshold, self.sends = Path(folder), count, score_threshold, sends
        self._shown: list[_Shown] = []
        self._used = 0  # of the budget

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._shown = []

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
            if len(self._shown) == self.count:
                return
            found, decoder = found[found.scores >= self.score_threshold], pl_module.decoder
            chunk = decoder.pixels_at_once
            instances = as_instances(found, frame, pl_module.categories, decoder.mask_threshold, chunk, crop=True)
            pixels, truth, instances = _shrunk(*trainer.datamodule.val_dataset.original(image_id), instances)
            picture = beside(draw(pixels, truth), draw(pixels, instances, self.score_threshold, like=truth))
            # Only what is flat is kept until the epoch ends, however many objects there are.
            flat = any(isinstance(logger, WandbLogger) for logger in trainer.loggers)
            layers = {"ground_truth": _layer(truth), "prediction": _layer(instances)} if flat else {}
            self._shown.append(_Shown(image_id, picture, pixels if flat else None, layers))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._shown:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for shown in self._shown:
            self._write(f"{shown.image_id}.png", shown.picture)
        self._write("sheet.png", contact_sheet([shown.picture for shown in self._shown], columns=2))
        due = budget_due(self.sends, trainer.global_step, trainer.estimated_stepping_batches, self._used)
        if due > self._used:
            self._used = due
            self._send(trainer)
        self._shown = []

    def _write(self, name: str, picture: Image.Image) -> None:
        write_whole(self.folder / name, lambda file: picture.save(file, "PNG"))

    def state_dict(self) -> dict[str, Any]:
        return {"used": self._used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._used = state["used"]

    def _send(self, trainer: pl.Trainer) -> None:
        step = logged_step(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                # W&B draws all pictures of a key in the size of the first one.
                size = tuple(np.max([shown.pixels.shape[:2] for shown in self._shown], axis=0))
                logger.log_metrics({PICTURES: [_wandb_image(shown, size) for shown in self._shown]}, step)
            elif isinstance(logger, TensorBoardLogger):
                for shown in self._shown:
                    name, picture = f"{PICTURES}/{shown.image_id}", np.asarray(shown.picture)
                    logger.experiment.add_image(name, picture, step, dataformats="HWC")


def budget_due(budget: int, step: int, steps: float, used: int) -> int:
    """How much of a budget may be used by `step` of `steps`, if it is to last; without an end, one more each time."""
    if steps == float("inf"):
        return min(used + 1, budget)
    return min(budget * step // max(int(steps), 1), budget)


def _shrunk(pixels: np.ndarray, truth: Instances, found: Instances) -> tuple[np.ndarray, Instances, Instances]:
    """An image and its objects as large as they are drawn."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_LARGEST, _LARGEST))
    size = picture.height, picture.width
    return np.asarray(picture), *(replace(each, masks=each.masks.shrunk(size)) for each in (truth, found))


def _layer(instances: Instances) -> dict[str, Any]:
    """Objects as W&B takes them."""
    labels = mask_labels([category.name for category in instances.categories])
    return {"mask_data": flat_mask(instances), "class_labels": labels}


def _wandb_image(shown: _Shown, size: tuple[int, int]) -> wandb.Image:
    masks = {name: layer | {"mask_data": padded(layer["mask_data"], size)} for name, layer in shown.layers.items()}
    return wandb.Image(padded(shown.pixels, size), caption=str(shown.image_id), masks=masks)


def padded(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, ...) with zeros below and at the right, up to `size` (height, width)."""
    rows, columns = (wanted - given for wanted, given in zip(size, array.shape, strict=False))
    return np.pad(array, [(0, rows), (0, columns)] + [(0, 0)] * (array.ndim - 2))


def copies(categories: int) -> int:
    """Ids that W&B masks have for each category, so that objects side by side differ."""
    return min(_IDS // max(categories, 1), 9)


def mask_labels(names: Sequence[str]) -> dict[int, str]:
    """Id -> label. W&B keeps one such table a run, so it must be the same for every picture."""
    ids = range(1, _IDS + 1)
    if not copies(len(names)):  # more categories than ids
        return {0: "background", **{i: f"object {i}" for i in ids}}
    known = {i: divmod(i - 1, len(names)) for i in ids[: copies(len(names)) * len(names)]}
    named = {i: names[label] + (f" ({copy + 1})" if copy else "") for i, (copy, label) in known.items()}
    return {0: "background", **named}


def flat_mask(instances: Instances) -> np.ndarray:
    """(H, W) uint8: one id a pixel, as W&B wants it; objects that come first (the better ones) lie on top."""
    categories = len(instances.categories)
    n = copies(categories)
    seen: dict[int, int] = {}
    ids = []
    for number, label in enumerate(instances.labels.tolist()):
        copy = seen[label] = seen.get(label, -1) + 1
        ids.append(copy % n * categories + label + 1 if n else number % _IDS + 1)
    flat = np.zeros(instances.size, dtype=np.uint8)
    for ((x1, y1, x2, y2), inside), i in reversed(list(zip(cropped(instances.masks).crops, ids, strict=True))):
        flat[y1:y2, x1:x2][inside] = i
    return flat

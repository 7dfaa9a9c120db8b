"""Before the first step: does the training fit into the memory that is free here?"""

from __future__ import annotations

import logging
import time

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging

from aggmask.accounting.memory import kept_for_backward, on_meta
from aggmask.data.transforms import LargeScaleJitter
from aggmask.geometry.frame import CANVAS_MULTIPLE, Size, fit_within, pad_to_multiple
from aggmask.memory import free_bytes

log = logging.getLogger(__name__)
_MIB = 2**20


class MemoryCheck(pl.Callback):
    """Warns once, in one line, when the forecast of a training step is more than what is free.

    Weights (and DDP's buckets) are there by then, and what is free is so without them. Counted: the maps kept of the
    largest batch, gradients, the optimizer's state, on a GPU the average of the weights (EMA), and on a CPU all ranks
    of this machine, which share its memory. Under 16-bit precision maps count half, the least they take. What
    `accounting.memory` leaves out is left out here: what this warns of will hardly fit, and more than that may not.

    Args:
        cells: positive cells of an image.
    """

    def __init__(self, cells: float = 60.0) -> None:
        self.cells = cells

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.local_rank:
            return
        if pl_module.hparams["model"].get("compile"):
            log.debug("no forecast of memory: a compiler decides what is kept")
            return
        free = free_on(pl_module.device)
        if free is None:
            log.debug("no forecast of memory: %s does not say what is free", pl_module.device)
            return
        started = time.perf_counter()
        size = largest_canvas(trainer.datamodule)
        needed = needed_bytes(trainer, pl_module, size, self.cells)
        log.debug("forecast of memory: %d MiB (took %.1f s)", needed / _MIB, time.perf_counter() - started)
        ranks = trainer.num_devices if pl_module.device.type == "cpu" else 1
        if needed * ranks > free:
            images = trainer.datamodule.batch_size
            log.warning(
                "this training is likely to run out of memory: a step of %d images of %d x %d pixels takes %d MiB "
                "beside the weights%s, and %d MiB are free (%s). Less take %strainer.precision=bf16-mixed, "
                "model.backbone.grad_checkpointing=true or a smaller data.short_side",
                images, *size, needed / _MIB, f" on each of {ranks} ranks" if ranks > 1 else "", free / _MIB,
                pl_module.device, _half(images, trainer.accumulate_grad_batches),
            )  # fmt: skip


def needed_bytes(trainer: pl.Trainer, module: pl.LightningModule, size: Size, cells: float) -> int:
    """What a training step allocates on one rank, forecast.

    Args:
        size: (H, W) of the network input.
        cells: positive cells of an image.
    """
    segmenter, images = module.segmenter, trainer.datamodule.batch_size
    levels, most = len(segmenter.head.levels), module.criterion.max_cells
    asked = cells if most is None else min(cells, most / images)
    kept = sum(kept_for_backward(on_meta(segmenter), size, images, [asked / levels] * levels, module.device))
    if trainer.precision.endswith("-mixed"):
        kept //= 2
    parameters = list(segmenter.parameters())
    learn = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    averages = module.device.type != "cpu" and any(isinstance(c, WeightAveraging) for c in trainer.callbacks)
    average = sum(p.numel() * p.element_size() for p in parameters) if averages else 0
    return kept + learn * (1 + states_of(trainer.optimizers[0])) + average


def states_of(optimizer: torch.optim.Optimizer) -> int:
    """Numbers that an optimizer keeps for each weight, before its first step."""
    if "betas" in optimizer.defaults:
        return 2
    return int(bool(optimizer.defaults.get("momentum")))


def largest_canvas(data: pl.LightningDataModule) -> Size:
    """(H, W) of the largest single training image, as the network sees it."""
    frame = data.training_frame
    if isinstance(frame, LargeScaleJitter):
        return pad_to_multiple((frame.size, frame.size), CANVAS_MULTIPLE)
    sizes = np.unique(data.train_dataset.sizes, axis=0).tolist()
    scaled = (fit_within(size, max(frame.short_sides), frame.long_side) for size in sizes)
    return max((pad_to_multiple(size, CANVAS_MULTIPLE) for size in scaled), key=lambda size: size[0] * size[1])


def free_on(device: torch.device) -> int | None:
    """Memory of a device that this process may still take; None: nobody says."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free_bytes() if device.type == "cpu" else None


def _half(images: int, batches: int) -> str:
    """The same step in smaller batches."""
    if images == 1:
        return ""
    return f"data.batch_size={-(-images // 2)} trainer.accumulate_grad_batches={batches * 2}, "

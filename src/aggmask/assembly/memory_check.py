"""Before the first step: does the training fit into the memory that is free here?"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging

from aggmask.accounting.memory import kept_for_backward, on_meta
from aggmask.data.transforms import LargeScaleJitter
from aggmask.geometry.frame import CANVAS_MULTIPLE, Size, fit_within, pad_to_multiple

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
        free = free_bytes(pl_module.device)
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


def free_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Memory that this process may still take; None: nobody says.

    On a CPU the least of what the machine has available and what the process's control groups leave it.

    Args:
        root: where /proc and /sys are.
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu" or not (root / "proc/meminfo").is_file():
        return None
    lines = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
    return min([int(lines["MemAvailable"].split()[0]) * 1024, *_left_by_groups(root)])


def _left_by_groups(root: Path) -> list[int]:
    """What each control group of this process (version 1 or 2) leaves; pages of files can be given back."""
    left = []
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, used, files = "", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, used, files = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        top = root / "sys/fs/cgroup" / base
        place = top / path.lstrip("/")
        for folder in (place, *(p for p in place.parents if p.is_relative_to(top))):
            if (folder / limit).is_file() and (text := (folder / limit).read_text().strip()) != "max":
                statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                taken = int((folder / used).read_text()) - int(statistics.get(files, 0))
                left.append(max(0, int(text) - taken))
    return left


def _half(images: int, batches: int) -> str:
    """The same step in smaller batches."""
    if images == 1:
        return ""
    return f"data.batch_size={-(-images // 2)} trainer.accumulate_grad_batches={batches * 2}, "

"""What a training step costs: its time and the largest memory so far, logged beside the losses."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Any

import pytorch_lightning as pl
import torch


class StepCost(pl.Callback):
    """Logs `train/step_seconds` and `train/memory_mb`.

    Seconds are those of an optimizer step from forward to update, without the wait for data: the mean of the latest
    steps whose end is known. A GPU keeps its own time, so that nothing waits for it. Memory is the most that tensors
    took on a GPU since training began; on a CPU the most that the process took since it began, loader processes apart.

    Args:
        window: steps that are averaged.
    """

    def __init__(self, window: int = 10) -> None:
        self.window = window
        self._running: deque[tuple[Any, Any]] = deque()
        self._seconds: deque[float] = deque(maxlen=window)
        self._start: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._start = _mark(pl_module.device)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._running.append((self._start, _mark(pl_module.device)))
        while self._running and _is_over(self._running[0][1]):
            self._seconds.append(_between(*self._running.popleft()))
        values = {"train/memory_mb": peak_megabytes(pl_module.device)}
        if self._seconds:
            mean = sum(self._seconds) / len(self._seconds)
            values["train/step_seconds"] = mean * trainer.accumulate_grad_batches
        pl_module.log_dict(values, on_step=True, on_epoch=False)


def peak_megabytes(device: torch.device) -> float:
    """MiB: of tensors on a GPU, since the start of training or of the program; of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _mark(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _is_over(mark: Any) -> bool:
    return isinstance(mark, float) or mark.query()


def _between(start: Any, end: Any) -> float:
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000

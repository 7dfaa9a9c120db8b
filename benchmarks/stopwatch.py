"""Where the time of a repetition goes: stages that may lie inside each other, each counted without those inside."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

UNCOUNTED = "uncounted"  # a stage that is no part of what is measured


class Stopwatch:
    """Seconds by stage since the last `read`.

    Args:
        device: a GPU is waited for at the ends of stages, or its work would count for a later one.
        clock: seconds.
    """

    waits = True  # False: stages mean nothing, and the whole is not slowed down by waiting

    def __init__(self, device: str = "cpu", clock: Callable[[], float] = time.perf_counter) -> None:
        self._on_gpu = torch.device(device).type == "cuda"
        self._clock = clock
        self._seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time goes to `name` until the block ends, and then again to the stage around it."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def timed(self, name: str, function: Callable) -> Callable:
        """The same function, its time going to a stage."""

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return run

    def read(self) -> dict[str, float]:
        """{stage: seconds, "seconds": their sum}, without what is uncounted; starts anew."""
        found, self._seconds = dict(self._seconds), defaultdict(float)
        found.pop(UNCOUNTED, None)
        return {**found, "seconds": sum(found.values())}

    def _turn(self) -> None:
        if self._on_gpu and self.waits:
            torch.cuda.synchronize()
        now = self._clock()
        if self._open:
            self._seconds[self._open[-1]] += now - self._since
        self._since = now

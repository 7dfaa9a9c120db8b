"""What ends a training at a chosen moment: as a signal to its process, or as if the process were killed there."""

import os
import signal
from typing import Any

import pytorch_lightning as pl

HOOKS = ("on_train_batch_start", "on_before_backward", "on_validation_batch_start", "on_train_epoch_end")


class Killed(BaseException):
    """Stands for SIGKILL: nothing saves when it is raised."""


class EndAt(pl.Callback):
    """Sends a signal, or raises `Killed`, in the n-th call of a hook.

    Args:
        hook: one of HOOKS.
        call: from 1; counted in this process.
        how: name of a signal, or "kill".
    """

    def __init__(self, hook: str, call: int, how: str = "SIGTERM") -> None:
        self.hook, self.call, self.how, self.calls = hook, call, how, 0

    def _called(self, hook: str) -> None:
        if hook != self.hook:
            return
        self.calls += 1
        if self.calls != self.call:
            return
        if self.how == "kill":
            raise Killed
        os.kill(os.getpid(), signal.Signals[self.how])

    def on_train_batch_start(self, *_: Any) -> None:
        self._called("on_train_batch_start")

    def on_before_backward(self, *_: Any) -> None:
        self._called("on_before_backward")

    def on_validation_batch_start(self, *_: Any) -> None:
        self._called("on_validation_batch_start")

    def on_train_epoch_end(self, *_: Any) -> None:
        self._called("on_train_epoch_end")


def end_at(hook: str, call: int, how: str = "SIGTERM") -> list[str]:
    """Overrides that add it to a run."""
    return [f"+callbacks.end={{_target_: tests.interrupting.EndAt, hook: {hook}, call: {call}, how: {how}}}"]

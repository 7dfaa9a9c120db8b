"""Signals that end a run: at once while there is nothing to lose, later at a border where it can be taken up again."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

# Ctrl-C; what ends a service; what clusters send before they take a machine back (submitit: the last one).
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(SystemExit):
    """A signal has ended the run, which can be taken up again.

    Not an `Exception`: whoever handles failures must not take it for one.

    Args:
        number: of the signal.
        tell: whether the exit code is that of a process which a signal has ended, 128 + number, or 0. Of several
            ranks only the main one tells: where one fails, launchers kill the others, which are still ending.
    """

    def __init__(self, number: int, tell: bool = True) -> None:
        super().__init__(128 + number if tell else 0)
        self.number = number

    @property
    def name(self) -> str:
        """ "SIGTERM" """
        return signal.Signals(self.number).name


def end_at_once() -> None:
    """Until training begins: raise `Interrupted` where the signal arrives. Ctrl-C raises KeyboardInterrupt anyway."""
    _handle(_raise, ENDING[1:])


class Ending:
    """Notes the first signal that arrives; a Ctrl-C after it raises KeyboardInterrupt.

    Attributes:
        received: number of the signal; 0: none yet.
    """

    def __init__(self) -> None:
        self.received = 0
        self._promise = ""

    def listen(self, saves: bool = True) -> None:
        """From now on signals are noted. Whoever calls it restores the handlers that were there.

        Args:
            saves: whether what is done by then is kept, which is told to who sends the signal.
        """
        self._promise = "ends after this step and saves" if saves else "ends after this batch"
        _handle(self._note, ENDING)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received = number
            name = signal.Signals(number).name
            # Not print: the signal may have come in the middle of one.
            os.write(2, f"\n{name}: {self._promise}; Ctrl-C ends at once\n".encode())
        elif number == signal.SIGINT:
            signal.default_int_handler(number, frame)


def _handle(handler: object, numbers: tuple[signal.Signals, ...]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # where Python does not allow it
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and shells leave it for what shall go on
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)

"""Cases whose cost is known."""

import os
import signal
import time
from threading import Timer

import numpy as np


def holds(megabytes, check=1.0):
    def run():
        held = np.ones(megabytes * 2**17)
        return {"check": check, "half": len(held) / 2**18}

    return run


def counts(ranks=1, rank=0, store=None):
    calls = []

    def run():
        calls.append(0)
        return {"seconds": 10.0 * len(calls) + rank, "told": float(store is not None)}

    return run


def differs(checks):
    rest = list(checks)
    return lambda: {"check": rest.pop(0)}


def is_killed(turn):
    """Between this turn and the next."""
    turns = []

    def run():
        turns.append(0)
        if len(turns) == turn:
            Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return {}

    return run


def waits(seconds):
    return lambda: time.sleep(seconds)


def fails():
    def run():
        raise LookupError("nothing there")

    return run

"""Cases whose cost is known."""

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


def fails():
    def run():
        raise LookupError("nothing there")

    return run

"""Python's collector of reference cycles, put off where hundreds of thousands of containers are made that have none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_put_off() -> Iterator[None]:
    """No search for cycles inside the block, or in the function that this decorates.

    It looks through everything that is alive, again and again while it grows: half of the time of an evaluation.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

"""One process at a time in a run's folder: two would take turns in writing the same checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aggmask.checkpoints.run_folder import LOCK, worker
from aggmask.launcher.locks import held, is_held

log = logging.getLogger(__name__)
PATIENCE = 10.0  # seconds: see `locks.PATIENCE`; somebody waits for these


@contextmanager
def alone_in(folder: str | Path) -> Iterator[None]:
    """Keep other processes out of a run's folder, until the block or this process ends, however it ends.

    Args:
        folder: made where it is missing. `run.lock` in it says who works there; it stays, and means nothing by itself.

    Raises:
        UserError: another process works there; says which one.
    """
    lock = Path(folder, LOCK)
    lock.parent.mkdir(parents=True, exist_ok=True)
    holder = _read(lock)
    refusal = (
        f"{folder}: another process trains in this folder already{holder}. End it or let it finish, or take another "
        "folder (output_dir=DIR)"
    )
    if is_held(lock):
        log.warning("%s: somebody has it%s; waiting %g s for a process that is just ending", lock, holder, PATIENCE)
    with held(lock, refusal, PATIENCE):
        lock.write_text(worker())
        yield


def _read(lock: Path) -> str:
    try:
        return f" ({lock.read_text()})"
    except OSError:
        return ""

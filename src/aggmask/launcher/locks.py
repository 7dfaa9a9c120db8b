"""Locks of the operating system: it frees them when their process ends, however it ends."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from aggmask.errors import UserError

log = logging.getLogger(__name__)
PATIENCE = 30.0  # seconds: that a killed job may take to end, its files on a network disk included


@contextmanager
def held(lock: Path, refusal: str, patience: float | None = None) -> Iterator[None]:
    """Hold a lock; seconds of `patience` (by default PATIENCE) for a process that is just ending.

    A disk that knows no locks (some network disks) is warned of: there nothing keeps a second process away.

    Raises:
        UserError: somebody else holds it.
    """
    guard = _lock(lock)
    try:
        guard.acquire(timeout=PATIENCE if patience is None else patience)
    except Timeout:
        raise UserError(refusal) from None
    except (OSError, NotImplementedError) as error:
        if not _knows_no_locks(error):
            raise
        log.warning("%s: this disk knows no locks; see to it that no other process works here", lock)
    try:
        yield
    finally:
        guard.release()


def is_held(lock: Path) -> bool:
    """Whether a living process holds the lock."""
    if not lock.exists():
        return False
    try:
        with _lock(lock).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _is_held_by_others(lock)
        if not _knows_no_locks(error):
            raise
        return False


def _is_held_by_others(lock: Path) -> bool:
    """The same where this user may only read."""
    import fcntl  # which not every system has

    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _lock(path: Path) -> FileLock:
    # Where there are none, filelock would make do with a file that a killed process leaves behind.
    return FileLock(path, fallback_to_soft=False)


def _knows_no_locks(error: OSError | NotImplementedError) -> bool:
    return not isinstance(error, OSError) or error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

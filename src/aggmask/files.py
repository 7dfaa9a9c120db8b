"""Files that are never seen half written, and what to say of a disk that takes none.

Made beside their place, then renamed into it.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from aggmask.errors import UserError

_KEYS = "(train: output_dir=DIR; doctor: fix=FILE; else output=DIR)"
_FREE = f"free some space, or write to another disk {_KEYS}"
_ELSEWHERE = f"choose a place where this user may write {_KEYS}"
_FAULTS = {  # of a machine, not of a program: what is wrong, what to do
    errno.ENOSPC: ("the disk is full", _FREE),
    errno.EDQUOT: ("the quota of this user is used up", _FREE),
    errno.EFBIG: ("files may not become so large here", f"raise the limit (ulimit -f), or {_FREE}"),
    errno.EROFS: ("the disk can only be read", _ELSEWHERE),
    errno.EACCES: ("this user may not do that", f"change the permissions, or {_ELSEWHERE}"),
    errno.EPERM: ("this user may not do that", f"change the permissions, or {_ELSEWHERE}"),
    errno.ENOTDIR: ("a part of this path is a file", _ELSEWHERE),
    errno.ENAMETOOLONG: ("the name is too long", f"choose a shorter one {_KEYS}"),
    errno.EIO: ("the disk fails", "look at it (dmesg), and write to another one"),
    errno.ESTALE: ("the server of this disk has lost the file", "mount it anew"),
    errno.EMFILE: ("this process has too many files open", "raise the limit (ulimit -n)"),
}
_FULL_OR_LOCKED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # of nothing but a disk, whichever it is


def disk_fault(error: OSError, path: str | Path | None = None) -> str | None:
    """What is wrong with a disk, where, and what to do; None for errors of other kinds (a file that is not there).

    Args:
        path: what was read or written, where the error does not say it better.
    """
    path = path or error.filename
    if error.errno not in (_FAULTS if path else _FULL_OR_LOCKED):
        return None
    reason, remedy = _FAULTS[error.errno]
    left = ""
    if path and error.errno in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            left = f"; {shutil.disk_usage(Path(path).parent).free / 2**20:.0f} MB are left"
    return (f"{path}: " if path else "") + f"{reason} ({error.strerror}{left}): {remedy}"


def write_whole(path: str | Path, write: Callable[[IO[bytes]], Any], keep: str | None = None) -> None:
    """Put a file in its place at once: whoever reads, or ends this process, sees the old content or the new one.

    Args:
        path: the file; its folder exists.
        write: fills the open file.
        keep: name beside it under which the old content stays; nothing is copied.

    Raises:
        UserError: the disk is full, cannot be written, or fails; the old content is as it was.
    """
    path = Path(path)
    # Beside its place and not in /tmp, which may be another disk: a move from there is a copy, and can be cut short.
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            _keep(path, path.with_name(keep))
        draft.replace(path)
    except Exception as error:
        fault = fault_below(error, path)
        if fault is None:
            raise
        # not path.exists(), which fails by itself where the name is too long
        kept = ". What was there before is unharmed" if os.path.exists(path) else ""
        raise UserError(f"{fault}{kept}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def fault_below(error: BaseException | None, path: str | Path) -> str | None:
    """`disk_fault` of an error, or of what caused it: torch makes another error of a full disk."""
    while error is not None:
        if isinstance(error, OSError) and (fault := disk_fault(error, path)):
            return fault
        error = error.__cause__ or error.__context__
    return None


def remove_drafts(path: str | Path) -> None:
    """Remove what writings of a file have left that were killed; nobody may be writing it."""
    path = Path(path)
    for draft in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        draft.unlink(missing_ok=True)


def _keep(path: Path, other: Path) -> None:
    link = path.with_name(f".{other.name}.{os.getpid()}.part")
    try:
        link.unlink(missing_ok=True)
        link.hardlink_to(path)  # so that at every moment there is a file under the first name
        link.replace(other)
    except OSError:  # a file system without links
        path.replace(other)


def make_folder(folder: str | Path, key: str) -> Path:
    """Make what a user named, before work whose results go there.

    Args:
        key: how it was named, for messages.

    Raises:
        UserError: nothing can be written there.
    """
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{key}={folder}: cannot be written ({error.strerror}); name another folder") from error
    return folder


def write_json(path: str | Path, content: Any) -> None:
    """`write_whole` of plain containers."""
    write_whole(path, lambda file: file.write(json.dumps(content, indent=1).encode()))


def read_json(path: str | Path) -> Any:
    """What `write_json` wrote; None where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); put a copy of it back, or remove it") from error

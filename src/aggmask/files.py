"""Files that are never seen half written: made beside their place, then renamed into it."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def write_whole(path: str | Path, write: Callable[[IO[bytes]], Any], keep: str | None = None) -> None:
    """Put a file in its place at once: whoever reads, or ends this process, sees the old content or the new one.

    Args:
        path: the file; its folder exists.
        write: fills the open file.
        keep: name beside it under which the old content stays; nothing is copied.
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
    finally:
        draft.unlink(missing_ok=True)


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


def write_json(path: str | Path, content: Any) -> None:
    """`write_whole` of plain containers."""
    write_whole(path, lambda file: file.write(json.dumps(content, indent=1).encode()))


def read_json(path: str | Path) -> Any:
    """What `write_json` wrote; None where there is no such file."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        return None

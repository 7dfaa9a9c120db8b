"""Files that are never seen half written: made beside their place, then renamed into it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def write_whole(path: str | Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Put a file in its place at once: whoever reads, or ends this process, sees the old content or the new one.

    Args:
        path: the file; its folder exists.
        write: fills the open file.
    """
    path = Path(path)
    # Beside its place and not in /tmp, which may be another disk: a move from there is a copy, and can be cut short.
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """`write_whole` of plain containers."""
    write_whole(path, lambda file: file.write(json.dumps(content, indent=1).encode()))


def read_json(path: str | Path) -> Any:
    """What `write_json` wrote; None where there is no such file."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        return None

"""Which checkpoint a run's folder is taken up from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from aggmask.errors import UserError
from aggmask.files import remove_drafts

log = logging.getLogger(__name__)
LAST, BEFORE, BEST = "last.ckpt", "last-1.ckpt", "best.ckpt"
NAMES = (LAST, BEFORE, BEST)  # in the order in which they are tried


def checkpoints_of(folder: str | Path) -> list[Path]:
    """Those that are there, the newest first."""
    return [path for name in NAMES if (path := Path(folder, name)).is_file()]


def newest(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that can be read, and its content; a warning names what cannot. None: there is none.

    Drafts of checkpoints, which a kill has left, are removed: nobody else may write into the folder.

    Raises:
        UserError: there are checkpoints, and none of them can be read.
    """
    from aggmask.checkpoints.reading import read_file  # torch, which a sweep's parent does without

    faults = []
    for path in checkpoints_of(folder):
        try:
            content = read_file(path, key="resume")
        except UserError as error:
            faults.append(str(error))
            continue
        for fault in faults:
            log.warning("%s. Going on from the one before, %s", fault, path.name)
        for name in NAMES:
            remove_drafts(Path(folder, name))
        return path, content
    if faults:
        lines = "".join(f"\n  {fault}" for fault in faults)
        raise UserError(f"resume=auto: no checkpoint in {folder} can be read:{lines}\nRemove them to begin anew.")
    return None

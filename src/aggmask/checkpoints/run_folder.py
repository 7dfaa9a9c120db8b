"""Which checkpoint a run's folder is taken up from, and whether there is anything left to do."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aggmask.errors import MachineFault, UserError
from aggmask.files import remove_drafts

log = logging.getLogger(__name__)
LAST, BEFORE, BEST = "last.ckpt", "last-1.ckpt", "best.ckpt"
NAMES = (LAST, BEFORE, BEST)  # in the order in which they are tried
LOCK = "run.lock"  # held by the process that works in the folder, whose words it holds
_SUFFIXES = (".ckpt", ".pth", ".pt")


def worker() -> str:
    """What this process writes into a folder's LOCK once it holds it."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def checkpoints_of(folder: str | Path) -> list[Path]:
    """Those that are there, the newest first."""
    return [path for name in NAMES if (path := Path(folder, name)).is_file()]


def checkpoint_file(path: str | Path, key: str = "checkpoint") -> Path:
    """The file that a user named. Asked before anything heavy is imported.

    Args:
        key: how it was named, for messages.

    Raises:
        UserError: there is no such file, or it is a folder.
    """
    file = Path(path).expanduser()
    if file.is_file():
        return file
    folder = file if file.is_dir() else file.parent
    held = sorted(str(own) for own in folder.glob("*") if own.suffix in _SUFFIXES)
    if file.is_dir():
        raise UserError(f"{key}={path}: is a folder; say a file" + (f" in it: {' or '.join(held[:3])}" if held else ""))
    raise UserError(f"{key}={path}: there is no such file" + (f"; there is {' and '.join(held[:3])}" if held else ""))


def refuse_another(folder: str | Path) -> None:
    """Refuse to begin a training in a folder that holds one.

    Raises:
        UserError: it does; says how that one goes on.
    """
    if there := checkpoints_of(folder):
        raise UserError(
            f"output_dir={folder}: holds a training already ({', '.join(path.name for path in there)}): "
            "resume=auto goes on with it; to begin anew, name another folder, or remove this one"
        )


def newest(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that can be read, and its content; a warning names what cannot. None: there is none.

    Drafts of checkpoints, which a kill has left, are removed: nobody else may write into the folder.

    Raises:
        UserError: there are checkpoints, and none of them can be read.
        MachineFault: one may be whole, but this machine cannot read it now: an older one is no answer to that.
    """
    from aggmask.checkpoints.reading import read_file  # torch, which a sweep's parent does without

    faults = []
    for path in checkpoints_of(folder):
        try:
            content = read_file(path, key="resume")
        except MachineFault:
            raise
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


def epochs_done(content: Mapping[str, Any]) -> int:
    """Of a training's checkpoint: epochs that came to their end. (Its `epoch` does not tell: of the last one it is the
    same in the middle and at the end.)"""
    return content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]


def came_to_its_end(content: Mapping[str, Any], trainer: Mapping[str, Any]) -> bool:
    """Whether a training's checkpoint is its last one, as Lightning decides it: -1 is no bound.

    Not the one before its last evaluation.
    """
    step = content["global_step"]
    if trainer.get("limit_val_batches") != 0 and content.get("evaluated_at", step) != step:
        return False
    epochs, steps = trainer.get("max_epochs") or -1, trainer.get("max_steps") or -1
    return 0 <= epochs <= epochs_done(content) or 0 <= steps <= step

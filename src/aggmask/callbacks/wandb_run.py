"""A W&B run that works without an account and goes on after a resume."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from aggmask.errors import UserError
from aggmask.files import write_whole

log = logging.getLogger(__name__)
_MODES = (None, "online", "offline", "disabled")


def wandb_logger(save_dir: str, mode: str | None = None, **options: Any) -> WandbLogger:
    """A logger whose run id is kept in `<save_dir>/wandb_id.txt`, so that a resumed run goes on as one.

    Args:
        save_dir: the run's folder.
        mode: online, offline or disabled; None: online where there is an account, else offline with a warning.

    Raises:
        UserError: there is no such mode.
    """
    if mode not in _MODES:
        raise UserError(f"logger.wandb.mode={mode}: must be online, offline, disabled or null")
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if rank_zero_only.rank == 0:
        mode = mode or _mode_at_hand()
        kept = folder / "wandb_id.txt"
        if not kept.is_file():
            write_whole(kept, lambda file: file.write(secrets.token_hex(4).encode()))
        options["id"] = kept.read_text().strip()
        options["resume"] = "allow" if mode == "online" else None
    return WandbLogger(save_dir=str(folder), mode=mode, **options)


def _mode_at_hand() -> str:
    import os

    import wandb

    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if wandb.api.api_key:
        return "online"
    log.warning("W&B: no account (wandb login, or WANDB_API_KEY): this run is kept offline; send it with `wandb sync`")
    return "offline"

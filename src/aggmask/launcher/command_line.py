"""What the command line of a sweep stands for, and what it may not ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig

from aggmask.assembly.command import unquoted
from aggmask.errors import UserError
from aggmask.launcher.ledger import Ledger


def arguments_of(arguments: Sequence[str]) -> list[str]:
    """What a command line stands for: `sweep.resume=DIR` alone repeats the arguments that the sweep began with.

    Raises:
        UserError: there is no sweep in DIR.
    """
    resumed = [unquoted(a.partition("=")[2]) for a in arguments if a.startswith("sweep.resume=")]
    if not resumed or resumed[-1] in ("", "null"):
        return list(arguments)
    own = [a for a in arguments if a not in ("--multirun", "-m")]
    if all(a.startswith(("sweep.", "hydra.")) for a in own):
        # The flag stands for hydra.mode; the folder is DIR.
        left_out = ("hydra.mode=", "hydra.sweep.dir=", "sweep.resume=")
        own = [a for a in Ledger.read(resumed[-1]).sweep["arguments"] if not a.startswith(left_out)] + own
    return ["--multirun", *own]


def refuse_shared_process(trainer: Mapping[str, Any]) -> None:
    """Stop a job of several devices that a sweep runs in its own process.

    Lightning starts the other ranks by running the command again, and in a sweep that command is the whole sweep.

    Raises:
        UserError: says what to do instead.
    """
    hydra = HydraConfig.get()
    shared = any(name in str(hydra.launcher.get("_target_")) for name in ("BasicLauncher", "JoblibLauncher"))
    if hydra.mode is None or hydra.mode.name != "MULTIRUN" or not shared:
        return
    if str(trainer.get("devices", "auto")) != "1" or trainer.get("num_nodes", 1) != 1:
        raise UserError(
            f"trainer.devices={trainer.get('devices')} with {hydra.launcher._target_.rpartition('.')[2]}: its jobs "
            "share one process, where the ranks of different jobs would mix; leave the launcher out "
            "(hydra/launcher=processes is the default), or say trainer.devices=1"
        )

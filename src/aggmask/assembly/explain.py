"""Whatever ended a command -> words for whoever can mend it: mistakes of the user's, and faults of the machine."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from aggmask.assembly.checking import suggest
from aggmask.errors import UserError
from aggmask.files import disk_fault
from aggmask.memory import free_bytes

_NO_COMPILER = ("InvalidCxxCompiler", "Failed to find C compiler")  # what inductor and Triton say
# What torch says when a process that loads data has ended, or cannot hand over what it loaded.
_WORKER = re.compile(r"DataLoader worker \(pid|(?:allocate|open) shared memory|received \d+ items of ancdata")
# What torch puts before the message of an error in such a process.
_FROM_WORKER = re.compile(
    r"\ACaught (\w+) in DataLoader worker process \d+\.\nOriginal Traceback.*\n[\w.]*\1: ", re.DOTALL
)
_SHARED = Path("/dev/shm")
_OPERATOR = "operator torchvision::"  # what torch says to a torchvision that was built for another torch


def explain(error: BaseException) -> str | None:
    """What to tell the user; None for what only a programmer can mend."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    chain = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    for cause in chain:
        if isinstance(cause, UserError):
            return _FROM_WORKER.sub("", str(cause)).rstrip("\n")
        # By name, because importing Lightning takes seconds.
        if type(cause).__name__ == "MisconfigurationException":
            return f"the trainer cannot run like this here: {cause} (trainer=auto takes what there is)"
        if any(sign in str(cause) for sign in _NO_COMPILER):
            return "model.compile=inductor needs a compiler (apt install g++), and there is none: model.compile=null"
        if _OPERATOR in str(cause) and "does not exist" in str(cause):
            return _unlike_pair()
        if isinstance(cause, RuntimeError) and _WORKER.search(str(cause)):
            return _dead_worker(str(cause))
    if fault := _disk(error):
        return fault
    if isinstance(error, HydraException | OmegaConfBaseException) and not isinstance(error, InstantiationException):
        return _readable(chain)
    return None


def _disk(error: BaseException | None) -> str | None:
    # Not of what an error only came after: that may have been dealt with.
    while error is not None:
        if isinstance(error, OSError) and (fault := disk_fault(error)):
            return fault
        error = error.__cause__
    return None


def _dead_worker(said: str) -> str:
    memory = []
    if (free := free_bytes()) is not None:
        memory.append(f"{free / 2**20:.0f} MB of RAM are free")
    if _SHARED.is_dir():
        disk = shutil.disk_usage(_SHARED)
        memory.append(f"{disk.free / 2**20:.0f} of {disk.total / 2**20:.0f} MB in {_SHARED}")
    now = f" (now {', '.join(memory)})" if memory else ""
    return (
        f"a process that loads data has died: {said.strip().splitlines()[0].strip()}\nThe usual cause is too little "
        f"memory{now}: take fewer such processes (data.num_workers=2) or smaller batches, close other programs, or "
        "give a container more (docker run --shm-size=8g). With data.num_workers=0 any other cause shows its own "
        "message. Checkpoints and metrics.csv that were written before are whole"
    )


def _unlike_pair() -> str:
    from importlib.metadata import version

    return (
        f"torch {version('torch')} and torchvision {version('torchvision')} are not built for each other: they are "
        "of different releases, or from different places. Install both anew by one command: pip install --upgrade "
        "--force-reinstall torch torchvision (with the --index-url that torch came from, if it had one)"
    )


def _readable(chain: list[BaseException]) -> str:
    """Hydra's own message, or what would be valid where a key or an option of a group is unknown."""
    from hydra.errors import MissingConfigException

    for cause in chain:
        node, key = getattr(cause, "parent_node", None), getattr(cause, "key", None)
        if node is not None and key is not None and "is not in struct" in str(cause):
            return f"{cause.full_key}: there is no such key{suggest(str(key), map(str, node))}"
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file and cause.options:
            group, _, option = cause.missing_cfg_file.rpartition("/")
            valid = ", ".join(sorted(cause.options))
            told = f"{group}={option}: there is no such option{suggest(option, cause.options)}"
            return told if valid in told else f"{told} There are {valid}"
    texts = [str(chain[0]), *(str(cause).partition("\n")[0] for cause in chain[1:2] if str(cause) not in str(chain[0]))]
    return "\n".join(line.rstrip() for text in texts for line in text.splitlines() if line.strip())

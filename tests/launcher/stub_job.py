"""A job without torch, which starts in half a second: counts epochs, keeps a checkpoint, notes what it saw.

It reads the same configuration as training. Its number follows from the seed and from every epoch, so a job that lost
or repeated some of its work ends with another one.
"""

import fcntl
import json
import os
import sys
import time
from functools import partial
from pathlib import Path

from aggmask.assembly.command import run_command
from aggmask.files import write_json
from aggmask.launcher import locks
from aggmask.launcher.job import frozen_folder, run_frozen
from aggmask.signals import end_at_once

PAUSE = 0.05  # seconds an epoch


def number_of(seed: int, epochs: int) -> float:
    """What an uninterrupted job ends with."""
    number = seed
    for epoch in range(epochs):
        number = (number * 31 + epoch) % 1009
    return float(number)


def work(config: dict) -> float:
    folder = Path(config["output_dir"])
    alone = (folder / "alone").open("w")  # of another kind than the ledger's, and independent of it
    try:
        fcntl.lockf(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        (folder / "NOT ALONE").touch()
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PL_GLOBAL_SEED", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    seen = {"env": {n: os.environ.get(n) for n in names}, "pid": os.getpid(), "began": time.time(), "config": config}
    write_json(folder / "seen.json", seen)
    state = {"epoch": 0, "number": config["seed"]}
    if config["resume"]:
        state = json.loads((folder / "last.ckpt").read_text())
    while state["epoch"] < config["trainer"]["max_epochs"]:
        with (folder / "epochs.txt").open("a") as file:
            file.write(f"{state['epoch']}\n")
        time.sleep(PAUSE)
        if os.environ.get("STUB_FAILS") == str(config["seed"]) and state["epoch"] == 2:
            raise ValueError(f"seed {config['seed']} is not liked")
        number = (state["number"] * 31 + state["epoch"]) % 1009
        state = {"epoch": state["epoch"] + 1, "number": number}
        write_json(folder / "last.ckpt", state)
    write_json(folder / "seen.json", {**seen, "ended": time.time()})
    return float(state["number"])


if __name__ == "__main__":
    locks.PATIENCE = float(os.environ.get("STUB_PATIENCE", locks.PATIENCE))
    end_at_once()
    run_command(partial(run_frozen, frozen_folder(sys.argv[1:]), work))

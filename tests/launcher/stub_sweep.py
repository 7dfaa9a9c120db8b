"""The parent of a sweep of stub jobs, without Hydra: `python -m tests.launcher.stub_sweep ROOT N_JOBS SEEDS EPOCHS`."""

import logging
import os
import sys
from pathlib import Path

from aggmask.launcher.ledger import Job, Ledger
from aggmask.launcher.locks import held
from aggmask.launcher.processes import Processes
from aggmask.launcher.schedule import Schedule

MODULE = "tests.launcher.stub_job"


def freeze(root: Path, seed: int, epochs: int = 4, **trainer) -> Job:
    folder = root / str(seed)
    trainer = {"max_epochs": epochs, "accelerator": "cpu", "devices": 1} | trainer
    config = {"seed": seed, "output_dir": str(folder), "resume": None, "trainer": trainer}
    return Job.freeze(folder, seed, ["experiment=demo", f"seed={seed}"], os.getcwd(), config)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    root, n_jobs, seeds, epochs = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    ledger = Ledger(root)
    root.mkdir(parents=True, exist_ok=True)
    with held(ledger.lock, "busy"):
        ledger.open(sys.argv, os.getcwd())
        jobs = ledger.jobs()
        if len(jobs) < seeds:
            jobs = [freeze(root, seed, epochs) for seed in range(seeds)]
        Schedule(Processes(MODULE, n_jobs)).run(jobs)

"""What the command line of a study says, and what it may not say."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence

from benchmarks.variants import BASELINES, compared_keys

DATA = ("composites", "shapes_hard")  # which have a test split
_SAID = {"trainer.max_steps": "--steps", "trainer.val_check_interval": "--steps", "optim.lr": "--lr"}
_SAID |= {"seed": "--seeds", "data": "--data", "experiment": "--sweep", "sweep.n_jobs": "--n-jobs"}
_SAID |= {"trainer.max_epochs": "--steps", "sweep": "--sweep", "output_dir": "--folder"}
_OWN = {"resume", "job", "trainer.enable_progress_bar"}  # what the study says in its own commands


def settings_of(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; names that are left out follow from others."""
    told = "Does aggregation help? The whole study, as docs/study tells it."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=told)
    parser.add_argument("--sweep", default="study", choices=list(BASELINES), help="variants: see conf/sweep")
    parser.add_argument("--data", default=DATA[0], choices=DATA)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=1000, help="of the first table")
    parser.add_argument("--lr", type=float, help="by default tuned on val for the baseline")
    parser.add_argument("--table", choices=("steps", "time"), help="only the one of as many steps, or of the same time")
    parser.add_argument("--n-jobs", type=int, default=2, help="at the same time")
    parser.add_argument("--folder", help="for the runs: by default studies/SWEEP-DATA-STEPS")
    parser.add_argument("--output", help="for the tables: by default FOLDER/tables")
    parser.add_argument("overrides", nargs="*", help="key=value for every training")
    settings = parser.parse_args(arguments)
    settings.folder = settings.folder or f"studies/{settings.sweep}-{settings.data}-{settings.steps}"
    settings.output = settings.output or f"{settings.folder}/tables"
    for override in settings.overrides:
        if fault := _fault_of(override, settings.sweep):
            parser.error(f"{override}: {fault}")
    if settings.steps < 20:
        parser.error(f"--steps={settings.steps}: must be at least 20")
    if settings.n_jobs < 1:
        parser.error(f"--n-jobs={settings.n_jobs}: must be 1 or more")
    seeds = settings.seeds.split(",")
    if not all(re.fullmatch(r"0|[1-9]\d*", seed) for seed in seeds) or len(set(seeds)) < len(seeds):  # 01 is 1 again
        parser.error(f"--seeds={settings.seeds}: must be different whole numbers, as in 0,1,2")
    if settings.lr is not None and not 0 < settings.lr < math.inf:
        parser.error(f"--lr={settings.lr}: must be a number above 0")
    return settings


def _fault_of(override: str, sweep: str) -> str | None:
    """Why a study cannot pass on a word; None: it can."""
    key, given, _ = override.partition("=")
    key = key.lstrip("+~").partition("@")[0].replace("/", ".")
    if not given or not key:
        return "is no key=value"
    if key in _SAID:
        return f"say {_SAID[key]}"
    if key in _OWN or key.partition(".")[0] in ("hydra", "sweep"):
        return "the study sees to that by itself; leave it out"
    if any(f"{compared}.".startswith(f"{key}.") for compared in compared_keys(sweep)):
        return f"the variants of {sweep} differ in it, and would not be told apart"
    return None

"""Does aggregation help? The whole study, as docs/study tells it: `python -m benchmarks.study --help`.

Everything is done by commands that anyone can type; this file only says them in their order, and goes on where it was
stopped. The learning rate is tuned on val for the baseline alone, and then everybody's. Two tables, of which neither
needs the other: with the same number of steps, and with the number of steps that takes each variant the baseline's
time, by step times that are measured in turn (`step_times`). The checkpoint of a run is chosen on val, what is
reported is on test.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from aggmask.checkpoints.run_folder import checkpoints_of
from aggmask.errors import UserError
from aggmask.files import read_json, write_json
from aggmask.launcher.ledger import Ledger
from aggmask.launcher.locks import is_held
from aggmask.report import report
from aggmask.signals import Interrupted, end_at_once
from benchmarks.children import fresh_processes, run_to_its_end
from benchmarks.records import machine, make_folder
from benchmarks.study_words import settings_of
from benchmarks.variants import BASELINES, composed, experiment_of, is_of, jobs_of, name_of, quoted

if TYPE_CHECKING:
    from aggmask.reporting.runs import Run


def aps_by_rate(runs: Sequence[Run]) -> dict[float, float]:
    """Learning rate -> best AP on val."""
    return {run.config["optim"]["lr"]: max(value for *_, value in run.logged["val/AP"]) for run in runs}


def same_time(
    jobs: Sequence[Sequence[str]], seconds: Mapping[str, float], steps: int, baseline: Sequence[str]
) -> list[list[str]]:
    """Each job with the number of steps that takes it the baseline's time, evaluated halfway and at the end.

    Args:
        seconds: a step of each job takes, by `name_of`.
        steps: of the baseline, whose time all get.
    """
    timed = []
    for job in jobs:
        half = max(1, round(steps * seconds[name_of(baseline)] / seconds[name_of(job)] / 2))
        timed.append([*job, f"trainer.max_steps={2 * half}", f"trainer.val_check_interval={half}"])
    return timed


class Study:
    """One study in one folder.

    Args:
        settings: what the command line says.

    Raises:
        SystemExit: a folder cannot be written, or holds a study of other settings.
    """

    def __init__(self, settings: argparse.Namespace) -> None:
        self.settings, self.folder = settings, Path(settings.folder)
        self.baseline = BASELINES[settings.sweep].split()
        make_folder(self.folder, "--folder")
        make_folder(Path(settings.output), "--output")
        self.notes = self.folder / "record.json"
        how = ("folder", "output", "n_jobs", "table")  # and not what
        asked = {key: value for key, value in vars(settings).items() if key not in how}
        self.record: dict[str, Any] = {"began": time.strftime("%Y-%m-%d %H:%M"), "settings": asked}
        self.record |= {"machine": machine(threads=1), "commands": [], "seconds": {}}
        earlier = read_json(self.notes)
        # It was stopped, and goes on: also where steps were timed, and jobs made of that, but nothing trained yet.
        if earlier and (earlier["settings"] == asked or self._is_begun()):
            self.record = earlier
            there = self.record["settings"]
            if differ := [
                f"{key} {there.get(key)}, now {value}" for key, value in asked.items() if there.get(key) != value
            ]:
                sys.exit(
                    f"{self.folder} holds a study of other settings ({'; '.join(differ)}): say --folder ANOTHER_ONE"
                )
        write_json(self.notes, self.record)

    def _is_begun(self) -> bool:
        """Whether anything was trained, if only in part: before that other settings, a mended word say, do no harm."""
        return any(checkpoints_of(file.parent) for file in self.folder.rglob("job.json"))

    def run(self) -> None:
        """From nothing to two tables, or the one that was asked for."""
        jobs, seeds = jobs_of(self.settings.sweep), f"seed={self.settings.seeds}"
        rates = {} if self.settings.lr else aps_by_rate(self._sweep("rate", "+sweep=study_rate"))
        chosen = self.settings.lr or max(rates, key=rates.get)
        self.record |= {"val AP by learning rate": rates, "learning rate": chosen}
        shared = ["hydra/sweeper=list", f"optim.lr={chosen}", seeds]
        if self.settings.table != "time":
            self._sweep("steps", *shared, quoted(jobs))
            self._tell("steps")
        if self.settings.table != "steps":
            timed = same_time(jobs, self._seconds(jobs, chosen), self.settings.steps, self.baseline)
            self._sweep("time", *shared, quoted(timed))
            self._tell("time")

    def _said(self) -> list[str]:
        """Overrides of every training."""
        settings = self.settings
        return [f"experiment={experiment_of(settings.sweep)}", f"data={settings.data}", *settings.overrides]

    def _sweep(self, name: str, *arguments: str) -> list[Run]:
        """Train what is not trained yet; the finished runs."""
        place, settings = self.folder / name, self.settings
        steps = [f"trainer.max_steps={settings.steps}", f"trainer.val_check_interval={max(1, settings.steps // 2)}"]
        said = [*self._said(), *(() if name == "time" else steps), "trainer.enable_progress_bar=false", *arguments]
        start = f"sweep.resume={place}" if (place / "sweep.json").is_file() else f"hydra.sweep.dir={place}"
        with self._timed(f"{name}: training"):
            self._train(place, *said, f"sweep.n_jobs={settings.n_jobs}", start)
        return finished(place)

    def _tell(self, name: str) -> None:
        """Evaluate every run on test, and write the report."""
        from benchmarks import by_seed

        runs = finished(self.folder / name)
        waiting = [run.folder for run in runs if not run.results_file("test").is_file()]
        with self._timed(f"{name}: evaluation on test"), fresh_processes(self.settings.n_jobs) as pool:
            list(pool.map(evaluate_on_test, waiting))
            output = Path(self.settings.output) / name
            report(self.folder / name, self._baseline_of(runs), output, pictures=0, split="test")
            by_seed.write(output / "by_seed.md", jobs_of(self.settings.sweep), runs, pool)
        write_json(output.parent / "record.json", self.record)

    def _baseline_of(self, runs: Sequence[Run]) -> str:
        """A run of the baseline, by which the report finds its variant."""
        jobs = jobs_of(self.settings.sweep)
        if found := next((run for run in runs if is_of(run, self.baseline, jobs)), None):
            return found.name
        told = name_of(self.baseline)
        sys.exit(f"{self.folder}: no finished training of {told}: start the study again, and it is tried again")

    def _seconds(self, jobs: Sequence[Sequence[str]], lr: float) -> dict[str, float]:
        """Of a step of each job: measured once, since a study that goes on keeps its numbers of steps.

        A job that was added later is timed in turn with the baseline, and stands to it as it did then.
        """
        from benchmarks.step_times import step_seconds

        kept, words = self.record.setdefault("seconds per step", {}), [f"optim.lr={lr}"]
        words += [f"trainer.max_steps={self.settings.steps}", "name=study", f"output_dir={self.folder}"]
        if added := [job for job in jobs if name_of(job) not in kept]:
            base = name_of(self.baseline)
            asked = {base: self.baseline} | {name_of(job): job for job in added}
            configs = {name: composed("train", *self._said(), *words, *job) for name, job in asked.items()}
            with self._timed("time: steps of all in turn"):
                taken = step_seconds(configs)
                scale = kept[base]["median"] / median(taken[base]) if base in kept else 1.0
                for name in [name for name in taken if name not in kept]:
                    values = [scale * value for value in taken[name]]
                    kept[name] = {"median": median(values), "least": min(values), "most": max(values)}
        return {name: row["median"] for name, row in kept.items()}

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        """Add to the seconds that something took, over all starts of the study."""
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = self.record["seconds"]
            seconds[what] = seconds.get(what, 0) + round(time.monotonic() - began)
            write_json(self.notes, self.record)

    def _train(self, place: Path, *arguments: str) -> None:
        """Run the sweep in `place`."""
        words = ["-m", "aggmask.train", "--multirun", *arguments]
        told = shlex.join(["python", *words])
        print(told, flush=True)
        self.record["commands"].append(told)
        if not (status := run_to_its_end([sys.executable, *words])):
            return
        why = f"a training failed (status {status}), as it says above"
        if is_held(Ledger(place).lock):
            why = f"another process works on {place}: end it, or let it finish"
        sys.exit(
            f"python -m benchmarks.study: {why}. What is finished is kept: start the study again with the same words, "
            "and it goes on"
        )


def finished(place: Path) -> list[Run]:
    """The finished runs of a sweep."""
    from aggmask.reporting.runs import FINISHED, read_runs  # torch, for which words need not wait

    return [run for run in read_runs(place) if run.state == FINISHED]


def evaluate_on_test(folder: Path) -> None:
    """What `python -m aggmask.evaluate checkpoint=FOLDER/best.ckpt split=test` does, without starting Python anew."""
    import torch

    from aggmask.evaluate import evaluate

    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    said = [f"checkpoint='{folder / 'best.ckpt'}'", "split=test", "trainer.enable_progress_bar=false"]
    evaluate(composed("evaluate", *said))


def main() -> None:
    """Entry point of `python -m benchmarks.study`."""
    settings = settings_of(sys.argv[1:])
    end_at_once()
    try:
        Study(settings).run()
    except UserError as error:
        sys.exit(f"python -m benchmarks.study: {error}")
    except (KeyboardInterrupt, Interrupted) as stop:
        again = shlex.join(["python", "-m", "benchmarks.study", *sys.argv[1:]])
        print(f"python -m benchmarks.study: stopped; what is finished is kept, and this goes on: {again}")
        sys.exit(stop.code if isinstance(stop, Interrupted) else 128 + signal.SIGINT)


if __name__ == "__main__":
    main()

"""Sweeps: `python -m aggmask.sweep status DIR [--once]`."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence

from aggmask.assembly.command import run_command
from aggmask.launcher.ledger import STATES, Job, Ledger, labels
from aggmask.launcher.locks import is_held

START = "python -m aggmask.train"
_SECONDS = 2.0  # from one table to the next
_CLEAR = "\x1b[H\x1b[2J"


def table(jobs: Sequence[Job]) -> str:
    """A line for each job: number, what tells it from the others, state, epoch, AP, time left."""
    states = [job.state for job in jobs]
    rows = [("job", "", "state", "epoch", "AP", "time left")]
    rows += [_row(job, label, state) for job, label, state in zip(jobs, labels(jobs), states, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    counts = Counter(states)
    summary = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return "\n".join([*lines, "", summary or "no jobs yet"])


def _row(job: Job, label: str, state: str) -> tuple[str, ...]:
    progress, outcome = job.progress, job.outcome or {}
    ap = outcome.get("objective", progress.get("ap"))
    epoch = f"{progress['epoch']}/{progress['epochs'] or '?'}" if progress else ""
    now = state == "running" and progress.get("updated", 0) >= job.attempt.get("since", 0)  # not of an earlier start
    left = progress.get("seconds_left") if now else None
    if left is not None:
        left = max(0, left - (time.time() - progress["updated"]))
    last = outcome.get("error", "").partition("\n")[0] or ("" if left is None else readable(left))
    return str(job.number), label, state, epoch, "" if ap is None else f"{ap:.4f}", last


def readable(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def status(folder: str, once: bool) -> None:
    """Print a sweep's table, again and again until all jobs have an outcome or nobody works on them.

    Raises:
        UserError: there is no sweep in the folder.
    """
    live = sys.stdout.isatty() and not once
    while True:
        ledger = Ledger.read(folder)
        jobs = ledger.jobs()
        states, watched = {job.state for job in jobs}, is_held(ledger.lock)
        told = [time.strftime(_CLEAR + "%H:%M:%S\n") + table(jobs) if live else table(jobs)]
        if not watched and states != {"done"}:
            told.append(f"no process starts them: {START} sweep.resume={shlex.quote(folder)} goes on with what is left")
        print("\n".join(told), flush=True)
        if not live or not (watched or "running" in states):
            return
        time.sleep(_SECONDS)


def _command() -> None:
    parser = argparse.ArgumentParser(prog="python -m aggmask.sweep", description="What the jobs of a sweep do.")
    commands = parser.add_subparsers(required=True, metavar="status")
    of_status = commands.add_parser("status", help="a table of a sweep's jobs, kept up to date")
    of_status.add_argument("folder", metavar="DIR", help="of the sweep")
    of_status.add_argument("--once", action="store_true", help="print it once, as it also is where it goes to a file")
    arguments = parser.parse_args()
    try:
        status(arguments.folder, arguments.once)
    except KeyboardInterrupt:
        print()


def main() -> None:
    """Entry point of `python -m aggmask.sweep` and `aggmask-sweep`."""
    run_command(_command)


if __name__ == "__main__":
    main()

"""Measure several ways to do one thing side by side: each in a process of its own, one repetition in turn.

A case is a function `module:function` that builds what it needs and returns a callable; that runs one repetition and
returns {metric: number}. The harness adds "seconds" (unless the case timed itself) and "MB": how far resident memory
rose, at most, above what was resident when the case was ready. Taking turns lets what else the machine does fall on all
sides alike. (pyperf and torch.utils.benchmark time one side after the other, and watch no memory.)
"""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from benchmarks.memory import forget_peak, give_back, peak_mb, resident_mb

Measured = dict[str, list[float]]  # metric -> one number a repetition


@dataclass(frozen=True)
class Case:
    """What one side does.

    Attributes:
        function: "module:function".
        arguments: plain values. With several ranks also `rank`, `ranks` and `store`, a file for their first contact.
        ranks: processes that do it together; what is measured is the largest of each metric.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    ranks: int = 1


def interleaved(
    cases: Mapping[str, Case],
    repeats: int,
    threads: int,
    tell: Callable[[str], None] = lambda text: None,
    warmups: int = 1,
    separate: bool = True,
    same: bool = True,
) -> dict[str, Measured]:
    """Name -> what was measured, after `warmups` repetitions that do not count.

    Args:
        threads: of each process; ranks share them.
        separate: False runs everything in this process, for tests and debugging: memory is then shared too.
        same: all sides compute the same, which their "check" numbers must confirm.

    Raises:
        RuntimeError: a case failed, or its process was ended; names it, with the end of what it said.
        ValueError: the "check" numbers of the sides differ: they did not compute the same.
    """
    found: dict[str, Measured] = {name: defaultdict(list) for name in cases}
    with ExitStack() as stack:
        start = _process if separate else _inside
        sides = {name: stack.enter_context(_together(name, case, threads, start)) for name, case in cases.items()}
        for _, ready in sides.values():
            ready()
        for number in range(-warmups, repeats):
            for name, (run, _) in sides.items():
                tell(f"{name}, " + ("warm-up" if number < 0 else f"{number + 1} of {repeats}"))
                for metric, value in run().items():
                    if number >= 0:
                        found[name][metric].append(value)
    checks = {name: measured.pop("check") for name, measured in found.items() if "check" in measured}
    if same:
        for values in zip(*checks.values(), strict=True):
            _agree(dict(zip(checks, values, strict=True)))
    return found


def _agree(said: Mapping[str, float]) -> None:
    values = list(said.values())
    if not all(map(math.isfinite, values)) or max(values) - min(values) > 2e-3 * max(map(abs, values)):
        raise ValueError(f"the sides did not compute the same, so nothing can be compared: {said}")


@contextmanager
def _together(name: str, case: Case, threads: int, start: Callable) -> Iterator[tuple[Callable, Callable]]:
    """All ranks of a case, being started: (one repetition on all of them at once, wait until they are ready for it)."""
    with ExitStack() as stack:
        if case.ranks == 1:
            sides = [stack.enter_context(start(name, case.function, case.arguments, threads))]
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            shared = {**case.arguments, "ranks": case.ranks, "store": f"{folder}/store"}
            each = max(1, threads // case.ranks)
            sides = [
                stack.enter_context(start(f"{name}, rank {r}", case.function, {**shared, "rank": r}, each))
                for r in range(case.ranks)
            ]

        def run() -> dict[str, float]:
            for go, _ in sides:
                go()
            told = [wait() for _, wait in sides]
            return {metric: max(t[metric] for t in told) for metric in told[0]}

        yield run, lambda: [wait() for _, wait in sides]


@contextmanager
def _process(
    name: str, function: str, arguments: Mapping[str, Any], threads: int
) -> Iterator[tuple[Callable, Callable]]:
    """(go, wait) of a fresh process: `go` starts a repetition, `wait` returns what it measured (at first: nothing)."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.harness"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )

        def send(content: Any) -> None:
            try:
                child.stdin.write(json.dumps(content) + "\n")
                child.stdin.flush()
            except BrokenPipeError:  # it has ended since its last turn
                raise ended() from None

        def wait() -> dict[str, float]:
            if line := child.stdout.readline():
                return json.loads(line)
            raise ended()

        def ended() -> RuntimeError:
            errors.seek(0)
            return RuntimeError(_told(f"{name} ({function})", child.wait(), errors.read()[-3000:]))

        try:
            send({"function": function, "arguments": dict(arguments)})
            yield lambda: send("go"), wait
        finally:
            with suppress(BrokenPipeError):  # of what it did not read
                child.stdin.close()
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _told(name: str, status: int, said: str) -> str:
    if status == -signal.SIGKILL:
        return (
            f"{name} was killed, most likely for want of memory: close other programs, or measure smaller sizes "
            f"(--quick){f':{chr(10)}{said}' if said else ''}"
        )
    return f"{name} failed with status {status}:\n{said}"


@contextmanager
def _inside(
    name: str, function: str, arguments: Mapping[str, Any], threads: int
) -> Iterator[tuple[Callable, Callable]]:
    side = Side(function, arguments)
    told: list[dict[str, float]] = [{}]
    yield lambda: told.append(side.run()), lambda: told.pop()


class Side:
    """A case that is built and can be run; memory is that of this process, which it should have for itself."""

    def __init__(self, function: str, arguments: Mapping[str, Any]) -> None:
        module, _, name = function.partition(":")
        self.repetition = getattr(importlib.import_module(module), name)(**arguments)
        give_back()
        self.start = resident_mb()

    def run(self) -> dict[str, float]:
        give_back()
        forget_peak()
        begin = time.perf_counter()
        found = self.repetition() or {}
        found.setdefault("seconds", time.perf_counter() - begin)
        found.setdefault("MB", peak_mb() - self.start)
        return found


def main() -> None:
    """The process of one side: a job on the first line, then one repetition for each further line."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    job = json.loads(sys.stdin.readline())
    side = Side(job["function"], job["arguments"])
    print("{}", file=replies, flush=True)
    while sys.stdin.readline():
        print(json.dumps(side.run()), file=replies, flush=True)


if __name__ == "__main__":
    main()

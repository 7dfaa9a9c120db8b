"""All measurements, or some: `python -m benchmarks [PART ...] [--quick]`.

Parts, and what the full form of each takes on 2 quiet cores, in minutes:
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.records import Figure, machine, make_folder
from benchmarks.settings import FULL, MODELS, QUICK, Settings

PARTS = {"training": 38, "inference": 11, "data": 4, "evaluation": 4, "growth": 20, "convolutions": 5, "gpu": 0}


def figures_of(part: str) -> Callable[[Settings, Callable[[str], None]], Iterator[Figure]]:
    """What measures a part: imported when it is asked for, since all of them take ten seconds."""
    return importlib.import_module(f"benchmarks.{part}").figures


def measure(parts: Sequence[str], settings: Settings, output: Path) -> list[Figure]:
    """The figures in `output`: of these parts, measured now, and of others, from earlier calls of the same kind.

    Every figure is written when it is there, so that a stop loses one measurement.

    Raises:
        SystemExit: the folder cannot be written, or holds figures of another machine or of other settings; there is
            nothing to measure here; Ctrl-C.
    """
    from benchmarks import report

    make_folder(output, "--output")
    here, begin = machine(settings.threads), time.monotonic()
    try:
        earlier = report.kept(output, here, asdict(settings))
    except ValueError as error:
        sys.exit(f"python -m benchmarks: {error}")
    figures: list[Figure] = []

    def tell(text: str) -> None:
        print(f"{(time.monotonic() - begin) / 60:6.1f} min  {part}: {text}", file=sys.stderr, flush=True)

    try:
        for part in parts:
            for figure in figures_of(part)(settings, tell):
                figures.append(replace(figure, time=time.strftime("%Y-%m-%d %H:%M"), commit=here["commit"] or ""))
                earlier = [f for f in earlier if (f.part, f.name, f.unit) != (figure.part, figure.name, figure.unit)]
                report.write(output, [*earlier, *figures], here, asdict(settings))
            earlier = [f for f in earlier if f.part != part]  # what this part no longer has
    except KeyboardInterrupt:
        report.draw(output, [*earlier, *figures], here)
        left = " ".join(parts[parts.index(part) :])
        print(
            f"\nstopped; what was measured is in {output}: for the rest say {left} and the same options",
            file=sys.stderr,
        )
        sys.exit(128 + signal.SIGINT)
    figures = [*earlier, *figures]
    if not figures:
        sys.exit(f"python -m benchmarks: nothing to measure here for {' '.join(parts)}, as said above")
    report.write(output, figures, here, asdict(settings))
    report.draw(output, figures, here)
    print(report.table(figures, here))
    print(f"\n{output}: benchmarks.json, benchmarks.txt, benchmarks.png")
    return figures


def arguments(words: Sequence[str] | None = None) -> tuple[list[str], Settings, Path]:
    """Parts, settings and output folder from the command line."""
    minutes = "\n".join(f"  {name:12} {expected:3}" for name, expected in PARTS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=f"{__doc__}{minutes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes, without targets: 17 minutes in all")
    parser.add_argument("--repeats", type=int, help="repetitions of everything")
    parser.add_argument("--threads", type=int, help="of each process; default: one a core")
    parser.add_argument(
        "--whole", choices=MODELS, action="append", help="of whole networks, measure this model's only; may be repeated"
    )
    parser.add_argument("--output", type=Path, help="by default runs/benchmarks, or runs/benchmarks-quick")
    given = parser.parse_args(words)
    if unknown := [part for part in given.parts if part not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}: there are {', '.join(PARTS)}")
    settings = QUICK if given.quick else FULL
    changes = {key: getattr(given, key) for key in ("repeats", "threads") if getattr(given, key) is not None}
    if any(value < 1 for value in changes.values()):
        parser.error("--repeats and --threads are 1 or more")
    if given.whole:
        changes["whole"] = tuple(given.whole)
    output = given.output or Path("runs/benchmarks-quick" if given.quick else "runs/benchmarks")
    return list(dict.fromkeys(given.parts or PARTS)), replace(settings, **changes), output


def main() -> None:
    measure(*arguments())


if __name__ == "__main__":
    main()

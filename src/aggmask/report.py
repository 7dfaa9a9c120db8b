"""Report: `python -m aggmask.report DIR [baseline=NAME] [output=DIR] [key=value ...]`."""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

from aggmask.assembly.checking import suggest
from aggmask.assembly.command import run_command
from aggmask.errors import UserError
from aggmask.files import make_folder, write_whole

_DEFAULTS = {"baseline": None, "output": None, "pictures": 6, "resamples": 1000, "root": None, "split": "val"}
_HELP = """keys:
  baseline=NAME   what the others are compared with: a variant's name (or a part of it), one of its settings or one of
                  its jobs; by default the variant of the first job
  output=DIR      folder for report.html, table.md and table.tex; by default the sweep's
  pictures=6      validation images to show
  resamples=1000  of the bootstrap over images
  split=val       or another one on which all runs were evaluated since: python -m aggmask.evaluate split=test
  root=DIR        where the validation data is now, in COCO layout or under the names that the runs gave; by default
                  where the runs had it
"""


def report(
    folder: str | Path,
    baseline: str | None = None,
    output: str | Path | None = None,
    pictures: int = 6,
    resamples: int = 1000,
    root: str | None = None,
    split: str = "val",
) -> Path:
    """A sweep as one page: writes `report.html`, and its table as `table.md` and `table.tex`.

    Args:
        folder: of the sweep.
        baseline, resamples, root, split: see `reporting.summary.summarize`.
        output: folder for the files; None: the sweep's.
        pictures: validation images to show.

    Returns:
        The page's file.

    Raises:
        UserError: see `reporting.summary.summarize`; nothing can be written to `output`.
    """
    from aggmask.reporting.page import TABLES, render
    from aggmask.reporting.summary import summarize
    from aggmask.reporting.tables import as_latex, as_markdown

    place = make_folder(output, "output") if output else Path(folder).expanduser()
    summary = summarize(folder, baseline, resamples, root, split)
    texts = (render(summary, pictures), as_markdown(summary), as_latex(summary))
    for name, text in zip(("report.html", *TABLES), texts, strict=True):
        write_whole(place / name, lambda file, text=text: file.write(text.encode()))
    print(texts[1])
    return place / "report.html"


def settings_of(arguments: list[str]) -> dict[str, str | int | None]:
    """`key=value` arguments with the defaults of what is not said.

    Raises:
        UserError: an unknown key, or a value that it cannot have.
    """
    settings = dict(_DEFAULTS)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in _DEFAULTS or not equals:
            raise UserError(f"{argument}: there is no such key{suggest(key, _DEFAULTS)}")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":  # which Hydra's commands would take off
            value = value[1:-1]
        settings[key] = _count(key, value) if isinstance(_DEFAULTS[key], int) else value
    return settings


def _count(key: str, value: str) -> int:
    least = {"resamples": 1, "pictures": 0}[key]
    if not value.isdecimal() or int(value) < least:
        raise UserError(f"{key}={value}: must be a whole number, at least {least}")
    return int(value)


def _command(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m aggmask.report",
        description="One page that tells what came of a sweep: needs no server, and prints.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="DIR", help="of the sweep: run folders, at any depth")
    parser.add_argument("settings", metavar="key=value", nargs="*", default=[], help="see below")
    given = parser.parse_args(arguments)
    settings = settings_of(given.settings)
    for name in filter(None, (given.folder, settings["root"])):  # before the seconds that imports take
        if not Path(name).expanduser().is_dir():
            raise UserError(f"{name}: {'that is a file, not' if Path(name).exists() else 'there is no such'} folder")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    print(f"page: {report(given.folder, **settings)}")


def main() -> None:
    """Entry point of `python -m aggmask.report` and `aggmask-report`."""
    run_command(partial(_command, sys.argv[1:]))  # as typed: nothing here is read by Hydra


if __name__ == "__main__":
    main()

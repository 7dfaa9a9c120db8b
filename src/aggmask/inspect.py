"""Inspect: `python -m aggmask.inspect checkpoint=FILE image=FILE [output=FILE.html] [figure=FILE.png]`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aggmask.assembly.checking import check_score
from aggmask.assembly.command import hydra_task, run_command
from aggmask.assembly.config import plain, register_resolvers
from aggmask.checkpoints.run_folder import checkpoint_file
from aggmask.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from aggmask.inspection.trace import Inspection

register_resolvers()

_DPI = 100  # of the figure


def inspect(config: Mapping[str, Any]) -> Inspection:
    """How a checkpoint came to what it finds in a picture: a page, and a figure of one candidate.

    Args:
        config: plain content of `conf/inspect.yaml`.

    Raises:
        UserError: checkpoint or picture cannot be read, a file cannot be written, or there is no such candidate.
    """
    checkpoint_file(config["checkpoint"])
    from aggmask.assembly.build import load
    from aggmask.drawing.page import write_page
    from aggmask.inspection.page import render
    from aggmask.inspection.trace import inspect as look

    _check(config)
    model = load(config["checkpoint"], config["device"], config["short_side"], config["long_side"])
    inspection = look(model, config["image"], config["score_threshold"])
    candidates = inspection.candidates
    print(
        f"{len(candidates.shown)} objects, {sum(candidates.counts.values()) - len(candidates.shown)} other candidates"
    )
    if config["output"] is not None:
        title = f"{Path(config['image']).name}, as {Path(config['checkpoint']).name} sees it"
        text = render(inspection, title, config["max_objects"], config["max_removed"])
        print(f"page: {write_page(text, config['output'], 'output')}")
    if config["figure"] is not None:
        print(f"figure: {_write_figure(inspection, config)}")
    return inspection


def _check(config: Mapping[str, Any]) -> None:
    """Whatever can be said before anything is loaded."""
    from matplotlib.figure import Figure

    for key in ("max_objects", "max_removed"):
        if not isinstance(config[key], int) or config[key] < 0:
            raise UserError(f"{key}={config[key]}: must be a whole number, 0 or more")
    check_score(config["score_threshold"])
    if config["object"] is not None and config["figure"] is None:
        raise UserError(f"object={config['object']}: is for the figure; say figure=FILE.png too")
    formats = Figure().canvas.get_supported_filetypes()
    if config["figure"] is not None and Path(config["figure"]).suffix.lower()[1:] not in formats:
        raise UserError(f"figure={config['figure']}: must end in .png, .pdf, .svg or another of {', '.join(formats)}")


def _write_figure(inspection: Inspection, config: Mapping[str, Any]) -> Path:
    from aggmask.inspection.figure import figure_of
    from aggmask.inspection.words import why_no_object

    candidates, chosen = inspection.candidates, config["object"]
    count = len(candidates.fates)
    if not count:
        raise UserError(f"figure={config['figure']}: there is no candidate to draw: {why_no_object(candidates)}")
    if chosen is None and not candidates.shown:
        raise UserError(
            f"figure={config['figure']}: no object to draw: {why_no_object(candidates)}; object=NUMBER draws any "
            f"candidate, object={candidates.removed[0] + 1} the best one"
        )
    if chosen is not None and (not isinstance(chosen, int) or not 1 <= chosen <= count):
        raise UserError(f"object={chosen}: must be the number of a candidate, from 1 to {count}")
    number = candidates.shown[0] if chosen is None else chosen - 1
    place = Path(config["figure"]).expanduser()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        figure_of(inspection, inspection.trace(number)).savefig(place, dpi=_DPI)
    except OSError as error:
        raise UserError(f"figure={place}: cannot be written: {error.strerror or error}") from error
    return place


@hydra_task("inspect")
def _main(cfg: DictConfig) -> None:
    inspect(plain(cfg))


def main() -> None:
    """Entry point of `python -m aggmask.inspect` and `aggmask-inspect`."""
    run_command(_main)


if __name__ == "__main__":
    main()

"""What `resume=` stands for: nothing, a file, or whatever the run's folder has."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from aggmask.callbacks.agreement import differences
from aggmask.checkpoints.reading import read_file
from aggmask.checkpoints.run_folder import came_to_its_end, checkpoints_of, newest, refuse_another
from aggmask.data.processors import queued_again
from aggmask.errors import UserError
from aggmask.structures import Category

log = logging.getLogger(__name__)
AUTO = "auto"
_SHOWN = 10  # differing categories that are named
_KEPT = ("model", "optim")  # what a run goes on with as it began
# Keys of these that change no number that is kept: where weights came from, how they are computed.
_FREE = ("model.backbone.pretrained", "model.backbone.weights", "model.backbone.grad_checkpointing", "model.compile")


def checkpoint_of(config: Mapping[str, Any], categories: Callable[[], Sequence[Category]]) -> str | None:
    """The file that a run goes on from; says which it is.

    Args:
        config: plain: `resume`, `output_dir`, `trainer`, `callbacks`.
        categories: those of the training data; asked for only where there is a checkpoint.

    Raises:
        UserError: it cannot be read, or belongs to a run of another model or optimizer or of other categories, or
            to one that averages its weights, as this one does not; the folder's checkpoints would be replaced.
    """
    resume, folder = config["resume"], config["output_dir"]
    if queued_again() and (resume is None or checkpoints_of(folder)):
        resume = AUTO  # `resume=FILE` is what the first start began with
    if resume is None or (resume != AUTO and Path(resume).expanduser().resolve().parent != Path(folder).resolve()):
        refuse_another(folder)
    if resume is None:
        return None
    if resume != AUTO:
        content = read_file(resume, key="resume")
        _compare(content, config, f"resume={resume}")
        _compare_categories(content, categories(), f"resume={resume}")
        return str(resume)
    found = newest(folder)
    if found is None:
        log.info("resume=auto: no checkpoint in %s: begins at the beginning", folder)
        return None
    path, content = found
    _compare(content, config, str(path))
    _compare_categories(content, categories(), str(path))
    if came_to_its_end(content, config["trainer"]):
        log.info("resume=auto: already finished at step %d: %s", content["global_step"], path)
    else:
        log.info("resume=auto: goes on after step %d: %s", content["global_step"], path)
    return str(path)


def _compare(content: Any, config: Mapping[str, Any], where: str) -> None:
    if not isinstance(content, Mapping) or "loops" not in content:
        raise UserError(f"{where}: holds no state of a training; model weights alone cannot be gone on from")
    began = content.get("hyper_parameters", {})
    changed = [
        f"\n  {key}: {old!r} in the checkpoint, {new!r} now"
        for part in _KEPT
        if part in began
        for key, old, new in differences(began[part], config[part], part)
        if key not in _FREE
    ]
    if changed:
        raise UserError(
            f"{where}: a run goes on with the model and the optimizer that it began with:{''.join(changed)}\nGive it "
            "the same words as before, or begin another run: output_dir=DIR without resume"
        )
    averaged, averages = "averaging_state" in content, bool(config["callbacks"].get("ema"))
    if averaged and not averages:
        raise UserError(
            f"{where}: keeps an average of the weights, and this run has none: say callbacks=ema as before; with "
            "callbacks.ema.decay=0 the average is the trained weights themselves"
        )
    if averages and not averaged:
        log.warning("%s: keeps no average of the weights: callbacks=ema begins one with those trained so far", where)


def _compare_categories(content: Mapping[str, Any], categories: Sequence[Category], where: str) -> None:
    """Names in the order of labels: what a file calls them by number changes nothing that was learned."""
    began = content.get("hyper_parameters", {}).get("categories")
    if began is None:
        return
    pairs = enumerate(zip_longest((name for _, name in began), (category.name for category in categories)))
    changed = [
        f"\n  label {label}: {_said(old)} in the checkpoint, {_said(new)} now"
        for label, (old, new) in pairs
        if old != new
    ]
    if changed:
        more = [f"\n  and {len(changed) - _SHOWN} more"] if len(changed) > _SHOWN else []
        raise UserError(
            f"{where}: a run goes on with the {len(began)} categories that it began with, and the training annotations "
            f"have {len(categories)}. What differs:{''.join([*changed[:_SHOWN], *more])}\nGive it the annotations "
            "of before (labels follow the order of ids), or begin another run: output_dir=DIR without resume"
        )


def _said(name: str | None) -> str:
    return "none" if name is None else repr(name)

"""Evaluate: `python -m aggmask.evaluate checkpoint=FILE [data.root=DIR] [key=value ...]`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aggmask.assembly.command import hydra_task, run_command
from aggmask.assembly.config import plain, register_resolvers
from aggmask.checkpoints.run_folder import checkpoint_file
from aggmask.errors import UserError
from aggmask.files import make_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from aggmask.lit_module import SegmentationModule
    from aggmask.metrics.evaluators import CategoryScore

register_resolvers()
log = logging.getLogger(__name__)


def evaluate(config: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's twelve COCO numbers and AP per category on validation data; writes `results.json`.

    The detections are written even where they cannot be scored.

    Args:
        config: plain content of `conf/evaluate.yaml`. What its `data`, `decoder` and `metric` say is laid over what
            the checkpoint says; another `data.root` than the checkpoint's is taken as it is there.
    """
    checkpoint_file(config["checkpoint"])
    from aggmask.assembly.build import build, build_trainer, load_module

    overrides = {part: config[part] for part in ("data", "decoder", "metric")}
    if "root" in config["data"]:  # someone's own data set: nothing is drawn into it, no place is remembered
        overrides["data"] = {"prepare": None, "train": {}, "val": {}} | config["data"]
    module = load_module(config["checkpoint"], overrides)
    data = build(_of_split(module.hparams["data"], config["split"], config["data"].get("val") or {}))
    trainer = build_trainer(config["trainer"], logger=False, enable_checkpointing=False)
    name = "evaluation" if config["split"] == "val" else config["split"]
    folder = make_folder(config["output"] or Path(config["checkpoint"]).expanduser().parent / name, "output")
    try:
        trainer.validate(module, datamodule=data, verbose=False)
    except BaseException:
        try:
            _write(module, folder)
        except (UserError, OSError) as fault:  # a full disk must not hide why there are no numbers
            log.error("The detections are not kept: %s", fault)
        raise
    _write(module, folder)
    numbers = {name: float(value) for name, value in module.metric.compute().items()}  # what is logged is float32
    per_category = list(module.metric.per_category().values())
    if trainer.is_global_zero:
        print(report(numbers, per_category))
    return {"numbers": numbers, "per_category": per_category, "trainer": trainer, "module": module}


def _write(module: SegmentationModule, folder: Path) -> None:
    """The detections of all processes, once they have been brought together."""
    if module.metric is not None and module.metric.gathered:
        module.metric.write_results(folder / "results.json")
        if module.trainer.is_global_zero:
            print(f"detections: {folder / 'results.json'}")


def _of_split(data: Mapping[str, Any], split: str, named: Mapping[str, Any]) -> dict[str, Any]:
    """The data node with another split in the place of val: places that are `named`, others as usual in the root."""
    from aggmask.data.places import Split

    if split == "val":
        return dict(data)
    usual = Split.of(split, None, Path(data["root"]) if data.get("root") else None)
    places = {"annotations": usual.annotations, "images": usual.images, **named}
    if None in places.values():
        raise UserError(f"split={split} lies in data.root, which is not given; say data.val.annotations and .images")
    return {**data, "val": places}


def report(numbers: Mapping[str, float], per_category: Sequence[CategoryScore]) -> str:
    """The numbers as a person reads them; -1, which COCO gives where there is nothing to find, is a dash."""
    lines = [f"{name:>6}  {_shown(value)}" for name, value in numbers.items()]
    width = max([len(score.name) for score in per_category] + [8])
    if numbers["AP"] < 0:
        lines.append("There is no AP: the annotation file has no object that counts in the images evaluated.")
    lines += ["", f"{'category':<{width}}      AP    AP50"]
    lines += [f"{score.name:<{width}}  {_shown(score.ap)}  {_shown(score.ap50)}" for score in per_category]
    return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:6.4f}" if value >= 0 else "     -"


@hydra_task("evaluate")
def _main(cfg: DictConfig) -> None:
    evaluate(plain(cfg))


def main() -> None:
    """Entry point of `python -m aggmask.evaluate` and `aggmask-evaluate`."""
    run_command(_main, open_nodes=("data", "decoder", "metric"))


if __name__ == "__main__":
    main()

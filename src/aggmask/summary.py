"""Summary: `python -m aggmask.summary experiment=NAME [beside=NAME]`: what a model needs, before it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aggmask.assembly.checking import suggest
from aggmask.assembly.command import hydra_task, run_command
from aggmask.assembly.config import experiments, plain, register_resolvers
from aggmask.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from aggmask.accounting.table import Summary

register_resolvers()


def summarize(config: Mapping[str, Any], name: str) -> Summary:
    """Counts and forecast of one configuration; nothing is computed and nothing downloaded.

    Args:
        config: plain content of `conf/summary.yaml`.
        name: of the model, for the table.

    Raises:
        UserError: a size, a batch or a number of cells that makes no sense.
    """
    import torch

    from aggmask.accounting.flops import count
    from aggmask.accounting.memory import forecast
    from aggmask.accounting.table import Summary
    from aggmask.assembly.build import build
    from aggmask.assembly.memory_check import states_of

    size = _checked(config)
    model = {**config["model"], "backbone": {**config["model"]["backbone"], "pretrained": False, "weights": None}}
    with torch.device("meta"):
        segmenter = build({**model, "compile": None}, num_classes=config["classes"])
    levels = len(segmenter.head.levels)
    training, candidates = ([config["cells"][use] / levels] * levels for use in ("training", "inference"))
    kept = states_of(build(config["optim"]["optimizer"])(segmenter.parameters(), lr=1.0))
    gpu = torch.device("cuda")  # which trains such models
    memory = forecast(segmenter, size, config["batch"], training, candidates, kept, build(config["decoder"]), gpu)
    return Summary(name, count(segmenter, size), memory, training, candidates)


def _checked(config: Mapping[str, Any]) -> tuple[int, int]:
    """The network's input size, rounded up to what the network takes."""
    from aggmask.geometry.frame import CANVAS_MULTIPLE, pad_to_multiple

    size = config["size"]
    if not isinstance(size, list) or len(size) != 2 or any(not isinstance(s, int) or s < 1 for s in size):
        raise UserError(f"size={size}: say height and width of the network's input in pixels, as size=[800,1344]")
    for key, value in (("batch", config["batch"]), ("classes", config["classes"])):
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{key}={value}: must be 1 or more")
    for use, cells in config["cells"].items():
        if use not in ("training", "inference") or not isinstance(cells, int) or cells < 0:
            raise UserError(f"cells.{use}={cells}: cells.training and cells.inference are 0 or more")
    return pad_to_multiple(tuple(size), CANVAS_MULTIPLE)


def _beside(cfg: DictConfig) -> DictConfig:
    """The same command with the other experiment."""
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig

    if cfg.beside not in experiments():
        raise UserError(f"beside={cfg.beside}: there is no such experiment{suggest(cfg.beside, experiments())}")
    others = [o for o in HydraConfig.get().overrides.task if not o.startswith(("experiment=", "beside="))]
    return compose("summary", overrides=[f"experiment={cfg.beside}", *others])


@hydra_task("summary")
def _main(cfg: DictConfig) -> None:
    from aggmask.accounting.table import render

    if cfg.name is None:
        raise UserError(f"say which model: experiment=NAME with one of {', '.join(experiments())}")
    summaries = [summarize(plain(cfg), str(cfg.name))]
    if cfg.beside is not None:
        summaries.append(summarize(plain(_beside(cfg)), cfg.beside))
    size = _checked(plain(cfg))
    print(
        f"{size[0]} x {size[1]} pixels, {cfg.batch} images, {cfg.cells.training} positive cells and "
        f"{cfg.cells.inference} candidate cells an image. One multiply-add is 2 operations; parameters in millions.\n"
        "dense: the published formulation, all cells; training, inference: a forward pass that computes asked cells.\n"
    )
    print(render(summaries))


def main() -> None:
    """Entry point of `python -m aggmask.summary` and `aggmask-summary`."""
    run_command(_main)


if __name__ == "__main__":
    main()

"""What a training step of each variant of a study takes: some steps of each in turn, in a process of its own.

Logs do not tell it: those of trainings that ran beside each other, and beside whatever else the machine did meanwhile,
have been wrong by half. Steps are as `train/step_seconds` counts them: forward, backward and update, without the wait
for data, on one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch

from aggmask.assembly.build import build, build_module, make_recipe
from benchmarks.children import fresh_processes
from benchmarks.harness import Case, interleaved

ROUNDS, STEPS = 9, 4


def step_seconds(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[float]]:
    """Name -> seconds per step, one number a round.

    Args:
        configs: of trainings, plain and resolved.
    """
    with fresh_processes(1) as pool:
        return pool.submit(in_turn, dict(configs)).result()


def in_turn(
    configs: Mapping[str, Mapping[str, Any]], rounds: int = ROUNDS, steps: int = STEPS
) -> dict[str, list[float]]:
    """The same in this process."""
    cases = {
        name: Case("benchmarks.step_times:some_steps", {"config": config, "steps": steps})
        for name, config in configs.items()
    }
    found = interleaved(cases, rounds, threads=1, separate=False)
    return {name: [seconds / steps for seconds in measured["seconds"]] for name, measured in found.items()}


def some_steps(config: Mapping[str, Any], steps: int) -> Callable[[], None]:
    """Case: steps on the first training batches, the same ones each time, from random weights."""
    torch.set_num_threads(1)
    config = deepcopy(dict(config))
    config["model"]["backbone"].update(pretrained=False, weights=None)
    data = build(config["data"])
    module = build_module(make_recipe(config, data.categories)).train()
    batches = [batch for batch, _ in zip(data.train_dataloader(), range(steps), strict=False)]
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    optimizer = module.optim_recipe.configure(trained, config["trainer"]["max_steps"], len(batches[0]))["optimizer"]

    def run() -> None:
        for number in range(steps):
            optimizer.zero_grad()
            sum(module.losses(batches[number % len(batches)]).values()).backward()
            optimizer.step()

    return run

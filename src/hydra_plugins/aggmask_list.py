"""`hydra/sweeper=list`: jobs that are no grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ListSweeper(Sweeper):
    """Every job of a list, with every combination of what the command line says.

    Args:
        jobs: the overrides of each job; `[[model.aggregation.window=1], [model/aggregation=none, seed=3]]`.
    """

    def __init__(self, jobs: Sequence[Sequence[str]]) -> None:
        self.jobs = [list(job) for job in jobs]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader = hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: Sequence[str]) -> Any:
        given = OverridesParser.create(config_loader=self.loader).parse_overrides(list(arguments))
        choices = [
            [f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()]
            if each.is_sweep_override()
            else [each.input_line]
            for each in given
        ]
        # A seed changes slowest, so that an interrupted sweep has whole rows of variants.
        jobs = [[*said, *job] for said in product(*choices) for job in self.jobs]
        return self.launcher.launch(jobs, initial_job_idx=0)

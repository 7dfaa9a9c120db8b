"""The networks that are measured, from the experiments' own configurations, and what goes into them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from aggmask.assembly.build import build
from aggmask.model import winograd
from aggmask.model.aggregation import banded
from aggmask.model.head import Head
from aggmask.model.segmenter import Segmenter
from aggmask.structures import Cells, GridLevel, LevelOutput
from benchmarks.stopwatch import UNCOUNTED, Stopwatch
from benchmarks.variants import composed
from tests.small import make_pyramid

CLASSES = 80


def make_segmenter(experiment: str, overrides: Sequence[str] = (), grid_factor: float = 1.0) -> Segmenter:
    """The network of `conf/experiment/`, with random weights.

    Args:
        grid_factor: of the category grids (and of the mask grids, which follow them).
    """
    model = deepcopy(_configuration(experiment, tuple(overrides)))
    model["backbone"].update(pretrained=False, weights=None)
    model["levels"] = [{**row, "grid": max(1, round(row["grid"] * grid_factor))} for row in model["levels"]]
    torch.manual_seed(0)
    return build(model, num_classes=CLASSES)


@cache
def _configuration(experiment: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    return composed("summary", f"experiment={experiment}", "name=benchmark", "output_dir=.", *overrides)["model"]


def torch_convolutions(asked: bool = True) -> ExitStack:
    """Neither Winograd nor bands of rows inside the `with` statement."""
    never = {"pays": lambda *_: False}
    stack = ExitStack()
    for module in (winograd, banded) if asked else ():
        stack.enter_context(patch.multiple(module, **never))
    return stack


def pyramid_for(head: Head, size: tuple[int, int], batch: int) -> list[Tensor]:
    """P2 and so on, as many maps as the head reads, with gradients."""
    channels = head.category.tower[0].conv.in_channels
    return make_pyramid(batch, size, channels)[: head.pyramid_maps]


class TimedField:
    """A mask field whose time goes to the stage "aggregation"."""

    def __init__(self, field: Any, watch: Stopwatch) -> None:
        self._field, self._watch = field, watch

    def at(self, cells: Cells) -> Tensor:
        with self._watch.stage("aggregation"):
            return self._field.at(cells)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._field, name)


class Shapes:
    """Candidates and masks for a network that was never trained and would find nothing.

    The wanted number of cells, spread over the levels by their number of cells, gets one category each above the
    score threshold. Their masks are computed as they are, and then overwritten with ellipses around the cell, as
    large as the level's objects; overwriting is not counted.
    """

    def __init__(
        self, levels: Sequence[GridLevel], candidates: int, size: tuple[int, int], device: str = "cpu"
    ) -> None:
        self.levels, self.size = levels, size
        counts = torch.tensor([level.grid**2 for level in levels]).double()
        shares = (counts * candidates / counts.sum()).floor().long()
        for i in range(int(candidates - shares.sum())):
            shares[i % len(levels)] += 1
        generator = torch.Generator().manual_seed(0)
        shares = zip(levels, shares.tolist(), strict=True)
        self.logits = [self._logits(level.grid, share, generator).to(device) for level, share in shares]

    def _logits(self, grid: int, count: int, generator: torch.Generator) -> Tensor:
        logits = torch.full((1, CLASSES, grid, grid), -9.0)
        cells = torch.randperm(grid**2, generator=generator)[:count]
        rows, columns = cells // grid, cells % grid
        labels = (7 * rows + 3 * columns) % CLASSES  # never that of a neighbor, which could be the higher peak
        logits[0, labels, rows, columns] = 4 * torch.rand(len(cells), generator=generator) - 1.5
        return logits

    def draw(self, number: int, cells: Sequence[int], masks: Tensor) -> None:
        """Overwrite (k, H, W) mask logits of cells of level `number`."""
        level, (height, width) = self.levels[number], masks.shape[-2:]
        scale = self.size[0] / height
        radius = max(2.0, min(0.7 * level.min_size + 24, 0.4 * min(self.size)) / 2 / scale)
        y, x = torch.arange(height)[:, None].float(), torch.arange(width)[None].float()
        for mask, cell in zip(masks, cells, strict=True):
            row, column = (cell // level.grid + 0.5) / level.grid, (cell % level.grid + 0.5) / level.grid
            mask.copy_(6 - 6 * (((y - row * height) / radius).square() + ((x - column * width) / radius).square()))

    def on(self, outputs: Sequence[LevelOutput], watch: Stopwatch) -> list[LevelOutput]:
        """The head's outputs with these candidates and masks."""
        return [
            replace(output, logits=self.logits[i], field=DrawnField(output.field, watch, self, i))
            for i, output in enumerate(outputs)
        ]


class DrawnField(TimedField):
    """A mask field whose answers are overwritten by `Shapes`."""

    def __init__(self, field: Any, watch: Stopwatch, shapes: Shapes, number: int) -> None:
        super().__init__(field, watch)
        self._shapes, self._number = shapes, number

    def at(self, cells: Cells) -> Tensor:
        masks = super().at(cells)
        with self._watch.stage(UNCOUNTED):
            self._shapes.draw(self._number, cells.index.tolist(), masks)
        return masks

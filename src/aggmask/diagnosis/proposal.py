"""Grids, scale ranges and input size that suit a data set.

Source: ours; the published values follow the same lines. Input: 95 of 100 objects are at least 16 pixels wide, four
cells of the finest masks. Scale ranges: neighbors overlap so that nearly every object belongs to two levels, each level
gets as many objects, and coarse strides only what is large enough for them. Grids: cells of a quarter of the level's
usual object, and finer ones where objects overwrite each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aggmask.data.index import AnnotationIndex
from aggmask.data.transforms import Resize
from aggmask.diagnosis.coverage import Coverage, Population, cover
from aggmask.geometry.frame import CANVAS_MULTIPLE
from aggmask.geometry.grid import make_levels
from aggmask.supervision.assign import Assigner

_SMALLEST, _SMALL_SHARE = 16, 0.05  # pixels of the network's input; share of objects that may be smaller
_LARGEST_INPUT, _DETAILED_INPUT = 1024, 384
_NEAR = 1.25  # a size that is no more than this off is left as it is
_GRIDS = (12, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64)
_CELLS_AN_OBJECT, _PLENTY = 4, 40  # a cell is a quarter of the usual object, but no level needs more than 40 for that
_OVERWRITTEN = 0.01  # share of a level's objects that may lose all their cells of it
_STRIDES = ((32, 192), (16, 96), (8, 0))  # and the smallest objects for them, as published
_ANY_SIZE = 4096


@dataclass(frozen=True)
class Proposal:
    """A configuration for a data set; no sides: the experiment's are right."""

    short_side: int | None
    long_side: int | None
    levels: list[dict[str, Any]]  # rows of `model.levels`

    def _sides(self) -> dict[str, Any]:
        if self.short_side is None:
            return {}
        return {"short_side": self.short_side, "evaluation_short_side": "null", "long_side": self.long_side}

    def words(self) -> list[str]:
        """For the command line."""
        rows = ",".join("{" + ",".join(f"{key}:{value}" for key, value in row.items()) + "}" for row in self.levels)
        sides = [f"data.{key}={value}" for key, value in self._sides().items()]
        return [*sides, f"'model.levels=[{rows}]'"]

    def yaml(self, experiment: str | None) -> str:
        """An experiment of its own, for `conf/experiment/`, on top of another one."""
        rows = ["{" + ", ".join(f"{key}: {value}" for key, value in row.items()) + "}" for row in self.levels]
        sides = self._sides()
        return "\n".join(
            [
                "# @package _global_",
                *([f"defaults: [{experiment}]"] if experiment else []),
                *(["data: {" + ", ".join(f"{key}: {value}" for key, value in sides.items()) + "}"] if sides else []),
                "model:",
                "  levels:",
                *(f"    - {row}" for row in rows),
            ]
        )


def input_size(index: AnnotationIndex, images: np.ndarray, now: Resize) -> Resize:
    """What the network should see of these images (places in the index); `now` where that is about right."""
    relative, shorts, aspects = [], [], []
    for i in images.tolist():
        annotations = index.annotations(i)
        short, long = sorted(index.sizes[i].tolist())
        boxes = annotations.boxes[~annotations.crowd]
        relative.append(np.sqrt(np.prod(np.clip(boxes[:, 2:], 0, None), axis=1)) / short)
        shorts.append(short)
        aspects.append(long / short)
    relative = np.concatenate([np.zeros(0), *relative])
    relative = relative[relative > 0]
    if not len(relative):
        return now
    wanted = _SMALLEST / np.quantile(relative, _SMALL_SHARE)
    usual = float(np.median(shorts))
    least = min(_DETAILED_INPUT, usual)  # large objects need some detail, too
    most = min(_LARGEST_INPUT, 2 * usual)  # more only enlarges what is blurred already
    short = _rounded(min(max(wanted, least), most))
    if short / _NEAR <= max(now.short_sides) <= short * _NEAR:
        return now
    return Resize((short,), _rounded(short * min(float(np.quantile(aspects, 0.95)), 2.5)))


def _rounded(pixels: float) -> int:
    return max(1, round(pixels / CANVAS_MULTIPLE)) * CANVAS_MULTIPLE


def propose(population: Population, resize: Resize, assigner: Assigner, now: Resize) -> tuple[Proposal, Coverage]:
    """Levels for objects as they are at the size of `resize`, and what these levels do with them.

    Args:
        now: the experiment's size, of which nothing is said where it is the same.
    """
    rows = _ranges(_object_sizes(population))
    short = max(resize.short_sides)
    for row in rows:
        row["grid"] = _grid(population, row, assigner, short)
    rows = [{key: row[key] for key in ("stride", "grid", "min_size", "max_size")} for row in rows]
    sides = (None, None) if resize == now else (short, resize.long_side)
    return Proposal(*sides, rows), cover(population, make_levels(rows), assigner)


def _object_sizes(population: Population) -> np.ndarray:
    """(m,) sqrt(w * h) of boxes, network pixels."""
    sides = (population.objects.boxes[:, 2:] - population.objects.boxes[:, :2]).clamp(min=1)
    return torch.sqrt(sides.prod(1)).numpy()


def _ranges(sizes: np.ndarray) -> list[dict[str, Any]]:
    """Scale ranges of as many levels, up to five, as the sizes fill: level k holds quantiles k to k + 2 of them."""
    sizes = sizes if len(sizes) else np.ones(1)
    for count in range(5, 0, -1):
        edges = np.quantile(sizes, np.linspace(0, 1, count + 2)).round().clip(1)
        if count == 1 or (edges[2] >= 1.5 * edges[1] and (edges[3:-1] >= 2 * edges[1:-3]).all()):
            break
    lows, highs = [1, *edges[1:count].astype(int).tolist()], [*edges[2:-1].astype(int).tolist(), _ANY_SIZE]
    strides = [next(stride for stride, smallest in _STRIDES if low >= smallest) for low in lows]
    return [
        {"stride": stride, "min_size": low, "max_size": high}
        for stride, low, high in zip(strides, lows, highs, strict=True)
    ]


def _grid(population: Population, row: Mapping[str, Any], assigner: Assigner, short_side: int) -> int:
    """The smallest grid of a level that tells its objects apart."""
    sizes = _object_sizes(population)
    held = sizes[(sizes >= row["min_size"]) & (sizes <= row["max_size"])]
    usual = float(np.median(held)) if len(held) else row["min_size"]
    least = min(_PLENTY, _CELLS_AN_OBJECT * short_side / usual)
    most = max(_GRIDS[0], 2 * short_side // row["stride"])  # finer than two cells a feature tells nothing apart
    grids = [grid for grid in _GRIDS if grid <= most]
    grids = [grid for grid in grids if grid >= least] or grids[-1:]

    def overwritten(grid: int) -> float:
        return cover(population, make_levels([{**row, "grid": grid}]), assigner).overwritten_at(0)

    bearable = max(_OVERWRITTEN, 1.1 * overwritten(grids[-1]))
    return next(grid for grid in grids if overwritten(grid) <= bearable)

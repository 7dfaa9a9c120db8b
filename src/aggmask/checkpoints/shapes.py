"""What the shapes of a segmenter's weights tell about it: everything but the category grids and, where kernels are
predicted, the mask grids."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

from torch import Tensor

from aggmask.errors import UserError

_DEPTHS = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
_WINDOWS, _LAYERS, _KERNELS = (5, 4, 9, 1, 25), (3, 2, 1, 4, 5), (3, 1, 5)
_MOST_CHANNELS = 64
# Of an aggregation. The published code has no other windows, and pads other kernels by less than their half.
PUBLISHED = {"window": (1, 4, 5, 9), "kernel": (1, 3)}


@dataclass
class Description:
    """A segmenter as its weights tell it; the dicts hold keys of the configuration's nodes of that name."""

    depth: int  # of the ResNet
    num_classes: int
    fpn_channels: int
    in_chans: int
    category: dict[str, int]
    bank: dict[str, Any]
    predicted: bool  # kernels: SOLOv2's base
    mask_grids: list[int] | None  # T of each level; None: the weights do not tell
    aggregation: dict[str, Any] | None  # None: plain
    weights: dict[str, int] | None  # of the branch that gives the aggregation its weights; None: the category branch
    notes: list[str] = field(default_factory=list)  # what was chosen among several that fit


def describe(ours: Mapping[str, Tensor], asked: Mapping[str, Any] | None = None) -> Description:
    """Weights under this package's names -> what they are.

    Args:
        asked: values of `model.aggregation` that the user gave, where several fit the weights.

    Raises:
        UserError: something that every model of the family has is missing, or fits none.
    """
    shapes = {name: tuple(value.shape) for name, value in ours.items()}
    predicted = "head.bank.kernels.weight" in shapes
    classes, _, *_ = _shape(shapes, "head.category.classifier.weight")
    bank = _tower(shapes, "head.bank.tower")
    grids = None
    if predicted:
        channels, _, kernel, _ = shapes["head.bank.kernels.weight"]
        width, *_ = _shape(shapes, "head.bank.features.levels.0.0.conv.weight")
        norm = "head.bank.features.levels.0.0.gn.weight" in shapes
        bank |= {"kernel": kernel, "channels": channels, "feature_width": width, "feature_norm": norm}
    else:
        grids = _mask_grids(shapes)
    found = Description(
        depth=_depth(shapes),
        num_classes=classes,
        fpn_channels=_shape(shapes, "fpn.lateral.0.weight")[0],
        in_chans=_shape(shapes, "backbone.net.conv1.weight")[1],
        category=_tower(shapes, "head.category.tower"),
        bank=bank,
        predicted=predicted,
        mask_grids=grids,
        aggregation=None,
        weights=None,
    )
    if "head.aggregation.weights.conv.weight" in shapes:
        found.aggregation = _aggregation(shapes, asked or {}, found.notes)
        if "head.aggregation.weights.tower.0.conv.weight" in shapes:
            found.weights = _tower(shapes, "head.aggregation.weights.tower")
    return found


def _shape(shapes: Mapping[str, tuple], name: str) -> tuple:
    if name not in shapes:
        raise UserError(f"the weights have no '{name}', which every model of the family has")
    return shapes[name]


def _count(shapes: Mapping[str, tuple], template: str) -> int:
    count = 0
    while template.format(count) in shapes:
        count += 1
    return count


def _tower(shapes: Mapping[str, tuple], name: str) -> dict[str, int]:
    return {
        "width": _shape(shapes, f"{name}.0.conv.weight")[0],
        "depth": _count(shapes, f"{name}.{{}}.conv.weight"),
    }


def _mask_grids(shapes: Mapping[str, tuple]) -> list[int]:
    levels = _count(shapes, "head.bank.kernels.{}.weight")
    grids = [math.isqrt(shapes[f"head.bank.kernels.{i}.weight"][0]) for i in range(levels)]
    for i, grid in enumerate(grids):
        cells = shapes[f"head.bank.kernels.{i}.weight"][0]
        if grid**2 != cells:
            raise UserError(f"level {i} has kernels for {cells} mask cells, which is no square")
    return grids


def _depth(shapes: Mapping[str, tuple]) -> int:
    blocks = tuple(_count(shapes, f"backbone.net.layer{s}.{{}}.conv1.weight") for s in range(1, 5))
    bottleneck = "backbone.net.layer1.0.conv3.weight" in shapes
    depth = _DEPTHS.get(blocks)
    if depth == 34 and bottleneck:
        depth = 50
    if depth is None or bottleneck != (depth >= 50):
        raise UserError(f"backbone: stages of {blocks} blocks are no ResNet-18, 34, 50, 101 or 152")
    return depth


def _aggregation(shapes: Mapping[str, tuple], asked: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Options of the aggregation whose networks have as many numbers as the weights say; the published ones first."""
    numbers = _shape(shapes, "head.aggregation.weights.conv.weight")[0]
    context, layers = 0, 2
    if "head.aggregation.context.reduce.1.weight" in shapes:
        context = shapes["head.aggregation.context.reduce.1.weight"][0]
    elif "head.aggregation.context.fuse.weight" in shapes:
        context, layers = shapes["head.aggregation.context.fuse.weight"][0], 1
    fixed = {"context_channels": context, "context_layers": layers}
    fits = [
        options | fixed
        for depth, kernel, channels, window in product(_LAYERS, _KERNELS, range(1, _MOST_CHANNELS + 1), _WINDOWS)
        if (depth > 1 or channels == 4)  # one layer has no inner channels
        and _numbers(window + context, depth, kernel, channels) == numbers
        and _agrees(options := {"window": window, "layers": depth, "kernel": kernel, "channels": channels}, asked)
    ]
    if not fits:
        given = f" and {dict(asked)}" if asked else ""
        raise UserError(f"aggregation: no network has {numbers} numbers with {context} context channels{given}")
    fits.sort(key=_oddity)
    if len(fits) > 1:
        notes.append(
            f"aggregation: {len(fits)} networks have {numbers} numbers; taken: {fits[0]} (aggregation.KEY=VALUE)"
        )
    return fits[0]


def _oddity(options: Mapping[str, int]) -> int:
    """How far from the published defaults; what the published code cannot have made comes last."""
    usual = {"layers": (3,), "kernel": (3,), "channels": (4,), "window": (5, 4)}
    departures = sum(options[key] not in values for key, values in usual.items())
    return departures + 3 * len(never_published(options))


def never_published(options: Mapping[str, Any]) -> list[str]:
    """The keys of an aggregation's options whose values the published code cannot have made."""
    return [key for key, values in PUBLISHED.items() if key in options and options[key] not in values]


def _agrees(options: Mapping[str, int], asked: Mapping[str, Any]) -> bool:
    return all(options.get(key) == value for key, value in asked.items())


def _numbers(inputs: int, layers: int, kernel: int, channels: int) -> int:
    widths = [inputs, *[channels] * (layers - 1), 1]
    return sum(o * i * kernel**2 + o for i, o in pairwise(widths))

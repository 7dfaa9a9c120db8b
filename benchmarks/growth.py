"""How cost grows: with objects, category grid, image size, ranks, candidates, and images of the annotation file.

Every point of a curve is a process of its own, and the points take turns. AggMask, one image a step. The baseline of a
curve is its first point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from benchmarks.harness import Case, Measured, interleaved
from benchmarks.records import Figure
from benchmarks.settings import MODELS, Settings

MB_AN_OBJECT = 2.0  # what an object may cost a training step at 800 x 1344


def curves(settings: Settings) -> Iterator[tuple[str, str, dict[str, float], dict[str, Case], tuple[str, ...]]]:
    """(what, by what, {label: place on the axis}, {label: case}, metrics)."""
    common = {"experiment": MODELS["AggMask"], "overrides": settings.overrides, "form": "lazy"}
    step = {**common, "size": settings.size, "batch": 1, "objects": settings.objects}
    picture = {**common, "size": settings.size, "candidates": settings.candidates}
    cost = ("s", "MB")

    def curve(what, by, function, arguments, key, points, unit, place=float, metrics=cost):
        labels = [f"{_text(point)} {unit}".strip() for point in points]
        cases = [Case(f"benchmarks.{function}", {**arguments, key: point}) for point in points]
        places = [place(point) for point in points]
        return what, by, dict(zip(labels, places, strict=True)), dict(zip(labels, cases, strict=True)), metrics

    def megapixels(size: Sequence[int]) -> float:
        return size[0] * size[1] / 1e6

    head, network = "training:head_step", "training:network_step"
    yield curve("training step of head", "objects", head, step, "objects", settings.by_objects, "objects")
    grids = settings.by_grid
    yield curve("training step of head", "category grid", head, step, "grid_factor", grids, "x published grids")
    sizes = settings.by_size, "", megapixels
    yield curve("training step", "megapixels", network, step, "size", *sizes)
    ranks = {f"{r} ranks": Case(f"benchmarks.{network}", step, r) for r in settings.by_ranks}
    yield "training step", "ranks", {f"{r} ranks": float(r) for r in settings.by_ranks}, ranks, cost
    decoding = "inference:head_decoding", picture, "candidates"
    yield curve("inference of head", "candidates", *decoding, settings.by_candidates, "candidates")
    yield curve("inference", "megapixels", "inference:network_inference", picture, "size", *sizes)
    index = "data:opening", {"form": "aggmask", "objects": 2, "points": 8}, "annotated"
    yield curve("index", "images", *index, settings.by_images, "images", metrics=("s", "MB", "again", "MB of a worker"))


def _text(point: float | Sequence[int]) -> str:
    return " x ".join(map(str, point)) if isinstance(point, tuple) else f"{point}"


def figures(settings: Settings, tell: Callable[[str], None]) -> Iterator[Figure]:
    for what, by, places, cases, metrics in curves(settings):
        label = f"{what} by {by}"
        found = interleaved(
            cases,
            settings.repeats,
            settings.threads,
            lambda text, label=label: tell(f"{label}: {text}"),
            warmups=0 if what == "index" else 1,
            separate=settings.separate,
            same=False,
        )
        yield from points(what, by, places, found, metrics)
        if by == "objects":
            yield slope(what, places, found, settings)


def points(
    what: str, by: str, places: Mapping[str, float], found: Mapping[str, Measured], metrics: Sequence[str]
) -> Iterator[Figure]:
    """Every metric of every point, against the curve's first point."""
    first = next(iter(places))
    for metric in metrics:
        key, unit = ("seconds" if metric == "s" else metric), ("MB" if metric.startswith("MB") else "s")
        name = what + {"s": "", "MB": "", "again": ", opened again", "MB of a worker": ", a worker"}[metric]
        for label, x in places.items():
            yield Figure(
                part="growth",
                name=f"{name}, {label}",
                unit=unit,
                values=found[label][key],
                baseline=first,
                against=found[first][key],
                sense="share",
                curve=f"{name} by {by}",
                x=x,
            )


def slope(what: str, places: Mapping[str, float], found: Mapping[str, Measured], settings: Settings) -> Figure:
    """Memory for each further object: the line through a repetition's points."""
    memory = np.array([found[label]["MB"] for label in places])  # (points, repeats)
    slopes = np.polyfit(list(places.values()), memory, 1)[0].tolist()
    bound = [MB_AN_OBJECT] * len(slopes)
    target = settings.target(1.0)
    return Figure("growth", f"{what}, each further object", "MB", slopes, "bound", bound, "share", target)

"""How large everything is: the full form for the record, a quick one to see that it works and roughly how it stands."""

from __future__ import annotations

import os
from dataclasses import dataclass

MODELS = {
    "SOLO": "solo_r101",
    "AggMask": "solo_r101_agg",
    "AggMask interpolated": "solo_r101_agg_interp",
    "AggMask*": "solov2_r101_agg",
}


@dataclass(frozen=True)
class Settings:
    """Sizes are (height, width) of the network's input; tuples are the points of growth curves."""

    size: tuple[int, int] = (800, 1344)
    batch: int = 2
    objects: int = 12  # in each image
    candidates: int = 200
    repeats: int = 3
    threads: int = len(os.sched_getaffinity(0))
    models: tuple[str, ...] = tuple(MODELS)
    whole: tuple[str, ...] = tuple(MODELS)  # models of which the network with its backbone is measured, too
    tried: tuple[str, ...] = ("AggMask",)  # models with which a GPU tries everything; the others: what is best
    pictures: int = 200  # of the data pipeline
    annotated: int = 118_287  # images of its annotation file
    evaluated: int = 5000
    detections: int = 100  # of each evaluated image
    by_objects: tuple[int, ...] = (1, 12, 50, 100, 200)
    by_grid: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)  # times the published category grids
    by_size: tuple[tuple[int, int], ...] = ((416, 672), (608, 1024), (800, 1344), (1024, 1728))
    by_ranks: tuple[int, ...] = (1, 2)
    by_candidates: tuple[int, ...] = (10, 50, 200, 500, 1000, 2000)
    by_images: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000)
    full: bool = True  # the targets hold for these sizes only
    separate: bool = True  # each side in a process of its own
    overrides: tuple[str, ...] = ()  # of the models' configurations

    def target(self, ratio: float) -> float | None:
        return ratio if self.full else None


FULL = Settings()
QUICK = Settings(
    size=(320, 544),
    batch=1,
    repeats=2,
    whole=("AggMask",),
    pictures=60,
    annotated=4000,
    evaluated=300,
    by_objects=(1, 20, 60),
    by_grid=(0.5, 1.0, 2.0),
    by_size=((160, 288), (320, 544), (480, 800)),
    by_candidates=(10, 200, 1000),
    by_images=(1000, 10_000, 50_000),
    full=False,
)

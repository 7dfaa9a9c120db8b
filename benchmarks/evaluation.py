"""COCO mask AP by the package's evaluator against plain pycocotools, from the same file and the same detections.

Pictures of 480 x 640 with seven objects of 80 categories; detections are objects displaced a little, doubles and
others at random, as many in each picture as asked. Both sides read the annotation file, match, accumulate and give the
twelve numbers, which are compared. Neither encodes masks: detections are run-length codes already.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from aggmask.metrics import ground_truth
from aggmask.metrics.evaluators import evaluate
from aggmask.metrics.results import ImageDetections, as_coco
from benchmarks.harness import Case, interleaved
from benchmarks.pictures import temporary_folder
from benchmarks.records import Figure
from benchmarks.settings import Settings

SIZE = (480, 640)
CATEGORY_IDS = list(range(1, 81))
OBJECTS = 7


def made_up(folder: Path, images: int, detections: int) -> tuple[Path, list[ImageDetections]]:
    """An annotation file, and what was "found" in its images."""
    rng = np.random.default_rng(0)
    annotations, records = [], []
    for image_id in range(1, images + 1):
        ellipses = np.stack(
            [*rng.uniform((0, 0), SIZE[::-1], (OBJECTS, 2)).T, *np.exp(rng.uniform(1.5, 4.7, (2, OBJECTS)))], axis=1
        )
        labels = rng.integers(0, 80, OBJECTS)
        outlines = outlines_of(ellipses)
        for rle, points, label in zip(codes_of(outlines), outlines, labels.tolist(), strict=True):
            area = float(coco_mask.area(rle))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "iscrowd": 0,
                    "area": area,
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "segmentation": [points],
                }
            )
        pick = rng.integers(0, OBJECTS, detections)
        found = ellipses[pick] * rng.normal(1, 0.08, (detections, 4))
        right = rng.random(detections) < 0.5
        found_labels = np.where(right, labels[pick], rng.integers(0, 80, detections)).astype(np.int32)
        scores = rng.random(detections).astype(np.float32)
        counts = [rle["counts"] for rle in codes_of(outlines_of(found))]
        records.append(ImageDetections(image_id, SIZE, found_labels, scores, counts))
    images_of = [{"id": i + 1, "height": SIZE[0], "width": SIZE[1], "file_name": f"{i}.jpg"} for i in range(images)]
    categories = [{"id": i, "name": str(i)} for i in CATEGORY_IDS]
    file = folder / "truth.json"
    file.write_text(json.dumps({"images": images_of, "annotations": annotations, "categories": categories}))
    return file, records


def outlines_of(ellipses: np.ndarray) -> list[list[float]]:
    """(n, 4) x, y and half axes -> n polygons x, y, x, y, ... inside the image."""
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    x = ellipses[:, :1] + ellipses[:, 2:3] * np.cos(turn)
    y = ellipses[:, 1:2] + ellipses[:, 3:] * np.sin(turn)
    points = np.stack([x.clip(0, SIZE[1]), y.clip(0, SIZE[0])], axis=-1)
    return points.round(2).reshape(len(points), -1).tolist()


def codes_of(outlines: list[list[float]]) -> list[dict[str, Any]]:
    """Polygons -> run-length codes."""
    return coco_mask.frPyObjects(outlines, *SIZE)


def evaluating(form: str, images: int, detections: int) -> Callable[[], dict[str, float]]:
    """Case: from detections to the twelve numbers."""
    file, records = made_up(temporary_folder(), images, detections)

    def run() -> dict[str, float]:
        results = as_coco(records, CATEGORY_IDS)
        if form == "aggmask":
            numbers = list(evaluate(ground_truth.load(file, CATEGORY_IDS), results).summary().values())
        else:
            with contextlib.redirect_stdout(io.StringIO()):
                truth = COCO(str(file))
                evaluator = COCOeval(truth, truth.loadRes(results), "segm")
                evaluator.evaluate()
                evaluator.accumulate()
                evaluator.summarize()
            numbers = evaluator.stats.tolist()
        return {"check": sum(numbers)}

    return run


def figures(settings: Settings, tell: Callable[[str], None]) -> Iterator[Figure]:
    sizes = {"images": settings.evaluated, "detections": settings.detections}
    forms = ("aggmask", "pycocotools")
    cases = {form: Case("benchmarks.evaluation:evaluating", {"form": form, **sizes}) for form in forms}
    found = interleaved(cases, settings.repeats, settings.threads, tell, warmups=0, separate=settings.separate)
    ours, plain = found["aggmask"], found["pycocotools"]
    label = f"{settings.evaluated} images with {settings.detections} detections each"
    target = settings.target(10.0)
    yield Figure("evaluation", label, "s", ours["seconds"], "pycocotools", plain["seconds"], target=target)
    yield Figure("evaluation", label, "MB", ours["MB"], "pycocotools", plain["MB"], sense="share")

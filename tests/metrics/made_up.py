"""A small COCO data set with every kind of annotation, detections for it, and plain pycocotools to compare with."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as reference
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CATEGORY_IDS = [3, 7, 8, 20]  # 20 has no ground truth
SIZES = [(120, 160), (160, 120), (200, 210)]


def ellipse(height: int, width: int, x: float, y: float, a: float, b: float) -> np.ndarray:
    """(h, w) bool"""
    rows, columns = np.mgrid[:height, :width]
    return ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    flat = mask.flatten(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + runs}


def compressed(mask: np.ndarray) -> dict[str, Any]:
    rle = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def data_set(images: int = 20, seed: int = 0) -> tuple[dict[str, Any], dict[int, tuple]]:
    """Ground truth, and (masks, scores, labels) per image id: hits of all qualities, doubles, misses, ties."""
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    truth["categories"] = [{"id": i, "name": f"thing {i}"} for i in CATEGORY_IDS]
    detections = {}
    for number in range(images):
        image_id, (h, w) = 1000 - 7 * number, SIZES[number % len(SIZES)]
        truth["images"].append({"id": image_id, "height": h, "width": w, "file_name": "x.jpg"})
        masks, scores, labels = [], [], []
        for _ in range(0 if number % 6 == 5 else rng.integers(1, 8)):
            x, y = rng.uniform(0, w), rng.uniform(0, h)
            a, b = rng.choice([5, 20, 70]) * rng.uniform(0.7, 1.4, 2)
            label, kind = int(rng.integers(0, 3)), rng.integers(0, 6)
            mask = ellipse(h, w, x, y, a, b)
            t = np.linspace(0, 2 * np.pi, 17)[:-1]
            points = np.stack([(x + a * np.cos(t)).clip(0, w), (y + b * np.sin(t)).clip(0, h)], 1)
            shape = {0: compressed(mask), 1: uncompressed(mask)}.get(int(kind), [points.round(2).flatten().tolist()])
            crowd = int(kind == 1)
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": CATEGORY_IDS[label],
                    "area": float(mask.sum()) * 0.93,
                    "iscrowd": crowd,
                    "segmentation": shape,
                }
            )
            for _ in range(rng.integers(0, 4)):
                dx, dy = rng.normal(size=2) * 0.12 * (a, b)
                masks.append(ellipse(h, w, x + dx, y + dy, a * rng.uniform(0.85, 1.2), b))
                labels.append(label if rng.random() < 0.85 else int(rng.integers(0, 4)))
                scores.append(round(rng.random(), 1) if rng.random() < 0.5 else rng.random())
        for _ in range(0 if number % 5 == 4 else rng.integers(0, 14)):
            masks.append(ellipse(h, w, rng.uniform(0, w), rng.uniform(0, h), *rng.uniform(3, 40, 2)))
            labels.append(int(rng.integers(0, 4)))
            scores.append(rng.random())
        stacked = torch.from_numpy(np.stack(masks)) if masks else torch.zeros((0, h, w), dtype=torch.bool)
        detections[image_id] = stacked, torch.tensor(scores), torch.tensor(labels, dtype=torch.long)
    return truth, detections


def with_specks(truth: dict[str, Any], detections: dict[int, tuple]) -> tuple[dict[str, Any], dict[int, tuple]]:
    """The same with one more image, which has 320 detections of one category.

    Every eighth is an object, and their scores are below all others: the fewer of them count, the lower is AP.
    """
    count, image_id, (height, width), apart = 320, 2000, (120, 160), 6
    masks = torch.zeros((count, height, width), dtype=torch.bool)
    for number, mask in enumerate(masks):
        y, x = (apart * place for place in divmod(number, width // apart))
        mask[y : y + 3, x : x + 3] = True
    objects = [
        {
            "id": len(truth["annotations"]) + number,
            "image_id": image_id,
            "category_id": CATEGORY_IDS[0],
            "area": 9,
            "iscrowd": 0,
            "segmentation": compressed(mask.numpy()),
        }
        for number, mask in enumerate(masks[7::8], start=1)
    ]
    image = {"id": image_id, "height": height, "width": width, "file_name": "x.jpg"}
    truth = {**truth, "images": [*truth["images"], image], "annotations": [*truth["annotations"], *objects]}
    return truth, {**detections, image_id: (masks, torch.linspace(-0.1, -0.9, count), torch.zeros(count).long())}


def plain_pycocotools(
    annotations: dict[str, Any], results: list[dict[str, Any]], folder: Path, most: int = 100
) -> np.ndarray:
    """The twelve numbers of pycocotools alone, everything read from files; `most` detections stand for its 100."""
    (folder / "truth.json").write_text(json.dumps(annotations))
    (folder / "results.json").write_text(json.dumps(results))
    return plain_evaluator(folder / "truth.json", folder / "results.json", most).stats


def plain_evaluator(truth: Path, results: Path, most: int = 100) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        evaluator = COCOeval(coco, coco.loadRes(str(results)), "segm")
        evaluator.params.maxDets = [1, 10, most]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.params.maxDets = [1, 10, 100]  # the only ones that `summarize` knows
        evaluator.summarize()
    return evaluator


def independent_results(detections: dict[int, tuple]) -> list[dict[str, Any]]:
    """COCO results made without the package."""
    return [
        {
            "image_id": image_id,
            "category_id": CATEGORY_IDS[label],
            "score": float(np.float32(score)),
            "segmentation": compressed(mask.numpy()),
        }
        for image_id, (masks, scores, labels) in detections.items()
        for mask, score, label in zip(masks, scores.tolist(), labels.tolist(), strict=True)
    ]

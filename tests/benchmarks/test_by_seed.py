"""Each run by itself: what its masks are worth without their categories, and what it lost at the end."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pycocotools import mask as coco_mask

from aggmask.reporting.runs import FINISHED, Run
from benchmarks import by_seed

BOXES = ([10, 10, 40, 40], [60, 60, 30, 30])
JOBS = [["a=1"], ["a=2", "b=1"]]


def run_of(root: Path, name: str, seed: int, job: list[str], categories: tuple[int, int]) -> Run:
    """A run that finds both objects of the only picture, and calls them so."""
    folder = root / name
    (folder / "test").mkdir(parents=True)
    results = []
    for box, category in zip(BOXES, categories, strict=True):
        (rle,) = coco_mask.frPyObjects([corners(box)], 100, 100)
        code = {"size": [100, 100], "counts": rle["counts"].decode()}
        results.append({"image_id": 1, "category_id": category, "score": 0.9, "segmentation": code})
    (folder / "test" / "results.json").write_text(json.dumps(results))
    config = {"data": {"root": str(root)}, "decoder": {"max_detections": 100}, "metric": {}, "seed": seed}
    run = Run(folder, name, config | {"trainer": {"max_steps": 16}}, (f"seed={seed}", *job), FINISHED, "")
    logged = {"train/loss_category": [9.0] * 14 + [0.2, 0.4], "train/loss_mask": [1.0] * 16}
    logged["train/step_seconds"] = [0.1] * 16
    object.__setattr__(run, "logged", {key: [(0, i, v) for i, v in enumerate(vs)] for key, vs in logged.items()})
    return run


def corners(box: list[int]) -> list[int]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def test_masks_count_without_their_categories(tmp_path):
    annotations = [
        {"id": k, "image_id": 1, "category_id": k, "bbox": b, "segmentation": [corners(b)], "iscrowd": 0, "area": 1000}
        for k, b in enumerate(BOXES, start=1)
    ]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
        "annotations": annotations,
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_test2017.json").write_text(json.dumps(content))
    right, wrong = (1, 2), (2, 1)
    runs = [
        run_of(tmp_path, "0", 0, JOBS[1], wrong),
        run_of(tmp_path, "1", 1, JOBS[0], right),
        run_of(tmp_path, "2", 0, JOBS[0], right),
    ]
    with ThreadPoolExecutor(1) as pool:
        by_seed.write(tmp_path / "table.md", JOBS, runs, pool)
    rows = [line.strip("| ").split(" | ") for line in (tmp_path / "table.md").read_text().splitlines()[2:5]]
    assert rows == [
        ["a=1", "0", "100.0", "100.0", "100.0", "0.300", "1.000", "16", "100"],
        ["a=1", "1", "100.0", "100.0", "100.0", "0.300", "1.000", "16", "100"],
        ["a=2 b=1", "0", "0.0", "100.0", "100.0", "0.300", "1.000", "16", "100"],
    ]

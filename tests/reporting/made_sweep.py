"""A sweep's folder as training leaves it, without training: results are the ground truth, moved by a few pixels."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from aggmask.assembly.build import build_module, make_recipe
from aggmask.assembly.config import plain
from aggmask.metrics import ground_truth, rle
from aggmask.structures import Category
from tests.data.make_coco import CATEGORIES, make_coco
from tests.runs import SMALL, composed

EPOCHS = 3


def make_sweep(folder: Path, shifts: dict[int, int], seeds: int = 2, val_images: int = 6) -> Path:
    """Run folders 0, 1, ... for each window (its masks moved by that many pixels) and each seed.

    Returns:
        the sweep's folder; the data set lies in `coco` beside it.
    """
    root = make_coco(folder / "coco", images=1, val_images=val_images)
    settings = ["experiment=solo_r50_agg", "name=made", "output_dir=OUT", f"data.root={root}"]
    base = plain(composed(*settings, *SMALL, f"trainer.max_epochs={EPOCHS}"))
    truth = ground_truth.load(str(root / "annotations" / "instances_val2017.json"), [c["id"] for c in CATEGORIES])
    sweep, number = folder / "sweep", 0
    for window, shift in shifts.items():
        config = deepcopy(base)
        config["model"]["aggregation"]["window"] = window
        checkpoint = _checkpoint(config)
        for seed in range(seeds):
            run = sweep / str(number)
            _write_run(run, _of_run(config, seed, run), checkpoint)
            overrides = ["experiment=solo_r50_agg", f"model.aggregation.window={window}", f"seed={seed}"]
            _write(run / ".hydra" / "overrides.yaml", json.dumps(overrides))
            results = moved(truth, shift, np.random.default_rng((window, seed)))
            _write(run / "results.json", json.dumps(results))
            _write(run / "metrics.csv", _metrics(seed, shift))
            number += 1
    return sweep


def moved(truth: ground_truth.GroundTruth, shift: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Each object moved to the right, with a score of its own, and one miss in each image."""
    results = []
    for annotation in truth.annotations:
        if annotation["iscrowd"]:
            continue
        size = tuple(annotation["segmentation"]["size"])
        mask = np.roll(rle.decode(annotation["segmentation"]["counts"], size), shift + int(rng.integers(0, 2)), axis=1)
        results.append(_result(annotation["image_id"], annotation["category_id"], 0.5 + 0.5 * rng.random(), mask))
    for image_id, size in truth.sizes.items():
        corner = np.zeros(size, bool)
        corner[:5, -5:] = True
        results.append(_result(image_id, CATEGORIES[0]["id"], 0.3 + 0.6 * rng.random(), corner))
    return results


def _result(image_id: int, category_id: int, score: float, mask: np.ndarray) -> dict[str, Any]:
    counts = rle.encode(torch.from_numpy(mask.copy())[None])[0].decode("ascii")
    segmentation = {"size": list(mask.shape), "counts": counts}
    return {"image_id": image_id, "category_id": category_id, "score": score, "segmentation": segmentation}


def _of_run(config: dict[str, Any], seed: int, run: Path) -> dict[str, Any]:
    text = json.dumps({**config, "seed": seed}).replace('"OUT', f'"{run}')
    config = json.loads(text)
    config["data"]["seed"] = seed
    return config


def _write_run(run: Path, config: dict[str, Any], checkpoint: dict[str, Any]) -> None:
    run.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(config), run / "config.yaml")
    torch.save(checkpoint, run / "best.ckpt")
    (run / "last.ckpt").hardlink_to(run / "best.ckpt")


def _checkpoint(config: dict[str, Any]) -> dict[str, Any]:
    recipe = make_recipe(config, [Category(c["id"], c["name"]) for c in CATEGORIES])
    weights = build_module(recipe).state_dict()
    content = {"state_dict": weights, "hyper_parameters": recipe, "epoch": EPOCHS - 1, "global_step": 2 * EPOCHS}
    return content | {"loops": progress(epochs_done=EPOCHS)}


def progress(epochs_done: int) -> dict[str, Any]:
    """What Lightning writes of the epochs that came to their end: that part of it which is read here."""
    return {"fit_loop": {"epoch_progress": {"current": {"processed": epochs_done}}}}


def _metrics(seed: int, shift: int) -> str:
    lines = ["epoch,step,train/loss,train/memory_mb,train/step_seconds,val/AP"]
    for epoch in range(EPOCHS):
        for step in (2 * epoch, 2 * epoch + 1):
            lines.append(f"{epoch},{step},{3 - 0.3 * step + 0.1 * seed},{200 + step},{0.25 + 0.5 * (step == 0)},")
        lines.append(f"{epoch},{2 * epoch + 1},,,,{0.1 * (epoch + 1) / (1 + shift)}")
    return "\n".join(lines) + "\n"


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)

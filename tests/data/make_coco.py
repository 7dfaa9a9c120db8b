"""A tiny data set in COCO layout with what real ones hold: grey and CMYK pictures, crowds, gaps in ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 3, "name": "disc"}, {"id": 7, "name": "pair"}, {"id": 18, "name": "block"}]
SIZES = ((48, 64), (64, 48), (40, 40), (36, 90))  # (height, width)
MODES = ("RGB", "L", "RGB", "CMYK")


def make_coco(
    root: Path,
    images: int = 8,
    seed: int = 0,
    val_images: int | None = None,
    sizes: Sequence[tuple[int, int]] = SIZES,
    empty_every: int = 4,
) -> Path:
    """Write `annotations/instances_{train,val}2017.json`, `train2017/` and `val2017/` into `root`.

    Per image: a disc (polygon), a pair (two polygons), a block (run-length code, not a crowd) and, in every second
    image, a crowd. The images 3, 7, ... (`empty_every` = 4; 0: none) have no annotations. Image ids are 5, 15, 25, ...
    (val: from 1005), sizes and color modes rotate.

    Returns:
        root.
    """
    for split, count, first_id in (("train", images, 5), ("val", images if val_images is None else val_images, 1005)):
        rng = np.random.default_rng((seed, first_id))
        (root / f"{split}2017").mkdir(parents=True, exist_ok=True)
        records, annotations = [], []
        for i in range(count):
            height, width = sizes[i % len(sizes)]
            record = {"id": first_id + 10 * i, "file_name": f"{i:05d}.jpg", "height": height, "width": width}
            records.append(record)
            _write_picture(root / f"{split}2017" / record["file_name"], (height, width), MODES[i % len(MODES)], rng)
            if empty_every and i % empty_every == empty_every - 1:
                continue
            for annotation in _objects((height, width), rng, with_crowd=i % 2 == 0):
                annotations.append({"id": 100 + len(annotations), "image_id": record["id"], **annotation})
        content = {"images": records, "annotations": annotations, "categories": CATEGORIES}
        file = root / "annotations" / f"instances_{split}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return root


def _write_picture(file: Path, size: tuple[int, int], mode: str, rng: np.random.Generator) -> None:
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size[::-1]).convert(mode).save(file, quality=95)


def circle(x: float, y: float, radius: float, points: int = 24) -> np.ndarray:
    """(points, 2) polygon (x, y)."""
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)


def runs_of(bitmap: np.ndarray) -> dict:
    """Uncompressed run-length code, column by column, of an (H, W) bitmap."""
    flat = np.concatenate([[0], bitmap.T.ravel().astype(np.int8)])
    changes = np.flatnonzero(np.diff(flat))
    return {
        "size": list(bitmap.shape),
        "counts": np.diff(np.concatenate([[0], changes, [len(flat) - 1]])).tolist(),
    }


def _objects(size: tuple[int, int], rng: np.random.Generator, with_crowd: bool) -> list[dict]:
    height, width = size
    unit = min(size) / 10
    disc = circle(*rng.uniform(3 * unit, min(size) - 3 * unit, 2), rng.uniform(1, 3) * unit)
    pair = [circle(2 * unit, 2 * unit, unit), circle(width - 2 * unit, height - 2 * unit, unit)]
    block = np.zeros(size, bool)
    block[int(4 * unit) : int(6 * unit), int(5 * unit) : int(9 * unit)] = True
    found = [_outlined(3, [disc]), _outlined(7, pair), _painted(18, block, crowd=False)]
    if with_crowd:
        crowd = np.zeros(size, bool)
        crowd[-int(2 * unit) :, : int(4 * unit)] = True
        found.insert(1, _painted(3, crowd, crowd=True))
    return found


def _outlined(category: int, polygons: list[np.ndarray]) -> dict:
    points = np.concatenate(polygons)
    low, high = points.min(0), points.max(0)
    area = sum(abs(np.cross(_flat(p), _flat(np.roll(p, -1, 0)))[:, 2].sum()) / 2 for p in polygons)
    return {
        "category_id": category,
        "segmentation": [polygon.ravel().tolist() for polygon in polygons],
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "area": float(area),
        "iscrowd": 0,
    }


def _flat(points: np.ndarray) -> np.ndarray:
    return np.pad(points, ((0, 0), (0, 1)))


def _painted(category: int, bitmap: np.ndarray, crowd: bool) -> dict:
    rows, columns = np.flatnonzero(bitmap.any(1)), np.flatnonzero(bitmap.any(0))
    box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
    return {
        "category_id": category,
        "segmentation": runs_of(bitmap),
        "bbox": [int(v) for v in box],
        "area": int(bitmap.sum()),
        "iscrowd": int(crowd),
    }

"""Files of pictures with annotated objects, and batches that are read from them as in training."""

from __future__ import annotations

import atexit
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from aggmask.data.coco import collate
from aggmask.data.datamodule import CocoDataModule
from aggmask.data.sampler import Sample
from aggmask.structures import ImageBatch
from tests.data.make_coco import circle


def temporary_folder() -> Path:
    """A folder that is removed when this process ends."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


def picture_folder(images: int, objects: int, width: int, height: int) -> Path:
    """A temporary folder in COCO layout: JPEG files (noise over smooth color), polygons of 40 points; one for val."""
    root, rng = temporary_folder(), np.random.default_rng(0)
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / f"{split}2017").mkdir()
        records, annotations = [], []
        for i in range(images if split == "train" else 1):
            smooth = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((width, height))
            noisy = np.clip(np.asarray(smooth) + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / f"{split}2017" / f"{i}.jpg", quality=90)
            records.append({"id": i, "file_name": f"{i}.jpg", "height": height, "width": width})
            for _ in range(objects):
                radius = float(np.exp(rng.uniform(np.log(8), np.log(120))))
                points = circle(rng.uniform(0, width), rng.uniform(0, height), radius, 40).clip(0, (width, height))
                corner, extent = points.min(0), np.ptp(points, axis=0)
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": i,
                        "category_id": 1,
                        "iscrowd": 0,
                        "area": float(3.14 * radius**2),
                        "bbox": [*corner.tolist(), *extent.tolist()],
                        "segmentation": [points.ravel().tolist()],
                    }
                )
        content = {"images": records, "annotations": annotations, "categories": [{"id": 1, "name": "blob"}]}
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return root


def picture_batches(size: tuple[int, int], batch: int, objects: int) -> Callable[[], ImageBatch]:
    """A loader of one batch: JPEG files of 640 pixels' width are read, resized and laid on a canvas of `size`.

    Raises:
        ValueError: pictures of that width do not fill such a canvas.
    """
    height, width = size
    root = picture_folder(batch, objects, 640, round(640 * height / (width - 11)))  # 800 x 1333 of 800 x 1344
    data = CocoDataModule(str(root), short_side=height, long_side=width - 11, flip=0.0, batch_size=batch, num_workers=0)
    data.setup("fit")

    def load() -> ImageBatch:
        loaded = collate(data.train_dataset.__getitems__([Sample(i) for i in range(batch)]))
        if loaded.pixels.shape[-2:] != size:
            raise ValueError(f"the canvas is {tuple(loaded.pixels.shape[-2:])}, not {size}")
        return loaded

    return load

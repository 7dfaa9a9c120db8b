"""Images a second of the training pipeline on one core: read, decode, resize, flip, rasterize, collate.

`python -m benchmarks.data_pipeline [--images 200] [--copy-paste 0.5]`

Pictures of 640 x 480 (JPEG, quality 90, noise over smooth color) with eight polygons of about 40 points, at the
published 640..800 / 1333.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from aggmask.data.datamodule import CocoDataModule
from tests.data.make_coco import circle


def write(root: Path, images: int, width: int = 640, height: int = 480, objects: int = 8) -> None:
    """Pictures and their annotations in COCO layout; every split but training has one picture."""
    rng = np.random.default_rng(0)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--copy-paste", type=float, default=0.0, help="probability of an image with pasted objects")
    arguments = parser.parse_args()
    images, copy_paste = arguments.images, {"probability": arguments.copy_paste}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), images)
        sides = [640, 672, 704, 736, 768, 800]
        options = {"batch_size": 4, "num_workers": 0, "copy_paste": copy_paste if arguments.copy_paste else None}
        data = CocoDataModule(folder, short_side=sides, long_side=1333, **options)
        data.setup("fit")
        rates = []
        for _ in range(4):
            start, seen = time.process_time(), 0
            for batch in data.train_dataloader():
                seen += len(batch)
            rates.append(seen / (time.process_time() - start))
    rates = sorted(rates[1:])
    print(f"{rates[1]:.0f} images a second of processor time on one core ({rates[0]:.0f} to {rates[2]:.0f})")


if __name__ == "__main__":
    main()

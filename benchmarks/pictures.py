"""Files of pictures with annotated objects, and batches that are read from them as in training."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from pathlib import Path

from aggmask.data.coco import collate
from aggmask.data.datamodule import CocoDataModule
from aggmask.data.sampler import Sample
from aggmask.structures import ImageBatch
from benchmarks.data_pipeline import write


def temporary_folder() -> Path:
    """A folder that is removed when this process ends."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


def picture_folder(images: int, objects: int, width: int, height: int) -> Path:
    """A temporary folder in COCO layout."""
    root = temporary_folder()
    write(root, images, width, height, objects)
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

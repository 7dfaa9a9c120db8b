"""The baseline of the data pipeline: what a user writes with torchvision's v2 transforms and nothing else.

CocoDetection with tv_tensors: JPEG by Pillow, every object's mask at full resolution, a random short side, a flip,
objects that are gone removed, normalization, padding to a multiple of 32. It stops there: the centers, areas and
stride-4 masks that the targets need besides are left to the network's head, as in the published code, and cost this
baseline nothing here.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2


def plain_dataset(root: Path, short_sides: Sequence[int], long_side: int) -> Dataset:
    """The training pictures of a folder in COCO layout."""
    transforms = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomShortestSize(list(short_sides), max_size=long_side, antialias=False),
            v2.RandomHorizontalFlip(0.5),
            v2.SanitizeBoundingBoxes(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            v2.ToPureTensor(),
        ]
    )
    with contextlib.redirect_stdout(io.StringIO()):  # what pycocotools says while it reads
        dataset = CocoDetection(root / "train2017", root / "annotations" / "instances_train2017.json", None)
    dataset.transforms = transforms
    return wrap_dataset_for_transforms_v2(dataset, target_keys=("boxes", "labels", "masks"))


def plain_collate(samples: Sequence[tuple[Tensor, dict[str, Any]]]) -> tuple[Tensor, list[dict[str, Any]]]:
    """(B, 3, H, W) float pixels on the smallest canvas of multiples of 32, and each picture's padded targets."""
    height = -(-max(image.shape[1] for image, _ in samples) // 32) * 32
    width = -(-max(image.shape[2] for image, _ in samples) // 32) * 32

    def padded(maps: Tensor) -> Tensor:
        return F.pad(maps, (0, width - maps.shape[-1], 0, height - maps.shape[-2]))

    images = torch.stack([padded(image) for image, _ in samples])
    return images, [{**target, "masks": padded(target["masks"])} for _, target in samples]


def plain_loader(root: Path, short_sides: Sequence[int], long_side: int, batch_size: int) -> DataLoader:
    """Shuffled training batches, loaded in this process."""
    dataset = plain_dataset(root, short_sides, long_side)
    return DataLoader(dataset, batch_size, shuffle=True, drop_last=True, collate_fn=plain_collate)

"""What is typed under `data.`: from a folder in COCO layout to training and validation batches.

Source: method.md section 8 for the recipe. The position in the middle of an epoch is kept in the datamodule's state,
not in the loader's: Lightning 2.6 drops the latter as soon as `estimated_stepping_batches` is read. The samplers split
the data over ranks themselves: `Trainer(use_distributed_sampler=False)`.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytorch_lightning as pl
import torch
from filelock import FileLock
from torch.utils.data import DataLoader, Sampler

from aggmask.cocofile.records import CVAT_CROWDS
from aggmask.data.coco import CocoInstances, collate
from aggmask.data.copy_paste import CopyPaste
from aggmask.data.decode import CHANNELS, Exif
from aggmask.data.index import AnnotationIndex
from aggmask.data.places import Source, Split, existing, is_found, require
from aggmask.data.processors import processor_share
from aggmask.data.sampler import EvaluationBatches, TrainingBatches
from aggmask.data.skipping import SkippingInstances
from aggmask.data.storage import open_storage
from aggmask.data.transforms import ColorJitter, LargeScaleJitter, Resize
from aggmask.data.workers import leave_signals
from aggmask.depth import as_range
from aggmask.errors import UserError
from aggmask.geometry.frame import CANVAS_MULTIPLE, fit_within, pad_to_multiple
from aggmask.structures import Category, ImageBatch

_MAX_WORKERS = 8
_logger = logging.getLogger(__name__)


class CocoDataModule(pl.LightningDataModule):
    """Training and validation data in COCO format.

    Args:
        root: folder in COCO layout; may be None when `train` and `val` name everything.
        train, val: {"annotations": file, "images": folder, zip or URL}; what is None lies at its usual place in `root`.
        channels: of the pixels: 1 (grey), 3 (RGB) or 4 (RGBA).
        value_range: of pictures deeper than 8 bits: what is white, or what is black and white; None: by their type.
        exif: "auto", "apply" or "ignore" the rotation that an EXIF tag asks for, see `decode.decode_image`.
        batch_size: images per device.
        num_workers: loader processes per device; None: as many as there are processors, at most 8; in a
            sweep, as many as the job's share of them.
        short_side: pixels, or a list of which one is drawn in training.
        evaluation_short_side: pixels; None: the largest of `short_side`.
        long_side: pixels, upper limit.
        flip: probability of a mirrored training image.
        large_scale_jitter: None, or {"min_scale", "max_scale", "size"}: replaces the resizing in training.
        color_jitter: None, or any of {"brightness", "contrast", "saturation", "hue"}.
        copy_paste: None, or any of {"probability", "max_objects"}: training images get objects of other images.
        skip_empty: train on images with objects only (as published).
        group_by_orientation: train on batches of upright or of lying images (as published).
        scale_per: "image" (as published) or "batch": for what a short side is drawn. "batch" pads less.
        repeat_epoch: every epoch is the first one again: the same batches, drawn the same way (not the cells that
            `criterion.max_cells` draws).
        seed: of order and transforms; the same on all ranks.
        cache_dir: for the annotation index; None: beside the annotations.
        on_bad_image: "raise" an error for one that cannot be read, or "skip" it, see `skipping`.
        allow_outside: file names and links may lead out of the images' folder.
        prepare: called with `root` before anything is read, by one process at a time; makes the data set, and does
            nothing when it is there.

    Attributes:
        train, val: the places of the two splits.
        skipped: what was wrong with images that this process skipped, and how often each was.

    Raises:
        UserError: an argument makes no sense.
    """

    def __init__(
        self,
        root: str | None = None,
        train: Source | None = None,
        val: Source | None = None,
        channels: int = 3,
        value_range: float | Sequence[float] | None = None,
        exif: Exif = "auto",
        batch_size: int = 2,
        num_workers: int | None = None,
        short_side: int | Sequence[int] = 800,
        evaluation_short_side: int | None = None,
        long_side: int = 1333,
        flip: float = 0.5,
        large_scale_jitter: Mapping[str, Any] | None = None,
        color_jitter: Mapping[str, float] | None = None,
        copy_paste: Mapping[str, Any] | None = None,
        skip_empty: bool = True,
        group_by_orientation: bool = True,
        scale_per: str = "image",
        repeat_epoch: bool = False,
        seed: int = 0,
        cache_dir: str | None = None,
        on_bad_image: Literal["raise", "skip"] = "raise",
        allow_outside: bool = False,
        prepare: Callable[[Path], Any] | None = None,
    ) -> None:
        super().__init__()
        if scale_per not in ("image", "batch"):
            raise UserError(f'data.scale_per={scale_per!r}: use "image" or "batch".')
        if scale_per == "batch" and large_scale_jitter is not None:
            raise UserError("data.scale_per=batch does nothing with data.large_scale_jitter, which scales each image.")
        if on_bad_image not in ("raise", "skip"):
            raise UserError(f'data.on_bad_image={on_bad_image!r}: use "raise" or "skip".')
        if exif not in get_args(Exif):
            raise UserError(f'data.exif={exif!r}: use "auto", "apply" or "ignore".')
        if prepare is not None and root is None:
            raise UserError("data.prepare makes the data set in data.root, which is not given.")
        short_sides = (short_side,) if isinstance(short_side, int) else tuple(short_side)
        if evaluation_short_side is not None and evaluation_short_side < 1:
            raise UserError(f"data.evaluation_short_side={evaluation_short_side}: must be at least 1.")
        if not short_sides or min(short_sides) < 1 or long_side < 1 or batch_size < 1:
            raise UserError(f"data: short_side={short_side}, {long_side=} and {batch_size=} must be at least 1.")
        if channels not in CHANNELS:
            raise UserError(
                f"model.backbone.in_chans (data.channels) = {channels}: pictures have 1 (grey), 3 (RGB) or 4 (RGBA)."
            )
        self.root = None if root is None else Path(root).expanduser()
        self.train, self.val = Split.of("train", train, self.root), Split.of("val", val, self.root)
        self.channels, self.value_range, self.exif = channels, as_range(value_range), exif
        self.batch_size, self.num_workers = batch_size, _workers() if num_workers is None else num_workers
        self.short_sides, self.scale_per = short_sides, scale_per
        self.evaluation_resize = Resize((evaluation_short_side or max(short_sides),), long_side)
        self.training_frame = Resize(short_sides, long_side, flip)
        if large_scale_jitter is not None:
            self.training_frame = _build("large_scale_jitter", LargeScaleJitter, {**large_scale_jitter, "flip": flip})
        self.color_jitter = None if color_jitter is None else _build("color_jitter", ColorJitter, color_jitter)
        self.copy_paste = None if copy_paste is None else _build("copy_paste", CopyPaste, copy_paste)
        self.skip_empty, self.group_by_orientation = skip_empty, group_by_orientation
        self.repeat_epoch = repeat_epoch
        self.seed, self.cache_dir, self.prepare = seed, cache_dir, prepare
        self.allow_outside = allow_outside
        self._kind = SkippingInstances if on_bad_image == "skip" else CocoInstances
        self.skipped: Counter[str] = Counter()
        self._resume = (0, 0)

    def prepare_data(self) -> None:
        """Make the data set where there is a way to. Two processes that start at once make it once."""
        if self.prepare is None:
            return
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root.with_name(f".{self.root.name}.lock")):
            self.prepare(self.root)

    def setup(self, stage: str | None = None) -> None:
        """Look whether everything is there. Evaluation alone needs no training data.

        Raises:
            UserError: something is missing.
        """
        if stage in ("fit", None):
            require(self.train, self.val)
        else:
            require(self.val)

    @cached_property
    def _train_index(self) -> AnnotationIndex:
        return AnnotationIndex.open(self.train.annotations, self.cache_dir)

    @cached_property
    def _val_index(self) -> AnnotationIndex:
        return AnnotationIndex.open(self.val.annotations, self.cache_dir)

    @property
    def categories(self) -> list[Category]:
        """Those of the training annotations; of the validation annotations where only these are there.

        May be read before fit: makes the data set if need be.

        Raises:
            UserError: neither file is there.
        """
        if "_train_index" not in self.__dict__:  # else the data set was made and looked at before
            self.prepare_data()
        if not is_found(self.train.annotations):
            if is_found(self.val.annotations):
                return self._val_index.categories
            require(self.train, self.val)
        return self._train_index.categories

    @cached_property
    def train_dataset(self) -> CocoInstances:
        dataset = self._kind(
            self._train_index,
            open_storage(existing(self.train.images), self.allow_outside),
            self.training_frame,
            training=True,
            color_jitter=self.color_jitter,
            copy_paste=self.copy_paste,
            skip_empty=self.skip_empty,
            seed=self.seed,
            channels=self.channels,
            value_range=self.value_range,
            exif=self.exif,
        )
        return _not_empty(dataset, self.train.annotations)

    @cached_property
    def val_dataset(self) -> CocoInstances:
        storage = open_storage(existing(self.val.images), self.allow_outside)
        dataset = self._kind(
            self._val_index,
            storage,
            self.evaluation_resize,
            training=False,
            channels=self.channels,
            value_range=self.value_range,
            exif=self.exif,
        )
        return _not_empty(dataset, self.val.annotations)

    def train_dataloader(self) -> DataLoader:
        """Training batches of this rank, from the position of the checkpoint that was loaded last, if any."""
        sizes = self.train_dataset.sizes
        groups = sizes[:, 1] < sizes[:, 0] if self.group_by_orientation else np.zeros(len(sizes), np.int64)
        short_sides = self.short_sides if self.scale_per == "batch" else ()
        resume, self._resume = self._resume, (0, 0)
        rank, ranks = self._rank()
        batches = TrainingBatches(
            groups, self.batch_size, self.seed, rank, ranks, short_sides, resume, self.repeat_epoch
        )
        return self._loader(self.train_dataset, batches)

    def val_dataloader(self) -> DataLoader:
        """Validation batches of this rank: images of one canvas size together, each image once."""
        resize = self.evaluation_resize
        canvases = [
            pad_to_multiple(fit_within(size, resize.short_sides[0], resize.long_side), CANVAS_MULTIPLE)
            for size in self.val_dataset.sizes.tolist()
        ]
        groups = np.unique(canvases, axis=0, return_inverse=True)[1].reshape(-1)
        return self._loader(self.val_dataset, EvaluationBatches(groups, self.batch_size, *self._rank()))

    def _loader(self, dataset: CocoInstances, batches: Sampler) -> DataLoader:
        return DataLoader(  # (its workers run torch on one thread each)
            dataset,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=collate,
            worker_init_fn=leave_signals,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def _rank(self) -> tuple[int, int]:
        """(rank, ranks) of this process."""
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def on_before_batch_transfer(self, batch: ImageBatch, dataloader_idx: int) -> ImageBatch:
        """Where the words of worker processes arrive."""
        for text in batch.skipped:
            if text not in self.skipped:
                _logger.warning("skipped: %s", text)
            self.skipped[text] += 1
        return batch

    def teardown(self, stage: str) -> None:
        """List what all processes skipped since training or evaluation began."""
        every = [self.skipped]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            every = [Counter() for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather_object(every, self.skipped)
        skipped = sum(every, Counter())
        if skipped and self._rank()[0] == 0:
            lines = "".join(f"\n  {count} x {text}" for text, count in sorted(skipped.items()))
            _logger.warning("data.on_bad_image=skip: images skipped: %d%s", len(skipped), lines)
        self.skipped.clear()

    def state_dict(self) -> dict[str, int]:
        """Where training stands: epoch, batches done in it (per rank), and images per batch of all ranks and of one."""
        if self.trainer is None:
            return {}
        loop = self.trainer.fit_loop
        epochs = loop.epoch_progress.current
        at_end = epochs.processed > epochs.completed  # of an epoch, where checkpoints are written
        done = 0 if at_end else loop.epoch_loop.batch_progress.current.processed
        images = self.batch_size * self.trainer.world_size
        return {
            "epoch": epochs.processed, "batches": done, "images_per_batch": images, "batch_size": self.batch_size
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take up training there. A checkpoint that is only evaluated leaves no trace.

        Raises:
            UserError: it stands in the middle of an epoch of other batches, which nobody can go on with.
        """
        if self.trainer is not None and self.trainer.state.fn != "fit":
            return
        self._resume = state["epoch"], state["batches"]
        warnings.filterwarnings("ignore", ".*your dataloader is not resumable")  # Lightning asks only the loader
        if not state["batches"]:
            return
        # An epoch is cut into batches of one rank. (Older checkpoints tell the product alone.)
        devices, together = self._rank()[1], state["images_per_batch"]
        size = state.get("batch_size", self.batch_size)
        if (size, together) != (self.batch_size, self.batch_size * devices):
            began = f"data.batch_size={size} on {together // size} devices"
            if "batch_size" not in state:
                began = f"data.batch_size x devices = {together}"
            raise UserError(
                f"resume: the checkpoint was written {state['batches']} batches into an epoch of {began}; "
                f"data.batch_size={self.batch_size} on {devices} would train on other batches: go on with {began}, or "
                "from a checkpoint between two epochs"
            )


def _workers() -> int:
    return min(processor_share(), _MAX_WORKERS)


def _build(name: str, kind: type, arguments: Mapping[str, Any]) -> Any:
    if not isinstance(arguments, Mapping):
        raise UserError(f"data.{name}={arguments}: give keys with values, as data.{name}='{{KEY: VALUE}}'.")
    try:
        return kind(**arguments)
    except TypeError as error:  # a missing or an unknown key
        raise UserError(f"data.{name}={dict(arguments)}: {error}.") from error


def _not_empty(dataset: CocoInstances, annotations: str) -> CocoInstances:
    told = f"{annotations} has no image to use."
    if dataset.training and not dataset.index.object_counts().any():
        told = (
            f"{annotations} has no object with a mask to learn from; crowds are none ({CVAT_CROWDS}). python -m "
            f"aggmask.doctor data.train.annotations={annotations} says what becomes of its annotations."
        )
        if len(dataset):
            _logger.warning("%s", told)
        told += " data.skip_empty=false trains on images without objects all the same."
    if not len(dataset):
        raise UserError(told)
    return dataset

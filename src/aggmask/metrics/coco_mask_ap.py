"""COCO mask AP as a torchmetrics metric: the numbers of pycocotools for any number of processes.

Source: method.md section 10 names the metric; the evaluation is that of the COCO API (see `evaluators.py`).
Deliberate differences from `torchmetrics.detection.MeanAveragePrecision`, each of which moves AP there: images without
ground truth count; an image that a distributed sampler repeats counts once; sizes come from the annotation's `area`;
masks become RLE in `update`, so that memory does not grow with pixels; one process evaluates for all, and a sync is
one gather, whatever the number of images.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
import torch.distributed as dist
import torchmetrics
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from aggmask.errors import UserError
from aggmask.metrics import ground_truth, results, rle
from aggmask.metrics.evaluators import Backend, CategoryScore, evaluate
from aggmask.metrics.ground_truth import GroundTruth
from aggmask.metrics.results import ImageDetections

log = logging.getLogger(__name__)


def gather_bytes(state: Tensor, group: Any | None = None) -> list[Tensor]:
    """`gather_all_tensors` for bytes: torchmetrics fills in an empty float state where a process saw nothing."""
    return gather_all_tensors(state.to(torch.uint8), group)


class CocoMaskAP(torchmetrics.Metric):
    """Twelve COCO numbers over images that are given one at a time.

    Under a process group `compute` gathers all detections (each image once), the first process evaluates, and every
    process gets the numbers, or the error. The annotation file is read by that process only, when it is needed or by
    `read_ground_truth`.

    Args:
        annotations: COCO annotation file (path or fsspec address), or its content.
        category_ids: `category_ids[label]` is the category's id in the file.
        backend: "hotcoco", or "pycocotools" for the reference implementation.
        max_detections: detections of a category that count in one image (None: 100, COCO's; null in a configuration is
            the decoder's, see `assembly.build`); AR1, AR10 and AR100 do not follow it.

    Attributes:
        gathered: whether all results are here, on the first process: since `compute`, even where it failed.

    Raises:
        ValueError: no such backend.
        UserError: `max_detections` is below 1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(
        self,
        annotations: str | Path | dict[str, Any],
        category_ids: Sequence[int],
        backend: Backend = "hotcoco",
        max_detections: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dist_sync_fn": gather_bytes, **kwargs})
        if backend not in get_args(Backend):
            raise ValueError(f"no evaluator {backend!r}: choose one of {', '.join(get_args(Backend))}")
        max_detections = 100 if max_detections is None else max_detections
        if max_detections < 1:
            raise UserError(f"metric.max_detections={max_detections}: must be 1 or more")
        self.annotations = annotations
        self.category_ids = [int(category) for category in category_ids]
        self.backend = backend
        self.max_detections = max_detections
        self._truth: GroundTruth | None = None
        self._warned_at: set[int] = set()
        self._forget()
        self.add_state("records", default=[], dist_reduce_fx="cat")  # uint8 tensors, one for each image
        self.records: list[Tensor] | Tensor

    def update(self, image_id: int, masks: Tensor | Iterable[Tensor], scores: Tensor, labels: Tensor) -> None:
        """Take the n objects found in one image; n = 0 says that the image was seen.

        Args:
            image_id: the image's id in the annotation file.
            masks: (n, H, W) bool in the original frame, or an iterable of (k, H, W) chunks, one of which is held.
            scores: (n,) float. Rounded to float32.
            labels: (n,) long, contiguous from 0.

        Raises:
            UserError: a label for which there is no category.
            ValueError: masks, scores and labels differ in number, or chunks in size.
        """
        self._forget()
        counts: list[bytes] = []
        sizes: set[tuple[int, int]] = set()
        for chunk in [masks] if isinstance(masks, Tensor) else masks:
            counts += rle.encode(chunk)
            sizes.add((chunk.shape[-2], chunk.shape[-1]))
        if len(sizes) > 1:
            raise ValueError(f"image {image_id}: chunks of masks of different sizes {sorted(sizes)}")
        if not len(counts) == len(scores) == len(labels):
            raise ValueError(f"image {image_id}: {len(counts)} masks, {len(scores)} scores and {len(labels)} labels")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.category_ids):
            raise UserError(
                f"image {image_id}: label {int(labels.max())} was predicted, but only {len(self.category_ids)} "
                "categories are known. Evaluate with the data set (or the number of classes) of the checkpoint."
            )
        size = sizes.pop() if counts else (0, 0)
        found = ImageDetections(
            int(image_id), size, labels.cpu().numpy(), scores.detach().float().cpu().numpy(), counts
        )
        self.records.append(torch.frombuffer(bytearray(found.to_bytes()), dtype=torch.uint8).to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """The twelve numbers (`evaluators.NAMES`) as float64 scalars; -1 where there is no ground truth.

        Raises:
            UserError: on every process, for an unknown image, masks of another size than the file's image, or an
                unusable annotation file.
        """
        try:
            summary, self._per_category = self._by_first(self._is_synced, self._evaluate)
        except Exception:
            if self._is_synced:
                self.unsync()  # torchmetrics does not after an exception, and could then not be reset
            raise
        device = "cpu" if self.device.type == "mps" else self.device  # mps has no float64
        return {name: torch.tensor(value, dtype=torch.float64, device=device) for name, value in summary.items()}

    def read_ground_truth(self) -> None:
        """Read the annotation file now and not at the first `compute`, so that what is wrong with it shows early.

        Raises:
            UserError: on every process, for an unusable annotation file.
        """
        self._by_first(self._several, lambda: bool(self._ground_truth()))

    def per_category(self) -> dict[int, CategoryScore]:
        """Category id -> (name, ap, ap50) of the last `compute`, on every process; -1 where there is no ground truth.

        Raises:
            RuntimeError: nothing was computed since the last update or reset.
        """
        if self._per_category is None:
            raise RuntimeError("call compute() before per_category()")
        return self._per_category

    def results(self) -> list[dict[str, Any]]:
        """COCO results, each image once: of all processes on the first one after `compute`, else of this process."""
        return results.as_coco(self._detections(), self.category_ids)

    def write_results(self, path: str | Path) -> None:
        """Write the results of all processes as JSON, on the first process; the others do nothing.

        Beside them, `evaluated.json` holds the ids of all images that were given, those without a detection too.

        Raises:
            RuntimeError: several processes, and nothing was computed since the last update or reset.
        """
        if self._several:
            if dist.get_rank(self.process_group):
                return
            if self._gathered is None:
                raise RuntimeError("call compute() before write_results(): it gathers the results of all processes")
        found = self._detections()
        results.write(results.as_coco(found, self.category_ids), path)
        results.write(sorted(image.image_id for image in found), Path(path).with_name(results.EVALUATED))

    def reset(self) -> None:
        """Forget all images; the ground truth is kept."""
        super().reset()
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """Without the ground truth that was read: a copy reads it again when it needs it."""
        return {**super().__getstate__(), "_truth": None}

    def _forget(self) -> None:
        self.gathered = False
        self._gathered: bytes | None = None  # records of all processes, on the first one
        self._per_category: dict[int, CategoryScore] | None = None

    def _detections(self) -> list[ImageDetections]:
        buffer = self._gathered
        if buffer is None:
            records = self.records if isinstance(self.records, list) else [self.records]
            buffer = torch.cat(records).cpu().numpy().tobytes() if records else b""
        return results.first_of_each_image(results.read_records(buffer))

    def _evaluate(self) -> tuple[dict[str, float], dict[int, CategoryScore]]:
        if self._is_synced:
            self._gathered = self.records.cpu().numpy().tobytes()
        self.gathered = True
        truth, detections = self._ground_truth(), self._detections()
        _check_images(detections, truth)
        if len(detections) < len(truth.sizes):
            if len(detections) not in self._warned_at:
                log.warning("evaluating the %d images seen of %d annotated", len(detections), len(truth.sizes))
            self._warned_at.add(len(detections))
            truth = truth.restricted_to({image.image_id for image in detections})
        found = results.as_coco(detections, self.category_ids)
        evaluation = evaluate(truth, found, self.max_detections, self.backend)
        return evaluation.summary(), evaluation.per_category(truth.categories)

    def _ground_truth(self) -> GroundTruth:
        if self._truth is None:
            self._truth = ground_truth.load(self.annotations, self.category_ids)
        return self._truth

    @property
    def _several(self) -> bool:
        """Whether there are other processes."""
        return dist.is_available() and dist.is_initialized() and self._to_sync

    def _by_first(self, several: bool, work: Callable[[], Any]) -> Any:
        """What `work` returns or raises on the first process, on every one."""
        outcome, error = None, None
        if not several or dist.get_rank(self.process_group) == 0:
            try:
                outcome = work()
            except Exception as raised:  # the other processes are waiting for an answer
                error = raised
        if several:
            outcome, error = self._tell_all(outcome, error)
        if error is not None:
            raise error
        return outcome

    def _tell_all(self, outcome: Any, error: Exception | None) -> tuple[Any, Exception | None]:
        """Send the first process's outcome, or what went wrong there, to all."""
        # Only the message travels: not every exception can be pickled.
        message = None if error is None else (isinstance(error, UserError), f"{error}", type(error).__name__)
        box = [(outcome, message)]
        group = self.process_group
        dist.broadcast_object_list(box, src=dist.get_global_rank(group, 0) if group else 0, group=group)
        outcome, message = box[0]
        if message is not None and error is None:
            mistake, text, kind = message
            error = UserError(text) if mistake else RuntimeError(f"process 0 could not evaluate: {kind}: {text}")
        return outcome, error


def _check_images(detections: list[ImageDetections], truth: GroundTruth) -> None:
    for image in detections:
        expected = truth.sizes.get(image.image_id)
        if expected is None:
            raise UserError(
                f"image {image.image_id} was predicted, but the annotation file does not have it. "
                "Evaluate with the annotations of the same images."
            )
        if image.counts and image.size != tuple(expected):
            raise UserError(
                f"image {image.image_id}: masks of {image.size[0]} x {image.size[1]} (height x width), but the "
                f"annotation file says {expected[0]} x {expected[1]}. Masks must be given in the original frame; "
                "if the picture's size differs from the file's, mend the file (maybe the picture is rotated by EXIF)."
            )

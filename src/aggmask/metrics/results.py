"""Detections as COCO results, and as the bytes in which they travel between processes.

Source: the COCO results format (https://cocodataset.org/#format-results).
Deliberate difference: no `bbox` key, because evaluators would then take the small / medium / large size of a detection
from its box instead of its mask.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aggmask.files import write_whole
from aggmask.metrics.garbage import collector_put_off

EVALUATED = "evaluated.json"  # beside results: ids of the images that they are of
_HEADER = np.dtype([("image_id", "<i8"), ("count", "<i8"), ("height", "<i8"), ("width", "<i8")])
_ROW = np.dtype([("label", "<i4"), ("length", "<i4"), ("score", "<f4")])


@dataclass(frozen=True)
class ImageDetections:
    """The n detections of one image, in the original frame, in the order in which they were found."""

    image_id: int
    size: tuple[int, int]  # (height, width) of the masks; (0, 0) where there are none
    labels: np.ndarray  # (n,) int32, contiguous from 0
    scores: np.ndarray  # (n,) float32
    counts: list[bytes]  # n compressed RLE strings

    def to_bytes(self) -> bytes:
        """The whole record in one piece: a header, a row per detection, then the RLE strings."""
        header = np.array([(self.image_id, len(self.counts), *self.size)], dtype=_HEADER)
        rows = np.empty(len(self.counts), dtype=_ROW)
        rows["label"], rows["score"] = self.labels, self.scores
        rows["length"] = [len(text) for text in self.counts]
        return b"".join([header.tobytes(), rows.tobytes(), *self.counts])


def read_records(buffer: bytes) -> Iterator[ImageDetections]:
    """The inverse of `to_bytes`, for any number of records in a row."""
    position = 0
    while position < len(buffer):
        header = np.frombuffer(buffer, _HEADER, 1, position)[0]
        position += _HEADER.itemsize
        rows = np.frombuffer(buffer, _ROW, int(header["count"]), position)
        position += rows.nbytes
        counts = []
        for length in rows["length"].tolist():
            counts.append(buffer[position : position + length])
            position += length
        size = int(header["height"]), int(header["width"])
        yield ImageDetections(int(header["image_id"]), size, rows["label"], rows["score"], counts)


def first_of_each_image(records: Iterable[ImageDetections]) -> list[ImageDetections]:
    """Without the repeats that a distributed sampler adds to make its shares equal: the first of an image counts."""
    first: dict[int, ImageDetections] = {}
    for record in records:
        first.setdefault(record.image_id, record)
    return list(first.values())


@collector_put_off()
def as_coco(records: Iterable[ImageDetections], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """COCO results; `category_ids[label]` is the id in the annotation file. A float32 score is given as it is."""
    return [
        {
            "image_id": record.image_id,
            "category_id": category_ids[label],
            "score": score,
            "segmentation": {"size": list(record.size), "counts": counts.decode("ascii")},
        }
        for record in records
        for label, score, counts in zip(record.labels.tolist(), record.scores.tolist(), record.counts, strict=True)
    ]


def write(results: list[Any], path: str | Path) -> None:
    """Write COCO results, or ids of images, as JSON; missing folders are made. Raises UserError: see `write_whole`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write(json.dumps(results).encode()))

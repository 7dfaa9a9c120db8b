"""The annotation file as the evaluators need it: checked once, masks as RLE, nothing else in it.

Source: the COCO annotation format (https://cocodataset.org/#format-data), read as for training: see `cocofile`.
Deliberate differences from `pycocotools.coco.COCO`: annotations are numbered anew from 1 (there, id 0 reads as "no
match", and of equal ids only one is kept); `iscrowd` may be missing (0) and so may `area` (the mask's pixels);
annotations without an outline are left out with a warning instead of ending the run. (An RLE of no pixel is an object
that nobody finds, as there; only training leaves it out.)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aggmask.cocofile.reading import read
from aggmask.cocofile.records import Annotation, parse
from aggmask.errors import UserError, listed
from aggmask.metrics import rle
from aggmask.metrics.garbage import collector_put_off

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroundTruth:
    """What is annotated, in the original frame."""

    sizes: dict[int, tuple[int, int]]  # image id -> (height, width)
    categories: dict[int, str]  # category id -> name
    annotations: list[dict[str, Any]]  # id (from 1), image_id, category_id, area, iscrowd, segmentation (RLE)

    def restricted_to(self, image_ids: Collection[int]) -> GroundTruth:
        """The same for these images only."""
        sizes = {image_id: size for image_id, size in self.sizes.items() if image_id in image_ids}
        return replace(self, sizes=sizes, annotations=[a for a in self.annotations if a["image_id"] in sizes])


@collector_put_off()
def load(annotations: str | Path | dict[str, Any], category_ids: Sequence[int]) -> GroundTruth:
    """Read a COCO file (a path, or an address that fsspec knows) or take its content, and check it.

    Args:
        category_ids: the ids that the model predicts; a warning names those that it does not.

    Raises:
        UserError: the file is missing or no COCO file, or an annotation or image cannot be used, with its id.
    """
    if isinstance(annotations, dict):
        source, data = "the given annotations", json.dumps(annotations, default=_plain).encode()
    else:
        source, data = str(annotations), read(str(annotations))
    file = parse(data, source)
    categories = {category.id: category.name for category in file.categories}
    if not categories.keys() & set(category_ids):
        raise UserError(
            f"{source} has none of the model's categories: the file lists the ids {listed(categories)}, the model "
            f"predicts {listed(category_ids)}. Evaluate on the data set the model was trained for, or map the ids."
        )
    sizes = {image.id: (image.height, image.width) for image in file.images}
    truth = GroundTruth(sizes, categories, _clean(file.annotations, sizes, categories, source))
    _warn(truth, category_ids, source)
    return truth


def _warn(truth: GroundTruth, category_ids: Collection[int], source: str) -> None:
    """Say what makes AP something else than a reader of the file expects."""
    objects = [a for a in truth.annotations if not a["iscrowd"]]
    if not objects:
        log.warning("%s has no object to find, so there is no AP (-1)", source)
    if negative := sum(a["area"] < 0 for a in objects):
        log.warning(
            "%s: %d of %d objects have an `area` below 0 and are not counted, as in COCO (AP is -1 where none is): "
            "write null for an area that is unknown, and it is that of the mask",
            source, negative, len(objects),
        )  # fmt: skip
    unknown = {a["category_id"] for a in objects} - set(category_ids)
    if unknown:
        told = listed([f"{id} ({truth.categories[id]})" for id in sorted(unknown)])
        log.warning("%s: categories that the model does not know count as AP 0: %s", source, told)


def _plain(value: Any) -> Any:
    """What JSON does not know: counts as encoders return them, and numpy's numbers."""
    return value.decode("ascii") if isinstance(value, bytes) else value.item()


def _clean(
    annotations: list[Annotation], sizes: dict[int, tuple[int, int]], categories: dict[int, str], source: str
) -> list[dict[str, Any]]:
    """The annotations that can be evaluated, reduced to what evaluators read. Order within an image is kept."""
    cleaned, without_mask = [], []
    for a in annotations:
        if a.image_id not in sizes or a.category_id not in categories:
            continue  # as in COCOeval, which asks for listed images and categories only
        try:
            mask = rle.from_annotation(a.segmentation, sizes[a.image_id])
        except ValueError as error:
            raise UserError(f"{source}: annotation {a.id} of image {a.image_id}: {error}") from error
        if mask is None:
            without_mask.append(a.id)
            continue
        cleaned.append(
            {
                "id": len(cleaned) + 1,
                "image_id": a.image_id,
                "category_id": a.category_id,
                "area": rle.area([mask])[0] if a.area is None else a.area,
                "iscrowd": int(bool(a.iscrowd)),
                "segmentation": mask,
            }
        )
    if without_mask:
        log.warning(
            "%s: %d annotations without a mask are left out: %s", source, len(without_mask), listed(without_mask)
        )
    return cleaned

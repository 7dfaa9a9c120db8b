"""The same few validation pictures for every variant: the objects of its best evaluation over each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from aggmask.drawing.overlay import draw
from aggmask.errors import UserError
from aggmask.geometry.cropped import CroppedMasks
from aggmask.metrics import rle
from aggmask.reporting.summary import Summary
from aggmask.structures import Category, Instances

_SCORE = 0.3  # objects below are not drawn
_LARGEST = 480  # pixels of the long side


class Strip(NamedTuple):
    """One image: ground truth, then the first finished run of each row of the summary."""

    image_id: int
    pictures: list[Image.Image]


def side_by_side(summary: Summary, count: int) -> tuple[list[Strip], list[str]]:
    """The first `count` images, by id, in which there is something to find.

    Returns:
        The strips, and a sentence for each image that is left out, as it is not there or not what the annotations say.

    Raises:
        UserError: there is no folder or zip of images.
    """
    chosen = sorted({a["image_id"] for a in summary.truth.annotations if not a["iscrowd"]})[:count]
    if not chosen:
        return [], []
    dataset = summary.data.val_dataset
    found = [_by_image(row.variant.finished[0].results(summary.split), chosen) for row in summary.rows]
    strips, left_out = [], []
    for image_id in chosen:
        try:
            pixels, truth = dataset.original(image_id)
        except (UserError, OSError) as error:
            left_out.append(f"No picture of image {image_id}: {_first_line(error)}")
            continue
        shown = [truth, *(_instances(results[image_id], truth.size, dataset.index.categories) for results in found)]
        strips.append(Strip(image_id, [_drawn(pixels, instances, truth) for instances in shown]))
    return strips, left_out


def pictures_or_reason(summary: Summary, count: int) -> tuple[list[Strip], list[str]]:
    """`side_by_side`, or why there is nothing to see: a page of numbers is worth having without its images."""
    try:
        strips, left_out = side_by_side(summary, count)
    except (UserError, OSError) as error:
        return [], [f"No pictures: {_first_line(error)}"]
    if not strips and not left_out:
        return [], ["No pictures: none were asked for, or there are no objects."]
    return strips, left_out


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _by_image(results: Sequence[dict[str, Any]], image_ids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in image_ids}
    for result in results:
        if result["image_id"] in found and result["score"] >= _SCORE:
            found[result["image_id"]].append(result)
    return found


def _instances(results: list[dict[str, Any]], size: tuple[int, int], categories: Sequence[Category]) -> Instances:
    """COCO results of one image as objects of the original frame."""
    labels = {category.id: label for label, category in enumerate(categories)}
    masks = CroppedMasks.of(size, (rle.decode(result["segmentation"]["counts"], size) for result in results))
    scores = torch.tensor([result["score"] for result in results])
    found = torch.tensor([labels[result["category_id"]] for result in results], dtype=torch.long)
    return Instances(masks, scores, found, categories)


def _drawn(pixels: np.ndarray, instances: Instances, truth: Instances) -> Image.Image:
    picture = draw(pixels, instances, _SCORE, like=truth)
    picture.thumbnail((_LARGEST, _LARGEST))
    return picture

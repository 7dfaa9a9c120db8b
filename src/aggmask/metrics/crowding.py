"""AP of objects that touch one of their own kind, and of those that stand apart.

What aggregation is claimed to help (AggMask, section 1) are masks that must end where the next object of the same
category begins; an average over all objects hides that. Evaluated as COCO evaluates sizes: objects of the other sort
are ignored, and so is what is found of them; a detection that meets no object counts as a miss for both sorts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from pycocotools import mask as reference

from aggmask.geometry.cropped import dilated
from aggmask.metrics import rle
from aggmask.metrics.ground_truth import GroundTruth

NAMES = {"APt": "touching", "APa": "apart"}  # as a person says it
MORE = "APt-APa"  # by how much more the ones gain than the others
GAP = 2  # pixels: objects touch where a pixel of one is so near to a pixel of the other, in rows and in columns
_NO_SIZE = 1e12  # an area that no range of sizes holds: evaluators ignore such an object


def split(truth: GroundTruth) -> dict[str, GroundTruth]:
    """The same ground truth for each of NAMES, with the objects of the other sort to be ignored; {} if none touch."""
    if not (found := touching(truth)):
        return {}
    apart = {a["id"] for a in truth.annotations} - found
    return {"APt": _only(truth, found), "APa": _only(truth, apart)}


def touching(truth: GroundTruth, gap: int = GAP) -> set[int]:
    """Ids of the objects of which another object of their image and category is at most `gap` pixels away.

    Crowd annotations are no objects here.
    """
    groups: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for annotation in truth.annotations:
        if not annotation["iscrowd"]:
            groups[annotation["image_id"], annotation["category_id"]].append(annotation)
    found: set[int] = set()
    for group in groups.values():
        boxes = np.array([_box(a) for a in group])
        for i, j in _near(boxes, gap):
            ids = {group[i]["id"], group[j]["id"]}
            if not ids <= found and _meet(group[i], group[j], boxes[[i, j]], gap):
                found |= ids
    return found


def _only(truth: GroundTruth, ids: Collection[int]) -> GroundTruth:
    annotations = [a if a["id"] in ids else {**a, "area": _NO_SIZE} for a in truth.annotations]
    return replace(truth, annotations=annotations)


def _near(boxes: np.ndarray, gap: int) -> Iterator[tuple[int, int]]:
    """Each pair of (n, 4) boxes that lie within `gap` of each other, once; a crowded image has few among all pairs."""
    order = np.argsort(boxes[:, 0])
    lefts, tops, rights, bottoms = boxes[order].T
    reaches = np.searchsorted(lefts, rights + gap)  # the first box that begins too far to the right
    for place, reach in enumerate(reaches):
        beside = slice(place + 1, reach)
        met = (tops[beside] < bottoms[place] + gap) & (tops[place] < bottoms[beside] + gap)
        yield from ((order[place], other) for other in order[beside][met])


def _box(annotation: dict[str, Any]) -> np.ndarray:
    """(left, top, right, bottom) pixels; right and bottom are outside."""
    x, y, w, h = reference.toBbox(annotation["segmentation"]).astype(int)
    return np.array([x, y, x + w, y + h])


def _meet(first: dict[str, Any], second: dict[str, Any], boxes: np.ndarray, gap: int) -> bool:
    """Whether two masks, of these (2, 4) boxes, lie within `gap` of each other."""
    left, top = boxes[:, :2].max(0) - gap
    right, bottom = boxes[:, 2:].min(0) + gap
    window = np.s_[max(0, top) : bottom, max(0, left) : right]
    one, other = (
        rle.decode(each["segmentation"]["counts"], tuple(each["segmentation"]["size"]))[window]
        for each in (first, second)
    )
    return bool((dilated(one, gap) & other).any())

"""From the JSON of a COCO-format file to packed arrays.

The format is COCO's "instances" (https://cocodataset.org/#format-data) as found in the wild: see `pack`. Differences
from `pycocotools.COCO`: faults raise an error that names them instead of surfacing later; annotations without a usable
mask are dropped and counted; a missing `area` is the polygons' own, not that of their raster.
"""

from __future__ import annotations

from array import array
from collections import Counter

import numpy as np
from pycocotools import mask as coco_mask

from aggmask.cocofile.records import CVAT_CROWDS, parse, problems_of, too_many_crowds
from aggmask.cocofile.segmentation import Shape, are_pairs, mask_of, shape_of, shoelace
from aggmask.errors import UserError


def pack(data: bytes, source: str) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and facts of a COCO file's bytes. Runs of unequal length lie end to end, beside an array of their ends.

    Accepted: any category ids; `segmentation` as list of polygons, one flat polygon, compressed or uncompressed RLE;
    numbers as strings; missing or null `iscrowd` (0), `area`, `bbox` (from the segmentation, also where it has no
    width or height), `annotations` (none). The fact "told" counts what is done otherwise than the file says.
    """
    file = parse(data, source)
    if problem := next(problems_of(file), None):
        raise UserError(f"{source}: {problem.text}")
    images = sorted(file.images, key=lambda image: image.id)
    categories = sorted(file.categories, key=lambda category: category.id)
    place_of = {image.id: place for place, image in enumerate(images)}
    label_of = {category.id: label for label, category in enumerate(categories)}
    places = np.fromiter((place_of[a.image_id] for a in file.annotations), np.int64, len(file.annotations))

    masks, told = _Masks(), Counter()
    kept, boxes, areas = array("q"), array("d"), array("d")
    for k in np.argsort(places, kind="stable").tolist():
        a, image = file.annotations[k], images[places[k]]
        try:
            shape = shape_of(a.segmentation)[0]
            if not masks.add(shape, image.height, image.width):
                pairs = are_pairs(shape)
                told[f"{'with points as pairs' if pairs else 'without a usable mask'} were left out"] += 1
                continue
            if a.is_ignored and not a.iscrowd:
                told["marked `ignore` are not trained on"] += 1
            given = a.bbox is not None and a.bbox.has_extent
            boxes.extend(a.bbox.numbers if given else masks.last_box())
            if a.bbox is not None and not given:
                told["with a box of no width or height got that of their mask"] += 1
            areas.append(masks.last_area() if a.area is None else a.area)
        except ValueError as error:  # msgspec's errors too
            raise UserError(
                f"{source}: annotation {a.id} of image {a.image_id}: {error}. Mend or remove it."
            ) from error
        kept.append(k)

    found = [file.annotations[k] for k in kept]
    if too_many_crowds(crowds := sum(bool(a.iscrowd) for a in found), len(found)):
        told[f"of {len(found)} are crowds, which are never trained on ({CVAT_CROWDS})"] = crowds
    names = [image.file_name.encode() for image in images]
    per_image = np.bincount(places[kept], minlength=len(images)) if kept else np.zeros(len(images), np.int64)
    arrays = {
        "image_ids": np.array([image.id for image in images], np.int64),
        "sizes": np.array([(image.height, image.width) for image in images], np.int32).reshape(-1, 2),
        "names": np.frombuffer(b"".join(names), np.uint8),
        "name_ends": _ends([len(name) for name in names]),
        "annotation_ends": _ends(per_image),
        "labels": np.array([label_of[a.category_id] for a in found], np.int64),
        "crowd": np.array([not a.is_target for a in found], np.bool_),
        "areas": np.frombuffer(areas, np.float64),
        "boxes": np.frombuffer(boxes, np.float64).reshape(-1, 4),
        "ids": np.array([a.id for a in found], np.int64),
        **masks.arrays(),
    }
    return arrays, {"categories": [(c.id, c.name) for c in categories], "told": told, "source": source}


def _ends(lengths: list[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


class _Masks:
    """Segmentations laid end to end: coordinates of polygons, and bytes of compressed RLEs."""

    def __init__(self) -> None:
        self._numbers = array("f")
        self._number_ends = array("q", [0])
        self._polygon_ends = array("q", [0])
        self._rles = bytearray()
        self._rle_ends = array("q", [0])
        self._last: list | dict = []

    def add(self, shape: Shape, height: int, width: int) -> bool:
        """Take in one segmentation; False, and nothing taken in, when it holds no mask. ValueError when faulty."""
        self._last = mask_of(shape, height, width)
        if isinstance(self._last, dict):
            self._rles += self._last["counts"]
        else:
            for polygon in self._last:
                self._numbers.fromlist(polygon)
                self._number_ends.append(len(self._numbers))
        if len(self._number_ends) - 1 == self._polygon_ends[-1] and len(self._rles) == self._rle_ends[-1]:
            return False
        self._polygon_ends.append(len(self._number_ends) - 1)
        self._rle_ends.append(len(self._rles))
        return True

    def last_box(self) -> list[float]:
        """x y w h around the segmentation added last."""
        if isinstance(self._last, dict):
            return coco_mask.toBbox(self._last).tolist()
        points = np.concatenate(self._last).reshape(-1, 2)
        return [*points.min(0), *np.ptp(points, axis=0)]

    def last_area(self) -> float:
        """Area of the segmentation added last, pixels: of an RLE exactly, of polygons by the shoelace formula."""
        if isinstance(self._last, dict):
            return float(coco_mask.area(self._last))
        return sum(shoelace(np.array(polygon).reshape(-1, 2)) for polygon in self._last)

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            "points": np.frombuffer(self._numbers, np.float32).reshape(-1, 2),
            "point_ends": np.frombuffer(self._number_ends, np.int64) // 2,
            "polygon_ends": np.frombuffer(self._polygon_ends, np.int64),
            "rles": np.frombuffer(self._rles, np.uint8),
            "rle_ends": np.frombuffer(self._rle_ends, np.int64),
        }

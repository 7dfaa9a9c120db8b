"""Random JSON in and around annotation files, random outlines, random bitmaps."""

from __future__ import annotations

import copy
import json

import numpy as np
from hypothesis import strategies as st

from tests.nasty.annotations import FILE, GOOD, SHAPES, SIZE, other

_NUMBERS = st.one_of(
    st.integers(-5, 40), st.floats(-50, 90, width=32), st.sampled_from([10**30, -(2**63), 1e308, 0, -1, 2**31, 1e9])
)
_KEYS = (
    "id",
    "image_id",
    "category_id",
    "segmentation",
    "bbox",
    "area",
    "iscrowd",
    "size",
    "counts",
    "height",
    "width",
)
_TEXTS = st.one_of(
    st.sampled_from(["nan", "inf", "3", "1e400", "", "../a.jpg", "a\0b", "é", "PPPP"]), st.text(max_size=6)
)
_LEAVES = st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS)
VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=12,
)
_PLAUSIBLE = [json.loads(case.data)["annotations"][1]["segmentation"] for case in SHAPES.values()]
_POLYGONS = st.lists(st.lists(st.floats(-20, 60, width=32), max_size=14), max_size=3)
_SEGMENTATIONS = st.one_of(st.sampled_from(_PLAUSIBLE), _POLYGONS, VALUES)
_CROWDS = st.sampled_from([0, 1, True, None, "1", "0", "false"])
_ANNOTATIONS = st.fixed_dictionaries(
    {"id": st.integers(9, 13), "image_id": st.integers(5, 6), "category_id": st.integers(0, 2),
     "segmentation": _SEGMENTATIONS},
    optional={"bbox": st.lists(_NUMBERS, min_size=4, max_size=4) | VALUES, "area": _NUMBERS | VALUES,
              "iscrowd": _CROWDS | VALUES},
)  # fmt: skip


@st.composite
def annotation_files(draw) -> bytes:
    """A file with odd annotations, in which one value anywhere may have become something else."""
    content = copy.deepcopy(FILE)
    content["annotations"] = [
        copy.deepcopy(GOOD),
        other(iscrowd=draw(_CROWDS)),
        *draw(st.lists(_ANNOTATIONS, max_size=3)),
    ]
    content["images"].append({"id": draw(st.integers(5, 7)), "file_name": "b.jpg", "height": 9, "width": 11})
    content["categories"].append({"id": draw(st.integers(0, 3)), "name": draw(st.sampled_from(["cat", "dog"]))})
    if draw(st.booleans()):
        place = content[draw(st.sampled_from(["images", "categories", "annotations"]))]
        if draw(st.booleans()):
            place.insert(draw(st.integers(0, len(place))), draw(VALUES))
        else:
            record = draw(st.sampled_from(place))
            record[draw(st.sampled_from(sorted(record)))] = draw(VALUES)
    return json.dumps(content).encode()


@st.composite
def damaged_files(draw) -> bytes:
    """A sound file with a stretch of its bytes replaced."""
    data = json.dumps(FILE).encode()
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 20)))
    return data[:start] + draw(st.binary(max_size=12)) + data[end if draw(st.booleans()) else len(data) :]


@st.composite
def outlines(draw, size=SIZE, margin: float = 0.0) -> list[np.ndarray]:
    """One to three polygons (m, 2), up to a margin of pixels outside of an image."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        points = draw(st.integers(3, 9))
        x, y = (
            draw(st.lists(st.floats(-margin, side + margin, width=32), min_size=points, max_size=points))
            for side in size[::-1]
        )
        parts.append(np.stack([x, y], axis=1).astype(np.float32))
    return parts


@st.composite
def bitmaps(draw) -> np.ndarray:
    """(H, W) uint8 0/1 of any small size: rectangles, some noise, nothing, everything."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    bitmap = np.full((height, width), draw(st.sampled_from([0, 0, 0, 1])), np.uint8)
    for _ in range(draw(st.integers(0, 3))):
        top, left = draw(st.integers(0, height)), draw(st.integers(0, width))
        bitmap[top : top + draw(st.integers(0, 20)), left : left + draw(st.integers(0, 20))] ^= 1
    if draw(st.booleans()):
        bitmap ^= np.random.default_rng(draw(st.integers(0, 99))).random(bitmap.shape) < 0.1
    return np.asfortranarray(bitmap)

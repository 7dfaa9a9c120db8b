"""Random annotation files and outlines: whoever reads them agrees, and nothing but a UserError comes out.

A few seconds by default; `make fuzz` goes on for ten minutes.
"""

from __future__ import annotations

import json
from collections import Counter

import fsspec
import numpy as np
from hypothesis import given
from pycocotools import mask as coco_mask

from aggmask.cocofile.segmentation import mask_of, shape_of
from aggmask.data.packing import pack
from aggmask.data.raster import bitmap, rasterize
from aggmask.diagnosis.findings import KINDS
from aggmask.diagnosis.repair import repaired
from aggmask.diagnosis.structure import examine
from aggmask.errors import UserError
from aggmask.geometry.frame import Frame
from aggmask.metrics import ground_truth, rle
from tests.nasty.annotations import SIZE
from tests.nasty.strategies import annotation_files, bitmaps, damaged_files, outlines

STOPPING = {kind for kind, about in KINDS.items() if about.stops}
PLAIN = Frame.resized(SIZE, SIZE)


def read(data: bytes) -> list[int] | None:
    """Ids that the index has of a file; None where it refuses it."""
    try:
        return pack(data, "file.json")[0]["ids"].tolist()
    except UserError as error:
        assert "file.json" in str(error)  # noqa: PT017
        return None


def check(data: bytes) -> None:
    """The doctor says "stops" just where the index does, and what it mends is whole."""
    examination = examine(data, "file.json")
    kinds = set(examination.findings.counts())
    assert (read(data) is None) == bool(kinds & STOPPING), kinds
    try:
        copy = repaired(examination)
    except UserError:
        assert not examination.readable or kinds & STOPPING
        return
    again = examine(copy, "copy.json")
    assert again.findings.faults == 0, (examination.findings.found, again.findings.found)
    ids = read(copy.replace(b"copy.json", b"file.json"))
    assert ids is not None
    assert len(ids) == len(set(ids)) == len(json.loads(copy.removeprefix(b"\xef\xbb\xbf")).get("annotations") or [])


@given(annotation_files())
def test_doctor_and_index_agree_on_odd_values(data):
    check(data)


@given(damaged_files())
def test_doctor_and_index_agree_on_damaged_bytes(data):
    check(data)


@given(annotation_files())
def test_training_and_evaluation_agree_on_odd_values(data):
    try:
        arrays, facts = pack(data, "file.json")
    except UserError:
        return
    if facts["told"] or not facts["categories"]:  # told: what training takes otherwise than the file says
        return
    ids = [id for id, _ in facts["categories"]]
    fsspec.filesystem("memory").pipe("/file.json", data)
    truth = ground_truth.load("memory://file.json", ids)
    assert truth.sizes == dict(zip(arrays["image_ids"].tolist(), map(tuple, arrays["sizes"].tolist()), strict=True))
    found = sorted(truth.annotations, key=lambda a: a["image_id"])
    assert [a["iscrowd"] for a in found] == arrays["crowd"].tolist()
    assert [a["category_id"] for a in found] == [ids[label] for label in arrays["labels"]]
    per_image = Counter(a["image_id"] for a in found)
    assert [per_image[i] for i in arrays["image_ids"].tolist()] == np.diff(arrays["annotation_ends"]).tolist()


@given(bitmaps())
def test_every_form_of_a_bitmap_gives_it_back(pixels):
    encoded = coco_mask.encode(pixels)
    flat = np.concatenate([[0], pixels.ravel(order="F").astype(int)])
    changes = np.flatnonzero(np.diff(flat))
    counts = np.diff([0, *changes, pixels.size]).tolist()
    size = list(pixels.shape)
    frame = Frame.resized(pixels.shape, pixels.shape)
    for form in ({"size": size, "counts": counts}, {"size": size, "counts": encoded["counts"].decode()}):
        mask = mask_of(shape_of(form)[0], *size)
        evaluated = rle.from_annotation(form, pixels.shape)
        if not pixels.any():
            assert mask["counts"] == b""
            assert not coco_mask.decode(evaluated).any()
            continue
        np.testing.assert_array_equal(coco_mask.decode(mask), pixels)
        np.testing.assert_array_equal(coco_mask.decode(evaluated), pixels)
        masks, centers, areas = rasterize([mask], frame, stride=1)
        np.testing.assert_array_equal(masks[0], pixels)
        rows, columns = np.nonzero(pixels)
        np.testing.assert_allclose(centers[0], (columns.mean(), rows.mean()), atol=1e-4)
        assert areas[0] == pixels.sum()


def near(parts: list[np.ndarray], size, distance: float = 1.0) -> np.ndarray:
    """(H, W) bool: pixels whose center is no further than that from an outline: there painters may differ."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    centers = np.stack([columns, rows], axis=-1)[:, :, None] + 0.5
    found = np.zeros(size, bool)
    for part in parts:
        start = part.astype(np.float64)
        along = np.roll(start, -1, axis=0) - start
        length = (along**2).sum(1)
        share = ((centers - start) * along).sum(-1) / np.where(length, length, 1)
        nearest = start + np.clip(share, 0, 1)[..., None] * along
        found |= (np.hypot(*np.moveaxis(centers - nearest, -1, 0)) <= distance).any(-1)
    return found


@given(outlines())
def test_outlines_are_painted_as_pycocotools_paints_them(parts):
    flat = [part.ravel().tolist() for part in parts]
    reference = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, *SIZE)))
    np.testing.assert_array_equal(coco_mask.decode(rle.from_annotation(flat, SIZE)), reference)
    np.testing.assert_array_equal(bitmap(parts, SIZE), reference)


@given(outlines(margin=25.0))
def test_outlines_that_leave_the_image_differ_at_their_edge_only(parts):
    flat = [part.ravel().tolist() for part in parts]
    reference = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, *SIZE)))
    np.testing.assert_array_equal(coco_mask.decode(rle.from_annotation(flat, SIZE)), reference)
    assert not ((bitmap(parts, SIZE) != reference) & ~near(parts, SIZE)).any()


@given(outlines(margin=10.0))
def test_training_masks_are_those_of_full_size(parts):
    """At a stride of 1 and at 4, up to the pixels of the edge."""
    flat = [part.ravel().tolist() for part in parts]
    reference = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, *SIZE))).astype(bool)
    disputed = near(parts, SIZE)
    for stride in (1, 4):
        masks, _, areas = rasterize([parts], PLAIN, stride)
        cells = SIZE[0] // stride * stride, SIZE[1] // stride * stride

        def counted(pixels, stride=stride, cells=cells):
            whole = pixels[: cells[0], : cells[1]]
            return whole.reshape(cells[0] // stride, stride, cells[1] // stride, stride).sum((1, 3))

        low, high = counted(reference & ~disputed), counted(reference | disputed)
        found = masks[0][: cells[0] // stride, : cells[1] // stride]
        assert found[2 * low >= stride * stride].all()
        if (2 * low >= stride * stride).any():  # else it is tiny, and keeps the cells that hold most of it
            assert not found[2 * high < stride * stride].any()
        assert reference.sum() - disputed.sum() <= areas[0] <= reference.sum() + disputed.sum()

"""RLE: byte-equal to pycocotools, and robust to what annotation files hold."""

import json

import msgspec
import numpy as np
import pytest
import torch
from pycocotools import mask as reference

from aggmask.metrics import rle
from tests.metrics.made_up import ellipse, uncompressed


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (64, 33), (300, 401)])
@pytest.mark.parametrize("layout", ["dense", "strided", "uint8"])
def test_encode_is_that_of_pycocotools(size, layout):
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(9, *size, generator=generator) > torch.linspace(0, 1, 9)[:, None, None]
    masks[0], masks[1] = True, False
    expected = [m["counts"] for m in reference.encode(np.asfortranarray(masks.permute(1, 2, 0).numpy().astype("u1")))]
    if layout == "strided":
        masks = masks.transpose(1, 2).contiguous().transpose(1, 2)
    assert rle.encode(masks.to(torch.uint8) if layout == "uint8" else masks) == expected


def test_encode_nothing():
    assert rle.encode(torch.zeros(0, 4, 4, dtype=torch.bool)) == []


def test_decode_is_the_inverse():
    masks = torch.rand(4, 13, 17, generator=torch.Generator().manual_seed(0)) > 0.5
    for mask, counts in zip(masks, rle.encode(masks), strict=True):
        assert (rle.decode(counts, (13, 17)) == mask.numpy()).all()


def test_rle_annotations_of_all_kinds_are_the_same_mask():
    mask = ellipse(40, 30, 12, 20, 8, 15)
    text = reference.encode(np.asfortranarray(mask.astype("u1")))["counts"]
    kinds = [uncompressed(mask), {"size": [40, 30], "counts": text.decode()}]
    kinds += [msgspec.Raw(json.dumps(kind).encode()) for kind in kinds]
    for kind in kinds:
        found = rle.from_annotation(kind, (40, 30))
        assert found == {"size": [40, 30], "counts": text.decode()}
        assert rle.area([found]) == [mask.sum()]


def test_area_of_many():
    masks = torch.rand(300, 13, 17, generator=torch.Generator().manual_seed(0)) > 0.5
    rles = [{"size": [13, 17], "counts": counts} for counts in rle.encode(masks)]
    assert rle.area(rles) == masks.flatten(1).sum(1).tolist()
    assert rle.area([]) == []


def test_polygons():
    # Corners on pixel edges: columns 2..5, rows 3..8 of a 10 x 12 image.
    one = [2, 3, 6, 3, 6, 9, 2, 9]
    mask = rle.decode(rle.from_annotation([one], (10, 12))["counts"], (10, 12))
    assert mask[3:9, 2:6].all()
    assert mask.sum() == 24
    assert rle.from_annotation(one, (10, 12)) == rle.from_annotation([one], (10, 12))
    two = rle.from_annotation([one, [8, 0, 10, 0, 10, 2, 8, 2]], (10, 12))
    assert rle.area([two]) == [28]


def test_polygons_without_area_are_left_out():
    one = [2, 3, 6, 3, 6, 9, 2, 9]
    assert rle.from_annotation([[1, 1, 5, 5], one], (10, 12)) == rle.from_annotation([one], (10, 12))
    for nothing in (None, [], [[]], [[1, 1, 5, 5]]):
        assert rle.from_annotation(nothing, (10, 12)) is None


@pytest.mark.parametrize("counts", [[120], [], "", "hb0"])
def test_an_rle_of_no_pixel_is_a_mask_of_none(counts):
    size = (20, 30) if counts == "hb0" else (10, 12)
    found = rle.from_annotation({"size": list(size), "counts": counts}, size)
    assert not rle.decode(found["counts"], size).any()
    assert rle.area([found]) == [0]


def test_a_polygon_far_outside_is_cut_off_at_the_border():
    far = rle.from_annotation([[-1e8, -1e8, 1e8, -1e8, 1e8, 1e8, -1e8, 1e8]], (10, 12))
    assert rle.area([far]) == [120]


@pytest.mark.parametrize("far", [100, 300, 2000, 8000, 50_000, 1e8])
def test_edges_that_lead_far_outside_keep_their_slope(far):
    polygon, size = [10, 20, far, 0.6 * far, 10, 40], (64, 64)
    ours = rle.decode(rle.from_annotation([polygon], size)["counts"], size)
    near = [10, 20, 2000, 0.6 * 2000, 10, 40] if far > 1e6 else polygon  # the same slope, nearly; pycocotools would end
    theirs = reference.decode(reference.frPyObjects([near], *size))[..., 0].astype(bool)
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.97
    if far < 8192:
        assert (ours == theirs).all()


def test_a_polygon_that_is_elsewhere_covers_nothing():
    assert rle.area([rle.from_annotation([[1e5, 1e5, 2e5, 1e5, 2e5, 2e5]], (10, 12))]) == [0]


def test_an_rle_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(30, 40\).*\(40, 30\)"):
        rle.from_annotation(uncompressed(np.ones((30, 40), bool)), (40, 30))

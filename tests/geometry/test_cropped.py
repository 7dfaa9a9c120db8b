"""Cropped masks say what the dense ones do."""

import numpy as np
import pytest
import torch

from aggmask.geometry.cropped import CroppedMasks, cropped, dilated, overlap, shared
from aggmask.structures import Category, Instances


def some_masks(count: int = 6) -> torch.Tensor:
    rng = np.random.default_rng(0)
    masks = np.zeros((count, 20, 30), bool)
    for mask in masks[1:]:  # the first stays empty
        y, x = rng.integers(0, 12), rng.integers(0, 20)
        mask[y : y + 8, x : x + 10] = rng.random((8, 10)) < 0.5
    return torch.from_numpy(masks)


def test_they_stand_for_the_dense_ones():
    dense = some_masks()
    masks = cropped(dense)
    assert masks.shape == dense.shape
    assert len(masks) == len(dense)
    assert cropped(masks) is masks
    for mask, expected in zip(masks, dense, strict=True):
        assert torch.equal(mask, expected)
    for key in (slice(1, 4), [2, 0], torch.tensor([5, 1]), dense.flatten(1).any(1), []):
        assert torch.equal(torch.stack([*masks[key], dense[0]]), torch.cat([dense[key], dense[:1]]))


def test_objects_with_them_are_picked_and_boxed_alike():
    dense = some_masks()
    scores, labels, names = torch.rand(6), torch.arange(6), [Category(i, str(i)) for i in range(6)]
    one, other = (Instances(masks, scores, labels, names) for masks in (dense, cropped(dense)))
    assert torch.equal(one.boxes, other.boxes)
    assert other.size == (20, 30)
    picked = other[scores > 0.3]
    assert torch.equal(picked.boxes, one[scores > 0.3].boxes)
    assert picked.names == one[scores > 0.3].names


def test_what_two_masks_share():
    dense = some_masks(9)
    crops = cropped(dense).crops
    for i, a in enumerate(crops):
        for j, b in enumerate(crops):
            both = int((dense[i] & dense[j]).sum())
            assert shared(a, b) == both <= overlap(a[0], b[0])


@pytest.mark.parametrize("size", [(20, 30), (7, 11), (10, 30), (1, 1)])
def test_a_pixel_of_a_smaller_image_is_of_a_mask_as_soon_as_a_part_of_it_is(size):
    dense = some_masks(30)
    rows, columns = (-(-(np.arange(n) + 1) * side // n) - 1 for n, side in zip((20, 30), size, strict=True))
    shrunk = cropped(dense).shrunk(size)
    assert shrunk.shape == (30, *size)
    for mask, found in zip(dense, shrunk, strict=True):
        expected = np.zeros(size, bool)
        y, x = np.nonzero(mask.numpy())
        expected[rows[y], columns[x]] = True
        assert np.array_equal(found, expected)


def test_masks_are_asked_for_one_after_the_other_and_let_go():
    made = []

    def masks():
        for _ in range(3):
            made.append(np.ones((4, 4), bool))
            yield made[-1]

    kept = CroppedMasks.of((4, 4), masks())
    assert not any(inside.base is mask or inside is mask for (_, inside), mask in zip(kept.crops, made, strict=True))


@pytest.mark.parametrize("by", [0, 1, 2, 3, 7, 40])
def test_a_mask_grows_by_a_square(by):
    mask = np.random.default_rng(0).random((9, 14)) < 0.03
    expected = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        expected[max(0, y - by) : y + by + 1, max(0, x - by) : x + by + 1] = True
    before = mask.copy()
    assert np.array_equal(dilated(mask, by), expected)
    assert np.array_equal(mask, before)

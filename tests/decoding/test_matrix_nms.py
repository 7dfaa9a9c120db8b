"""Hand-made answers."""

import math

import pytest
import torch

from aggmask.decoding import matrix_nms
from aggmask.decoding.matrix_nms import matrix_decay
from tests.oracle import nms_by_loops

LEFT = torch.zeros(4, 8, dtype=torch.bool)
LEFT[:, :4] = True
WIDE = torch.zeros(4, 8, dtype=torch.bool)
WIDE[:, 2:6] = True  # IoU with LEFT: 8 / 24
SCORES = torch.tensor([0.9, 0.8])


def labels(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def decayed(masks: torch.Tensor, labels: torch.Tensor, scores: torch.Tensor, *args, **options) -> torch.Tensor:
    return scores * matrix_decay(masks, labels, *args, **options).factor


def test_the_second_of_two_identical_masks_decays_by_exp_minus_sigma():
    found = decayed(torch.stack([LEFT, LEFT]), labels(1, 1), SCORES, sigma=2.0)
    torch.testing.assert_close(found, torch.tensor([0.9, 0.8 * math.exp(-2)]))
    found = decayed(torch.stack([LEFT, LEFT]), labels(1, 1), SCORES, sigma=0.5)
    torch.testing.assert_close(found, torch.tensor([0.9, 0.8 * math.exp(-0.5)]))


def test_the_linear_kernel_drops_a_copy_and_scales_an_overlap():
    found = decayed(torch.stack([LEFT, LEFT]), labels(1, 1), SCORES, kernel="linear")
    torch.testing.assert_close(found, torch.tensor([0.9, 0.0]))
    found = decayed(torch.stack([LEFT, WIDE]), labels(1, 1), SCORES, kernel="linear")
    torch.testing.assert_close(found, torch.tensor([0.9, 0.8 * 2 / 3]))


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_another_class_does_not_decay(kernel):
    assert torch.equal(decayed(torch.stack([LEFT, LEFT]), labels(1, 2), SCORES, kernel), SCORES)


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_disjoint_masks_do_not_decay(kernel):
    assert torch.equal(decayed(torch.stack([LEFT, ~LEFT]), labels(1, 1), SCORES, kernel), SCORES)


def test_what_is_itself_suppressed_suppresses_less():
    # Three copies: the second's own overlap compensates, so the third decays as much as the second, not twice.
    found = decayed(torch.stack([LEFT] * 3), labels(1, 1, 1), torch.tensor([0.9, 0.8, 0.7]))
    torch.testing.assert_close(found, torch.tensor([0.9, 0.8 * math.exp(-2), 0.7 * math.exp(-2)]))


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_no_masks_and_empty_masks(kernel):
    assert decayed(torch.zeros(0, 4, 8, dtype=torch.bool), labels(), torch.zeros(0), kernel).shape == (0,)
    empty = torch.zeros(2, 4, 8, dtype=torch.bool)
    assert torch.equal(decayed(empty, labels(1, 1), SCORES, kernel), SCORES)


@pytest.mark.parametrize("pixels", [2**14, 10])  # of the 42 that are summed at once
@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
@pytest.mark.parametrize("sigma", [2.0, 0.5])
def test_it_equals_the_double_loop(kernel, sigma, pixels, monkeypatch):
    monkeypatch.setattr(matrix_nms, "_PIXELS", pixels)
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(25, 6, 7, generator=generator) > torch.rand(25, 1, 1, generator=generator)
    masks[7], masks[12] = masks[3], masks[3]
    classes = torch.randint(3, (25,), generator=generator)
    classes[[3, 7, 12]] = 1
    scores = torch.rand(25, generator=generator).sort(descending=True).values
    expected = nms_by_loops(masks, classes.tolist(), scores.tolist(), kernel, sigma)
    torch.testing.assert_close(
        decayed(masks, classes, scores, kernel, sigma), torch.tensor(expected), rtol=1e-5, atol=1e-6
    )


def test_under_autocast_overlaps_stay_exact():
    big = torch.ones(2, 64, 65, dtype=torch.bool)
    big[1, 0, 0] = False
    plain = decayed(big, labels(0, 0), SCORES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(decayed(big, labels(0, 0), SCORES), plain)


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_who_lowers_whom(kernel):
    # A better copy lowers more than a part; the copy itself suppressed, the first one is to blame for the third.
    masks = torch.stack([LEFT, ~LEFT, LEFT, WIDE])
    decay = matrix_decay(masks, labels(1, 1, 1, 1), kernel)
    assert decay.by.tolist() == [-1, -1, 0, 0]
    torch.testing.assert_close(decay.iou, torch.tensor([0, 0, 1, 1 / 3]))
    other = matrix_decay(masks, labels(1, 1, 2, 2), kernel)
    assert other.by.tolist() == [-1, -1, -1, 2]
    assert len(matrix_decay(masks[:0], labels(), kernel).by) == 0

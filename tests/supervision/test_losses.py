"""Losses by hand."""

import math

import pytest
import torch

from aggmask.structures import Cells
from aggmask.supervision import losses
from aggmask.supervision.losses import dice_losses, focal_loss_sum, mask_losses
from tests.small import close, make_head, make_pyramid


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_dice_by_hand():
    logits = torch.tensor([[[logit(0.8), logit(0.4)], [logit(0.1), logit(0.5)]]])
    target = torch.tensor([[[1, 1], [0, 0]]])
    overlap, squares = 0.8 + 0.4, 0.64 + 0.16 + 0.01 + 0.25
    assert dice_losses(logits, target).item() == pytest.approx(1 - 2 * overlap / (squares + 2 + 0.002), rel=1e-6)


def test_dice_is_per_cell():
    logits = torch.tensor([[[50.0, -50]], [[-50, 50]]])
    losses = dice_losses(logits, torch.tensor([[[1.0, 0]], [[1, 0]]]))
    assert losses[0].item() == pytest.approx(1 - 2 / 2.002, abs=1e-6)
    assert losses[1].item() == pytest.approx(1, abs=1e-6)


def test_dice_of_empty_masks_is_finite():
    logits = torch.full((1, 2, 2), -50.0, requires_grad=True)
    dice_losses(logits, torch.zeros(1, 2, 2)).sum().backward()
    assert logits.grad.isfinite().all()
    assert dice_losses(torch.zeros(0, 3, 4), torch.zeros(0, 3, 4)).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_out_as_single(dtype):
    big = torch.full((1, 300, 300), 9.0, dtype=dtype)  # 90000 px: the sum is beyond float16
    assert dice_losses(big, torch.ones(1, 300, 300)).item() == pytest.approx(0, abs=1e-3)
    assert dice_losses(big, torch.ones(1, 300, 300)).dtype == torch.float32
    logits = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels = torch.randint(3, (1, 3, 3), generator=torch.Generator().manual_seed(0))
    found = focal_loss_sum(logits, labels, 0.25, 2.0)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(focal_loss_sum(logits.float(), labels, 0.25, 2.0).item(), rel=1e-6)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 1.0)])
def test_focal_by_hand(alpha, gamma):
    # Two classes, two cells: the first of class 1, the second background (label 2).
    p = [[0.3, 0.9], [0.2, 0.6]]  # p[class][cell]
    logits = torch.tensor([[[[logit(v) for v in row]] for row in p]])
    positive = alpha * (1 - 0.2) ** gamma * -math.log(0.2)
    negative = sum((1 - alpha) * v**gamma * -math.log(1 - v) for v in (0.3, 0.9, 0.6))
    found = focal_loss_sum(logits, torch.tensor([[[1, 2]]]), alpha, gamma)
    assert found.item() == pytest.approx(positive + negative, rel=1e-5)


def test_masks_in_parts_have_the_losses_and_gradients_of_all_at_once(monkeypatch):
    head = make_head(window=5)
    cells = Cells(torch.tensor([0, 0, 1, 1, 1]), torch.tensor([3, 40, 0, 17, 63]))
    targets, which = (torch.rand(3, 16, 24) > 0.5).to(torch.uint8), torch.tensor([0, 0, 2, 1, 0])
    with torch.no_grad():
        expected = dice_losses(head(make_pyramid())[0].field.at(cells), targets[which])
    found = []
    monkeypatch.setattr(losses, "PIXELS_KEPT", 0)
    for pixels in (2 * 16 * 24, 10**6):
        monkeypatch.setitem(losses.PIXELS_AT_ONCE, "cpu", pixels)
        head.zero_grad()
        values = mask_losses(head(make_pyramid())[0].field, cells, targets, which)
        close(values, expected)
        values.square().sum().backward()
        found.append([values, *(p.grad for p in head.parameters() if p.grad is not None)])
    for parts, together in zip(*found, strict=True):
        close(parts, together, least=1e-2)


class Watched:
    """A field that remembers how many cells it was asked for at once."""

    def __init__(self, field) -> None:
        self.field, self.asked = field, []

    def at(self, cells: Cells) -> torch.Tensor:
        self.asked.append(len(cells))
        return self.field.at(cells)


def test_asked_masks_are_not_kept_but_few_small_ones(monkeypatch):
    monkeypatch.setattr(losses, "PIXELS_KEPT", 4 * 16 * 24)
    monkeypatch.setitem(losses.PIXELS_AT_ONCE, "cpu", 2 * 16 * 24)
    field = Watched(make_head(window=5)(make_pyramid())[0].field)
    cells = Cells(torch.zeros(5, dtype=torch.long), torch.arange(5))
    total = mask_losses(field, cells, torch.ones(1, 16, 24), torch.zeros(5, dtype=torch.long)).sum()
    assert field.asked == [2, 2, 1]
    total.backward()
    assert sorted(field.asked[3:]) == [1, 2, 2], "painted again for the gradients"
    field = Watched(make_head(window=5)(make_pyramid())[0].field)
    mask_losses(field, cells[:4], torch.ones(4, 16, 24), torch.arange(4)).sum().backward()
    assert field.asked == [4], "painted once"

"""Weights, normalizers, and the ceiling on asked cells."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from aggmask.errors import UserError
from aggmask.structures import Cells, GridLevel, GridTargets, LevelOutput
from aggmask.supervision.criterion import Criterion
from aggmask.supervision.losses import dice_losses, focal_loss_sum


class Maps:
    """A field that holds its masks: one a cell."""

    def __init__(self, maps: torch.Tensor) -> None:
        self.maps = maps

    def at(self, cells: Cells) -> torch.Tensor:
        return self.maps[cells.image, cells.index]


def level_of(seed: int, positives: int, grid: int = 3) -> tuple[LevelOutput, GridTargets]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, grid, grid, generator=generator)
    field = Maps(torch.randn(2, grid**2, 5, 6, generator=generator).requires_grad_())
    labels = torch.full((2, grid, grid), 4)
    image, cell = torch.tensor([0, 1, 1])[:positives], torch.tensor([5, 0, 7])[:positives]
    labels[image, cell // grid, cell % grid] = 2
    masks = (torch.rand(positives, 5, 6, generator=generator) > 0.5).float()
    targets = GridTargets(labels, Cells(image, cell), masks, torch.arange(positives))
    return LevelOutput(GridLevel(8, grid, grid, 1, 9), 4, logits, field), targets


def test_masks_are_averaged_over_cells_and_categories_divided_by_cells_plus_one():
    (a, ta), (b, tb) = level_of(1, 3), level_of(2, 1, grid=4)
    found = Criterion()([a, b], [ta, tb])
    dice = torch.cat([dice_losses(o.field.at(t.cells), t.masks[t.which]) for o, t in ((a, ta), (b, tb))])
    focal = sum(focal_loss_sum(o.logits, t.labels, 0.25, 2.0) for o, t in ((a, ta), (b, tb)))
    assert found["loss_mask"].item() == pytest.approx(3 * dice.mean().item())
    assert found["loss_category"].item() == pytest.approx(focal.item() / 5)


def test_a_cell_that_learns_two_masks_counts_once_for_the_categories():
    (output, target) = level_of(1, 3)
    twice = GridTargets(target.labels, target.cells[[0, 0, 1, 2]], target.masks, torch.tensor([0, 2, 1, 2]))
    found = Criterion()([output], [twice])
    dice = dice_losses(output.field.at(twice.cells), twice.masks[twice.which])
    focal = focal_loss_sum(output.logits, target.labels, 0.25, 2.0)
    assert found["loss_mask"].item() == pytest.approx(3 * dice.mean().item())
    assert found["loss_category"].item() == pytest.approx(focal.item() / 4)


def test_every_option_matters():
    outputs, targets = zip(level_of(1, 3), strict=True)
    plain = Criterion()(outputs, targets)
    doubled = Criterion(mask_weight=6.0, category_weight=2.0)(outputs, targets)
    for name, value in plain.items():
        assert doubled[name].item() == pytest.approx(2 * value.item())
    focal = focal_loss_sum(outputs[0].logits, targets[0].labels, 0.5, 1.0).item()
    assert Criterion(alpha=0.5, gamma=1.0)(outputs, targets)["loss_category"].item() == pytest.approx(focal / 4)


def test_a_batch_without_positives_has_a_mask_loss_of_zero_with_gradients():
    (output, target) = level_of(1, 0)
    found = Criterion()([output], [target])
    assert found["loss_mask"].item() == 0
    assert found["loss_category"].item() == pytest.approx(
        focal_loss_sum(output.logits, target.labels, 0.25, 2.0).item()
    )
    found["loss_mask"].backward()
    assert not output.field.maps.grad.any()


def sampled(max_cells: int | None, seed: int):
    """Two levels of 3 and 1 masks -> (losses, which cells of each level were asked)."""
    (a, ta), (b, tb) = level_of(1, 3), level_of(2, 1, grid=4)
    criterion = Criterion(max_cells=max_cells)
    targets, counts = criterion.sample([ta, tb], criterion.count([ta, tb], 4), seed)
    assert all(torch.equal(t.labels, whole.labels) for t, whole in zip(targets, (ta, tb), strict=True))
    return criterion([a, b], targets, counts), [t.cells.index.tolist() for t in targets]


def test_a_ceiling_that_is_not_reached_changes_nothing():
    expected = Criterion()(*zip(level_of(1, 3), level_of(2, 1, grid=4), strict=True))
    for most in (None, 4, 9):
        assert {k: v.item() for k, v in sampled(most, 0)[0].items()} == {k: v.item() for k, v in expected.items()}


def test_the_sample_is_fair_over_levels_and_its_mean_unbiased():
    """All pairs of the four masks come up alike, and the mean over the pairs is the loss of all four."""
    whole, losses, pairs = sampled(None, 0)[0], {}, Counter()
    for seed in range(600):
        found, cells = sampled(2, seed)
        key = str(cells)
        pairs[key] += 1
        assert losses.setdefault(key, found["loss_mask"].item()) == found["loss_mask"].item()
        assert found["loss_category"].item() == pytest.approx(whole["loss_category"].item())
    assert len(pairs) == 6
    assert all(70 < count < 130 for count in pairs.values())  # 100 +- 9.1
    assert sum(losses.values()) / 6 == pytest.approx(whole["loss_mask"].item(), rel=1e-6)


def test_a_sample_keeps_the_masks_of_its_cells_alone():
    (_, whole) = level_of(1, 3)
    shared = replace(whole, masks=whole.masks[:2], which=torch.tensor([1, 0, 1]))
    criterion = Criterion(max_cells=2)
    counts, seen = criterion.count([shared], 4), set()
    for seed in range(20):
        (found,), _ = criterion.sample([shared], counts, seed)
        asked = [[5, 0, 7].index(cell) for cell in found.cells.index.tolist()]
        assert torch.equal(found.masks[found.which], shared.masks[shared.which[asked]])
        assert len(found.masks) == len(set(shared.which[asked].tolist()))
        seen.add(len(found.masks))
    assert seen == {1, 2}


def test_no_cells_at_all_is_no_ceiling():
    with pytest.raises(UserError, match="max_cells=0: must be at least 1, or null"):
        Criterion(max_cells=0)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_a_certain_score_has_a_finite_gradient(gamma):
    logits = torch.tensor([[[[50.0, -50.0]]]], requires_grad=True)
    focal_loss_sum(logits, torch.tensor([[[0, 1]]]), 0.25, gamma).backward()
    assert logits.grad.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"gamma": 0.5}, "gamma=0.5: must be 0, or 1 or more"),  # at a certain score its gradient is no number
        ({"gamma": -1}, "gamma=-1: must be 0"),
        ({"alpha": -1}, "alpha=-1: must be from 0 to 1"),
    ],
)
def test_numbers_of_the_focal_loss_that_make_no_sense_are_refused(given, told):
    with pytest.raises(UserError, match=f"criterion.{told}"):
        Criterion(**given)


def test_unknown_normalizers_are_refused():
    with pytest.raises(UserError, match="normalizer=local: must be global or rank"):
        Criterion(normalizer="local")

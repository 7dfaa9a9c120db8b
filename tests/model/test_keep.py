"""The aggregation that aggregates nothing."""

import math

import pytest
import torch

from aggmask.errors import UserError
from aggmask.model.aggregation.keep import KeepCell
from aggmask.structures import Cells
from tests.small import make_levels_of


def test_a_cell_keeps_its_own_representation():
    levels = make_levels_of()
    rules = KeepCell(levels, 32, 32)([], [None] * len(levels), [None] * len(levels))
    cells = Cells(torch.zeros(3, dtype=torch.long), torch.tensor([0, 10, 63]))
    assert rules[0].neighbors(cells).tolist() == [[[0, 0]], [[1, 2]], [[7, 7]]]
    stack = torch.randn(3, 1, 4, 4)
    assert torch.equal(rules[0].combine(stack, cells), stack[:, 0])


def test_coarser_mask_grids_are_shared():
    rule = KeepCell(make_levels_of(mask_grids=(4, 3, 3, 2, 2)), 32, 32)([], [None] * 5, [None] * 5)[0]
    cells = Cells(torch.zeros(64, dtype=torch.long), torch.arange(64))
    assert len(rule.neighbors(cells)[:, 0].unique(dim=0)) == 16


def test_it_has_the_start_that_is_asked_for():
    starts = {init: KeepCell(make_levels_of(), 32, 32, init=init).representation_bias for init in ("published", "zero")}
    assert starts == {"published": pytest.approx(-math.log(99)), "zero": 0.0}
    assert KeepCell(make_levels_of(), 32, 32).representation_bias == starts["published"]
    with pytest.raises(UserError, match=r"model\.aggregation\.init=random"):
        KeepCell(make_levels_of(), 32, 32, init="random")


def test_it_has_no_parameters():
    assert not list(KeepCell(make_levels_of(), 32, 32).parameters())

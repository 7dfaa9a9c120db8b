"""What a cell's network hears, part by part."""

import pytest
import torch

from aggmask.structures import Cells
from tests.small import close, make_head, make_pyramid

CELLS = Cells(torch.tensor([0, 1, 1]), torch.tensor([3, 0, 35]))


def parts(**options):
    """(rule, representations, first layer) of three cells of level 1."""
    with torch.no_grad():
        field = make_head(**options)(make_pyramid())[1].field
        stack = field.bank.at(CELLS.image, field.rule.neighbors(CELLS))
        return field.rule, stack, field.rule.first_layer(stack, CELLS)


@pytest.mark.parametrize("context", [0, 16])
@pytest.mark.parametrize("residual", [False, True])
def test_the_shares_sum_to_what_a_network_of_one_layer_returns(context, residual):
    rule, stack, first = parts(window=5, layers=1, context_channels=context, residual=residual)
    assert first.inputs.shape[1] == first.weight.shape[2] == 5 + context
    with torch.no_grad():
        bias = rule.net.layers_of(rule.net.weights(rule.cell_features, CELLS))[0][1]
        expected = rule.combine(stack, CELLS)
    total = first.shares().sum(1)[:, 0] + bias[:, :, None]
    if residual:
        assert first.direct.tolist() == [2, 2, 2] or len(set(first.direct.tolist())) > 1  # clipped at the corner
        total = total + stack[torch.arange(3), first.direct]
    else:
        assert first.direct is None
    close(total, expected)


def test_each_share_belongs_to_one_input():
    _, stack, first = parts(window=4, layers=3, channels=3)
    shares = first.shares()
    assert shares.shape == (3, 5 + 16, 3, *stack.shape[-2:])  # T = S: window 4 is 5
    alone = torch.nn.functional.conv2d(stack[1:2, 2:3], first.weight[1, :, 2:3], padding=1)
    close(shares[1, 2], alone[0])
    close(first.strengths()[1, 2], first.weight[1, :, 2].norm())


def test_without_aggregation_there_is_no_network_and_the_representation_is_passed_on():
    rule, stack, first = parts()
    assert first.strengths().shape == (3, 0)
    assert first.shares().shape == (3, 0, 1, *stack.shape[-2:])
    assert torch.equal(stack[torch.arange(3), first.direct], rule.combine(stack, CELLS))

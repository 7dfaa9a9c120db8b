"""The aggregation network of each cell."""

import pytest
import torch
import torch.nn.functional as F

from aggmask.errors import UserError
from aggmask.model.aggregation.dynamic import DynamicAggregation, _in_groups, convolve_each
from aggmask.model.aggregation.neighbors import neighbors
from aggmask.structures import Cells
from tests.small import close, every_cell, make_head, make_levels_of, make_pyramid

HALF = make_levels_of(mask_grids=(4, 3, 3, 2, 2))
SOME = Cells(torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 17, 3, 17, 63]))


def make_aggregation(levels=None, **options) -> DynamicAggregation:
    torch.manual_seed(0)
    return DynamicAggregation(levels or make_levels_of(), 32, 32, **options)


def test_there_are_945_numbers_per_cell():
    assert make_aggregation().weights.conv.out_channels == 945


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"context_channels": 0}, 945 - 16 * 9 * 4),
        ({"layers": 1}, 21 * 9 + 1),
        ({"kernel": 1}, 21 * 4 + 4 + 16 + 4 + 4 + 1),
        ({"window": 25, "layers": 2, "channels": 8}, 41 * 72 + 8 + 72 + 1),
    ],
)
def test_every_option_counts(options, numbers):
    assert make_aggregation(**options).weights.conv.out_channels == numbers


@pytest.mark.parametrize("size", [(16, 24), (8, 12)], ids=["size of the context", "smaller"])
@pytest.mark.parametrize("options", [{}, {"layers": 1}, {"kernel": 1}, {"context_channels": 0}, {"window": 9}])
def test_identity_4_shared_context_equals_copied_context(options, size):
    net = make_aggregation(**options)
    categories = [torch.randn(2, 32, v.grid, v.grid) for v in net.levels]
    rule = net(make_pyramid(), make_pyramid(), categories)[0]
    stack = torch.randn(5, net.window, *size)
    x = stack
    if net.context_channels:
        context = F.interpolate(rule.context, size=size, mode="bilinear", align_corners=True)
        x = torch.cat([stack, context[SOME.image]], dim=1)
    layers = net.layers_of(net.weights(rule.cell_features, SOME))
    results = []
    for number in range(5):
        y = x[number : number + 1]
        for depth, (weight, bias) in enumerate(layers):
            y = F.conv2d(F.relu(y) if depth else y, weight[number], bias[number], padding=net.kernel // 2)
        results.append(y[0, 0])
    close(rule.combine(stack, SOME), torch.stack(results))


def test_the_weight_vector_holds_layer_after_layer_weights_then_biases():
    net = make_aggregation(window=1, context_channels=1, channels=2, layers=2)
    (first, second) = net.layers_of(torch.arange(2 * 2 * 9 + 2 + 2 * 9 + 1).float()[None])
    assert first[0].shape == (1, 2, 2, 3, 3)
    assert first[0][0, 1, 0].flatten().tolist() == list(range(18, 27))
    assert first[1].tolist() == [[36, 37]]
    assert second[0].flatten().tolist() == list(range(38, 56))
    assert second[1].tolist() == [[56]]


class OneHot(torch.nn.Module):
    """Weights with which the network hands through the nearest representation and nothing else.

    Its positive and its negative part travel on two channels, so that no ReLU changes them.
    """

    def __init__(self, net: DynamicAggregation, level) -> None:
        super().__init__()
        self.net, self.level = net, level

    def forward(self, features, cells):
        nearest = neighbors(cells.index, self.level, self.net.window)[1]
        middle, parts = self.net.kernel // 2, []
        for depth, (out, fan_in, k, _) in enumerate(self.net.shapes):
            weight = torch.zeros(len(cells), out, fan_in, k, k)
            row = torch.arange(len(cells))
            if len(self.net.shapes) == 1:
                weight[row, 0, nearest, middle, middle] = 1
            elif depth == 0:
                weight[row, 0, nearest, middle, middle] = 1
                weight[row, 1, nearest, middle, middle] = -1
            elif depth < len(self.net.shapes) - 1:
                weight[:, 0, 0, middle, middle] = weight[:, 1, 1, middle, middle] = 1
            else:
                weight[:, 0, 0, middle, middle], weight[:, 0, 1, middle, middle] = 1, -1
            parts += [weight.flatten(1), torch.zeros(len(cells), out)]
        return torch.cat(parts, dim=1)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("levels", [None, HALF], ids=["T = S", "T < S"])
@pytest.mark.parametrize("window", [1, 4, 5, 9, 25])
def test_one_hot_aggregation_equals_plain_solo(window, levels, layers):
    plain = make_head(levels)
    head = make_head(levels, window=window, layers=layers)
    head.load_state_dict(plain.state_dict(), strict=False)
    pyramid = make_pyramid()
    for number, (ours, theirs) in enumerate(zip(head(pyramid), plain(pyramid), strict=True)):
        head.aggregation.weights = OneHot(head.aggregation, head.levels[number])
        cells = every_cell(ours.level, 2)
        close(ours.field.at(cells), theirs.field.at(cells), 1e-6)


def test_residual_adds_the_nearest_representation():
    plain, head = make_head(), make_head(window=5, residual=True)
    head.load_state_dict(plain.state_dict(), strict=False)
    pyramid, cells = make_pyramid(), every_cell(head.levels[0], 2)
    with torch.no_grad():
        whole = head(pyramid)[0].field.at(cells)
        head.aggregation.residual = False
        network = head(pyramid)[0].field.at(cells)
        close(whole - network, plain(pyramid)[0].field.at(cells))


def test_the_start_of_the_representations_is_an_option():
    assert make_aggregation().representation_bias == pytest.approx(-4.595, abs=1e-3)
    assert make_aggregation(init="zero").representation_bias == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("window", 3),
        ("layers", 0),
        ("kernel", 2),
        ("channels", 0),
        ("context_channels", -1),
        ("context_layers", 3),
        ("init", "random"),
    ],
)
def test_wrong_options_are_named(option, value):
    with pytest.raises(UserError, match=f"model.aggregation.{option}={value}"):
        make_aggregation(**{option: value})


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
def test_cells_one_by_one_equal_cells_in_groups(kernel, biased):
    torch.manual_seed(0)
    maps, weight = torch.randn(3, 5, 6, 7), torch.randn(3, 4, 5, kernel, kernel)
    bias = torch.randn(3, 4) if biased else None
    close(convolve_each(maps, weight, bias), _in_groups(maps, weight, bias))
    assert _in_groups(maps.to("meta"), weight.to("meta"), None).shape == (3, 4, 6, 7)

"""SOLOv2's bank of predicted kernels."""

import pytest
import torch
import torch.nn.functional as F

from aggmask.errors import UserError
from aggmask.geometry.grid import coordinate_channels
from aggmask.model.representation.predicted import PredictedBank
from tests.small import close, make_levels_of, make_pyramid

HALF = make_levels_of(mask_grids=(4, 3, 3, 2, 2))


def make_bank(levels=HALF, **options) -> PredictedBank:
    torch.manual_seed(0)
    return PredictedBank(levels, in_channels=32, bias=-4.6, width=32, depth=1, channels=64, feature_width=32, **options)


def features_of(pyramid):
    return [F.avg_pool2d(pyramid[0], 2), *pyramid[1:4], pyramid[3]]


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_representation_is_the_cells_vector_dotted_with_the_one_feature_map(kernel):
    bank, pyramid = make_bank(kernel=kernel), make_pyramid()
    features, shared = features_of(pyramid), bank.features(pyramid)
    for level, feature, found in zip(HALF, features, bank(features, pyramid), strict=True):
        cells = F.interpolate(coordinate_channels(feature), size=(level.mask_grid,) * 2, mode="bilinear")
        vectors = F.conv2d(bank.tower(cells), bank.kernels.weight, bank.kernels.bias, padding=kernel // 2)
        row, column = level.mask_grid - 1, 1
        asked = found.at(torch.tensor([1]), torch.tensor([[[row, column]]]))
        close(asked[0, 0], torch.einsum("c,chw->hw", vectors[1, :, row, column], shared[1]))


def test_every_level_paints_at_stride_4():
    assert {make_bank().mask_stride(level) for level in HALF} == {4}


def test_it_reads_p2_to_p5_even_for_two_levels():
    bank = make_bank(HALF[:2])
    pyramid = make_pyramid()
    assert bank.pyramid_maps == 4
    assert len(bank(features_of(pyramid)[:2], pyramid)) == 2


@pytest.mark.parametrize("kernel", [0, 2])
def test_even_kernels_are_refused(kernel):
    with pytest.raises(UserError, match=rf"model\.bank\.kernel={kernel}: must be odd"):
        make_bank(kernel=kernel)

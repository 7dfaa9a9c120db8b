"""The shared context."""

import pytest
import torch
import torch.nn.functional as F

from aggmask.model.aggregation.context import ContextBranch
from tests.small import close, make_pyramid


@pytest.mark.parametrize("layers", [1, 2])
def test_identity_3_sum_of_resized_convolutions_equals_convolution_of_resized_maps(layers):
    torch.manual_seed(0)
    branch, pyramid = ContextBranch(32, 8, layers), make_pyramid()
    size = pyramid[0].shape[-2:]
    together = torch.cat([F.interpolate(m, size=size, mode="bilinear", align_corners=True) for m in pyramid], 1)
    x = branch.fuse(together)
    if layers == 2:
        x = branch.reduce[1](F.relu(branch.norm(x)))
    found = branch(pyramid)
    assert found.shape == (2, 8, *size)
    assert 0.1 < (found > 0).float().mean() < 0.9, "a ReLU closes it"
    close(found, F.relu(x))


def test_every_pyramid_map_matters():
    torch.manual_seed(0)
    branch, pyramid = ContextBranch(32, 8), make_pyramid()
    branch(pyramid).sum().backward()
    assert all(m.grad.abs().sum() > 0 for m in pyramid)

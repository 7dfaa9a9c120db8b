"""The category branch."""

import torch
import torch.nn.functional as F

from aggmask.model.category import CategoryBranch
from tests.small import close


def test_features_are_resized_to_the_grid_then_convolved():
    torch.manual_seed(0)
    branch = CategoryBranch(16, num_classes=3, width=32, depth=2)
    features = torch.randn(2, 16, 9, 13)
    cells, logits = branch(features, 5)
    assert cells.shape == (2, 32, 5, 5)
    assert logits.shape == (2, 3, 5, 5)
    expected = branch.tower(F.interpolate(features, size=(5, 5), mode="bilinear", align_corners=False))
    close(cells, expected)
    close(logits, F.conv2d(expected, branch.classifier.weight, branch.classifier.bias, padding=1))


def test_an_untrained_cell_scores_the_prior():
    torch.manual_seed(0)
    logits = CategoryBranch(32, num_classes=3, width=32, depth=7)(torch.randn(1, 32, 8, 8), 8)[1]
    assert 0.005 < logits.sigmoid().mean() < 0.02


def test_without_a_tower():
    branch = CategoryBranch(16, num_classes=2, width=32, depth=0)
    assert branch.width == 16
    assert branch(torch.randn(1, 16, 4, 4), 3)[1].shape == (1, 2, 3, 3)

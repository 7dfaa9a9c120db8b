"""The category branch (method.md section 2): which class, if any, has its center in each cell."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from aggmask.model.tower import PRIOR_BIAS, conv_tower, init_conv


class CategoryBranch(nn.Module):
    """Shared over levels: resize to the category grid, a tower, a 3x3 classifier."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 256, depth: int = 7) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = width if depth else in_channels
        self.tower = conv_tower(in_channels, width, depth)
        self.classifier = init_conv(nn.Conv2d(self.width, num_classes, 3, padding=1), PRIOR_BIAS)

    def forward(self, features: Tensor, grid: int) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> cell features (B, width, S, S), category logits (B, classes, S, S)."""
        cells = self.tower(F.interpolate(features, size=(grid, grid), mode="bilinear"))
        return cells, self.classifier(cells)

"""The context that every cell's aggregation sees (method.md sections 4 and 9.3).

The published code resizes P2..P6 to P2's size, concatenates them (1280 channels) and runs a 1x1 convolution. A 1x1
convolution over a concatenation of resized maps is the sum of the resized results, so here each level is convolved at
its own size and only the result is resized.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

PYRAMID_MAPS = 5


class ContextBranch(nn.Module):
    """P2..P6 -> X channels at P2's size.

    Two layers: 1x1 convolution to the pyramid's width, GroupNorm, ReLU, 1x1 convolution to X, ReLU. One layer: 1x1
    convolution to X, ReLU. PyTorch's default initialization, as published.
    """

    def __init__(self, in_channels: int, context_channels: int, layers: int = 2) -> None:
        super().__init__()
        self.fuse = nn.Conv2d(PYRAMID_MAPS * in_channels, in_channels if layers == 2 else context_channels, 1)
        self.norm = nn.GroupNorm(32, in_channels) if layers == 2 else nn.Identity()
        self.reduce = (
            nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(in_channels, context_channels, 1))
            if layers == 2
            else nn.Identity()
        )

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """[P2..P6] -> (B, X, H/4, W/4)."""
        size = pyramid[0].shape[-2:]
        parts = self.fuse.weight.chunk(len(pyramid), dim=1)
        fused = F.conv2d(pyramid[0], parts[0], self.fuse.bias)
        for features, weight in zip(pyramid[1:], parts[1:], strict=True):
            fused = fused + F.interpolate(F.conv2d(features, weight), size=size, mode="bilinear", align_corners=True)
        return F.relu(self.reduce(self.norm(fused)))

"""The context that every cell's aggregation sees (method.md sections 4 and 9.3).

The published code resizes P2..P6 to P2's size, concatenates them (1280 channels) and runs a 1x1 convolution. A 1x1
convolution over a concatenation of resized maps is the sum of the resized results, so here each level is convolved at
its own size and only the result is resized: along x for itself, along y together, as one matrix product that adds to
what P2 gave. On a CPU large maps go through both layers in bands of rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aggmask.model.aggregation import banded
from aggmask.model.aggregation.banded import resized, row_weights
from aggmask.model.convolution import convolve_activated
from aggmask.model.tower import group_norm

PYRAMID_MAPS = 5


class ContextBranch(nn.Module):
    """P2..P6 -> X channels at P2's size.

    Two layers: 1x1 convolution to the pyramid's width, GroupNorm, ReLU, 1x1 convolution to X, ReLU. One layer: 1x1
    convolution to X, ReLU. PyTorch's default initialization, as published.
    """

    def __init__(self, in_channels: int, context_channels: int, layers: int = 2) -> None:
        super().__init__()
        self.fuse = nn.Conv2d(PYRAMID_MAPS * in_channels, in_channels if layers == 2 else context_channels, 1)
        self.norm = group_norm(in_channels) if layers == 2 else nn.Identity()
        self.reduce = (
            nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(in_channels, context_channels, 1))
            if layers == 2
            else nn.Identity()
        )

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """[P2..P6] -> (B, X, H/4, W/4)."""
        p2, *coarser = pyramid
        own, *others = self.fuse.weight.chunk(len(pyramid), dim=1)
        width = p2.shape[3]
        wide = [resized(F.conv2d(m, w), m.shape[2], width) for m, w in zip(coarser, others, strict=True)]
        if not isinstance(self.norm, nn.GroupNorm):
            return F.relu(self._fused(p2, own, wide))
        if banded.pays(p2, own):
            return F.relu(banded.convolve_twice(p2, wide, self.fuse, self.norm, self.reduce[1]))
        return F.relu(convolve_activated(self._fused(p2, own, wide), self.norm, self.reduce[1]))

    def _fused(self, p2: Tensor, weight: Tensor, wide: Sequence[Tensor]) -> Tensor:
        fused = F.conv2d(p2, weight, self.fuse.bias).contiguous()
        rows = torch.cat([row_weights(m.shape[2], fused.shape[2], device=p2.device) for m in wide], 1)
        # All at P2's width, one below the other. Mixed precision on a GPU resizes to float32.
        channels = torch.cat(wide, dim=2).flatten(0, 1).to(fused.dtype)
        rows = rows.to(fused.dtype).expand(len(channels), -1, -1)
        return fused.flatten(0, 1).baddbmm_(rows, channels).view_as(fused)

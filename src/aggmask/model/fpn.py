"""Feature pyramid network (method.md section 1): C2..C5 -> P2..P6."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """1x1 laterals, nearest x2 top-down sums, 3x3 outputs; P6 is P5 subsampled. No norm, no activation."""

    def __init__(self, in_channels: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.channels = channels
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        for conv in [*self.lateral, *self.output]:
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[(B, c_i, h_i, w_i)] fine to coarse -> one map more, of `channels` each, the last one a stride coarser."""
        maps = [lateral(f) for lateral, f in zip(self.lateral, features, strict=True)]
        for fine in range(len(maps) - 2, -1, -1):
            maps[fine] = maps[fine] + F.interpolate(maps[fine + 1], size=maps[fine].shape[-2:], mode="nearest")
        pyramid = [output(m) for output, m in zip(self.output, maps, strict=True)]
        return [*pyramid, F.max_pool2d(pyramid[-1], 1, stride=2)]

"""Feature pyramid network (method.md section 1): C2..C5 -> P2..P6."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """1x1 laterals, nearest x2 top-down sums, 3x3 outputs; P6 is P5 subsampled. No norm, no activation.

    Args:
        in_channels: of C2..C5.
        channels: of every map of the pyramid.
        maps: how many are made, from P2 on; 5 for P2..P6.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256, maps: int = 5) -> None:
        super().__init__()
        self.maps = maps
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels[:maps])
        for conv in [*self.lateral, *self.output]:
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[C2..C5], each (B, c_i, h_i, w_i) -> [P2, P3, ...], each (B, channels, h_i, w_i)."""
        maps = [lateral(f) for lateral, f in zip(self.lateral, features, strict=True)]
        for fine in range(len(maps) - 2, -1, -1):
            maps[fine] = maps[fine] + F.interpolate(maps[fine + 1], size=maps[fine].shape[-2:], mode="nearest")
        pyramid = [output(m) for output, m in zip(self.output, maps, strict=False)]
        return pyramid if self.maps < 5 else [*pyramid, F.max_pool2d(pyramid[-1], 1, stride=2)]

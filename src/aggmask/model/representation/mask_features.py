"""SOLOv2's one feature map for all masks, at stride 4 (SOLOv2 section 3.2; method.md section 3).

P2 passes one convolution; P3 one, P4 two and P5 three, each followed by an enlargement by 2; the four are summed and
fused. P5 carries coordinate channels. Published in two forms: SOLOv2 with GroupNorm and 128 channels, fused to 256;
AggMask* without any norm before the fusion and 256 channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from aggmask.geometry.grid import coordinate_channels
from aggmask.model.tower import ConvBlock

PYRAMID_MAPS = 4  # P2..P5


class MaskFeatures(nn.Module):
    """P2..P5 -> one map.

    Args:
        in_channels: of the pyramid.
        width: channels before the fusion.
        channels: C, channels of the result.
        norm: GroupNorm after each convolution before the fusion.
    """

    def __init__(self, in_channels: int, width: int, channels: int, norm: bool) -> None:
        super().__init__()
        widths = [[in_channels], [in_channels], [in_channels, width], [in_channels + 2, width, width]]
        self.levels = nn.ModuleList(nn.Sequential(*(ConvBlock(i, width, norm=norm) for i in row)) for row in widths)
        self.fuse = ConvBlock(width, channels, kernel=1)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """[P2..P5, ...], each (B, in_channels, h_i, w_i) -> (B, C, H/4, W/4)."""
        maps = [*pyramid[: PYRAMID_MAPS - 1], coordinate_channels(pyramid[PYRAMID_MAPS - 1])]
        total = self.levels[0](maps[0])
        for features, convs in zip(maps[1:], self.levels[1:], strict=True):
            for conv in convs:
                features = F.interpolate(conv(features), scale_factor=2, mode="bilinear")
            total = total + features
        return self.fuse(total)

"""SOLO's representations: kernels that training learns once, the same for every image (method.md section 3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from aggmask.geometry.grid import coordinate_channels
from aggmask.model.representation.kernels import KernelBank
from aggmask.model.tower import conv_tower, init_conv
from aggmask.structures import GridLevel

_ENLARGE = 2  # maps are painted at half the stride of the level's features


class ConstantBank(nn.Module):
    """A tower over features with coordinates, shared by the levels; a 1x1 convolution to T*T channels for each level.

    Args:
        levels: the head's levels.
        in_channels: channels of the pyramid.
        bias: what each representation starts with; the published start is the logit of the prior.
        width: channels of the tower.
        depth: blocks of the tower (published: 7).
    """

    pyramid_maps = 0  # that it reads

    def __init__(self, levels: Sequence[GridLevel], in_channels: int, bias: float, width: int = 256, depth: int = 7):
        super().__init__()
        self.levels = tuple(levels)
        self.tower = conv_tower(in_channels + 2, width, depth)
        channels = width if depth else in_channels + 2
        # A cell's channel is row * T + column.
        self.kernels = nn.ModuleList(init_conv(nn.Conv2d(channels, v.mask_grid**2, 1), bias) for v in levels)

    def mask_stride(self, level: GridLevel) -> int:
        """Network pixels per pixel of the level's masks."""
        return level.stride // _ENLARGE

    def forward(self, features: Sequence[Tensor], pyramid: Sequence[Tensor]) -> list[KernelBank]:
        """Per level (B, C, h, w) features -> its kernels over them; the pyramid is not needed."""
        maps = [self.tower(coordinate_channels(f)).unbind() for f in features]
        return [
            KernelBank(m, k.weight.flatten(1)[None], k.bias, level.mask_grid, _ENLARGE)
            for m, k, level in zip(maps, self.kernels, self.levels, strict=True)
        ]

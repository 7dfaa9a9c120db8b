"""Stacks of convolution, GroupNorm and ReLU that every branch starts with, and the prior they all share."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aggmask.errors import UserError
from aggmask.model.convolution import Conv2d, convolve_activated

PRIOR = 0.01  # probability that an untrained cell or pixel is "on", so that the losses start calm
PRIOR_BIAS = -math.log((1 - PRIOR) / PRIOR)
_GROUPS = 32


def group_norm(width: int) -> nn.GroupNorm:
    """GroupNorm of 32 groups.

    Raises:
        UserError: they do not divide the width.
    """
    if width % _GROUPS:
        raise UserError(f"model: a width of {width} is not divisible by the {_GROUPS} groups of GroupNorm")
    return nn.GroupNorm(_GROUPS, width)


class ConvBlock(nn.Module):
    """Convolution without bias, GroupNorm of 32 groups, ReLU; (B, in, h, w) -> (B, out, h, w).

    Args:
        in_channels, out_channels: widths.
        kernel: size of the convolution, odd.
        norm: False leaves the GroupNorm out.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, norm: bool = True) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.gn = group_norm(out_channels) if norm else nn.Identity()
        init_conv(self.conv)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu_(self.gn(self.conv(features)))


class ConvTower(nn.Sequential):
    """Blocks of ConvBlock, one after the other. Training keeps one map a block, not two (see `convolve_activated`)."""

    def forward(self, features: Tensor) -> Tensor:
        if not len(self) or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(features)
        maps = self[0].conv(features)
        for before, block in pairwise(self):
            maps = convolve_activated(maps, before.gn, block.conv)
        return F.relu_(self[-1].gn(maps))


def conv_tower(in_channels: int, width: int, depth: int) -> ConvTower:
    """`depth` blocks of ConvBlock, the first of which takes `in_channels`."""
    return ConvTower(*(ConvBlock(in_channels if i == 0 else width, width) for i in range(depth)))


def init_conv(conv: nn.Conv2d, bias: float = 0.0) -> nn.Conv2d:
    """Weights from N(0, 0.01), a constant bias (SOLO, section 3.3 and the published code)."""
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.constant_(conv.bias, bias)
    return conv

"""Where the weights of a cell's aggregation network come from (method.md sections 4 and 9.5).

Both forms end in a convolution over the category grid, of which only the asked cells are computed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aggmask.geometry.grid import coordinate_channels
from aggmask.model.tower import conv_tower
from aggmask.structures import Cells


class CellConv(nn.Module):
    """A convolution over the category grid, computed at asked cells only; zeros around the grid."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, features: Tensor, cells: Cells) -> Tensor:
        """(B, C, S, S), K cells -> (K, out_channels)."""
        grid, kernel, margin = features.shape[-1], self.conv.kernel_size[0], self.conv.padding[0]
        padded = F.pad(features, (margin,) * 4).permute(0, 2, 3, 1)
        side = grid + 2 * margin
        around = torch.arange(kernel, device=features.device)
        row = (cells.index // grid)[:, None, None] + around[:, None]
        column = (cells.index % grid)[:, None, None] + around
        asked = (cells.image[:, None, None] * side + row) * side + column
        # Not by brackets, whose gradient threads add up in any order on a CPU.
        patches = padded.flatten(0, 2).index_select(0, asked.flatten()).unflatten(0, asked.shape)  # (K, k, k, C)
        return F.linear(patches.permute(0, 3, 1, 2).flatten(1), self.conv.weight.flatten(1), self.conv.bias)


class CategoryWeights(CellConv):
    """AggMask: tanh of a 3x3 convolution on the category branch's last feature.

    Args:
        pyramid_channels: not needed here.
        cell_channels: channels of the category branch's last feature.
        numbers: of one cell's network.
    """

    kernel = 3

    def __init__(self, pyramid_channels: int, cell_channels: int, numbers: int) -> None:
        super().__init__(cell_channels, numbers, self.kernel)
        self.channels = cell_channels

    def cell_features(self, features: Tensor, category_features: Tensor) -> Tensor:
        """The level's (B, C, h, w), the category branch's (B, channels, S, S) -> the latter."""
        return category_features

    def forward(self, features: Tensor, cells: Cells) -> Tensor:
        """(B, channels, S, S), K cells -> (K, numbers)."""
        return torch.tanh(super().forward(features, cells))


class BranchWeights(CellConv):
    """AggMask*: a branch of its own over features with coordinates, ended by a 1x1 convolution, without tanh.

    Args:
        pyramid_channels: channels of the level's features.
        cell_channels: not needed here.
        numbers: of one cell's network.
        width, depth: of the branch.
    """

    kernel = 1

    def __init__(
        self, pyramid_channels: int, cell_channels: int, numbers: int, width: int = 256, depth: int = 4
    ) -> None:
        self_channels = width if depth else pyramid_channels + 2
        super().__init__(self_channels, numbers, self.kernel)
        self.channels = self_channels
        self.tower = conv_tower(pyramid_channels + 2, width, depth)

    def cell_features(self, features: Tensor, category_features: Tensor) -> Tensor:
        """The level's (B, C, h, w), the category branch's (B, ., S, S) -> (B, channels, S, S) of the branch."""
        size = category_features.shape[-2:]
        return self.tower(F.interpolate(coordinate_channels(features), size=size, mode="bilinear"))

"""SOLOv2's representations: kernels predicted for each image over one shared feature map (method.md section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from aggmask.errors import UserError
from aggmask.geometry.grid import MASK_STRIDE, coordinate_channels
from aggmask.model.representation.kernels import KernelBank
from aggmask.model.representation.mask_features import PYRAMID_MAPS, MaskFeatures
from aggmask.model.tower import conv_tower, init_conv
from aggmask.structures import GridLevel


class PredictedBank(nn.Module):
    """A kernel branch over the level's features at T x T, shared by the levels: one vector of C numbers for each cell.

    SOLOv2 as published: width 512, kernel 3, feature width 128 with GroupNorm. AggMask* as published: width 256,
    kernel 1, feature width 256 without. The representations have no bias of their own, so the aggregation's start
    (`representation_bias`) has nothing to set here.

    Args:
        levels: the head's levels.
        in_channels: channels of the pyramid.
        width, depth: of the kernel branch.
        kernel: size of its last convolution, odd.
        channels: C, of the feature map and of each cell's vector.
        feature_width: channels of the feature map before it is fused.
        feature_norm: GroupNorm there.

    Raises:
        UserError: an even kernel.
    """

    pyramid_maps = PYRAMID_MAPS  # that it reads

    def __init__(
        self,
        levels: Sequence[GridLevel],
        in_channels: int,
        bias: float,
        width: int = 512,
        depth: int = 4,
        kernel: int = 3,
        channels: int = 256,
        feature_width: int = 128,
        feature_norm: bool = True,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"model.bank.kernel={kernel}: must be odd (published: 1 or 3)")
        self.levels = tuple(levels)
        self.features = MaskFeatures(in_channels, feature_width, channels, feature_norm)
        self.tower = conv_tower(in_channels + 2, width, depth)
        last = width if depth else in_channels + 2
        self.kernels = init_conv(nn.Conv2d(last, channels, kernel, padding=kernel // 2))

    def mask_stride(self, level: GridLevel) -> int:
        """Network pixels per pixel of the level's masks."""
        return MASK_STRIDE

    def forward(self, features: Sequence[Tensor], pyramid: Sequence[Tensor]) -> list[KernelBank]:
        """Per level (B, C, h, w) features, and P2..P5 -> each level's kernels over the same map."""
        shared = self.features(pyramid).unbind()
        return [
            KernelBank(shared, self._bank(f, level.mask_grid), None, level.mask_grid, 1)
            for f, level in zip(features, self.levels, strict=True)
        ]

    def _bank(self, features: Tensor, grid: int) -> Tensor:
        """(B, T*T, C), each kernel in one piece: they are read whole, chunk by chunk."""
        return self.predict(features, grid).flatten(2).transpose(1, 2).contiguous()

    def predict(self, features: Tensor, grid: int) -> Tensor:
        """(B, in_channels, h, w) -> (B, C, T, T): the vector of each mask cell."""
        cells = F.interpolate(coordinate_channels(features), size=(grid, grid), mode="bilinear")
        return self.kernels(self.tower(cells))

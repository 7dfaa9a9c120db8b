"""Four maps from the one map of a plain vision transformer (simple feature pyramid; ViTDet, arXiv:2203.16527).

Differences: the maps go into the feature pyramid network of method.md section 1, whose lateral and output
convolutions take the place of ViTDet's; the LayerNorm that ViTDet has after those ends each map here, because the
transformer's last map is not normalized. Maps of stride 8 and 32 are taken too.
"""

from __future__ import annotations

from timm.layers import LayerNorm2d
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)


class SimplePyramid(nn.Module):
    """One map of stride 8, 16 or 32 -> maps at strides 4, 8, 16, 32.

    Each doubling is a 2 x 2 transposed convolution that halves the channels (LayerNorm and GELU between two of them);
    halvings are one max-pooling.

    Args:
        channels: of the map.
        stride: of the map.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(_resize(channels, stride, target) for target in STRIDES)
        self.channels = [channels * min(target, stride) // stride for target in STRIDES]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """[(B, c, H / stride, W / stride)] -> [(B, c_i, H / s, W / s) for s in 4, 8, 16, 32]."""
        return [resize(features[-1]) for resize in self.maps]


def _resize(channels: int, stride: int, target: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    while stride > target:
        if layers:
            layers += [LayerNorm2d(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        channels, stride = channels // 2, stride // 2
    if stride < target:
        layers.append(nn.MaxPool2d(target // stride))
    return nn.Sequential(*layers, LayerNorm2d(channels))

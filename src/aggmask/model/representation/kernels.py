"""A bank of T*T kernels over a feature map, painted only where asked (method.md sections 3 and 9.1, 9.2, 9.6).

The published code paints all T*T maps of a level and picks from them. Here the asked kernels alone are multiplied with
the features, each once however many cells ask for it, and the results are enlarged afterwards (a 1x1 convolution
commutes with bilinear resizing).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 16


@dataclass(frozen=True)
class KernelBank:
    """The representations of one level for a batch, as kernels times features."""

    features: Sequence[Tensor]  # B of (C, h, w); apart, so that images that are not asked have no gradient to be added
    kernels: Tensor  # (1 or B, T*T, C); 1: the same kernels for every image
    bias: Tensor | None  # (T*T,)
    grid: int  # T
    enlarge: int  # the maps are painted at (h, w) * enlarge

    def at(self, image: Tensor, positions: Tensor) -> Tensor:
        """Representations at positions of the mask grid.

        Args:
            image: (K,) long, ascending: image of each asked cell, K >= 1.
            positions: (K, N, 2) (row, column); long for cells, float for places between them.

        Returns:
            (K, N, H, W) logits.
        """
        between = positions.is_floating_point()
        image = image[:, None].expand(positions.shape[:2])
        if between:
            owner, kernels, bias = image.flatten(), *self._sampled(image.flatten(), positions.flatten(0, 1))
        else:
            code = (image * self.grid + positions[..., 0]) * self.grid + positions[..., 1]
            code, inverse = code.unique(return_inverse=True)
            owner, cell = code // self.grid**2, code % self.grid**2
            kernels, bias = self._picked(owner, cell)
        maps = self._paint(owner, kernels, bias)
        stack = maps if between else maps.index_select(0, inverse.flatten())
        return stack.unflatten(0, positions.shape[:2])

    def _picked(self, image: Tensor, cell: Tensor) -> tuple[Tensor, Tensor | None]:
        """Kernels (U, C) and biases (U,) of whole cells."""
        row = image * self.grid**2 + cell if len(self.kernels) > 1 else cell
        # Not by brackets, whose gradient threads add up in any order on a CPU.
        kernels = self.kernels.flatten(0, 1).index_select(0, row)
        return kernels, None if self.bias is None else self.bias.index_select(0, cell)

    def _sampled(self, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Kernels and biases bilinear between the four cells around each (U, 2) position."""
        # The last cell too has one on each side of it. A place that is no number is none in its share, hence its mask.
        low = positions.detach().nan_to_num().floor().clamp(0, max(self.grid - 2, 0))
        share = positions - low
        kernels = bias = 0
        for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
            offset = torch.tensor(corner, device=low.device)
            weight = torch.where(offset.bool(), share, 1 - share).prod(-1)
            cell = (low.long() + offset).clamp(max=self.grid - 1)
            kernel, constant = self._picked(image, cell[:, 0] * self.grid + cell[:, 1])
            kernels = kernels + weight[:, None] * kernel
            bias = None if constant is None else bias + weight * constant
        return kernels, bias

    def _paint(self, image: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
        """(U,) ascending images and (U, C) kernels -> (U, H, W): one matrix product an image, then the enlargement."""
        counts = torch.bincount(image, minlength=len(self.features)).tolist()
        parts = zip(kernels.split(counts), self.features, strict=True)
        maps = torch.cat([_product(k, f.flatten(1)) for k, f in parts if len(k)])
        if bias is not None:
            maps = maps + bias[:, None]
        maps = maps.unflatten(1, self.features[0].shape[-2:])
        if self.enlarge == 1:
            return maps
        # One map an image: as channels of one image, on a CPU, the last few would be rounded differently.
        return F.interpolate(maps[:, None], scale_factor=self.enlarge, mode="bilinear")[:, 0]


def _product(kernels: Tensor, features: Tensor) -> Tensor:
    """(U, C) @ (C, pixels). On a CPU, outside of training, in tiles of rows, so that a row is the same however many are
    asked: libraries choose by the number of rows how they add up."""
    if torch.is_grad_enabled() or features.device.type != "cpu":
        return kernels @ features
    tiles = F.pad(kernels, (0, 0, 0, -len(kernels) % _ROWS)).split(_ROWS)
    return torch.cat([tile @ features for tile in tiles])[: len(kernels)]

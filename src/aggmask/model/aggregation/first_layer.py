"""What a cell's aggregation network hears, and how much it makes of it: to look at (method.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class FirstLayer:
    """The linear part of K cells' networks, in which each input still has a share of its own (section 9.4)."""

    inputs: Tensor  # (K, I, H, W): N representations, then X context channels; I = 0: there is no network
    weight: Tensor  # (K, M, I, k, k)
    direct: Tensor | None  # (K,) long: the representation that is passed on to the result as it is; None: none

    def strengths(self) -> Tensor:
        """(K, I): L2 norm of the weights that each input meets."""
        return self.weight.square().sum((1, 3, 4)).sqrt()

    def shares(self) -> Tensor:
        """(K, I, M, H, W): what each input alone adds to the layer's M outputs; with the bias, they sum to them."""
        inputs, weight = self.inputs.flatten(0, 1), self.weight.transpose(1, 2).flatten(0, 2)[:, None]
        if not len(inputs):
            return self.inputs[:, :, None].expand(-1, -1, self.weight.shape[1], -1, -1)
        shares = F.conv2d(inputs[None], weight, padding=self.weight.shape[-1] // 2, groups=len(inputs))[0]
        return shares.unflatten(0, (*self.inputs.shape[:2], -1))

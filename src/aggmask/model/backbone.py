"""Any timm network that gives features at strides 4, 8, 16 and 32 (method.md section 1), or at one from which they
can be made."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aggmask.errors import UserError
from aggmask.model.layers import freeze, layer_depths, whole
from aggmask.model.timm_net import has_channels_last, make_net
from aggmask.model.vit_pyramid import STRIDES, SimplePyramid


class TimmBackbone(nn.Module):
    """C2..C5 of a timm model; of a plain vision transformer through a simple feature pyramid.

    Args:
        name: timm's name of the network; `resnet101.tv_in1k` has the weights that the published models start from.
        pretrained: load the weights that the name stands for, from the hub or its local cache.
        weights: the network's weights from elsewhere: a local file (.pth, .safetensors; timm's or torchvision's
            names), or `package:efficientnet-lite0` (ImageNet, for `tf_efficientnet_lite0`).
        in_chans: channels of the pictures; timm adapts pretrained weights of three.
        frozen_stages: 1: the stem and the first stage are not trained, 2: the second neither, ...; see `layers.freeze`.
        frozen_norm: every BatchNorm keeps its running statistics while training.
        grad_checkpointing: keep less for the backward pass and compute it again: less memory, more time. A BatchNorm
            that is not frozen takes each batch into its running statistics twice.

    Raises:
        UserError: an unknown name, a network without these strides, or one that cannot do what is asked; weights that
            cannot be had or do not fit.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = True,
        weights: str | None = None,
        in_chans: int = 3,
        frozen_stages: int = 1,
        frozen_norm: bool = True,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.in_chans, self.frozen_norm = name, in_chans, frozen_norm
        self.net = make_net(name, in_chans, pretrained, weights)
        self.channels_last = has_channels_last(self.net, name, in_chans)
        self.channels: list[int] = self.net.feature_info.channels()
        self.pyramid: nn.Module = nn.Identity()
        if len(self.channels) < len(STRIDES):
            self.pyramid = SimplePyramid(self.channels[-1], self.net.feature_info.reduction()[-1])
            self.channels = self.pyramid.channels
        self.frozen = freeze(self.net, frozen_stages)
        if grad_checkpointing:
            self._checkpoint_gradients()
        config = self.net.pretrained_cfg
        self.register_buffer("mean", _per_channel(config["mean"], in_chans), persistent=False)
        self.register_buffer("std", _per_channel(config["std"], in_chans), persistent=False)
        self.train()  # what is frozen is so from here on: Lightning trains a model in the modes in which it was built

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, in_chans, H, W) normalized -> [(B, c_i, H / s, W / s) for s in 4, 8, 16, 32]."""
        features = self.net(images)
        return self.pyramid([f.permute(0, 3, 1, 2) for f in features] if self.channels_last else features)

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode)
        for module in self.frozen:
            module.eval()
        if self.frozen_norm:
            for module in self.net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def layer_depths(self) -> dict[nn.Parameter, int]:
        """Layers between each parameter of the timm network and its end, from 1; see `layers.layer_depths`."""
        return layer_depths(self.net, self.name)

    def _checkpoint_gradients(self) -> None:
        switch = getattr(self.net, "set_grad_checkpointing", getattr(whole(self.net), "set_grad_checkpointing", None))
        try:
            switch(True)
        except (TypeError, AssertionError, NotImplementedError) as error:
            raise UserError(
                f"model.backbone.grad_checkpointing: {self.name} has no gradient checkpointing; use false"
            ) from error


def _per_channel(values: Sequence[float], in_chans: int) -> Tensor:
    """0..1 statistics of red, green, blue -> (in_chans, 1, 1) in 0..255; as timm adapts weights: grey takes their mean,
    further channels begin with red again."""
    values = [sum(values) / len(values)] if in_chans == 1 else [values[i % len(values)] for i in range(in_chans)]
    return torch.tensor(values).view(-1, 1, 1) * 255

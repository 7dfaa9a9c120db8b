"""Any timm network that gives features at strides 4, 8, 16 and 32 (method.md section 1)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from aggmask.errors import UserError

_STRIDES = [4, 8, 16, 32]


class TimmBackbone(nn.Module):
    """C2..C5 of a timm model.

    Args:
        name: timm's name of the network; `resnet101.tv_in1k` has the weights that the published models start from.
        pretrained: load the weights that the name stands for, from the hub or its local cache.
        weights: a local file with the network's weights instead (.pth, .safetensors; timm's or torchvision's names).
        frozen_stages: 1: the stem and the first stage are not trained, 2: the second neither, ...
        frozen_norm: every BatchNorm keeps its running statistics while training.

    Raises:
        UserError: an unknown name, a network without these strides, weights that cannot be had or do not fit.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = True,
        weights: str | None = None,
        frozen_stages: int = 1,
        frozen_norm: bool = True,
    ) -> None:
        super().__init__()
        self.net = _create(name, pretrained, weights)
        strides = self.net.feature_info.reduction()
        if strides != _STRIDES:
            raise UserError(f"model.backbone.name={name}: features at strides {strides}, but {_STRIDES} are needed")
        self.channels: list[int] = self.net.feature_info.channels()
        self.channels_last = str(getattr(self.net, "output_fmt", "")).endswith("NHWC")  # Swin and its kin
        self.frozen_norm = frozen_norm
        self.frozen = _stages(self.net, frozen_stages)
        for module in self.frozen:
            module.requires_grad_(False)
        config = self.net.pretrained_cfg if hasattr(self.net, "pretrained_cfg") else {}
        self.register_buffer("mean", _per_channel(config.get("mean", (0.485, 0.456, 0.406))), persistent=False)
        self.register_buffer("std", _per_channel(config.get("std", (0.229, 0.224, 0.225))), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalized -> [(B, c_i, H / s, W / s) for s in 4, 8, 16, 32]."""
        features = self.net(images)
        return [f.permute(0, 3, 1, 2) for f in features] if self.channels_last else features

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode)
        for module in self.frozen:
            module.eval()
        if self.frozen_norm:
            for module in self.net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def _per_channel(values: Sequence[float]) -> Tensor:
    """0..1 statistics -> (3, 1, 1) in 0..255."""
    return torch.tensor(values).view(-1, 1, 1) * 255


def _create(name: str, pretrained: bool, weights: str | None) -> nn.Module:
    if not timm.is_model(name):
        known = timm.list_models(pretrained=True) + timm.list_models()
        close = difflib.get_close_matches(name, known, 3)
        hint = f"; did you mean {', '.join(close)}?" if close else "; timm.list_models() has them all"
        raise UserError(f"model.backbone.name={name}: timm has no such network{hint}")
    overlay = {"pretrained_cfg_overlay": {"file": str(_checked(name, weights))}} if weights else {}
    try:
        return _features(name, pretrained=bool(pretrained or weights), **overlay)
    except Exception as error:
        if weights or not pretrained:
            raise UserError(f"model.backbone.name={name}: {error}") from error
        raise UserError(
            f"model.backbone.name={name}: its weights could not be downloaded ({type(error).__name__}). Without a "
            "network, give a local file with model.backbone.weights=FILE, or train from random weights with "
            "model.backbone.pretrained=false model.backbone.frozen_stages=0 model.backbone.frozen_norm=false"
        ) from error


def _features(name: str, **options: Any) -> nn.Module:
    """timm's feature extractor for the last four stages."""
    options |= {"features_only": True, "out_indices": (-4, -3, -2, -1)}
    try:
        return timm.create_model(name, strict_img_size=False, **options)  # Swin: pictures of any size
    except TypeError:
        return timm.create_model(name, **options)


def _checked(name: str, weights: str) -> Path:
    """The path of a weight file that fits the network.

    timm loads a feature extractor with strict=False, which would let a file of another network pass in silence.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"model.backbone.weights={weights}: there is no such file")
    try:
        given = timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as error:
        raise UserError(f"model.backbone.weights={weights}: not a readable weight file ({error})") from error
    full = timm.create_model(name, num_classes=0)
    if filter_fn := getattr(__import__(type(full).__module__, fromlist=["_"]), "checkpoint_filter_fn", None):
        given = filter_fn(given, full)
    for key, value in full.state_dict().items():
        if key not in given and not key.endswith("num_batches_tracked"):
            raise UserError(f"model.backbone.weights={weights}: has no '{key}', which {name} needs")
        if key in given and given[key].shape != value.shape:
            shapes = f"{tuple(given[key].shape)}, and {name} has {tuple(value.shape)}"
            raise UserError(f"model.backbone.weights={weights}: '{key}' has the shape {shapes}")
    return path


def _stages(net: nn.Module, count: int) -> list[nn.Module]:
    """The modules that run before the end of stage `count`: stem and stage 1 for 1."""
    if not count:
        return []
    name = net.feature_info.module_name()[count - 1]
    outer, _, inner = name.partition(".")
    children = dict(net.named_children())
    if (flat := name.replace(".", "_")) in children:
        return _until(children, flat)
    if outer in children and inner in (stages := dict(children[outer].named_children())):  # EfficientNet, MobileNet
        return [*_until(children, outer)[:-1], *_until(stages, inner)]
    raise UserError(f"model.backbone.frozen_stages={count}: this network cannot be frozen in part; use 0")


def _until(modules: Mapping[str, nn.Module], last: str) -> list[nn.Module]:
    """The modules from the first to the one named `last`."""
    return list(modules.values())[: list(modules).index(last) + 1]

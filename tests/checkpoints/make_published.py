"""Complete checkpoints as they were published, around the heads of the golden files."""

import timm
import torch
from torch import Tensor

from aggmask.checkpoints.published import to_ours, to_published
from aggmask.model.fpn import FPN
from tests.golden_case import GoldenCase


def resnet(depth: int = 18, seed: int = 0):
    torch.manual_seed(seed)
    return timm.create_model(f"resnet{depth}", features_only=True, out_indices=(1, 2, 3, 4))


def published_model(case: GoldenCase, family: str = "first") -> tuple[dict[str, Tensor], object, FPN]:
    """(weights under published names, the backbone, the pyramid)."""
    net = resnet().eval()
    fpn = FPN(net.feature_info.channels(), case.cfg["in_channels"])
    names = {f"backbone.{name}": value for name, value in net.state_dict().items()}
    for name, value in fpn.state_dict().items():
        kind, number, leaf = name.split(".")
        names[f"neck.{'lateral_convs' if kind == 'lateral' else 'fpn_convs'}.{number}.conv.{leaf}"] = value
    names |= case.published("w.")
    return (to_published(to_ours(names), family) if family != "first" else names), net, fpn

"""Which layers of a timm network come first: to freeze the first ones, and to train them at a lower rate."""

from __future__ import annotations

from collections.abc import Mapping

import timm
import torch
from timm.models import group_parameters
from torch import nn

from aggmask.errors import UserError


def whole(net: nn.Module) -> nn.Module:
    """The network inside an extractor: timm keeps some whole (ViT) and takes others apart."""
    return getattr(net, "model", net)


def freeze(net: nn.Module, count: int) -> list[nn.Module]:
    """Stop the training of everything before the end of stage `count`; returns those modules.

    The stages end where the maps of stride 4, 8, 16, 32 come from; those of a plain transformer are quarters of its
    blocks. Stem, embeddings and class tokens belong to the first.

    Raises:
        UserError: the network has no such stage, or is made in a way that cannot be frozen in part.
    """
    if not count:
        return []
    if not 0 < count <= 4:
        raise UserError(f"model.backbone.frozen_stages={count}: there are 4 stages; 0 trains all")
    root, end = whole(net), _stage_end(net, count)
    outer, _, inner = end.partition(".")
    children = dict(root.named_children())
    if (flat := end.replace(".", "_")) in children:
        frozen = _until(children, flat)
    elif outer in children and inner in (stages := dict(children[outer].named_children())):
        frozen = [*_until(children, outer)[:-1], *_until(stages, inner)]
    else:
        raise UserError(f"model.backbone.frozen_stages={count}: this network has no stages to freeze; use 0")
    for part in (*frozen, *root.parameters(recurse=False)):
        part.requires_grad_(False)
    return frozen


def _stage_end(net: nn.Module, count: int) -> str:
    """Name of the last module of a stage."""
    ends = net.feature_info.module_name()
    if len(ends) > 1:
        return ends[count - 1]
    blocks, _, last = ends[0].partition(".")
    if not last.isdigit():
        return ends[0]
    return f"{blocks}.{-(-(int(last) + 1) * count // 4) - 1}"


def _until(modules: Mapping[str, nn.Module], last: str) -> list[nn.Module]:
    """The modules from the first to the one named `last`."""
    return list(modules.values())[: list(modules).index(last) + 1]


def layer_depths(net: nn.Module, name: str) -> dict[nn.Parameter, int]:
    """How many layers lie between each parameter and what follows the network: 1 for its last layer, 2 before it, ...

    The layers are those that timm names for layer-wise learning rates (blocks of a ViT, of a ResNet stage, ...).

    Raises:
        UserError: timm names none for this network.
    """
    with torch.device("meta"):  # extractors have lost what the whole network knows
        full = timm.create_model(name, num_classes=0)
    if not hasattr(full, "group_matcher"):
        raise UserError(f"optim.layer_decay: timm does not group the layers of {name}; use null")
    groups = group_parameters(full, full.group_matcher(coarse=False), reverse=True)
    layers = {_flat(parameter): layer for parameter, layer in groups.items()}  # extractors write stages_0 for stages.0
    own = {parameter: layers[_flat(key)] for key, parameter in whole(net).named_parameters()}
    end = max(own.values()) + 1
    return {parameter: end - layer for parameter, layer in own.items()}


def _flat(name: str) -> str:
    return name.replace(".", "_")

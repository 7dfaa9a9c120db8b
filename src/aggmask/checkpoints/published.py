"""Names of weights in the published SOLO, SOLOv2 and AggMask code -> names in this package."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from aggmask.errors import UserError

_HEAD = (
    (r"ins_convs\.(\d+)\.(conv|gn)", r"bank.tower.\1.\2"),
    (r"solo_ins_list\.(\d+)", r"bank.kernels.\1"),
    (r"feature_convs\.(\d+)\.conv(\d+)\.(conv)", r"bank.features.levels.\1.\2.\3"),
    (r"solo_mask\.(conv|gn)", r"bank.features.fuse.\1"),
    (r"kernel_convs\.(\d+)\.(conv|gn)", r"bank.tower.\1.\2"),
    (r"solo_kernel", r"bank.kernels"),
    (r"kernel_convs_convcomb\.(\d+)\.(conv|gn)", r"aggregation.weights.tower.\1.\2"),
    (r"cate_convs\.(\d+)\.(conv|gn)", r"category.tower.\1.\2"),
    (r"solo_cate", r"category.classifier"),
    (r"learned_weights", r"aggregation.weights.conv"),
    (r"context_fusion_convs\.0", r"aggregation.context.fuse"),
    (r"context_fusion_convs\.1", r"aggregation.context.norm"),
    (r"context_fusion_convs\.3", r"aggregation.context.reduce.1"),
)
_MASK_FEATURES = (  # SOLOv2 keeps them outside of its head
    (r"convs_all_levels\.(\d+)\.conv(\d+)\.(conv|gn)", r"bank.features.levels.\1.\2.\3"),
    (r"conv_pred\.0\.(conv|gn)", r"bank.features.fuse.\1"),
)
_NECK = (
    (r"lateral_convs\.(\d+)\.conv", r"lateral.\1"),
    (r"fpn_convs\.(\d+)\.conv", r"output.\1"),
)


def head_weights(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a published head (no prefix) -> a state dict for `model.head.Head`.

    Raises:
        UserError: a name that has no place here; nothing is skipped in silence.
    """
    return _renamed(published, _HEAD)


def mask_feature_weights(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of SOLOv2's published mask feature head (no prefix) -> a part of a state dict for `model.head.Head`.

    Raises:
        UserError: a name that has no place here.
    """
    return _renamed(published, _MASK_FEATURES)


def neck_weights(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a published feature pyramid (no prefix) -> a state dict for `model.fpn.FPN`.

    Raises:
        UserError: a name that has no place here.
    """
    return _renamed(published, _NECK)


def _renamed(published: Mapping[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in published.items():
        for pattern, replacement in rules:
            if match := re.fullmatch(rf"{pattern}\.(weight|bias)", name):
                renamed[f"{match.expand(replacement)}.{match[match.lastindex]}"] = value
                break
        else:
            raise UserError(f"published weight '{name}' has no place in this model")
    return renamed

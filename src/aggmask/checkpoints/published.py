"""Names of weights in published SOLO, SOLOv2 and AggMask checkpoints <-> names in `model.segmenter.Segmenter`.

Two families of published names: "first", of the methods' own code (`bbox_head.`, SOLOv2's mask features apart from it),
and "later", of the toolbox that took SOLO and SOLOv2 in (`mask_head.`). AggMask was published in the first only.
The table below is the one home of all of them and is read in both directions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from aggmask.errors import UserError

FAMILIES = ("first", "later")
BATCH_COUNTER = "num_batches_tracked"  # of a BatchNorm: means nothing to a frozen one, and files may lack it

# Ours, first family, later family. {n}, {m}: a number; {part}: conv or gn; {layer}: a layer inside a stage of ResNet.
# `bank.*` lies at two places, by the base (`_base_of`): a name with SOLO's is never one with SOLOv2's.
_SHARED = (
    ("backbone.net.{layer}", "backbone.{layer}", "backbone.{layer}"),
    ("fpn.lateral.{n}", "neck.lateral_convs.{n}.conv", "neck.lateral_convs.{n}.conv"),
    ("fpn.output.{n}", "neck.fpn_convs.{n}.conv", "neck.fpn_convs.{n}.conv"),
    ("head.category.tower.{n}.{part}", "bbox_head.cate_convs.{n}.{part}", "mask_head.cls_convs.{n}.{part}"),
    ("head.category.classifier", "bbox_head.solo_cate", "mask_head.conv_cls"),
    ("head.aggregation.weights.tower.{n}.{part}", "bbox_head.kernel_convs_convcomb.{n}.{part}", None),
    ("head.aggregation.weights.conv", "bbox_head.learned_weights", None),
    ("head.aggregation.context.fuse", "bbox_head.context_fusion_convs.0", None),
    ("head.aggregation.context.norm", "bbox_head.context_fusion_convs.1", None),
    ("head.aggregation.context.reduce.1", "bbox_head.context_fusion_convs.3", None),
)
_PREDICTED = (
    ("head.bank.tower.{n}.{part}", "bbox_head.kernel_convs.{n}.{part}", "mask_head.kernel_convs.{n}.{part}"),
    ("head.bank.kernels", "bbox_head.solo_kernel", "mask_head.conv_kernel"),
)
_BASES = {
    "solo": (
        ("head.bank.tower.{n}.{part}", "bbox_head.ins_convs.{n}.{part}", "mask_head.mask_convs.{n}.{part}"),
        ("head.bank.kernels.{n}", "bbox_head.solo_ins_list.{n}", "mask_head.conv_mask_list.{n}"),
    ),
    "solov2": (
        *_PREDICTED,
        (
            "head.bank.features.levels.{n}.{m}.{part}",
            "mask_feat_head.convs_all_levels.{n}.conv{m}.{part}",
            "mask_head.mask_feature_head.convs_all_levels.{n}.conv{m}.{part}",
        ),
        (
            "head.bank.features.fuse.{part}",
            "mask_feat_head.conv_pred.0.{part}",
            "mask_head.mask_feature_head.conv_pred.{part}",
        ),
    ),
    "aggstar": (
        *_PREDICTED,
        ("head.bank.features.levels.{n}.{m}.{part}", "bbox_head.feature_convs.{n}.conv{m}.{part}", None),
        ("head.bank.features.fuse.{part}", "bbox_head.solo_mask.{part}", None),
    ),
}
_FIELDS = {
    "n": r"\d+",
    "m": r"\d+",
    "part": "conv|gn",
    "layer": r"(?:layer[1-4]\.\d+\.)?(?:conv[1-3]|bn[1-3])|layer[1-4]\.\d+\.downsample\.[01]",
}
_LEAVES = f"weight|bias|running_mean|running_var|{BATCH_COUNTER}"
_ELSEWHERE = (  # what is known and has no place here
    (r"conv\d?_offset|offset_conv", "deformable convolutions (the DCN variants) are not part of this package"),
    (
        r"ins_convs_[xy]|dsolo_ins_list|mask_convs_[xy]|conv_mask_list_[xy]",
        "Decoupled SOLO is not part of this package",
    ),
    (r"^backbone\.fc\.", "a backbone's classifier is no part of a segmenter; delete it from the file if it is there"),
    (r"^(rpn_head|roi_head)\.", "a detector with region proposals is none of SOLO, SOLOv2 and AggMask"),
)


def to_ours(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a published model, of either family -> a state dict for `model.segmenter.Segmenter`.

    Raises:
        UserError: a name that has no place here; nothing is skipped in silence.
    """
    rules = [(name, ours) for row in _every_row() for ours, *names in [row] for name in names if name]
    return _renamed(published, rules)


def to_published(ours: Mapping[str, Tensor], family: str = "first") -> dict[str, Tensor]:
    """A segmenter's state dict -> the same weights under published names.

    Raises:
        UserError: the family has no name for a weight; names it.
    """
    place = FAMILIES.index(family)
    rows = (*_SHARED, *_BASES[_base_of(ours)])
    rules = [(row[0], row[1 + place]) for row in rows if row[1 + place]]
    return _renamed(ours, rules, "the published names have none for '{}', which this model has")


def family_of(published: Iterable[str]) -> str:
    """The family that published names are of."""
    return "later" if any(name.startswith("mask_head.") for name in published) else "first"


def is_published(names: Iterable[str]) -> bool:
    """Whether there is a head of either family among the names."""
    return any(name.startswith(("bbox_head.", "mask_head.", "mask_feat_head.")) for name in names)


def _every_row() -> list[tuple[str, str, str | None]]:
    return [*_SHARED, *(row for rows in _BASES.values() for row in rows)]


def _base_of(ours: Iterable[str]) -> str:
    """Which of `_BASES` a segmenter's weights are named after."""
    names = set(ours)
    if "head.bank.kernels.weight" not in names:
        return "solo"
    return "aggstar" if "head.aggregation.weights.conv.weight" in names else "solov2"


def _renamed(
    weights: Mapping[str, Tensor],
    rules: Iterable[tuple[str, str]],
    refusal: str = "published weight '{}' has no place in this model",
) -> dict[str, Tensor]:
    patterns = [(re.compile(_pattern(source)), target) for source, target in dict.fromkeys(rules)]
    renamed = {}
    for name, value in weights.items():
        for pattern, target in patterns:
            if match := pattern.fullmatch(name):
                renamed[f"{target.format(**match.groupdict())}.{match['leaf']}"] = value
                break
        else:
            raise UserError(refusal.format(name) + _why(name))
    return renamed


def _pattern(template: str) -> str:
    """A template of the table -> the expression of all names that it stands for."""
    for field, values in _FIELDS.items():
        template = template.replace(f".{{{field}}}", rf"\.(?P<{field}>{values})").replace(
            f"{{{field}}}", rf"(?P<{field}>{values})"
        )
    leaves = _LEAVES if "layer" in template else "weight|bias"
    return rf"{template}\.(?P<leaf>{leaves})"


def _why(name: str) -> str:
    return next((f": {reason}" for pattern, reason in _ELSEWHERE if re.search(pattern, name)), "")

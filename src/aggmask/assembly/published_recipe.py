"""Which recipe published weights belong to: an experiment of `conf/experiment`, with what their shapes say over it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton

from aggmask.assembly.build import PARTS
from aggmask.assembly.checking import suggest
from aggmask.assembly.config import conf_dir, experiments, plain
from aggmask.checkpoints.shapes import Description
from aggmask.errors import UserError

log = logging.getLogger(__name__)

_VARIANTS = ("", "_interp", "_bigcls", "_bigcls60")
# What in a file's name tells a variant: this package's word, and that of the published files.
_SPELLINGS = {"_bigcls60": ("bigcls60", "increasing_clsgrid_more"), "_bigcls": ("bigcls", "increasing_clsgrid")}

_OF_EACH_KIND = ("solo_r50", "solo_r50_agg", "solov2_r50", "solov2_r50_agg")
_NO_KIND = (
    "no published model has these kernels, this aggregation and its weights together; what can be converted are SOLO, "
    "SOLOv2, AggMask and AggMask*"
)


def configuration_for(
    found: Description,
    file_name: str,
    base: str | None,
    grids: Sequence[int] | None,
    mask_grids: Sequence[int] | None,
) -> dict[str, Any]:
    """The parts of a configuration (model, criterion, ...) for published weights: the likeliest experiment, set right.

    Args:
        found: what the weights are.
        file_name: without folder and ending; a name like bigcls60 in it says which grids the model has.
        base: experiment to start from; by default the published one that fits the weights.
        grids, mask_grids: S and T of each level, where the weights do not tell them.

    Raises:
        UserError: no such experiment, or grids that do not fit the weights or that nothing tells.
    """
    names = [base] if base else _experiments(found, file_name)
    configurations = ((name, deepcopy(_composed(name))) for name in names)
    first = None
    for name, cfg in configurations:
        if not _is_kind(cfg, found):
            likeliest = _experiments(found, file_name)[0]
            if name == likeliest:
                raise UserError(_NO_KIND)
            raise UserError(
                f"base={name}: is another kind of model than the weights; of their kind is for one base={likeliest}"
            )
        first = first or (name, cfg)
        if _fits(cfg, found, grids, mask_grids):
            break
    else:
        name, cfg = first
        _set_levels(name, cfg, found, grids, mask_grids)
    told = found.mask_grids is not None and found.aggregation is None
    if grids is None and base is None and not told:
        s = [row["grid"] for row in cfg["model"]["levels"]]
        log.warning(
            "the weights do not tell the category grids; taken: %s. If this model was trained with others, "
            "say grids=[50,40,24,16,12], or base=EXPERIMENT",
            "-".join(map(str, s)),
        )
    log.info("recipe of experiment %s", name)
    _lay_over(cfg, found)
    return cfg


def _experiments(found: Description, file_name: str) -> list[str]:
    """Experiments that the weights may belong to, the likeliest first."""
    known = experiments()
    stem = "solov2" if found.predicted else "solo"
    if found.predicted and found.aggregation is None and found.category["depth"] == 2:
        stem = "solov2_light"
    variants = [f"_agg{v}" for v in _VARIANTS] if found.aggregation else [""]
    depths = (found.depth, 50, 101)
    for variant, spellings in _SPELLINGS.items() if found.aggregation else ():
        if any(spelling in file_name.lower() for spelling in spellings):
            variants.insert(0, f"_agg{variant}")
            break
    names = [next((n for d in depths if (n := f"{stem}_r{d}{v}") in known), None) for v in variants]
    return [name for name in names if name]


@cache  # up to four are tried for each checkpoint, and composing one takes longer than all the rest
def _composed(experiment: str) -> dict[str, Any]:
    """The parts of an experiment, to be copied before use. Wherever Hydra stands (a command may be at work)."""
    known = experiments()
    if experiment not in known:
        raise UserError(f"base={experiment}: there is no such experiment{suggest(experiment, known)}")
    state = Singleton.get_state()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            cfg = compose("train", overrides=[f"experiment={experiment}"])
        return {part: plain(cfg[part]) for part in PARTS}
    finally:
        Singleton.set_state(state)


def grids_of(cfg: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """S and T of each level of a configuration."""
    stride = cfg["model"]["interpolation"]["stride"]
    rows = cfg["model"]["levels"]
    return [row["grid"] for row in rows], [-(-(row.get("mask_grid") or row["grid"]) // stride) for row in rows]


def refuse_other_kinds(model: Mapping[str, Any]) -> None:
    """Refuse a model's node whose parts were never published together, or not in this form.

    Raises:
        UserError: names what differs from the published models.
    """
    name = next((name for name in _OF_EACH_KIND if _kind(_composed(name)["model"]) == _kind(model)), None)
    if name is None:
        raise UserError(_NO_KIND)
    published = _composed(name)["model"]["bank"]
    for key in ("kernel", "feature_norm"):
        if key in published and (value := model["bank"].get(key)) != published[key]:
            raise UserError(
                f"model.bank.{key}={value}: the published models of this kind (experiment {name}) have {published[key]}"
            )


def _is_kind(cfg: Mapping[str, Any], found: Description) -> bool:
    return _kind(cfg["model"]) == (found.predicted, found.aggregation is not None, found.weights is not None)


def _kind(model: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    """Whether it predicts its kernels, aggregates, has a branch for the weights of that, by the keys of its parts."""
    has = ("feature_width" in model["bank"], "window" in model["aggregation"])
    branch = "width" in model["aggregation"].get("weights", {})
    return (*has, branch)


def _fits(
    cfg: Mapping[str, Any], found: Description, grids: Sequence[int] | None, mask_grids: Sequence[int] | None
) -> bool:
    s, t = grids_of(cfg)
    coarser = all(mask < category for category, mask in zip(s, t, strict=True))
    window = (found.aggregation or {}).get("window")
    return (
        (grids is None or s == list(grids))
        and (found.mask_grids is None or t == found.mask_grids)
        and (mask_grids is None or t == list(mask_grids))
        and (window != 4 or coarser)
        and (not coarser or window == 4 or found.mask_grids is not None or mask_grids is not None)
    )


def _set_levels(
    experiment: str,
    cfg: dict[str, Any],
    found: Description,
    grids: Sequence[int] | None,
    mask_grids: Sequence[int] | None,
) -> None:
    """The user's grids, or the weights' own, in the rows of the levels."""
    window = (found.aggregation or {}).get("window")
    if grids is None and window != 4:  # which needs more category cells: how many, nothing tells
        grids = found.mask_grids
    if grids is None and mask_grids is None and found.mask_grids is None:
        raise UserError("the weights do not fit the experiment's grids; say grids=[40,36,24,16,12] or other ones")
    if grids is None:
        raise UserError(
            f"the weights do not tell the category grids, and no experiment has mask grids {found.mask_grids or ''} "
            "like these; say grids=[40,36,24,16,12] or whatever the model was trained with"
        )
    half = [-(-s // 2) for s in grids]
    masks = mask_grids or found.mask_grids or (half if window == 4 else grids)
    rows = cfg["model"]["levels"]
    for name, values in (("grids", grids), ("mask_grids", masks)):
        if len(values) != len(rows):
            raise UserError(f"{name}: {len(values)} levels; experiment {experiment} has {len(rows)}")
    if found.mask_grids is not None and list(masks) != found.mask_grids:
        raise UserError(f"mask_grids={list(masks)}: the weights have {found.mask_grids}")
    if window == 4 and not all(t < s for s, t in zip(grids, masks, strict=True)):
        raise UserError(f"grids={list(grids)}: window 4, which the weights have, needs more cells than {list(masks)}")
    cfg["model"]["interpolation"] = {"stride": 1}
    for row, s, t in zip(rows, grids, masks, strict=True):
        row.update(grid=s, mask_grid=t)


def _lay_over(cfg: dict[str, Any], found: Description) -> None:
    model = cfg["model"]
    model["fpn_channels"] = found.fpn_channels
    model["backbone"].update(name=f"resnet{found.depth}.tv_in1k", in_chans=found.in_chans)
    cfg["data"]["channels"] = found.in_chans
    parts = [("category", found.category), ("bank", found.bank), ("aggregation", found.aggregation or {})]
    for part, values in parts:
        model[part].update(values)
    if found.weights is not None:
        model["aggregation"]["weights"].update(found.weights)

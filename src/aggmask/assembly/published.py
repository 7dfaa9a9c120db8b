"""Published checkpoints -> checkpoints of this package, which carry a recipe, and the way back.

The recipe is that of an experiment of `conf/experiment`, with what the shapes of the weights say laid over it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from torch import Tensor

from aggmask.assembly.build import PARTS, build, make_recipe
from aggmask.assembly.config import conf_dir, experiments, plain, suggest
from aggmask.checkpoints.published import BATCH_COUNTER, FAMILIES, family_of, to_ours, to_published
from aggmask.checkpoints.reading import published_weights
from aggmask.checkpoints.shapes import Description, describe
from aggmask.data.coco_categories import COCO_CATEGORIES
from aggmask.errors import UserError
from aggmask.structures import Category

log = logging.getLogger(__name__)

_PREFIX = "segmenter."  # of the network in a LightningModule
_VARIANTS = ("", "_interp", "_bigcls", "_bigcls60")


def from_published(
    content: Any,
    where: str,
    experiment: str | None = None,
    grids: Sequence[int] | None = None,
    mask_grids: Sequence[int] | None = None,
    categories: Sequence[str] | None = None,
    aggregation: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A published checkpoint's content -> the content of one of this package.

    Args:
        where: the file, for messages; a name like bigcls60 in it says which grids the model has.
        experiment: base of the recipe; by default the published one that fits the weights.
        grids, mask_grids: S and T of each level, where the weights do not tell them.
        categories: names, in the order of labels; by default those in the file, else COCO's.
        aggregation: options of it, where several fit the weights.

    Raises:
        UserError: what the weights are cannot be told, or not all of them fit.
    """
    published = published_weights(content, where)
    try:
        ours = to_ours(published)
        found = describe(ours, aggregation)
        cfg = _configuration(found, Path(where).stem, experiment, grids, mask_grids)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    for note in found.notes:
        log.warning("%s", note)
    recipe = make_recipe(cfg, _categories(found.num_classes, categories, content, where))
    counters = any(name.endswith(BATCH_COUNTER) for name in ours)
    ours = _checked(ours, recipe, found.num_classes, published, where)
    return {
        "state_dict": {_PREFIX + name: value for name, value in ours.items()},
        "hyper_parameters": recipe,
        "published": {"names": family_of(published), "counters": counters},
    }


def as_published(content: Mapping[str, Any], names: str | None = None) -> dict[str, Any]:
    """The content of a checkpoint of this package -> one under published names.

    Args:
        names: family, first or later; by default that of the file which the checkpoint was converted from, or first.

    Raises:
        UserError: the model is none that was published.
    """
    recipe, origin = content["hyper_parameters"], content.get("published", {})
    family = names or origin.get("names", FAMILIES[0])
    if family not in FAMILIES:
        raise UserError(f"names={family}: must be {' or '.join(FAMILIES)}")
    if recipe["model"]["aggregation"].get("residual"):
        raise UserError("model.aggregation.residual=true: published models have no such sum, and would compute others")
    ours = {name.removeprefix(_PREFIX): value for name, value in content["state_dict"].items()}
    if not origin.get("counters", True):
        ours = {name: value for name, value in ours.items() if not name.endswith(BATCH_COUNTER)}
    weights = to_published(ours, family)
    describe(ours)
    ids, names = zip(*recipe["categories"], strict=True)
    # Published files know no ids; others skip the key.
    return {"meta": {"CLASSES": names, "category_ids": ids}, "state_dict": weights}


def _configuration(
    found: Description,
    file_name: str,
    experiment: str | None,
    grids: Sequence[int] | None,
    mask_grids: Sequence[int] | None,
) -> dict[str, Any]:
    """The parts of a configuration for the weights."""
    names = [experiment] if experiment else _experiments(found, file_name)
    configurations = ((name, _composed(name)) for name in names)
    first = None
    for name, cfg in configurations:
        first = first or (name, cfg)
        if _fits(cfg, found, grids, mask_grids):
            break
    else:
        name, cfg = first
        _set_levels(cfg, found, grids, mask_grids)
    told = found.mask_grids is not None and found.aggregation is None
    if grids is None and experiment is None and not told:
        s = [row["grid"] for row in cfg["model"]["levels"]]
        log.warning(
            "the weights do not tell the category grids; taken: %s. If this model was trained with others, "
            "say grids=[50,40,24,16,12], or experiment=NAME",
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
    for variant in reversed(_VARIANTS[2:]):
        if file_name.endswith(variant) or f"{variant}_" in file_name:
            variants.insert(0, f"_agg{variant}")
            break
    names = [next((n for d in depths if (n := f"{stem}_r{d}{v}") in known), None) for v in variants]
    return [name for name in names if name]


def _composed(experiment: str) -> dict[str, Any]:
    """The parts of an experiment, wherever Hydra stands (a command may be at work)."""
    known = experiments()
    if experiment not in known:
        raise UserError(f"experiment={experiment}: there is no such experiment{suggest(experiment, known)}")
    state = Singleton.get_state()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            cfg = compose("train", overrides=[f"experiment={experiment}"])
        return {part: plain(cfg[part]) for part in PARTS}
    finally:
        Singleton.set_state(state)


def _grids(cfg: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """S and T of each level."""
    stride = cfg["model"]["interpolation"]["stride"]
    rows = cfg["model"]["levels"]
    return [row["grid"] for row in rows], [-(-(row.get("mask_grid") or row["grid"]) // stride) for row in rows]


def _fits(
    cfg: Mapping[str, Any], found: Description, grids: Sequence[int] | None, mask_grids: Sequence[int] | None
) -> bool:
    s, t = _grids(cfg)
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
    cfg: dict[str, Any], found: Description, grids: Sequence[int] | None, mask_grids: Sequence[int] | None
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
            raise UserError(f"{name}: {len(values)} levels; published models have {len(rows)}")
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


def _categories(count: int, names: Sequence[str] | None, content: Mapping[str, Any], where: str) -> Sequence[Category]:
    """Categories of the labels: the user's, the file's, or COCO's."""
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    later = meta.get("dataset_meta")
    given = meta.get("CLASSES") or (later.get("classes", later.get("CLASSES")) if isinstance(later, Mapping) else None)
    coco = [category.name for category in COCO_CATEGORIES]
    ids = None
    if names is None and given:
        names, ids = [str(name) for name in given], meta.get("category_ids")  # ids: where this package wrote the file
        if [name.replace("_", " ") for name in names] == coco:
            names = coco
    if names is None and count == len(coco):
        names = coco
    if names is None:
        names = [f"class {i}" for i in range(1, count + 1)]
        log.warning("%s: %d classes without names; say categories=[cat,dog,...]", where, count)
    if len(names) != count:
        raise UserError(f"{where}: {count} classes, but {len(names)} names of categories")
    if ids is None and list(names) == coco:
        return COCO_CATEGORIES
    return [Category(i, name) for i, name in zip(ids or range(1, count + 1), names, strict=True)]


def _checked(
    ours: dict[str, Tensor], recipe: Mapping[str, Any], num_classes: int, published: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """The weights with every counter, when they are exactly those of the recipe's network."""
    recipe["model"]["backbone"].update(pretrained=False, weights=None)
    expected = build(recipe["model"], num_classes=num_classes).state_dict()
    theirs = dict(zip(ours, published, strict=True))
    for name, value in ours.items():
        if name not in expected:
            raise UserError(f"{where}: '{theirs[name]}' has no place in the model that the other weights make")
        if value.shape != expected[name].shape:
            raise UserError(
                f"{where}: '{theirs[name]}' is {tuple(value.shape)}; the model that the other weights make has "
                f"{tuple(expected[name].shape)} there"
            )
    missing = [name for name in expected if name not in ours and not name.endswith(BATCH_COUNTER)]
    if missing:
        names = dict(zip(expected, to_published(expected, family_of(published)), strict=True))
        raise UserError(f"{where}: lacks '{names[missing[0]]}'")
    return {name: ours.get(name, torch.zeros_like(value)) for name, value in expected.items()}

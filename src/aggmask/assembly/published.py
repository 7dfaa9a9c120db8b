"""Published checkpoints -> checkpoints of this package, which carry a recipe, and the way back."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aggmask.assembly.build import build, make_recipe
from aggmask.assembly.published_recipe import configuration_for, grids_of, refuse_other_kinds
from aggmask.checkpoints.published import BATCH_COUNTER, FAMILIES, family_of, to_ours, to_published
from aggmask.checkpoints.reading import published_weights
from aggmask.checkpoints.shapes import PUBLISHED, describe, never_published
from aggmask.data.coco_categories import COCO_CATEGORIES
from aggmask.errors import UserError
from aggmask.structures import Category

log = logging.getLogger(__name__)

_PREFIX = "segmenter."  # of the network in a LightningModule
_STRIDES = [8, 8, 16, 32, 32]  # of the published models' levels


def from_published(
    content: Any,
    where: str,
    base: str | None = None,
    grids: Sequence[int] | None = None,
    mask_grids: Sequence[int] | None = None,
    categories: Sequence[str] | None = None,
    aggregation: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A published checkpoint's content -> the content of one of this package.

    Args:
        where: the file, for messages; a name like bigcls60 in it says which grids the model has.
        base: experiment that the recipe starts from; by default the published one that fits the weights.
        grids, mask_grids: S and T of each level, where the weights do not tell them.
        categories: names, in the order of labels; by default those in the file, else COCO's.
        aggregation: options of it, where several fit the weights.

    Raises:
        UserError: what the weights are cannot be told, or not all of them fit; something is said that is no list.
    """
    _check_lists(grids, mask_grids, categories)
    published = published_weights(content, where)
    known = _grids_in(_meta_of(content), where)
    grids, mask_grids = grids or known[0], mask_grids or (known[1] if grids in (None, known[0]) else None)
    try:
        ours = to_ours(published)
        found = describe(ours, aggregation)
        cfg = configuration_for(found, Path(where).stem, base, grids, mask_grids)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    for note in found.notes:
        log.warning("%s", note)
    recipe = make_recipe(cfg, _categories(found.num_classes, categories, _meta_of(content), where))
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
    s, t = grids_of(recipe)
    _check_options(recipe["model"], s, t)
    ours = {name.removeprefix(_PREFIX): value for name, value in content["state_dict"].items()}
    if not origin.get("counters", True):
        ours = {name: value for name, value in ours.items() if not name.endswith(BATCH_COUNTER)}
    weights = to_published(ours, family)
    plain = f"resnet{describe(ours).depth}"
    name = recipe["model"]["backbone"]["name"]
    if name.rpartition("/")[2].partition(".")[0] != plain:  # weights of the same names and shapes, other operations
        raise UserError(f"model.backbone.name={name}: published models would compute a plain {plain} with its weights")
    ids, names = zip(*recipe["categories"], strict=True)
    # What published files do not know; other readers skip these keys.
    told = {"category_ids": ids, "grids": s, "mask_grids": t}
    return {"meta": {"CLASSES": names, **told}, "state_dict": weights}


def _check_options(model: Mapping[str, Any], s: list[int], t: list[int]) -> None:
    """Refuse a model that published code would compute otherwise from its weights.

    Args:
        model: its node.
        s, t: S and T of each level.
    """
    window = model["aggregation"].get("window")
    if model["aggregation"].get("residual"):
        raise UserError("model.aggregation.residual=true: published models have no such sum, and would compute others")
    if (strides := [row["stride"] for row in model["levels"]]) != _STRIDES:
        raise UserError(f"model.levels: published models have levels at strides {_STRIDES}; this one has {strides}")
    if window is None and s != t:
        raise UserError(
            f"published models without aggregation have a mask for each cell; this one has grids {s} and {t}"
        )
    for key in never_published(model["aggregation"]):
        values = ", ".join(map(str, PUBLISHED[key]))
        raise UserError(f"model.aggregation.{key}={model['aggregation'][key]}: published models have {key}s {values}")
    if window == 1 and s != t:
        raise UserError(
            "model.aggregation.window=1: where mask grids are coarser, published models take other cells than the "
            f"nearest; this one has grids {s} and {t}"
        )
    refuse_other_kinds(model)


def _check_lists(grids: Any, mask_grids: Any, categories: Any) -> None:
    """Refuse what was said in another form; a text is a sequence of letters."""
    numbers, names = (int, "whole numbers, one a level"), (str, "names, one a label")
    for key, value, (kind, what), example in (
        ("grids", grids, numbers, "40,36,24,16,12"),
        ("mask_grids", mask_grids, numbers, "20,18,12,8,6"),
        ("categories", categories, names, "cat,dog"),
    ):
        if value is not None and not _is_list_of(kind, value):
            raise UserError(f"{key}={value}: must be a list of {what}: {key}=[{example}]")


def _meta_of(content: Any) -> Mapping[str, Any]:
    """What a published checkpoint says beside its weights."""
    meta = content.get("meta")
    return meta if isinstance(meta, Mapping) else {}


def _grids_in(meta: Mapping[str, Any], where: str) -> tuple[list[int] | None, list[int] | None]:
    """S and T of each level, where this package wrote the file."""
    for name in ("grids", "mask_grids"):
        if meta.get(name) is not None and not _is_list_of(int, meta[name]):
            raise UserError(f"{where}: meta.{name} {meta[name]} must be whole numbers, one a level")
    return meta.get("grids"), meta.get("mask_grids")


def _categories(count: int, names: Sequence[str] | None, meta: Mapping[str, Any], where: str) -> Sequence[Category]:
    """Categories of the labels: the user's, the file's, or COCO's."""
    later = meta.get("dataset_meta")
    given = meta.get("CLASSES")
    empty = given is None or (isinstance(given, list | tuple) and not given)
    if empty and isinstance(later, Mapping):
        given = later.get("classes", later.get("CLASSES"))
    coco = [category.name for category in COCO_CATEGORIES]
    ids = None
    given = [given] if isinstance(given, str) and given else given  # ("crack") is no tuple
    if names is None and _is_list_of(str, given):
        names, ids = list(given), meta.get("category_ids")  # ids: where this package wrote the file
        if [name.replace("_", " ") for name in names] == coco:
            names = coco
    elif names is None and not empty:
        log.warning(
            "%s: meta.CLASSES is %.80r, no list of names: left aside; categories=[cat,dog,...] says them", where, given
        )
    if names is None and count == len(coco):
        names = coco
    if names is None:
        names = [f"class {i}" for i in range(1, count + 1)]
        log.warning("%s: %d classes without names; say categories=[cat,dog,...]", where, count)
    if len(names) != count:
        raise UserError(
            f"{where}: {count} classes, but {len(names)} names of categories; say categories=[cat,dog,...] with {count}"
        )
    if ids is not None and not (_is_list_of(int, ids) and len(names) == len(ids) == len(set(ids))):
        raise UserError(f"{where}: meta.category_ids {ids} must be {len(names)} whole numbers, all different")
    if ids is None and list(names) == coco:
        return COCO_CATEGORIES
    return [Category(i, name) for i, name in zip(ids or range(1, count + 1), names, strict=True)]


def _is_list_of(kind: type, values: Any) -> bool:
    return isinstance(values, list | tuple) and bool(values) and all(isinstance(value, kind) for value in values)


def _checked(
    ours: dict[str, Tensor], recipe: Mapping[str, Any], num_classes: int, published: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """The weights with every counter, when they are exactly those of the recipe's network."""
    recipe["model"]["backbone"].update(pretrained=False, weights=None)
    with torch.device("meta"):  # shapes only
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
    return {name: ours.get(name, torch.zeros_like(value, device="cpu")) for name, value in expected.items()}

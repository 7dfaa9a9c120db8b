"""Plain configurations -> modules, and checkpoints -> models.

A checkpoint names what to build, so only names of this package are taken from one.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_class, get_object, instantiate

from aggmask.assembly.checking import check_part, suggest
from aggmask.callbacks.checkpoint_files import WholeCheckpoints
from aggmask.callbacks.interruption import Interruption
from aggmask.callbacks.last_evaluation import LastEvaluation
from aggmask.callbacks.metrics_csv import KeptRows
from aggmask.callbacks.non_finite import NonFinite
from aggmask.callbacks.split_step import OutOfMemory
from aggmask.callbacks.sync_norms import SyncNorms
from aggmask.checkpoints.reading import read_file
from aggmask.data.transforms import Resize
from aggmask.depth import as_range
from aggmask.errors import UserError
from aggmask.lit_module import SegmentationModule
from aggmask.predictor import Predictor
from aggmask.structures import Category

FORMAT = 1  # of the recipe that travels in a checkpoint
ROOMS = ("model", "supervision", "decoding", "metrics", "data")  # whose parts a checkpoint may name
PARTS = ("model", "assigner", "criterion", "decoder", "metric", "optim", "data")


def build(node: Mapping[str, Any], **arguments: Any) -> Any:
    """What a plain `_target_` node describes, given the arguments that only the program knows."""
    return instantiate(dict(node), **arguments, _convert_="all")


def build_trainer(node: Mapping[str, Any], callbacks: Sequence[pl.Callback] = (), **arguments: Any) -> pl.Trainer:
    """The trainer of a configuration; `on_nan` and `on_oom`, which Lightning does not know, become callbacks.

    Raises:
        UserError: a setting that Lightning would fail on, or ignore, later.
    """
    node = dict(node)
    faults = NonFinite(node.pop("on_nan", "stop")), OutOfMemory(node.pop("on_oom", "split"))
    callbacks = [Interruption(), KeptRows(), LastEvaluation(), *faults, *callbacks]
    synchronized = node.get("sync_batchnorm", False)
    plugins = [WholeCheckpoints(), *([SyncNorms()] if synchronized else []), *map(build, node.get("plugins") or ())]
    trainer = build(node, plugins=plugins, callbacks=callbacks, **arguments)
    if synchronized and trainer.strategy.root_device.type == "cpu":
        raise UserError("trainer.sync_batchnorm=true: norms can be synchronized between GPUs only; this runs on a CPU")
    if trainer.precision.endswith("-true") and trainer.precision != "32-true":
        raise UserError(
            f"trainer.precision={node['precision']}: places of objects and losses need 32 bits; use 32-true, or "
            "bf16-mixed or 16-mixed, which compute only what can bear it with less"
        )
    return trainer


def build_module(recipe: Mapping[str, Any], train: bool = True) -> SegmentationModule:
    """The LightningModule of a recipe: the parts' plain nodes and the categories.

    Args:
        recipe: the nodes named in PARTS, `categories` as [[id, name], ...], `format`.
        train: False leaves the optimizer out.
    """
    categories = [Category(*pair) for pair in recipe["categories"]]
    return SegmentationModule(
        segmenter=build(recipe["model"], num_classes=len(categories)),
        assigner=build(recipe["assigner"]),
        criterion=build(recipe["criterion"]),
        decoder=build(recipe["decoder"]),
        optim=build(recipe["optim"]) if train else None,
        categories=categories,
        metric=build(recipe["metric"], max_detections=counted_detections(recipe)),
        recipe=recipe,
    )


def counted_detections(recipe: Mapping[str, Any]) -> int:
    """Of a category in an image, those that AP counts: what the metric says, or as many as the decoder keeps."""
    said = recipe["metric"].get("max_detections")
    return recipe["decoder"]["max_detections"] if said is None else said


def make_recipe(cfg: Mapping[str, Any], categories: Sequence[Category]) -> dict[str, Any]:
    """What a checkpoint carries: the plain nodes of a configuration, and the categories of its data."""
    parts = {part: deepcopy(cfg[part]) for part in PARTS}
    return {"format": FORMAT, "categories": [[c.id, c.name] for c in categories], **parts}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint of this package: plain containers and tensors only, on the CPU.

    Raises:
        UserError: no such file, not a checkpoint of this package, or one that names code of others.
    """
    return _own(read_file(path), path)


def _own(content: Any, path: str | Path) -> dict[str, Any]:
    recipe = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(recipe, dict) or "format" not in recipe or "state_dict" not in content:
        raise UserError(
            f"checkpoint={path}: was not written by aggmask (it has no recipe of the model); a published "
            "checkpoint of SOLO, SOLOv2 or AggMask is converted by python -m aggmask.convert"
        )
    if recipe["format"] > FORMAT:
        raise UserError(
            f"checkpoint={path}: format {recipe['format']} is newer than this aggmask, which reads {FORMAT}"
        )
    for part in PARTS:
        if part != "optim":  # which names torch.optim, and is never built from a checkpoint
            _check_targets(recipe[part], f"checkpoint={path}: {part}")
    return content


def load_module(path: str | Path, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> SegmentationModule:
    """A checkpoint's module with its weights, for evaluation.

    Args:
        overrides: part -> keys that replace those of the checkpoint's recipe.

    Raises:
        UserError: see `read_checkpoint`; a key that a part does not have.
    """
    return _module_of(read_checkpoint(path), overrides)


def _module_of(content: dict[str, Any], overrides: Mapping[str, Mapping[str, Any]] | None = None) -> SegmentationModule:
    recipe = content["hyper_parameters"]
    recipe["model"]["backbone"].update(pretrained=False, weights=None)  # they come with the checkpoint
    recipe["decoder"].pop("chunk", None)  # which a budget of memory has replaced
    recipe["model"].update(compile=None)  # what compiles where the training ran may not do so here
    for part, keys in (overrides or {}).items():
        for key, value in keys.items():
            if key not in recipe[part] and key not in inspect.signature(get_class(recipe[part]["_target_"])).parameters:
                raise UserError(f"{part}.{key}: there is no such key{suggest(key, recipe[part])}")
            recipe[part][key] = value
        check_part({"_target_": recipe[part]["_target_"], **keys}, part)
    module = build_module(recipe, train=False)
    module.load_state_dict(content["state_dict"])
    return module.eval()


def load(
    checkpoint: str | Path,
    device: str | torch.device | None = None,
    short_side: int | None = None,
    long_side: int | None = None,
    trust_pickle: bool = False,
    base: str | None = None,
    grids: Sequence[int] | None = None,
    mask_grids: Sequence[int] | None = None,
    categories: Sequence[str] | None = None,
    aggregation: Mapping[str, Any] | None = None,
) -> Predictor:
    """A trained model for pictures.

    Args:
        checkpoint: file that training wrote, or a published checkpoint of SOLO, SOLOv2 or AggMask.
        device: by default a GPU if there is one.
        short_side, long_side: size of the network's input, pixels; by default as in the checkpoint's evaluation.
        trust_pickle: run whatever code the file names; by default a file that names any is refused.
        base, grids, mask_grids, categories, aggregation: what the weights of a published checkpoint do not tell, see
            `assembly.published.from_published`.

    Raises:
        UserError: see `read_checkpoint` and `assembly.published.from_published`; something is said of a checkpoint of
            this package, which tells it by itself; a size or a device makes no sense.
    """
    from aggmask.assembly.published import from_published  # which builds on this file

    for name, value in (("short_side", short_side), ("long_side", long_side)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UserError(f"{name}={value}: must be a whole number of pixels, 1 or more")
    content = read_file(checkpoint, trust_pickle)
    untold = {"base": base, "grids": grids, "mask_grids": mask_grids}
    untold |= {"categories": categories, "aggregation": aggregation}
    if not isinstance(content, dict) or "hyper_parameters" not in content:
        content = from_published(content, str(checkpoint), **untold)
    elif said := [name for name, value in untold.items() if value is not None]:
        raise UserError(f"{checkpoint}: tells its {', '.join(said)} by itself; leave {' and '.join(said)} out")
    module = _module_of(_own(content, checkpoint))
    data = module.hparams["data"]
    sides = short_side or data.get("evaluation_short_side") or data["short_side"]
    resize = Resize((sides if isinstance(sides, int) else max(sides),), long_side or data["long_side"])
    value_range = as_range(data.get("value_range"))  # which older checkpoints do not have
    return Predictor(module.segmenter, module.decoder, resize, module.categories, device, value_range)


def _check_targets(node: Any, where: str) -> None:
    if isinstance(node, dict):
        if "_target_" in node and not _is_part(node["_target_"]):
            raise UserError(f"{where} names '{node['_target_']}', which is not a part of aggmask: refused")
        for value in node.values():
            _check_targets(value, where)
    elif isinstance(node, list):
        for value in node:
            _check_targets(value, where)


def _is_part(target: Any) -> bool:
    """Whether a name is of something defined here: one that only starts here may lead anywhere (`...os.system`)."""
    if not isinstance(target, str) or not target.startswith(tuple(f"aggmask.{room}." for room in ROOMS)):
        return False
    try:
        found = get_object(target)
    except Exception:  # of a newer version, or of nothing
        return False
    return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}" == target

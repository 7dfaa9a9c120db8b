"""Checkpoint files of any origin -> plain content, or a message that says what the file is instead."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aggmask.checkpoints.published import is_published
from aggmask.checkpoints.run_folder import checkpoint_file
from aggmask.errors import MachineFault, UserError
from aggmask.files import fault_below
from aggmask.memory import says_too_little

_DAMAGED = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError, TypeError, IndexError)


def read_file(path: str | Path, trust_pickle: bool = False, key: str = "checkpoint") -> Any:
    """What torch.save wrote, on the CPU.

    Args:
        trust_pickle: run whatever code the file names; otherwise plain containers and tensors only.
        key: how the user named the file, for messages.

    Raises:
        UserError: no such file, not a checkpoint, a damaged one, or one that holds more than plain values.
        MachineFault: the file may be whole, but the disk does not give it, or the memory does not hold it.
    """
    if not isinstance(trust_pickle, bool):  # any word would be taken for yes
        raise UserError(f"trust_pickle={trust_pickle}: must be true or false")
    file = checkpoint_file(path, key)
    try:
        return torch.load(file, map_location="cpu", weights_only=not trust_pickle)
    except (ImportError, AttributeError, MemoryError, *_DAMAGED) as error:
        if fault := _fault_of_machine(error, file):
            raise MachineFault(f"{key}={fault}") from error
        raise UserError(f"{key}={path}: {_wrong_with(error)}") from error


def _fault_of_machine(error: Exception, file: Path) -> str | None:
    """What kept a whole file from being read. The disk is asked again: torch does not pass on all that it says."""
    if fault := fault_below(error, file):
        return fault
    if isinstance(error, MemoryError) or says_too_little(error) or getattr(error, "errno", None) == errno.ENOMEM:
        size = file.stat().st_size / 2**20
        return f"{file}: the memory is too small for its {size:.0f} MB: close other programs, or give this one more"
    try:
        with open(file, "rb") as content:
            while content.read(2**20):
                pass
    except OSError as of_disk:
        return fault_below(of_disk, file)
    return None


def _wrong_with(error: Exception) -> str:
    """Of a file that the machine gives."""
    if isinstance(error, ImportError | AttributeError):
        return (
            f"names code that is not installed ({error}). Install it, or where it is, write the weights alone: "
            "torch.save({'state_dict': torch.load(FILE, weights_only=False)['state_dict']}, NEW)"
        )
    refused = isinstance(error, pickle.UnpicklingError)
    if refused and "Unsupported global" in str(error):
        named = str(error).partition("GLOBAL ")[2].split(" ")[0]
        return (
            f"holds more than plain values and tensors ({named}), and reading that runs code which the file names. If "
            "you trust its source, say trust_pickle=true"
        )
    return "not a checkpoint, or a damaged one: torch cannot read it" + (
        " as plain values and tensors, and anything else is refused, because reading it runs code" * refused
    )


def published_weights(content: Any, where: str) -> dict[str, Tensor]:
    """The published model's weights in a file's content.

    Raises:
        UserError: there are none; says what is there.
    """
    names = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(names, Mapping) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where}: holds a {type(content).__name__} and no weights under the key 'state_dict'")
    names = {name.removeprefix("module."): value for name, value in names.items()}  # of a parallel training
    if is_published(names):
        bad = next((name for name, value in names.items() if not isinstance(value, Tensor)), None)
        if bad is not None:
            raise UserError(f"{where}: '{bad}' is no tensor")
        return names
    raise UserError(
        f"{where}: {_what_else(names)}. Checkpoints of SOLO, SOLOv2 and AggMask have bbox_head. or mask_head."
    )


def _what_else(content: Mapping[str, Any]) -> str:
    first = next(iter(content))
    if isinstance(content.get("model"), Mapping):
        return "has its weights under 'model', as Detectron2's checkpoints do, whose names are others"
    if {"conv1.weight", "layer1.0.conv1.weight"} <= content.keys():
        return "is a ResNet alone (model.backbone.weights=FILE trains from one)"
    if "optimizer" in content or "param_groups" in content:
        return "holds the state of an optimizer and no weights"
    return f"is no published checkpoint (its first key is '{first}')"

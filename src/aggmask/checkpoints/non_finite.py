"""The folder of a training step that broke: what it takes to run the step again, in plain containers and tensors.

`state.pt` holds the model and the optimizer before the step, `rank-R.pt` the batches of each rank, `message.txt` what
the run said. What is drawn in the step follows from the seed, the epoch and the batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from aggmask.checkpoints.reading import read_file
from aggmask.errors import UserError
from aggmask.files import write_whole
from aggmask.geometry.frame import Frame
from aggmask.structures import ImageBatch, Objects

STATE, MESSAGE = "state.pt", "message.txt"
_OBJECT_FIELDS = ("labels", "boxes", "centers", "areas", "masks")


def write_rank(folder: Path, rank: int, batches: Sequence[ImageBatch], found: Mapping[str, Any]) -> None:
    """Write what one rank alone knows.

    Args:
        batches: of the step; several where gradients are accumulated.
        found: plain; what was not finite there.
    """
    plain = [{"batch": _plain_batch(batch.to("cpu"))} for batch in batches]
    _write(folder / f"rank-{rank}.pt", {"batches": plain, "found": dict(found)})


def write_state(folder: Path, state: Mapping[str, Any], message: str) -> None:
    """Write what all ranks share.

    Args:
        state: `hyper_parameters` and `state_dict` as in a checkpoint, `optimizer_states`, `precision`, `ranks`.
    """
    _write(folder / STATE, dict(state))
    write_whole(folder / MESSAGE, lambda file: file.write(f"{message}\n".encode()))


def read_rank(folder: Path, rank: int) -> list[ImageBatch]:
    """The batches that `write_rank` wrote, on the CPU.

    Raises:
        UserError: the file is not there, or damaged.
    """
    content = read_file(folder / f"rank-{rank}.pt", key="folder")
    if not isinstance(content, dict) or "batches" not in content:
        raise UserError(f"folder={folder}: rank-{rank}.pt holds no batches of a step")
    return [_batch(entry["batch"]) for entry in content["batches"]]


def _write(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, lambda file: torch.save(content, file))


def _plain_batch(batch: ImageBatch) -> dict[str, Any]:
    return {
        "pixels": batch.pixels,
        "frames": [asdict(frame) for frame in batch.frames],
        "image_ids": list(batch.image_ids),
        "objects": [{name: getattr(objects, name) for name in _OBJECT_FIELDS} for objects in batch.objects],
    }


def _batch(content: Mapping[str, Any]) -> ImageBatch:
    frames = [Frame(**frame) for frame in content["frames"]]
    return ImageBatch(content["pixels"], frames, content["image_ids"], [Objects(**o) for o in content["objects"]])

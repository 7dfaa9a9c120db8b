"""Replay: `python -m aggmask.replay DIR`, a training step that was not finite, with a look at every module."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from aggmask.assembly.command import run_command
from aggmask.errors import UserError


def replay(folder: str | Path, device: str | None = None) -> list[str]:
    """Run the step that a training wrote to `<run folder>/non_finite` again, forward and backward, rank by rank.

    One process counts its own positive cells where several shared theirs: losses are larger or smaller by a factor.

    Args:
        device: by default a GPU if there is one.

    Returns:
        A line for every rank's batch: what was not finite first.

    Raises:
        UserError: the folder holds no step, or what does not belong to this package; there is no such device.
    """
    import torch

    from aggmask.assembly.build import load_module, read_checkpoint
    from aggmask.callbacks.first_non_finite import look, not_finite
    from aggmask.checkpoints.non_finite import STATE, read_rank
    from aggmask.predictor import as_device

    folder = Path(folder).expanduser()
    if not (folder / STATE).is_file():
        raise UserError(f"folder={folder}: holds no step to replay ({STATE}); a run leaves one in RUN/non_finite")
    device = as_device(device)
    state = read_checkpoint(folder / STATE)
    kind = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(state["precision"])
    lines = []
    for rank in range(state["ranks"]):
        module = load_module(folder / STATE).train().to(device)  # anew: norms that train take statistics of a batch
        module.replayed_epoch = state["epoch"]
        batches = read_rank(folder, rank)
        for number, batch in enumerate(batches):
            context = torch.autocast(device.type, kind, cache_enabled=False) if kind else nullcontext()
            seen = look(module, batch.to(device), context, backward=True)
            found = seen.found or [
                f"gradient of {name}, added over batches"
                for name, p in module.named_parameters()
                if p.grad is not None and not_finite(p.grad)
            ]
            images = ", ".join(map(str, batch.image_ids))
            where = f"rank {rank}, batch {number + 1} of {len(batches)}, images {images}"
            losses = ", ".join(f"{name} {value:.4g}" for name, value in seen.losses.items())
            more = f" (and {len(found) - 1} more)" if found[1:] else ""
            lines.append(f"{where}: {f'first not finite: {found[0]}{more}' if found else 'all is finite'}; {losses}")
    return lines


def _command(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m aggmask.replay", description="Run a step that was not finite again, and say where it broke."
    )
    parser.add_argument("folder", metavar="DIR", help="RUN/non_finite")
    parser.add_argument("--device", help="cpu or cuda; by default a GPU if there is one")
    given = parser.parse_args(arguments)
    print("\n".join(replay(given.folder, given.device)))


def main() -> None:
    """Entry point of `python -m aggmask.replay` and `aggmask-replay`."""
    run_command(partial(_command, sys.argv[1:]))


if __name__ == "__main__":
    main()

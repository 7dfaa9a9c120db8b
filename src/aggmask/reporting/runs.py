"""The jobs of a sweep as their folders tell them: what each one is, how far it came, what it logged.

A sweep is any folder of run folders. Hydra's own launcher leaves `.hydra/overrides.yaml` in each of them, the process
launcher `job.json` and `outcome.json`; a run's own `config.yaml` and `results.json` are there in either case. Other
programs call their files `config.yaml`, too: what says nothing of a model, data and a trainer is none of ours.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml

from aggmask.assembly.build import counted_detections
from aggmask.checkpoints.run_folder import came_to_its_end, epochs_done
from aggmask.errors import UserError
from aggmask.files import read_json
from aggmask.metrics.results import EVALUATED

FINISHED, FAILED, UNFINISHED = "finished", "failed", "unfinished"
_OWN = {"model", "data", "trainer"}  # keys of every configuration of a training
_END = 64  # bytes


@dataclass(frozen=True)
class Run:
    """One job: a folder."""

    folder: Path
    name: str  # of the folder, from the sweep's
    config: Mapping[str, Any]  # resolved; empty where the job ended before it was written
    overrides: tuple[str, ...]  # as typed; empty where nobody wrote them down
    state: str  # FINISHED, FAILED or UNFINISHED
    detail: str  # why it is not finished

    @property
    def seed(self) -> int | None:
        """None where nothing says it."""
        typed = [text.removeprefix("seed=") for text in self.overrides if text.startswith("seed=")]
        return self.config.get("seed", int(typed[-1]) if typed and typed[-1].isdecimal() else None)

    @property
    def max_detections(self) -> int:
        """Of a category in an image that AP counts, as in training."""
        return counted_detections(self.config)

    def results_file(self, split: str = "val") -> Path:
        """Of the best evaluation in training, or of `python -m aggmask.evaluate checkpoint=... split=SPLIT`."""
        return self.folder / ("results.json" if split == "val" else f"{split}/results.json")

    def results(self, split: str = "val") -> list[dict[str, Any]]:
        """COCO results.

        Raises:
            UserError: the run was not evaluated on that split, or the file is damaged.
        """
        file = self.results_file(split)
        results = read_json(file)
        if results is None:
            raise UserError(
                f"{file} is missing: python -m aggmask.evaluate checkpoint={self.folder / 'best.ckpt'} split={split}"
            )
        return results

    def evaluated(self, split: str = "val") -> set[int] | None:
        """Ids of the images that `results` are of, those without any too; None where nothing says it."""
        ids = _json(self.results_file(split).with_name(EVALUATED))
        return None if ids is None else set(ids)

    @cached_property
    def logged(self) -> dict[str, list[tuple[float, float, float]]]:
        """Name -> (epoch, step, value) of each time that it was logged, from `metrics.csv` without damaged rows."""
        file = self.folder / "metrics.csv"
        series: dict[str, list[tuple[float, float, float]]] = {}
        if not file.is_file():
            return series
        with file.open(newline="", errors="replace") as lines:
            rows = csv.DictReader(line for line in lines if "\0" not in line)  # which a crash of a machine leaves
            for row in rows if {"epoch", "step"} <= {*(rows.fieldnames or ())} else ():
                try:
                    epoch, step = (float(row.get(key) or "nan") for key in ("epoch", "step"))
                except ValueError:
                    continue
                if None in row:  # longer than the heading, as of two writers: what is under which name is not known
                    continue
                for name, text in row.items():
                    value = _number(text)
                    if name not in ("epoch", "step") and value is not None:
                        series.setdefault(name, []).append((epoch, step, value))
        return series


def read_runs(folder: str | Path) -> list[Run]:
    """All jobs below a folder, numbered folders in the order of their numbers.

    Raises:
        UserError: there is no such folder, or no job in it.
    """
    root = Path(folder).expanduser()
    if root.is_file():
        raise UserError(f"{folder}: that is a file; give the folder of a sweep, like sweeps/2026-01-31_12-00-00")
    if not root.is_dir():
        raise UserError(
            f"{folder}: there is no such folder; give the folder of a sweep, like sweeps/2026-01-31_12-00-00"
        )
    configs = {path: config for path in _holders(root, "config.yaml") if _is_own(config := _yaml(path / "config.yaml"))}
    found = _jobs(root, configs.keys())
    if not found:
        raise UserError(
            f"{folder}: no run in it (no folder below has the config.yaml of a training). A sweep is made by "
            "`python -m aggmask.train experiment=demo seed=0,1,2 --multirun`"
        )
    found = sorted(found, key=lambda path: _natural(str(path.relative_to(root))))
    return [_read(path, root, configs.get(path)) for path in found]


def _jobs(root: Path, configured: Set[Path]) -> set[Path]:
    """Folders that a launcher marked or that hold a configuration, one of them at most on any path.

    What lies below a run belongs to it. A folder with less than a mark and a configuration is no run for sure: it gives
    way to the marked ones below it, and where it has no configuration to any.
    """
    frozen = _holders(root, "job.json")  # with its configuration inside
    marked = frozen | _holders(root, ".hydra/overrides.yaml")
    runs = frozen | (marked & configured)
    found = {path for path in marked | configured if not runs & set(path.parents)}
    above, above_marked = ({parent for path in some for parent in path.parents} for some in (found, found & marked))
    found -= above_marked | (above - configured)
    return {path for path in found if not found & set(path.parents)}


def _holders(root: Path, mark: str) -> set[Path]:
    depth = mark.count("/") + 1
    return {p.parents[depth - 1] for p in root.rglob(mark) if depth == 2 or p.parent.name != ".hydra"}


def _is_own(config: Any) -> bool:
    """Of a training here; W&B keeps a copy of it in a form of its own."""
    return isinstance(config, dict) and config.keys() >= _OWN and "_wandb" not in config


def _natural(text: str) -> list[Any]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _read(folder: Path, root: Path, config: Mapping[str, Any] | None) -> Run:
    job = _json(folder / "job.json") or {}
    config = config or job.get("config") or {}
    overrides = job.get("overrides") or _yaml(folder / ".hydra" / "overrides.yaml") or []
    name = str(folder.relative_to(root))
    name = root.resolve().name if name == "." else name
    return Run(folder, name, config, tuple(map(str, overrides)), *_state(folder, config))


def _state(folder: Path, config: Mapping[str, Any]) -> tuple[str, str]:
    """(state, why it is not finished)."""
    outcome = _json(folder / "outcome.json") or {}
    if outcome.get("state") == "failed":
        return FAILED, str(outcome.get("error", "")).partition("\n")[0]
    if not config:
        return FAILED, "ended before its configuration was written"
    if not outcome and (left := _left(folder, config)):
        return UNFINISHED, left
    if not (folder / "results.json").is_file():
        return UNFINISHED, "nothing was evaluated"
    if not _has_both_ends(folder / "results.json"):
        return FAILED, "results.json cannot be read"
    return FINISHED, ""


def _has_both_ends(file: Path) -> bool:
    """Whether a list was not cut off. What is between its ends shows when it is read: it may be long."""
    with file.open("rb") as content:
        begins = content.read(_END).lstrip().startswith(b"[")
        content.seek(max(0, file.stat().st_size - _END))
        return begins and content.read().rstrip().endswith(b"]")


def _left(folder: Path, config: Mapping[str, Any]) -> str:
    """How far a run is that was not seen to end; empty when it came to its end."""
    try:  # tensors stay on the disk
        content = torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        return "no epoch was finished"
    except Exception as error:  # a kill may cut a checkpoint off anywhere
        return f"last.ckpt cannot be read ({type(error).__name__})"
    trainer = config["trainer"]
    if came_to_its_end(content, trainer):
        return ""
    if (trainer.get("max_steps") or -1) < 0:
        return f"{epochs_done(content)} of {trainer.get('max_epochs')} epochs"
    return f"{content['global_step']} of {trainer['max_steps']} steps"


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _yaml(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_bytes())
    except (OSError, ValueError, yaml.YAMLError):  # another program's file may be anything
        return None

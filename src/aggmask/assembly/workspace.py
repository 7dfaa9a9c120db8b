"""The W&B workspace of this package's runs, as code: which panels there are, and which logged keys they show.

`wandb-workspaces` (extra `dashboard`) builds it, and is imported late. Only a server is reached through what is public
there: a definition without one comes from `_to_model`, which is why its version is bounded closely.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from aggmask.callbacks.keys import BEST, CATEGORIES, PICTURES, STEP
from aggmask.errors import UserError

CURVES = {  # title -> keys
    "mask AP": ("val/AP", "val/AP50", "val/AP75"),
    "mask AP by size": ("val/APs", "val/APm", "val/APl"),
    "mask AR": ("val/AR1", "val/AR10", "val/AR100"),
    "loss": ("train/loss",),
    "mask loss": ("train/loss_mask",),
    "category loss": ("train/loss_category",),
    "seconds a step": ("train/step_seconds",),
    "memory, MB": ("train/memory_mb",),
}
LEARNING_RATES = "^lr-"  # one for each optimizer and group of parameters


def workspace(config: Mapping[str, Any]) -> Any:
    """The `wandb_workspaces.workspaces.Workspace` of a plain `conf/dashboard.yaml`.

    Raises:
        UserError: the extra is not installed.
    """
    ws, wr = _libraries()
    group = [ws.Metric("Group") == config["group"]] if config["group"] else []
    return ws.Workspace(
        entity=config["entity"] or "",
        project=config["project"],
        name=config["name"],
        sections=_sections(ws, wr, config["ablation"]),
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=config["max_runs"]),
        runset_settings=ws.RunsetSettings(
            filters=group,
            order=[ws.Ordering(ws.Summary(BEST), ascending=False)],
            pinned_columns=[f"summary:{BEST}"],
        ),
    )


def write(made: Any, path: str | Path) -> Path:
    """Write a workspace's definition as JSON; `read` gives it back.

    Raises:
        UserError: the file cannot be written.
    """
    content = made._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")
    file = Path(path).expanduser()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=1))
    except OSError as error:
        raise UserError(f"output={path}: cannot be written ({error.strerror})") from error
    return file


def read(path: str | Path) -> Any:
    """The workspace of a file that `write` wrote."""
    ws, _ = _libraries()
    return ws.Workspace._from_model(ws.internal.View.model_validate_json(Path(path).read_text()))


def send(made: Any) -> str:
    """Save a workspace on the W&B server as a new one; its address.

    Raises:
        UserError: no account, no such project, or no server.
    """
    try:
        return made.save().url
    except (wandb.Error, OSError, ValueError) as error:
        place = f"entity={made.entity} project={made.project}"
        reason = str(error).strip() or type(error).__name__
        raise UserError(
            f"{place}: W&B did not take the workspace ({reason}). See `wandb login`; "
            "output=workspace.json writes its definition without a server"
        ) from error


def _libraries() -> tuple[Any, Any]:
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise UserError("the dashboard needs wandb-workspaces: pip install 'aggmask[dashboard]'") from error
    return ws, wr


def _sections(ws: Any, wr: Any, ablation: Sequence[str]) -> list[Any]:
    curves = {
        title: wr.LinePlot(title=title, x=STEP, y=list(keys), range_y=(0, None)) for title, keys in CURVES.items()
    }
    rates = wr.LinePlot(title="learning rate", x=STEP, metric_regex=LEARNING_RATES)
    bars = [
        wr.BarPlot(
            title=f"best mask AP by {key}", metrics=[BEST], groupby=wr.Config(key), groupby_aggfunc="mean",
            groupby_rangefunc="stddev", orientation="v",
        )
        for key in ablation
    ]  # fmt: skip
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(key)) for key in ablation]
    best = wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(BEST))
    every = wr.ParallelCoordinatesPlot(title="all keys", columns=[*columns, best], layout=wr.Layout(w=24, h=10))
    pictures = wr.MediaBrowser(title="ground truth and prediction", media_keys=[PICTURES], num_columns=2)
    table = wr.WeavePanelSummaryTable(table_name=CATEGORIES)
    evaluation, training = (
        [plot for title, plot in curves.items() if CURVES[title][0].startswith(kind)] for kind in ("val/", "train/")
    )
    return [
        ws.Section(name="Evaluation", panels=evaluation, is_open=True),
        ws.Section(name="Variants", panels=[*bars, every, wr.RunComparer(diff_only="split")], is_open=True),
        ws.Section(name="Predictions", panels=[pictures, table], is_open=True),
        ws.Section(name="Training", panels=[*training, rates], is_open=True),
    ]

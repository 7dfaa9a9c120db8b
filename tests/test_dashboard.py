"""The definition without a server. That runs log what it names: `tests/test_wandb.py`."""

import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aggmask import dashboard
from aggmask.assembly.config import plain
from aggmask.assembly.workspace import read
from aggmask.errors import UserError
from tests.runs import command, composed
from tests.wandb_server import Server


def config(*overrides: str) -> dict[str, Any]:
    return plain(composed(*overrides, command="dashboard"))


def definition(folder: Path, *overrides: str) -> dict[str, Any]:
    """What the command writes."""
    dashboard.dashboard(config(f"output={folder}/made.json", *overrides))
    return json.loads((folder / "made.json").read_text())


def texts(node: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(name of its field, text) of every text in a definition."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from texts(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value, name)
    elif isinstance(node, str):
        yield name, node


def metric_keys(made: dict[str, Any]) -> set[str]:
    """Everything in a definition that has the form of a logged key."""
    return {key for _, text in texts(made) for key in re.findall(r"(?:val|train|best|trainer)/\w+", text)}


def config_keys(made: dict[str, Any]) -> set[str]:
    """What is grouped by, and the columns of parallel coordinates that are no results."""
    found = [text for name, text in texts(made) if name == "groupBy"]
    found += [text.removeprefix("config:") for _, text in texts(made) if text.startswith("config:")]
    return {key.replace(".value", "", 1) for key in found}


def test_a_file_holds_the_workspace(tmp_path):
    overrides = ["entity=me", "project=p", "name=Ablation of June", "group=window", "max_runs=7"]
    definition(tmp_path, *overrides, "ablation=[seed,model.aggregation.window]")
    made = read(tmp_path / "made.json")
    assert (made.entity, made.project, made.name) == ("me", "p", "Ablation of June")
    panels = {section.name: section.panels for section in made.sections}
    assert list(panels) == ["Evaluation", "Variants", "Predictions", "Training"]
    kinds = {name: [type(panel).__name__ for panel in found] for name, found in panels.items()}
    assert kinds == {
        "Evaluation": ["LinePlot"] * 3,
        "Variants": ["BarPlot", "BarPlot", "ParallelCoordinatesPlot", "RunComparer"],
        "Predictions": ["MediaBrowser", "WeavePanelSummaryTable"],
        "Training": ["LinePlot"] * 6,
    }
    assert [panel.groupby.name for panel in panels["Variants"][:2]] == ["seed", "model.aggregation.window"]
    assert [column.metric.name for column in panels["Variants"][2].columns] == [
        "seed", "model.aggregation.window", "best/AP",
    ]  # fmt: skip
    assert panels["Predictions"][0].media_keys == ["val/pictures"]
    assert {panel.x.name for panel in panels["Evaluation"]} == {"trainer/global_step"}
    assert made.settings.max_runs == 7
    assert made.runset_settings.filters == "Metric(\"Group\") == 'window'"
    assert made.runset_settings.order[0].item.name == "best/AP"


def test_a_server_gets_what_a_file_would_hold(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "local-" + "0" * 40)
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        dashboard.dashboard(config("entity=me", "project=p", "group=g"))
    (sent,) = server.variables("upsertView")
    made = definition(tmp_path, "entity=me", "project=p", "group=g")
    spec = json.loads(sent["spec"])
    assert (sent["entityName"], sent["projectName"], sent["displayName"]) == ("me", "p", made["displayName"])
    assert metric_keys(spec) == metric_keys(made)
    assert config_keys(spec) == config_keys(made)
    assert capsys.readouterr().out.startswith(f"{server.url}/me/p")


def test_the_command(monkeypatch, capsys, tmp_path):
    status, said = command(monkeypatch, capsys, dashboard, f"output={tmp_path}/of today/made.json")
    assert (status, said.strip()) == (0, f"{tmp_path}/of today/made.json")
    assert read(tmp_path / "of today" / "made.json").project == "aggmask"
    status, said = command(monkeypatch, capsys, dashboard)
    assert status == 2
    assert "say entity=NAME" in said
    (tmp_path / "file").write_text("")
    status, said = command(monkeypatch, capsys, dashboard, f"output={tmp_path}/file/made.json")
    assert status == 2
    assert "made.json: cannot be written" in said
    status, said = command(monkeypatch, capsys, dashboard, "+grup=x", "output=x.json")
    assert status == 2
    assert "did you mean 'group'" in said


def test_without_a_server_or_the_extra_one_is_told_what_to_do(monkeypatch, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"entity=me project=aggmask: W&B did not take .*output=workspace\.json"):
        dashboard.dashboard(config("entity=me"))
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(UserError, match=r"pip install 'aggmask\[dashboard\]'"):
        dashboard.dashboard(config("entity=me"))

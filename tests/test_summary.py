"""The command, and what it says of wrong arguments."""

import pytest

from aggmask import summary
from aggmask.accounting.table import render
from aggmask.assembly.config import plain
from tests.assembly.test_config import EXPERIMENTS
from tests.runs import command, composed


def summary_of(experiment: str, *overrides: str):
    settings = [f"experiment={experiment}", "name=x", "output_dir=x", "size=[64,64]", *overrides]
    return summary.summarize(plain(composed(*settings, command="summary")), experiment)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_has_a_summary(experiment):
    found = summary_of(experiment)
    assert {"backbone", "pyramid", "categories", "representations"} <= {part.name for part in found.parts}
    assert found.memory.training > found.memory.inference > found.memory.weights > 0
    assert experiment in render([found])


@pytest.mark.parametrize("key", ["cells.training=120", "cells.inference=400", "batch=4", "size=[128,64]", "classes=3"])
def test_every_key_changes_something(key):
    assert render([summary_of("solo_r50_agg", key)]) != render([summary_of("solo_r50_agg")])


def test_an_optimizer_without_momentum_keeps_nothing():
    published, plainly = (summary_of("solo_r50", *more).memory for more in ([], ["optim.optimizer.momentum=0"]))
    assert published.training_state == 2 * plainly.training_state


def test_two_models_side_by_side(monkeypatch, capsys):
    arguments = ["experiment=solo_r50", "beside=solo_r50_agg", "size=[60,64]", "model.fpn_channels=64"]
    status, said = command(monkeypatch, capsys, summary, *arguments)
    assert status == 0
    assert "64 x 64 pixels" in said  # rounded up to what the network takes
    lines = said.splitlines()
    assert any(line.split() == ["solo_r50", "solo_r50_agg", "second", "/", "first"] for line in lines)
    row = next(line.split() for line in lines if line.startswith("pyramid"))
    assert row[1:5] == row[5:9]
    assert row[9:] == ["1.00"] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say which model: experiment=NAME with one of convnext_tiny_agg, demo"),
        (["experiment=demo", "size=800"], "size=800: say height and width"),
        (["experiment=demo", "size=[0,64]"], "size=[0, 64]: say height and width"),
        (["experiment=demo", "batch=0"], "batch=0: must be 1 or more"),
        (["experiment=demo", "cells.training=-1"], "cells.training=-1"),
        (["experiment=demo", "beside=solo_50"], "did you mean 'solo_r50'"),
        (["experiment=demo", "batchh=2"], "batchh: there is no such key; did you mean 'batch'"),
        (["experiment=demo", "+sed=2"], "sed: the configuration has no such key; did you mean 'seed'"),
    ],
)
def test_mistakes_are_explained(arguments, message, monkeypatch, capsys):
    status, said = command(monkeypatch, capsys, summary, *arguments)
    assert status == 2
    assert message in said

import json

import pytest

from aggmask.assembly.build import load_module
from aggmask.reporting.costs import COSTS, costs_of, input_size, model_size
from aggmask.reporting.runs import read_runs
from aggmask.reporting.variants import group


def test_costs_come_from_the_configuration_and_the_log(sweep):
    (sweep / "1" / "metrics.csv").write_text(
        "epoch,step,train/step_seconds,train/memory_mb\n0,1,0.5,500\n0,2,0.7,400\n"
    )
    costs = costs_of(group(read_runs(sweep))[0], classes=3)
    segmenter = load_module(sweep / "0" / "best.ckpt").segmenter
    assert costs["parameters"] == pytest.approx(sum(p.numel() for p in segmenter.parameters()) / 1e6)
    assert costs["step_seconds"] == pytest.approx(1000 * (0.25 + 0.6) / 2)  # medians of the two runs
    assert costs["memory_mb"] == pytest.approx((205 + 500) / 2)
    assert set(costs) == set(COSTS)


def test_multiply_adds_follow_the_model_and_the_size_of_its_input(sweep):
    runs = read_runs(sweep)
    one, nine = (model_size(runs[number], 3)[1] for number in (0, 4))  # windows
    assert 0 < one < nine
    sizes = []
    for short, long in ((64, 96), (128, 192), (256, 384)):
        runs[0].config["data"].update(short_side=short, long_side=long)
        sizes.append(model_size(runs[0], 3)[1])
    assert sizes[0] == one
    assert sizes[2] - sizes[1] == pytest.approx(4 * (sizes[1] - sizes[0]), rel=1e-3)  # maps grow; category grids do not


def test_the_input_is_that_of_evaluation(sweep):
    run = read_runs(sweep)[0]
    assert input_size(run) == (64, 96)
    run.config["data"].update(short_side=[640, 800], long_side=1333)
    assert input_size(run) == (800, 1344)
    run.config["data"].update(evaluation_short_side=400)
    assert input_size(run) == (416, 1344)


def test_what_nothing_says_is_unknown(sweep):
    for run in ("0", "1"):
        (sweep / run / "metrics.csv").unlink()
        (sweep / run / "outcome.json").write_text(json.dumps({"state": "done", "objective": 0.5}))
    costs = costs_of(group(read_runs(sweep))[0], classes=3)
    assert [name for name, value in costs.items() if value is None] == ["step_seconds", "memory_mb"]

import pytest

from aggmask.assembly.build import load_module
from aggmask.reporting.costs import COSTS, costs_of
from aggmask.reporting.runs import read_runs
from aggmask.reporting.variants import group


def test_costs_come_from_the_checkpoint_and_the_log(sweep):
    (sweep / "1" / "metrics.csv").write_text(
        "epoch,step,train/step_seconds,train/memory_mb\n0,1,0.5,500\n0,2,0.7,400\n"
    )
    costs = costs_of(group(read_runs(sweep))[0])
    segmenter = load_module(sweep / "0" / "best.ckpt").segmenter
    assert costs["parameters"] == pytest.approx(sum(p.numel() for p in segmenter.parameters()) / 1e6)
    assert costs["step_seconds"] == pytest.approx(1000 * (0.25 + 0.6) / 2)  # medians of the two runs
    assert costs["memory_mb"] == pytest.approx((205 + 500) / 2)
    assert set(costs) == set(COSTS)


def test_what_nothing_says_is_unknown(sweep):
    for run in ("0", "1"):
        (sweep / run / "metrics.csv").unlink()
        (sweep / run / "best.ckpt").unlink()
        (sweep / run / "last.ckpt").unlink()
        (sweep / run / "outcome.json").write_text('{"state": "done", "objective": 0.5}')
    assert set(costs_of(group(read_runs(sweep))[0]).values()) == {None}

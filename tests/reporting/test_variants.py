from pathlib import Path

import pytest

from aggmask.errors import UserError
from aggmask.reporting.runs import Run, read_runs
from aggmask.reporting.variants import choose, group


def _run(number: int, config: dict, *overrides: str) -> Run:
    config = config and {**config, "output_dir": f"/runs/{number}", "log": f"/runs/{number}/log"}
    return Run(Path(f"/runs/{number}"), str(number), config, overrides, "finished", "")


def test_variants_are_what_differs_but_for_the_seed(sweep):
    variants = group(read_runs(sweep))
    assert [variant.label for variant in variants] == ["window=1", "window=5", "window=9"]
    assert [[run.name for run in variant.runs] for variant in variants] == [["0", "1"], ["2", "3"], ["4", "5"]]
    assert variants[0].settings == ("model.aggregation.window=1",)


def test_without_overrides_the_configurations_tell(sweep):
    for run in sweep.iterdir():
        (run / ".hydra" / "overrides.yaml").unlink()
    assert [variant.label for variant in group(read_runs(sweep))] == ["window=1", "window=5", "window=9"]


def test_overrides_that_say_too_little_are_not_believed():
    runs = [_run(i, {"seed": 0, "head": {"depth": i}}, "experiment=a", "seed=0") for i in range(2)]
    assert [variant.label for variant in group(runs)] == ["depth=0", "depth=1"]


def test_a_key_that_a_newer_version_has_makes_no_variant():
    old, new = {"head": {"depth": 1}}, {"head": {"depth": 1}, "data": {"value_range": None}}
    runs = [_run(i, config, "window=5", f"seed={i}") for i, config in enumerate((old, new, old))]
    assert [[run.name for run in variant.runs] for variant in group(runs)] == [["0", "1", "2"]]
    runs = [_run(i, config) for i, config in enumerate((old, new))]  # what was asked for is not known
    assert len(group(runs)) == 2


def test_loggers_make_no_variant():
    """W&B's group is the name of the sweep, of which a report may take several."""
    loggers = [{"wandb": {"group": "monday"}}, {"wandb": {"group": "friday"}}, {"csv": {"flush": 1}}, None]
    words = [["logger=wandb"], ["logger=wandb", "logger.wandb.group=friday"], [], ["logger=null"]]
    runs = [
        _run(4 * window + i, {"window": window, "seed": i, "logger": logger}, f"window={window}", *said)
        for window in (5, 9)
        for i, (logger, said) in enumerate(zip(loggers, words, strict=True))
    ]
    variants = group(runs)
    assert [variant.label for variant in variants] == ["window=5", "window=9"]
    assert [len(variant.runs) for variant in variants] == [4, 4]
    assert len(group([_run(0, {}, "window=5", "logger=wandb"), _run(1, {}, "window=5")])) == 1


def test_labels_are_as_short_as_they_can_be():
    settings = [("model.bank.width=1", "model.category.width=2"), ("model.bank.width=3", "model.category.width=4")]
    runs = [_run(i, {"a": i}, *own, "sweep.n_jobs=2", "+optim.lr=1") for i, own in enumerate(settings)]
    assert [variant.label for variant in group(runs)] == [
        "bank.width=1 category.width=2",
        "bank.width=3 category.width=4",
    ]
    runs = [_run(i, {"a": i}, f"model/aggregation={name}") for i, name in enumerate(("none", "dynamic"))]
    assert [variant.label for variant in group(runs)] == ["aggregation=none", "aggregation=dynamic"]


def test_jobs_without_a_configuration_are_told_apart_by_their_overrides():
    runs = [_run(0, {"a": 0}, "x=0"), _run(1, {}, "x=1", "seed=0"), _run(2, {}, "x=1", "seed=1")]
    assert [len(variant.runs) for variant in group(runs)] == [1, 2]


def test_jobs_without_a_configuration_belong_to_what_was_typed_alike(sweep):
    (sweep / "4" / "config.yaml").unlink()
    variants = group(read_runs(sweep))
    assert [variant.label for variant in variants] == ["window=1", "window=5", "window=9"]
    assert [[run.name for run in variant.runs] for variant in variants] == [["0", "1"], ["2", "3"], ["4", "5"]]


def test_one_variant_has_a_name_too():
    (variant,) = group([_run(i, {"seed": i}, f"seed={i}") for i in range(3)])
    assert variant.label == "as configured"
    assert len(variant.finished) == 3


@pytest.mark.parametrize("name", ["window=5", "model.aggregation.window=5", "3", "=5"])
def test_a_baseline_has_many_names(name, sweep):
    assert choose(group(read_runs(sweep)), name).label == "window=5"


def test_without_a_name_the_first_is_the_baseline(sweep):
    assert choose(group(read_runs(sweep)), None).label == "window=1"


@pytest.mark.parametrize(("name", "fault"), [("window", "several variants"), ("depth", "no finished variant")])
def test_a_name_that_does_not_mean_one_is_refused(name, fault, sweep):
    with pytest.raises(UserError, match=rf"baseline={name}: {fault} with this name; there are:\n  baseline='window=1'"):
        choose(group(read_runs(sweep)), name)

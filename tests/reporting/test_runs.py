import json
import shutil

import pytest
import torch
import yaml

from aggmask.errors import UserError
from aggmask.reporting.runs import read_runs
from tests.reporting.made_sweep import progress


def _states(sweep) -> dict[str, tuple[str, str]]:
    return {run.name: (run.state, run.detail) for run in read_runs(sweep)}


def test_a_sweep_is_its_run_folders_in_order(sweep):
    (sweep / "5").rename(sweep / "10")
    runs = read_runs(sweep)
    assert [run.name for run in runs] == ["0", "1", "2", "3", "4", "10"]
    assert [run.seed for run in runs] == [0, 1] * 3
    assert {run.state for run in runs} == {"finished"}
    assert runs[2].overrides[1] == "model.aggregation.window=5"


def test_every_way_not_to_finish_is_told(sweep):
    last = torch.load(sweep / "0" / "last.ckpt", weights_only=True)
    (sweep / "0" / "last.ckpt").unlink()
    torch.save({**last, "epoch": 1, "loops": progress(epochs_done=2)}, sweep / "0" / "last.ckpt")
    (sweep / "1" / "last.ckpt").unlink()
    (sweep / "2" / "results.json").unlink()
    (sweep / "3" / "results.json").write_text('[{"image_id": 10')
    (sweep / "4" / "outcome.json").write_text(json.dumps({"state": "failed", "error": "OSError: disk full\nmore"}))
    (sweep / "5" / "config.yaml").unlink()
    (sweep / "6").mkdir()
    (sweep / "6" / "job.json").write_text(json.dumps({"overrides": ["seed=3"], "config": {"trainer": {}}}))
    (sweep / "7").mkdir()
    (sweep / "7" / "config.yaml").write_text((sweep / "0" / "config.yaml").read_text())
    (sweep / "7" / "last.ckpt").write_bytes(b"cut off")
    states = _states(sweep)
    assert states["0"] == ("unfinished", "2 of 3 epochs")
    assert states["1"] == ("unfinished", "no epoch was finished")
    assert states["2"] == ("unfinished", "nothing was evaluated")
    assert states["3"] == ("failed", "results.json cannot be read")
    assert states["4"] == ("failed", "OSError: disk full")
    assert states["5"] == ("failed", "ended before its configuration was written")
    assert states["6"] == ("unfinished", "no epoch was finished")
    assert states["7"][1].startswith("last.ckpt cannot be read")
    assert next(run.seed for run in read_runs(sweep) if run.name == "5") == 1


@pytest.mark.parametrize(
    ("content", "whole"), [("[]", True), (" [{}]\n", True), ("", False), ("null", False), ("[1]\0\0", False)]
)
def test_results_that_were_cut_off_are_seen_by_their_ends(content, whole, sweep):
    (sweep / "0" / "results.json").write_text(content)
    assert _states(sweep)["0"] == (("finished", "") if whole else ("failed", "results.json cannot be read"))


def test_steps_end_a_run_too(sweep):
    file = sweep / "0" / "config.yaml"
    text = file.read_text().replace("max_epochs: 3", "max_epochs: 100")
    file.write_text(text.replace("max_steps: -1", "max_steps: 6"))
    (sweep / "1" / "config.yaml").write_text(text.replace("max_steps: -1", "max_steps: 7"))
    assert _states(sweep)["0"] == ("finished", "")
    assert _states(sweep)["1"] == ("unfinished", "6 of 7 steps")


@pytest.mark.parametrize(
    ("trainer", "left"),
    [({"max_epochs": 3}, "2 of 3 epochs"), ({"max_epochs": -1, "max_steps": 7}, "5 of 7 steps")],
)
def test_the_middle_of_the_last_epoch_is_not_its_end(trainer, left, sweep):
    config = yaml.safe_load((sweep / "0" / "config.yaml").read_text())
    config["trainer"] |= trainer
    (sweep / "0" / "config.yaml").write_text(yaml.safe_dump(config))
    last = torch.load(sweep / "0" / "last.ckpt", weights_only=True)
    (sweep / "0" / "last.ckpt").unlink()
    # `epoch` says 2, as it does at the end of the third one.
    torch.save({**last, "global_step": 5, "loops": progress(epochs_done=2)}, sweep / "0" / "last.ckpt")
    assert _states(sweep)["0"] == ("unfinished", left)


def test_an_outcome_is_believed(sweep):
    (sweep / "0" / "last.ckpt").unlink()
    (sweep / "0" / "outcome.json").write_text('{"state": "done", "objective": 0.5}')
    assert _states(sweep)["0"] == ("finished", "")


def test_what_other_programs_keep_in_a_run_is_no_run(sweep):
    place = sweep / "2" / "wandb" / "offline-run-1" / "files"
    place.mkdir(parents=True)
    (place / "config.yaml").write_text("a: 1")
    assert [run.name for run in read_runs(sweep)] == list("012345")


def test_foreign_configs_hide_and_invent_nothing(sweep):
    foreign = {
        "config.yaml": b"a: 1", "tool/config.yaml": b"- 1", "cut/config.yaml": b"model: {",
        "old/config.yaml": b"\xff\xfe",
        "wandb/run-1/files/config.yaml": b"{model: {}, data: {}, trainer: {}, _wandb: {}}",
    }  # fmt: skip
    for name, content in foreign.items():
        (sweep / name).parent.mkdir(parents=True, exist_ok=True)
        (sweep / name).write_bytes(content)
    assert [(run.name, run.state) for run in read_runs(sweep)] == [(name, "finished") for name in "012345"]


def test_jobs_come_before_a_configuration_above_them(sweep):
    """Of a run, but in the sweep's own folder; also where another program of Hydra's left its marks there."""
    config = (sweep / "0" / "config.yaml").read_text()
    (sweep / "config.yaml").write_text(config)
    assert [run.name for run in read_runs(sweep)] == list("012345")
    (sweep / "config.yaml").unlink()
    (sweep / ".hydra").mkdir()
    (sweep / ".hydra" / "overrides.yaml").write_text("[]")
    assert [run.name for run in read_runs(sweep)] == list("012345")
    for run in "012345":
        shutil.rmtree(sweep / run / ".hydra")
    assert [run.name for run in read_runs(sweep)] == list("012345")


def test_what_lies_below_a_run_belongs_to_it(sweep):
    """Whether a launcher marked it or somebody copied it without its hidden folders."""
    for run in "01":
        shutil.copytree(sweep / "5", sweep / run / "old")
        shutil.rmtree(sweep / run / "old" / ".hydra")
    shutil.copytree(sweep / "5", sweep / "2" / "old")
    shutil.rmtree(sweep / "1" / ".hydra")
    assert [run.name for run in read_runs(sweep)] == list("012345")


def test_one_run_is_a_sweep_of_one(sweep):
    runs = read_runs(sweep / "3")
    assert [run.name for run in runs] == ["3"]


def test_logged_values_keep_their_epoch_and_step(sweep):
    logged = read_runs(sweep)[0].logged
    assert [(epoch, step) for epoch, step, _ in logged["val/AP"]] == [(0, 1), (1, 3), (2, 5)]
    assert [value for _, _, value in logged["train/memory_mb"]] == [200, 201, 202, 203, 204, 205]
    assert "epoch" not in logged


def test_damaged_rows_of_the_log_are_left_out(sweep):
    whole = read_runs(sweep)[0].logged
    bad = b"\0\0\0\0\n1,2,3,4,5,6,7,8\n1e,2,3,4,5,0.5\n\xff,2,3,4,5,0.5\n" + b"\0" * 200_000 + b"\n"
    heading, *rows = (sweep / "0" / "metrics.csv").read_bytes().splitlines(keepends=True)
    (sweep / "0" / "metrics.csv").write_bytes(heading + bad + b"".join(rows) + bad)
    assert read_runs(sweep)[0].logged == whole
    (sweep / "0" / "metrics.csv").write_bytes(bad + b"".join(rows))  # the heading itself
    assert read_runs(sweep)[0].logged == {}


def test_what_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        read_runs(tmp_path / "none")
    with pytest.raises(UserError, match="no run in it"):
        read_runs(tmp_path)

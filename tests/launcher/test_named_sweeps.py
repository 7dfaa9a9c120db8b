"""The sweeps of conf/sweep: what each one varies, and that nothing else differs between its jobs."""

import pytest

from aggmask import train
from aggmask.callbacks.agreement import differences
from aggmask.launcher.ledger import Ledger
from aggmask.launcher.schedule import Schedule
from tests.assembly.test_config import CONF
from tests.runs import command

SWEEPS = {
    "window": ("model.aggregation.window", [1, 5, 9, 25]),
    "interpolation": ("model.interpolation.stride", [1, 2, 4]),
    "context": ("model.aggregation.context_channels", [0, 8, 16, 32]),
    "layers": ("model.aggregation.layers", [1, 2, 3, 4]),
    "grid": ("model.levels.0.grid", [40, 50, 60]),
    "deformable": ("model.aggregation.neighbors.bound", [None, 2.0]),
}
FREE = {"output_dir", "dirpath", "path", "folder", "save_dir"}  # each job has its own folder


def test_every_sweep_is_listed_here():
    names = {path.stem for path in (CONF / "sweep").glob("*.yaml")}
    assert {name for name in names if not name.startswith("study")} == set(SWEEPS)  # the others: test_study.py


def at(config, key: str):
    for part in key.split("."):
        config = config[int(part)] if isinstance(config, list) else config.get(part)
    return config


@pytest.mark.parametrize("name", SWEEPS)
def test_a_named_sweep_varies_one_thing(name, monkeypatch, capsys, tmp_path):
    def done(self, jobs):
        for job in jobs:
            job.finish(None)

    monkeypatch.setattr(Schedule, "run", done)
    arguments = ["--multirun", f"+sweep={name}", "experiment=solo_r101_agg", f"hydra.sweep.dir={tmp_path}/sweep"]
    status, said = command(monkeypatch, capsys, train, *arguments)
    assert status == 0, said
    jobs = Ledger.read(tmp_path / "sweep").jobs()
    key, values = SWEEPS[name]
    assert [at(job.config, key) for job in jobs] == values
    node = {"grid": "model.levels", "deformable": "model.aggregation.neighbors"}.get(name, key)
    for job in jobs[1:]:
        different = {path for path, _, _ in differences(jobs[0].config, job.config)}
        assert {path for path in different if path.rpartition(".")[2] not in FREE} <= {
            path for path in different if path.startswith(node)
        }


def test_a_named_sweep_goes_together_with_values_of_ones_own(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(Schedule, "run", lambda self, jobs: [job.finish(None) for job in jobs])
    arguments = ["+sweep=window", "experiment=solo_r101_agg_interp", "model.aggregation.window=4,5", "seed=0,1"]
    arguments += ["sweep.on_fail=stop", "sweep.n_jobs=2", f"hydra.sweep.dir={tmp_path}/sweep", "--multirun"]
    status, said = command(monkeypatch, capsys, train, *arguments)
    assert status == 0, said
    jobs = Ledger.read(tmp_path / "sweep").jobs()
    found = [(job.config["model"]["aggregation"]["window"], job.config["seed"]) for job in jobs]
    assert sorted(found) == [(4, 0), (4, 1), (5, 0), (5, 1)]


def test_a_sweep_file_is_a_few_lines_with_its_command_on_top():
    for name in SWEEPS:
        lines = (CONF / "sweep" / f"{name}.yaml").read_text().splitlines()
        assert f"# python -m aggmask.train --multirun +sweep={name} experiment=solo_r101_agg" in lines[1]
        assert len(lines) <= 5

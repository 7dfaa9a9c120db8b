"""Sweeps of real trainings: the shrunk experiment on a drawn data set, real processes, real ranks, real kills."""

import csv
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aggmask.launcher.ledger import Ledger
from tests.data.make_coco import make_coco
from tests.launcher.processes import ROOT, children_of, environment, finish, is_alive, kill, python_path, start, until
from tests.runs import SMALL, small_run

pytestmark = pytest.mark.timeout(1200)  # several starts of torch, on a machine that others may use too
PLUGINS = ROOT / "tests" / "launcher" / "plugins"
EXPERIMENT = "solo_r50_agg"


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp("coco"), images=4, val_images=2)


def settings(coco: Path, tmp_path: Path, *overrides: str) -> list[str]:
    small = [value for value in SMALL if value.partition("=")[0] not in {o.partition("=")[0] for o in overrides}]
    place = [f"data.root={coco}", f"hydra.sweep.dir={tmp_path}/sweep"]
    return ["aggmask.train", "--multirun", f"experiment={EXPERIMENT}", *place, *small, *overrides]


def notes(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}


def test_a_sampler_sweeps_over_devices(coco, tmp_path):
    """One trial on one rank, one on two; the sampler's values are unforeseeable, yet all ranks have the same.

    The parent's environment is that of a rank of another run. Each trial is one W&B run, of the sweep's group.
    """
    (tmp_path / "here").mkdir()
    arguments = settings(
        *(coco, tmp_path, "trainer=ddp", "hydra/sweeper=ask_tell", "data.batch_size=1", "data.skip_empty=false"),
        "hydra.sweeper.each=['trainer.devices=1','trainer.devices=2']",
        *(
            "+callbacks.record._target_=tests.launcher.recorder.RecordRank",
            f"+callbacks.record.folder={tmp_path}/ranks",
        ),
        *("logger=wandb", "logger.wandb.mode=offline"),
    )
    another = {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "4", "NODE_RANK": "1", "MASTER_PORT": "1"}
    path = f"{PLUGINS}:{python_path()}"
    finish(start(*arguments, cwd=tmp_path / "here", **another, PYTHONPATH=path, PL_GLOBAL_SEED="13"))
    told = json.loads((tmp_path / "sweep" / "told.json").read_text())
    jobs = Ledger(tmp_path / "sweep").jobs()
    assert [job.state for job in jobs] == ["done", "done"]
    assert [entry["number"] for entry in told] == [job.outcome["objective"] for job in jobs]
    ranks = notes(tmp_path / "ranks")
    assert sorted(ranks) == ["0_0", "1_0", "1_1"]
    assert [ranks[name]["world"] for name in sorted(ranks)] == [1, 2, 2]
    for name, note in ranks.items():
        number = int(name[0])
        assert told[number]["asked"] == f"optim.lr={note['lr']!r}"
        assert note["root"] == str(tmp_path / "sweep" / str(number))
    assert ranks["1_0"]["first_weight"] == ranks["1_1"]["first_weight"]
    assert list((tmp_path / "here").iterdir()) == []
    ids = []
    for job in jobs:
        (run,) = job.folder.glob("wandb/offline-run-*")
        ids.append((job.folder / "wandb_id.txt").read_text())
        assert run.name.endswith(ids[-1])
        (record,) = run.glob("*.wandb")
        assert b"sweep" in record.read_bytes()[:4000]  # the group
    assert len(set(ids)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("seeds", ["0", "0,1"])
def test_a_killed_sweep_finishes_with_what_it_would_have_had(seeds, coco, tmp_path):
    """The parent is killed, and one of its jobs too where there are two; a second start goes on.

    Each half is tested quickly, too: kills of sweeps in test_schedule.py, trainings that are killed in test_resume.py.
    """
    epochs = "trainer.max_epochs=10"
    arguments = settings(coco, tmp_path, epochs, "trainer.limit_val_batches=1", f"seed={seeds}", "sweep.n_jobs=2")
    parent = start(*arguments)
    until(lambda: len(list(tmp_path.glob("sweep/*/last.ckpt"))) == len(seeds.split(",")))
    children = children_of(parent.pid)
    for pid in [*children[1:], parent.pid]:
        kill(pid)
    parent.communicate()
    jobs = Ledger(tmp_path / "sweep").jobs()
    until(lambda: {job.state for job in jobs} <= {"interrupted", "failed"}, seconds=5)
    assert not any(map(is_alive, children))
    said = finish(start("aggmask.train", f"sweep.resume={tmp_path}/sweep"))
    assert {job.state for job in jobs} == {"done"}, said
    assert all(job.attempt["count"] == 2 for job in jobs)
    # The same run without a break, in this process.
    for job in jobs:
        whole = tmp_path / f"whole {job.number}"
        small_run(EXPERIMENT, coco, whole, epochs, "trainer.limit_val_batches=1", f"seed={job.config['seed']}")
        ours, theirs = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (job.folder, whole))
        assert ours["global_step"] == theirs["global_step"] == 20
        for name, value in theirs["state_dict"].items():
            torch.testing.assert_close(ours["state_dict"][name], value, rtol=1e-5, atol=1e-6)
        steps = [[(r["step"], r["epoch"]) for r in rows_of(folder)] for folder in (job.folder, whole)]
        assert steps[0] == steps[1]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_two_ranks_are_killed_and_go_on(coco, tmp_path):
    """First a rank, then everything: the ranks end with their main rank, and it with the parent."""
    arguments = settings(coco, tmp_path, "trainer=ddp", "trainer.devices=2", "trainer.max_epochs=8", "seed=0")
    one = ["data.batch_size=1", "data.skip_empty=false", "logger=wandb", "logger.wandb.mode=offline"]
    (folder,) = [tmp_path / "sweep" / "0"]
    parent = start(*arguments, *one)
    until((folder / "last.ckpt").exists)
    (main,) = children_of(parent.pid)
    (other,) = (pid for pid in children_of(main) if b"job=" in Path(f"/proc/{pid}/cmdline").read_bytes())
    kill(other)
    parent.communicate()  # Lightning ends the main rank
    assert parent.returncode == 2
    assert not is_alive(main)
    job = Ledger(tmp_path / "sweep").jobs()[0]
    assert job.state == "failed"
    before = (folder / "last.ckpt").stat().st_mtime
    parent = start("aggmask.train", "--multirun", f"sweep.resume={tmp_path}/sweep")
    until(lambda: (folder / "last.ckpt").stat().st_mtime > before)
    (main,) = children_of(parent.pid)
    everyone = [main, *children_of(main)]
    kill(parent.pid)
    parent.communicate()
    until(lambda: not any(map(is_alive, everyone)), seconds=30)
    assert job.state == "interrupted"
    finish(start("aggmask.train", "--multirun", f"sweep.resume={tmp_path}/sweep"))
    assert job.state == "done"
    assert job.attempt["count"] == 3
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 16
    runs = [run.name for run in folder.glob("wandb/offline-run-*")]
    assert len(runs) == 3
    assert len({name.rpartition("-")[2] for name in runs}) == 1  # one W&B run


@pytest.mark.slow
def test_a_plain_sweep_over_devices_and_torchrun(coco, tmp_path):
    arguments = settings(coco, tmp_path, "trainer=ddp", "trainer.devices=1,2", "data.batch_size=1", "seed=0")
    finish(start(*arguments))
    jobs = Ledger(tmp_path / "sweep").jobs()
    assert [(job.state, job.config["trainer"]["devices"]) for job in jobs] == [("done", 1), ("done", 2)]
    assert sorted(p.name for p in (tmp_path / "sweep").iterdir() if p.is_dir()) == ["0", "1"]
    last = jobs[-1]
    (last.folder / "outcome.json").unlink()
    for checkpoint in last.folder.glob("*.ckpt"):  # of any of them the job would go on
        checkpoint.unlink()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "aggmask.train", f"job={last.folder}"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert last.state == "done"
    assert torch.load(last.folder / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.slow
def test_ranks_of_different_configurations_stop_before_they_train(coco, tmp_path):
    arguments = ["aggmask.train", f"experiment={EXPERIMENT}", "trainer=ddp", "trainer.devices=2", f"data.root={coco}"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    small = [*SMALL, f"hydra.run.dir={tmp_path}/run"]
    ranks = [
        start(*arguments, *small, f"optim.lr={lr}", LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_PORT=port)
        for rank, lr in enumerate((0.01, 0.02))
    ]
    for rank in ranks:
        said = rank.communicate(timeout=240)[0]
        assert rank.returncode == 2, said
        assert "rank 1 was started with another configuration than rank 0:\n  optim.lr: 0.01 on rank 0, 0.02 on" in said
    assert not (tmp_path / "run" / "last.ckpt").exists()

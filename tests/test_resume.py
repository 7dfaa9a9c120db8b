"""A run that is interrupted and gone on with is the uninterrupted one: every tensor, every number, every row."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import DropPath

from aggmask.checkpoints.run_folder import BEFORE, BEST, LAST
from aggmask.errors import UserError
from aggmask.model import timm_net
from aggmask.signals import Interrupted
from aggmask.train import _how_to_go_on, _queue_again
from tests.data.make_coco import make_coco
from tests.interrupting import Killed, end_at
from tests.launcher.processes import end_all, finish, start, until
from tests.runs import SMALL, small_run

EXPERIMENT = "solo_r50_agg"
SETTINGS = ["model.backbone.name=test_resnet", "data.short_side=48", "data.batch_size=1", "data.skip_empty=false",
            "data.color_jitter={brightness: 0.2}", "optim=adamw", "optim.warmup_steps=2", "trainer.max_epochs=2",
            "trainer.limit_train_batches=4", "trainer.log_every_n_steps=1", "callbacks.pictures=null",
            "decoder.score_threshold=0.001"]  # fmt: skip
KINDS = {
    "plain": [],
    "with all of it": ["data.num_workers=2", "trainer.accumulate_grad_batches=2", "callbacks=ema",
                       "callbacks.ema.decay=0.5", "data.batch_size=1"],
    "seldom evaluated": ["trainer.check_val_every_n_epoch=2"],
    "steps": ["trainer.max_steps=6"],
    "ends between evaluations": ["trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3",
                                 "trainer.limit_train_batches=2"],
    "two ranks": ["trainer=ddp", "trainer.devices=2", "trainer.limit_train_batches=2", "callbacks=ema",
                  "callbacks.ema.decay=0.5"],
    "in one piece": ["trainer.accumulate_grad_batches=4", "data.num_workers=2"],
    "evaluated inside epochs": ["+trainer.val_check_interval=2"],
}  # fmt: skip


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp("coco"), images=5, val_images=2)


@pytest.fixture(scope="module")
def whole(coco, tmp_path_factory):
    """Folder of the uninterrupted run of a kind."""
    made = {}

    def of(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("whole")
            run(coco, made[kind], kind)
        return made[kind]

    return of


def run(coco: Path, folder: Path, kind: str, *overrides: str) -> dict:
    return small_run(EXPERIMENT, coco, folder, *SETTINGS, *KINDS[kind], *overrides)


def equal(one: Any, other: Any, path: str = "") -> None:
    """All values, tensors bit for bit; but not paths, nor the state of a callback that only one of them has."""
    if isinstance(one, dict):
        if path == "/callbacks":
            one, other = ({k: v for k, v in d.items() if "EndAt" not in k} for d in (one, other))
        if path.endswith("best_k_models"):
            one, other = ({Path(k).name: v for k, v in d.items()} for d in (one, other))
        assert one.keys() == other.keys(), path
        for key in one:
            if not (str(key).endswith("path") or key in ("dirpath", "hyper_parameters", "current_score")):
                equal(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            equal(a, b, f"{path}/{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other, path


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        costs = ("train/step_seconds", "train/memory_mb")
        rows = [{k: v for k, v in row.items() if v and k not in costs} for row in csv.DictReader(file)]
    return [row for row in rows if row.keys() - {"step", "epoch"}]


def same(one: Path, other: Path) -> None:
    for name in (LAST, BEST):
        contents = [torch.load(folder / name, weights_only=True) for folder in (one, other)]
        for content in contents:  # how often the evaluation was begun, which Lightning forgets at the next epoch
            content["loops"]["fit_loop"].pop("epoch_loop.val_loop.batch_progress")
            content["loops"].pop("validate_loop")
        equal(*contents)
    assert rows_of(one) == rows_of(other)
    assert json.loads((one / "results.json").read_text()) == json.loads((other / "results.json").read_text())


MOMENTS = {
    "inside an epoch": ("on_before_backward", 2),
    "last batch of an epoch": ("on_train_batch_start", 4),
    "evaluation": ("on_validation_batch_start", 2),
    "end of an epoch": ("on_train_epoch_end", 1),
    "second epoch": ("on_train_batch_start", 6),
    "second evaluation": ("on_validation_batch_start", 3),
}


def marked(kind: str, *moments: str, slow: bool = False) -> list:
    return [pytest.param(kind, moment, marks=pytest.mark.slow if slow else ()) for moment in moments]


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        *marked("plain", "inside an epoch", "last batch of an epoch", "evaluation"),
        *marked("plain", "end of an epoch", "second epoch", slow=True),
        *marked("with all of it", "evaluation", "second epoch"),
        *marked("with all of it", "inside an epoch", "last batch of an epoch", "end of an epoch", slow=True),
        *marked("seldom evaluated", "last batch of an epoch"),
        *marked("seldom evaluated", "second epoch", "end of an epoch", slow=True),
        *marked("steps", "end of an epoch", "second epoch"),
        *marked("steps", "inside an epoch", "evaluation", slow=True),
        *marked("ends between evaluations", "second evaluation", slow=True),
        *marked("in one piece", "second epoch", "last batch of an epoch", slow=True),
        *marked("evaluated inside epochs", "inside an epoch", "evaluation", slow=True),
    ],
)
def test_a_run_that_a_signal_ends_goes_on_as_if_nothing_had_been(kind, moment, coco, whole, tmp_path):
    with pytest.raises(Interrupted) as stop:
        run(coco, tmp_path, kind, *end_at(*MOMENTS[moment]))
    assert stop.value.code == 143
    run(coco, tmp_path, kind, "resume=auto")
    same(tmp_path, whole(kind))


@pytest.mark.parametrize(
    ("kind", "moment", "kept"),
    [
        ("plain", ("on_before_backward", 3), [BEFORE, LAST]),  # after two steps
        ("evaluated inside epochs", ("on_before_backward", 3), [BEFORE, BEST, LAST]),  # right after the evaluation
        pytest.param("with all of it", ("on_validation_batch_start", 4), [BEFORE, BEST, LAST], marks=pytest.mark.slow),
        pytest.param("steps", ("on_before_backward", 6), [BEFORE, BEST, LAST], marks=pytest.mark.slow),
        pytest.param("seldom evaluated", ("on_train_epoch_end", 2), [BEFORE, BEST, LAST], marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_killed_goes_on_as_if_nothing_had_been(kind, moment, kept, coco, whole, tmp_path):
    """A checkpoint after every step of the optimizer."""
    every = "callbacks.last.every_n_steps=1"
    with pytest.raises(Killed):
        run(coco, tmp_path, kind, every, *end_at(*moment, "kill"))
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == sorted(kept)
    run(coco, tmp_path, kind, "resume=auto")
    same(tmp_path, whole(kind))


def test_a_network_that_draws_goes_on_as_if_nothing_had_been(coco, tmp_path, monkeypatch):
    """Stochastic depth; and other numbers of loader processes."""
    plain = timm_net._arguments
    monkeypatch.setattr(timm_net, "_arguments", lambda name: {**plain(name), "drop_path_rate": 0.5})
    parts = run(coco, tmp_path / "whole", "plain", "data.num_workers=1")
    assert any(isinstance(part, DropPath) for part in parts["module"].segmenter.backbone.modules())
    with pytest.raises(Interrupted):
        run(coco, tmp_path / "run", "plain", *end_at(*MOMENTS["second epoch"]))
    run(coco, tmp_path / "run", "plain", "resume=auto")
    same(tmp_path / "run", tmp_path / "whole")


def test_a_run_that_is_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(
    coco, whole, tmp_path, caplog, monkeypatch
):
    """The newest one is cut off, as some disks leave it, and the one before that is whole; then there is none."""
    save, count = torch.save, 0

    def cut_off(checkpoint, file):
        nonlocal count
        count += 1
        save(checkpoint, file)
        if count == 4:
            raise Killed

    monkeypatch.setattr(torch, "save", cut_off)
    with pytest.raises(Killed):
        run(coco, tmp_path, "plain", "callbacks.last.every_n_steps=1")
    monkeypatch.setattr(torch, "save", save)
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 3
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:-1000])
    (tmp_path / f".{LAST}.99.part").write_bytes(b"left by a kill")
    with caplog.at_level("INFO", "aggmask"):
        run(coco, tmp_path, "plain", "resume=auto")
    assert f"resume={tmp_path}/last.ckpt: not a checkpoint, or a damaged one" in caplog.text
    assert "Going on from the one before, last-1.ckpt" in caplog.text
    assert "resume=auto: goes on after step 2" in caplog.text
    assert not list(tmp_path.glob(".*.part"))
    same(tmp_path, whole("plain"))
    for path in tmp_path.glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read:\n(.*\n){3}Remove them to begin anew"):
        run(coco, tmp_path, "plain", "resume=auto")
    with pytest.raises(UserError, match=r"resume=.*best.ckpt: not a checkpoint, or a damaged one"):
        run(coco, tmp_path, "plain", f"resume={tmp_path}/best.ckpt")


def test_a_run_whose_folder_moves_keeps_its_best_checkpoint(coco, whole, tmp_path, recwarn):
    with pytest.raises(Interrupted):
        run(coco, tmp_path / "old", "plain", *end_at(*MOMENTS["second epoch"]))
    (tmp_path / "old").rename(tmp_path / "new")
    run(coco, tmp_path / "new", "plain", "resume=auto")
    assert not [warning for warning in recwarn if "dirpath has changed" in str(warning.message)]
    same(tmp_path / "new", whole("plain"))


def test_a_finished_run_is_left_as_it_is(coco, whole, tmp_path, caplog):
    shutil.copytree(whole("plain"), tmp_path, dirs_exist_ok=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".ckpt", ".csv", ".json")}
    with caplog.at_level("INFO", "aggmask"):
        parts = run(coco, tmp_path, "plain", "resume=auto")
    assert "resume=auto: already finished at step 8" in caplog.text
    assert parts["trainer"].global_step == 8
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_categories_in_another_order_are_refused(coco, whole, tmp_path):
    shutil.copytree(coco, tmp_path / "coco")
    for file in (tmp_path / "coco" / "annotations").glob("*.json"):
        content = json.loads(file.read_text())
        names = [category["name"] for category in content["categories"]]
        for category, name in zip(content["categories"], reversed(names), strict=True):
            category["name"] = name
        file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"What differs:\n  label 0: '\w+' in the checkpoint, '\w+' now"):
        run(tmp_path / "coco", tmp_path / "run", "plain", f"resume={whole('plain')}/last.ckpt")


def test_an_average_is_not_lost_on_the_way(coco, whole, tmp_path, caplog):
    """Taken up without it: refused. Taken up with one that was not there before: told."""
    averaged = torch.load(whole("with all of it") / LAST, weights_only=True)
    assert "averaging_state" in averaged
    with pytest.raises(UserError, match=r"keeps an average of the weights, and this run has none: say callbacks=ema"):
        run(coco, tmp_path, "plain", f"resume={whole('with all of it')}/last.ckpt")
    run(coco, tmp_path, "plain", f"resume={whole('plain')}/last.ckpt", "callbacks=ema")
    assert "keeps no average of the weights: callbacks=ema begins one" in caplog.text


def test_the_message_is_the_command_that_goes_on(monkeypatch):
    given = ["experiment=demo", "data.root=/a b", "output_dir=x", "resume=x.ckpt", "hydra.run.dir=x"]
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    monkeypatch.setattr(sys, "argv", ["train", *given])
    assert _how_to_go_on("/runs/1") == (
        "python -m aggmask.train experiment=demo 'data.root=/a b' output_dir=/runs/1 resume=auto"
    )
    monkeypatch.setattr(sys, "argv", ["train", "job=/sweeps/1/3"])
    assert _how_to_go_on("/sweeps/1/3") == "python -m aggmask.train job=/sweeps/1/3"
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert (
        _how_to_go_on("/sweeps/1/3")
        == "python -m aggmask.train job=/sweeps/1/3 (started as before: by torchrun, by srun or by itself)"
    )


@pytest.mark.parametrize(
    ("number", "env", "asked"),
    [
        (signal.SIGUSR1, {"SLURM_JOB_ID": "12"}, "requeue 12\n"),
        (signal.SIGUSR1, {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "2"},
         "requeue 10_2\n"),
        (signal.SIGUSR1, {"SLURM_JOB_ID": "12", "JOB": "job=x"}, ""),  # whose launcher asks
        (signal.SIGUSR1, {}, ""),
        (signal.SIGTERM, {"SLURM_JOB_ID": "12"}, ""),
    ],
)  # fmt: skip
def test_slurm_is_asked_for_another_start(number, env, asked, tmp_path, monkeypatch):
    note, command = tmp_path / "asked", tmp_path / "scontrol"
    note.touch()
    command.write_text(f'#!/bin/sh\necho "$@" >> {note}\n')
    command.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "argv", ["train", env.get("JOB", "experiment=demo")])
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    _queue_again(Interrupted(number))
    assert note.read_text() == asked


def started(coco: Path, folder: Path, kind: str, *overrides: str) -> subprocess.Popen:
    given = {o.partition("=")[0] for o in (*SETTINGS, *KINDS[kind], *overrides)}
    small = [o for o in SMALL if o.partition("=")[0] not in given]
    own = [f"experiment={EXPERIMENT}", f"name={EXPERIMENT}", f"data.root={coco}", f"output_dir={folder}"]
    settings = [o for o in SETTINGS if o.partition("=")[0] not in {k.partition("=")[0] for k in KINDS[kind]}]
    return start("aggmask.train", *own, *small, *settings, *KINDS[kind], *overrides, cwd=folder.parent)


def test_a_process_that_is_told_to_end_says_how_it_goes_on(coco, whole, tmp_path):
    """The signal goes to all of its processes, as from a terminal or a cluster: loaders too."""
    folder = tmp_path / "run"
    bar = "trainer.enable_progress_bar=true"
    process = started(coco, folder, "with all of it", "callbacks.last.every_n_steps=1", bar)
    until((folder / LAST).exists)
    os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 143, said[-3000:]
    assert f"output_dir={folder} resume=auto" in said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    run(coco, folder, "with all of it", "resume=auto", bar)
    same(folder, whole("with all of it"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["with all of it", "two ranks"])
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1"])
def test_processes_that_end_at_random_moments_lose_nothing(kind, how, coco, tmp_path):
    """To the main process alone, or to all of them; longer runs than above, so that moments differ."""
    chance, long = random.Random(f"{kind} {how}"), "trainer.max_epochs=12"
    finish(started(coco, tmp_path / "whole", kind, long))
    folder, number, steps = tmp_path / "run", signal.Signals[how], [0]
    for attempt in range(3):
        process = started(coco, folder, kind, long, "callbacks.last.every_n_steps=3", "resume=auto")
        before = (folder / LAST).stat().st_mtime_ns if (folder / LAST).exists() else 0
        until(lambda p=process, t=before: p.poll() is not None or (
            (folder / LAST).exists() and (folder / LAST).stat().st_mtime_ns > t))  # fmt: skip
        time.sleep(chance.uniform(0, 1.0))
        (os.killpg if attempt % 2 else os.kill)(process.pid, number)
        said = process.communicate(timeout=300)[0]
        end_all()
        assert process.returncode in (0, -9 if how == "SIGKILL" else 128 + number), said[-4000:]
        steps.append(torch.load(folder / LAST, weights_only=True)["global_step"])
    said = finish(started(coco, folder, kind, long, "resume=auto"))
    print(kind, how, "ended after steps", steps)
    assert steps == sorted(steps)
    same(folder, tmp_path / "whole")

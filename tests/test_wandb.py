"""What reaches W&B and TensorBoard from a whole run, read back from what it left on the disk."""

import csv
import json
import logging
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aggmask.assembly.workspace import LEARNING_RATES
from tests.data.make_coco import make_coco
from tests.interrupting import Killed, end_at
from tests.launcher.processes import children_of
from tests.runs import small_run
from tests.test_dashboard import config, config_keys, definition, metric_keys
from tests.wandb_server import Server

BOARD = "+logger.board={_target_: pytorch_lightning.loggers.TensorBoardLogger, save_dir: '%s', name: '', version: ''}"


class Offline:
    """The records of a run's only folder."""

    def __init__(self, folder: Path, name: str = "offline-run-*") -> None:
        (self.folder,) = folder.glob(f"wandb/{name}")
        told = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(self.folder)]
        lines = subprocess.run(told, check=True, capture_output=True, text=True).stdout.splitlines()
        self.records = [json.loads(line) for line in lines]
        self.run = self.of("run")[0]
        self.rows = [record["item"] for record in self.of("history")]
        self.config = self._joined("config")
        self.summary = self._joined("summary")

    def of(self, kind: str) -> list[dict]:
        return [record[kind] for record in self.records if record["type"] == kind]

    def _joined(self, kind: str) -> dict:
        return {key: value for record in self.of(kind) for key, value in record["update"].items()}

    def keys(self) -> set[str]:
        """Logged and summary keys, media without the fields that they are made of."""
        found = {key for row in [*self.rows, self.summary] for key in row}
        return found | {key.removesuffix("._type") for key in found}


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    wandb.teardown()  # which remembers the account


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three evaluations of three pictures, two of them sent."""
    place = tmp_path_factory.mktemp("run")
    root = make_coco(tmp_path_factory.mktemp("coco"), images=4, val_images=3)
    settings = ["logger=wandb", "logger.wandb.mode=offline", "logger.wandb.checkpoints=true", "logger.wandb.group=g"]
    settings += ["logger.wandb.tags=[a]", "logger.wandb.entity=me", "logger.wandb.project=p"]
    settings += ["trainer.log_every_n_steps=1", "trainer.max_epochs=3", "trainer.limit_train_batches=1"]
    settings += ["callbacks.pictures.sends=2", "callbacks.pictures.count=2", "model.aggregation.window=9"]
    small_run("solo_r50_agg", root, place, *settings, BOARD % place)
    return place


@pytest.fixture(scope="module")
def offline(folder) -> Offline:
    return Offline(folder)


def test_the_run_is_what_the_configuration_says(offline, folder):
    expected = {"display_name": "solo_r50_agg", "entity": "me", "project": "p", "run_group": "g", "tags": ["a"]}
    assert {key: offline.run.get(key) for key in expected} == expected
    assert offline.run["run_id"] == (folder / "wandb_id.txt").read_text()
    assert offline.of("exit")[0].get("exit_code", 0) == 0


def test_every_row_stands_at_a_training_step_and_none_goes_back(offline):
    steps = [row["trainer/global_step"] for row in offline.rows]
    assert steps == sorted(steps)
    assert set(steps) == {0, 1, 2}
    assert {row["trainer/global_step"] for row in offline.rows if "val/AP" in row} == {0, 1, 2}
    assert any(record.get("step_metric") == "trainer/global_step" for record in offline.of("metric"))


def test_the_configuration_is_nested_and_plain(offline):
    assert offline.config["model"]["aggregation"]["window"] == 9
    assert offline.config["trainer"]["max_epochs"] == 3


def test_pictures_are_few_of_one_size_and_have_both_masks(offline):
    rows = [row for row in offline.rows if "val/pictures._type" in row]
    assert [row["trainer/global_step"] for row in rows] == [1, 2]
    media = offline.folder / "files" / "media" / "images"
    assert len(list((media / "val").glob("*.png"))) == 4
    masks = [mask["path"] for row in rows for picture in row["val/pictures.all_masks"] for mask in picture.values()]
    assert len(masks) == 8  # equal ones share a file
    assert all((offline.folder / "files" / path).is_file() for path in masks)
    assert {Image.open(path).size for path in media.rglob("*.png")} == {(64, 64)}  # of 64 x 48 and 48 x 64
    assert [set(masks) for masks in rows[0]["val/pictures.all_masks"]] == [{"ground_truth", "prediction"}] * 2
    labels = offline.config["_wandb"]["mask/class_labels"]
    assert labels["val/pictures_wandb_delimeter_prediction"]["value"]["3"] == "block"


def test_one_table_of_categories_for_each_evaluation(offline, folder):
    tables = sorted((offline.folder / "files" / "media" / "table" / "val").glob("categories_*.json"))
    contents = [json.loads(path.read_text()) for path in tables]
    assert sorted(content["data"][0][0] for content in contents) == [0, 1, 2]
    for content in contents:
        assert content["columns"] == ["step", "id", "category", "AP", "AP50"]
        assert [row[1:3] for row in content["data"]] == [[3, "disc"], [7, "pair"], [18, "block"]]
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    for row in contents[0]["data"]:
        curve = {event.step: event.value for event in events.Scalars(f"val_AP/{row[2]}")}
        assert curve.keys() == {0, 1, 2}
        assert curve[row[0]] == pytest.approx(row[3])
    assert [event.step for event in events.Images("val/pictures/1005")] == [1, 2]


def test_the_best_ap_is_in_the_summary(offline):
    assert offline.summary["best/AP"] == max(row["val/AP"] for row in offline.rows if "val/AP" in row)


def test_checkpoints_are_versions_of_one_artifact(offline, folder):
    kept = [artifact for artifact in offline.of("artifact") if artifact["type"] == "model"]
    assert {artifact["name"] for artifact in kept} == {f"model-{offline.run['run_id']}"}
    names = [artifact["manifest"]["contents"][0]["path"] for artifact in kept]
    aliases = [set(artifact["aliases"]) - {"latest"} for artifact in kept]
    assert dict(zip(names, aliases, strict=True)) == {"best.ckpt": {"best"}, "last.ckpt": {"last"}}


def test_every_key_of_the_dashboard_is_logged(offline, tmp_path):
    metrics = metric_keys(definition(tmp_path))
    assert {"train/loss", "val/AP", "val/pictures", "val/categories", "best/AP"} < metrics
    assert {"train/step_seconds", "train/memory_mb"} < metrics
    logged = offline.keys()
    assert metrics <= logged
    assert any(re.search(LEARNING_RATES, key) for key in logged)


def test_every_key_that_the_dashboard_compares_by_is_in_the_configuration(offline, tmp_path):
    keys = config_keys(definition(tmp_path))
    assert keys == set(config()["ablation"])
    for key in keys:
        node = offline.config
        for part in key.split("."):
            assert part in node, key
            node = node[part]


def test_without_a_server_the_training_goes_on(no_account, tmp_path, monkeypatch, caplog):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", "local-" + "0" * 40)
    root = make_coco(tmp_path / "coco", images=4, val_images=1)
    settings = ["logger=wandb", "logger.wandb.mode=online", "logger.wandb.init_timeout=1", "logger.wandb.project=p"]
    with caplog.at_level(logging.WARNING, "aggmask"):
        parts = small_run("solo_r50", root, tmp_path / "run", *settings, "trainer.log_every_n_steps=1")
    assert parts["trainer"].global_step == 2
    assert "This run is kept offline" in caplog.text
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len([row for row in rows if row["train/loss"]]) == 2
    assert rows[-1]["val/AP"]
    kept = Offline(tmp_path / "run")
    assert kept.run["run_id"] == (tmp_path / "run" / "wandb_id.txt").read_text()
    assert "val/AP" in kept.summary


def test_disabled_leaves_nothing_and_two_runs_of_a_process_are_two(no_account, tmp_path):
    root = make_coco(tmp_path / "coco", images=4, val_images=1)
    settings = ["logger=wandb", "trainer.limit_train_batches=1", "logger.wandb.project=p"]
    small_run("solo_r50", root, tmp_path / "none", *settings, "logger.wandb.mode=disabled")
    assert not list(tmp_path.glob("none/wandb/*run-*"))
    assert (tmp_path / "none" / "metrics.csv").is_file()
    fails = end_at("on_train_batch_start", 1, "kill")
    with pytest.raises(Killed):
        small_run("solo_r50", root, tmp_path / "0", *settings, "logger.wandb.mode=offline", *fails)
    small_run("solo_r50", root, tmp_path / "1", *settings, "logger.wandb.mode=offline", "trainer.limit_val_batches=0")
    failed, done = Offline(tmp_path / "0"), Offline(tmp_path / "1")
    assert failed.run["run_id"] != done.run["run_id"]
    assert failed.of("exit")[0]["exit_code"] == 1


def account(monkeypatch, server: Server) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "local-" + "0" * 40)


def test_a_server_that_dies_on_the_way_holds_neither_training_nor_program(no_account, tmp_path, monkeypatch, caplog):
    """It answers until it gets the table of the first evaluation, whose upload W&B then tries again and again."""
    root = make_coco(tmp_path / "coco", images=4, val_images=1)
    settings = ["logger=wandb", "logger.wandb.mode=online", "logger.wandb.project=p", "logger.wandb.finish_timeout=1"]
    with Server(last="createArtifact(") as server:
        account(monkeypatch, server)
        parts = small_run("solo_r50", root, tmp_path / "run", *settings, "callbacks.pictures=null")
        assert server.gone.is_set()
    assert parts["trainer"].global_step == 2
    (folder,) = tmp_path.glob("run/wandb/run-*")
    assert f"not all of this run was sent (Timed out finishing run). Send it later: wandb sync {folder}" in caplog.text
    assert not [pid for pid in children_of(os.getpid()) if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    kept = Offline(tmp_path / "run", "run-*")
    assert "val/AP" in kept.summary
    assert list(folder.glob("files/media/table/val/categories_*.json"))

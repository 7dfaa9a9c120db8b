"""Real runs on failing machines: what they say, and that what they had finished can be read."""

import csv
import multiprocessing
import os
import signal

import pytest
import pytorch_lightning as pl

from aggmask import train
from aggmask.assembly.explain import explain
from aggmask.callbacks.checkpoint_files import WholeCheckpoints
from aggmask.errors import UserError
from tests.data.make_coco import make_coco
from tests.disks import disk, make_read_only
from tests.runs import SMALL, command, small_run

TINY = ["callbacks.pictures=null", "trainer.log_every_n_steps=1"]


class KillLoader(pl.Callback):
    """Kills a process that loads training data, in the second epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.current_epoch == 1:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"), images=4, val_images=1)


def finished_epoch(folder) -> None:
    """The first of two epochs can be read, and nothing half written lies beside it."""
    assert WholeCheckpoints().load_checkpoint(folder / "last.ckpt")["global_step"] == 2
    with (folder / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["train/loss"]][:2] == ["0", "1"]
    assert not list(folder.glob(".*.part"))


def test_a_full_disk_ends_a_run_and_leaves_what_it_had(coco, tmp_path):
    """A checkpoint has 41 MB here: there is room for one, and not for the next one beside it."""
    with disk(tmp_path / "disk", 64 * 1024) as place:
        settings = [*TINY, "model.backbone.name=resnet10t", "trainer.limit_val_batches=0", "trainer.max_epochs=2"]
        with pytest.raises(UserError, match=r"disk/run/last\.ckpt: the disk is full .*unharmed"):
            small_run("solo_r50", coco, place / "run", *settings)
        finished_epoch(place / "run")


def test_a_run_folder_that_can_only_be_read(coco, tmp_path, monkeypatch, capsys):
    with disk(tmp_path / "disk", 1024) as place:
        make_read_only(place)
        monkeypatch.chdir(tmp_path)
        for folder in (f"output_dir={place}/run", f"hydra.run.dir={place}/run"):
            status, said = command(
                monkeypatch, capsys, train, "experiment=solo_r50", f"data.root={coco}", *SMALL, folder
            )
            assert status == 2
            assert f"aggmask: {place}/run: the disk can only be read (Read-only file system): choose a place" in said
            assert "Traceback" not in said


def test_a_dead_loader_process_ends_a_run_with_its_usual_cause(coco, tmp_path):
    killer = "+callbacks.kill._target_=tests.test_faults.KillLoader"
    settings = [*TINY, "trainer.limit_val_batches=0", "trainer.max_epochs=2", "data.num_workers=1", killer]
    with pytest.raises(RuntimeError) as error:
        small_run("solo_r50", coco, tmp_path / "run", *settings)
    text = explain(error.value)
    assert "a process that loads data has died: DataLoader worker (pid" in text
    assert "data.num_workers=2" in text
    finished_epoch(tmp_path / "run")


def test_a_training_that_is_not_begun_leaves_the_one_that_is_there_as_it_was(monkeypatch, capsys, tmp_path):
    """Its words too, by which a report knows it."""
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- seed=3\n")
    (tmp_path / "best.ckpt").touch()
    before = sorted(tmp_path.rglob("*"))
    status, said = command(monkeypatch, capsys, train, "experiment=demo", f"output_dir={tmp_path}")
    assert status == 2
    assert "holds a training already (best.ckpt): resume=auto goes on with it" in said
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / ".hydra" / "overrides.yaml").read_text() == "- seed=3\n"

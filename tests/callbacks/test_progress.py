from types import SimpleNamespace

import torch

from aggmask.callbacks import progress
from aggmask.callbacks.progress import ProgressFile
from aggmask.files import read_json


def trainer_at(step: int, epoch: int = 0, **metrics: float) -> SimpleNamespace:
    values = {f"val/{name}": torch.tensor(value) for name, value in metrics.items()}
    numbers = {"global_step": step, "current_epoch": epoch, "max_epochs": 4, "estimated_stepping_batches": 40}
    return SimpleNamespace(**numbers, callback_metrics=values, is_global_zero=True, sanity_checking=False)


def test_progress_and_what_is_left(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    path = tmp_path / "progress.json"
    callback = ProgressFile(str(path), every=5)
    callback.on_train_start(trainer_at(10, 1), None)  # resumed
    content = read_json(path)
    assert (content["epoch"], content["epochs"], content["step"], content["steps"]) == (1, 4, 10, 40)
    assert content["ap"] is content["seconds_left"] is None
    now[0] = 104
    callback.on_train_batch_end(trainer_at(12, 1), None, None, None, 0)
    assert read_json(path)["step"] == 10  # not yet
    now[0] = 110
    callback.on_train_batch_end(trainer_at(20, 1), None, None, None, 0)
    assert (read_json(path)["step"], read_json(path)["seconds_left"]) == (20, 20.0)  # a second a step, by this start
    callback.on_validation_end(trainer_at(20, 2, AP=0.25), None)
    assert (read_json(path)["epoch"], read_json(path)["ap"]) == (2, 0.25)
    callback.on_validation_end(trainer_at(30, 3, AP=0.125), None)
    assert (read_json(path)["epoch"], read_json(path)["ap"]) == (3, 0.25)  # the best
    again = ProgressFile(str(path))
    again.load_state_dict(callback.state_dict())
    assert again.ap == 0.25


def test_only_the_main_rank_writes(tmp_path):
    trainer = trainer_at(0)
    trainer.is_global_zero = False
    ProgressFile(str(tmp_path / "progress.json")).on_train_start(trainer, None)
    assert list(tmp_path.iterdir()) == []


def test_a_training_without_an_end_has_no_time_left(tmp_path):
    path = tmp_path / "progress.json"
    callback, trainer = ProgressFile(str(path), every=0), trainer_at(0)
    callback.on_train_start(trainer, None)
    trainer.estimated_stepping_batches, trainer.max_epochs, trainer.global_step = float("inf"), -1, 5
    callback.on_train_batch_end(trainer, None, None, None, 0)
    content = read_json(path)
    assert content["step"] == 5
    assert content["steps"] is content["epochs"] is content["seconds_left"] is None

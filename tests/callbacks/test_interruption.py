"""Where a run ends; that it goes on exactly is in tests/test_resume.py."""

import os
import signal
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from aggmask.assembly.build import build_trainer
from aggmask.callbacks.interruption import Interruption
from aggmask.callbacks.last_checkpoint import LastCheckpoint
from aggmask.signals import ENDING, Interrupted
from tests.interrupting import EndAt, Killed


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained, self.validated = 0, 0
        self.step = SimpleNamespace(pieces=1)  # which every step of a SegmentationModule says

    def training_step(self, batch, _):
        self.trained += 1
        return self.weight

    def validation_step(self, batch, _):
        self.validated += 1

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], 1.0)


def ended(folder, end: pl.Callback, **options) -> tuple[Module, dict | None]:
    """The module and last.ckpt of a run of two epochs of six batches, each with four of evaluation."""
    target = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "max_epochs": 2, "num_sanity_val_steps": 0}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    callbacks = [LastCheckpoint(str(folder)), end]
    trainer = build_trainer(target | quiet | options, callbacks=callbacks, logger=False)
    assert isinstance(trainer.callbacks[0], Interruption)
    module = Module()
    before = [signal.getsignal(number) for number in ENDING]
    with pytest.raises(Interrupted):
        trainer.fit(module, DataLoader(range(6)), DataLoader(range(4)))
    assert [signal.getsignal(number) for number in ENDING] == before
    last = folder / "last.ckpt"
    return module, torch.load(last, weights_only=True) if last.exists() else None


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2"])
def test_the_step_is_finished(how, tmp_path):
    module, last = ended(tmp_path, EndAt("on_before_backward", 2, how))
    assert (module.trained, last["global_step"]) == (2, 2)


def test_a_step_of_several_batches_is_finished(tmp_path):
    module, last = ended(tmp_path, EndAt("on_before_backward", 2), accumulate_grad_batches=3)
    assert (module.trained, last["global_step"]) == (3, 1)


def test_an_evaluation_is_left(tmp_path, capfd):
    module, last = ended(tmp_path, EndAt("on_validation_batch_start", 2))
    assert "SIGTERM: ends after this step and saves;" in capfd.readouterr().err
    assert (module.trained, module.validated, last["global_step"], last["epoch"]) == (6, 2, 6, 0)


def test_an_evaluation_between_the_batches_of_a_step_is_not_left(tmp_path):
    module, last = ended(
        tmp_path, EndAt("on_validation_batch_start", 2), accumulate_grad_batches=4, val_check_interval=2
    )
    assert (module.trained, module.validated, last["global_step"]) == (4, 4, 1)


def test_a_signal_before_the_first_step_ends_there(tmp_path):
    class Early(pl.Callback):
        def on_train_epoch_start(self, *_):
            os.kill(os.getpid(), signal.SIGTERM)

    module, last = ended(tmp_path, Early())
    assert (module.trained, last["global_step"]) == (1, 1)


def test_without_a_last_checkpoint_it_only_ends(tmp_path, capfd):
    target = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "max_epochs": 2}
    options = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = build_trainer(target | options, callbacks=[EndAt("on_before_backward", 2)], logger=False)
    with pytest.raises(Interrupted):
        trainer.fit(Module(), DataLoader(range(6)))
    assert list(tmp_path.iterdir()) == []
    assert "SIGTERM: ends after this batch;" in capfd.readouterr().err


def test_an_evaluation_without_a_training_saves_nothing_and_says_so(tmp_path, capfd):
    target = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "default_root_dir": str(tmp_path)}
    callbacks = [LastCheckpoint(str(tmp_path)), EndAt("on_validation_batch_start", 2, "SIGINT")]
    trainer = build_trainer(target | {"enable_progress_bar": False}, callbacks=callbacks, logger=False)
    with pytest.raises(Interrupted):
        trainer.validate(Module(), DataLoader(range(4)))
    assert "SIGINT: ends after this batch; Ctrl-C ends at once" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_that_fails_loses_no_training(tmp_path):
    class Fails(pl.Callback):
        def on_validation_batch_start(self, *_):
            raise ValueError("a picture is damaged")

    with pytest.raises(ValueError, match="damaged"):
        ended(tmp_path, Fails())
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert (last["global_step"], last["epoch"]) == (6, 0)
    evaluation = last["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["current"]
    assert (evaluation["started"], evaluation["processed"]) == (1, 0), "a resume evaluates"


def test_the_end_of_an_epoch_is_saved_after_its_evaluation(tmp_path):
    with pytest.raises(Killed):
        ended(tmp_path, EndAt("on_train_batch_start", 7, "kill"))
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    evaluation = last["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["current"]
    assert (last["global_step"], evaluation["completed"]) == (6, 4)

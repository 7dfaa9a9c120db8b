"""The average by hand, and what checkpoints hold of it."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from aggmask.assembly.build import load
from aggmask.callbacks.ema import EMA
from aggmask.callbacks.last_checkpoint import LastCheckpoint
from aggmask.errors import UserError
from tests.data.make_coco import make_coco
from tests.runs import small_run


class Counter(pl.LightningModule):
    """Its weight is the number of optimizer steps taken, its buffer the number of batches."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.frozen = torch.nn.Parameter(torch.tensor(0.1), requires_grad=False)
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.validated = []

    def training_step(self, batch, _):
        self.batches += 1
        return -self.weight

    def validation_step(self, batch, _):
        self.validated.append(float(self.weight))

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], 1.0)


def by_hand(steps: int, decay: float) -> float:
    average = 1.0  # the first step is copied
    for n in range(1, steps):
        d = min(decay, (1 + n) / (10 + n))
        average = d * average + (1 - d) * (n + 1)
    return average


@pytest.mark.parametrize("decay", [0.3, 0.9998])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_by_hand(decay, accumulate, tmp_path):
    """Four batches an epoch; validation and the end see the average, training goes on with the weights."""
    keep = pl.callbacks.ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[EMA(decay), keep], accumulate_grad_batches=accumulate,
        logger=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    module, loader = Counter(), DataLoader(range(4), batch_size=1)
    trainer.fit(module, loader, loader)
    half = 4 // accumulate
    assert module.validated == pytest.approx([by_hand(half, decay)] * 4 + [by_hand(2 * half, decay)] * 4)
    assert float(module.weight) == pytest.approx(by_hand(2 * half, decay))
    assert float(module.frozen) == torch.tensor(0.1)
    for steps in (half, 2 * half):
        kept = torch.load(tmp_path / f"step={steps}.ckpt", weights_only=True)
        assert float(kept["state_dict"]["weight"]) == pytest.approx(by_hand(steps, decay))
        assert float(kept["current_model_state"]["weight"]) == steps
        assert int(kept["state_dict"]["batches"]) == steps * accumulate


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_is_the_uninterrupted_one(accumulate, tmp_path):
    root = make_coco(tmp_path / "coco", images=6, val_images=1)
    settings = ["callbacks=ema", "callbacks.ema.decay=0.9", "callbacks.pictures=null", "data.batch_size=1"]
    settings += [f"trainer.accumulate_grad_batches={accumulate}", "trainer.limit_train_batches=4"]
    settings += ["optim=adamw", "trainer.max_epochs=2", "optim.lr=0.01", "model.backbone.frozen_norm=false"]
    every = "{_target_: pytorch_lightning.callbacks.ModelCheckpoint, dirpath: %s, filename: '{step}', %s}" % (  # noqa: UP031
        f"{tmp_path}/steps", "every_n_train_steps: 1, save_top_k: -1"
    )  # fmt: skip
    whole = small_run("solo_r50_agg", root, tmp_path / "whole", *settings, f"+callbacks.every={every}")
    steps = 8 // accumulate
    for stop in (1, steps - 1):
        place = tmp_path / str(stop)
        again = small_run("solo_r50_agg", root, place, *settings, f"resume='{tmp_path}/steps/step={stop}.ckpt'")
        assert again["trainer"].global_step == whole["trainer"].global_step == steps
        one, other = (torch.load(p / "last.ckpt", weights_only=True) for p in (tmp_path / "whole", place))
        for part in ("state_dict", "current_model_state", "averaging_state"):
            assert one[part].keys() == other[part].keys()
            assert all(torch.equal(value, other[part][name]) for name, value in one[part].items()), part
    differ = [k for k, v in one["state_dict"].items() if not torch.equal(v, one["current_model_state"][k])]
    assert "segmenter.head.category.classifier.bias" in differ
    loaded = load(tmp_path / "whole" / "best.ckpt", device="cpu").segmenter.state_dict()
    kept = torch.load(tmp_path / "whole" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, kept[f"segmenter.{name}"]) for name, value in loaded.items())


def test_an_evaluation_that_is_cut_short_leaves_the_trained_weights(tmp_path):
    class Cut(Counter):
        def validation_step(self, batch, _):
            super().validation_step(batch, _)
            raise ZeroDivisionError

    module, loader = Cut(), DataLoader(range(4), batch_size=1)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[EMA(0.3)], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        trainer.fit(module, loader, loader)
    assert module.validated == pytest.approx([by_hand(4, 0.3)])
    assert float(module.weight) == 4


def test_an_evaluation_after_the_end_keeps_the_trained_weights_too(tmp_path):
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[EMA(0.3), LastCheckpoint(str(tmp_path))], logger=False,
        enable_progress_bar=False, enable_model_summary=False, check_val_every_n_epoch=2,
    )  # fmt: skip
    module, loader = Counter(), DataLoader(range(4), batch_size=1)
    trainer.fit(module, loader)
    trainer.validate(module, loader, verbose=False)
    assert module.validated == pytest.approx([by_hand(4, 0.3)] * 4)
    assert float(module.weight) == pytest.approx(by_hand(4, 0.3))
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert float(kept["state_dict"]["weight"]) == pytest.approx(by_hand(4, 0.3))
    assert float(kept["current_model_state"]["weight"]) == 4


def test_decay_is_checked():
    with pytest.raises(UserError, match=r"decay=1.0: .*less than 1"):
        EMA(1.0)


def test_the_average_is_where_the_module_will_be():
    """Callbacks are set up before the module is moved to its device."""
    average = EMA()
    average.setup(SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta"))), Counter(), "fit")
    assert {p.device.type for p in average._average_model.parameters()} == {"meta"}

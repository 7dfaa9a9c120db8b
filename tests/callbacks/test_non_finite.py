"""Steps that are made to break: who stops, what is left, and weights against a run without those steps."""

import logging

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import nn

from aggmask.callbacks.non_finite import NonFinite
from aggmask.checkpoints.non_finite import STATE, read_rank
from aggmask.errors import UserError
from aggmask.geometry.frame import Frame
from aggmask.replay import replay
from aggmask.structures import ImageBatch
from tests.data.make_coco import make_coco
from tests.runs import small_run
from tests.small import random_objects

BAD_LOSS, BAD_GRADIENT, BAD_OUTPUT, BAD_VALUE = 1000, 2000, 3000, 4000  # ids of images from which on the step breaks


def picture(number: int) -> ImageBatch:
    pixels = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
    return ImageBatch(pixels, [Frame.resized((8, 8), (8, 8))] * 2, [number, number + 1], [random_objects(1)] * 2)


class BreakGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, factor):
        ctx.factor = factor
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


class Toy(pl.LightningModule):
    """A convolution, a norm that trains, and dropout; breaks where the image's number says so."""

    def __init__(self, pictures, optimizer=torch.optim.SGD, factor=1.0, **settings):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.pictures, self.maker, self.factor = pictures, lambda p: optimizer(p, lr=0.1, **settings), factor

    def losses(self, batch):
        kind, pixels = batch.image_ids[0] // 1000 * 1000, batch.pixels / 255
        features = self.conv(pixels * float("inf") if kind == BAD_OUTPUT else pixels)
        factor = float("inf") if kind == BAD_GRADIENT else self.factor
        loss = self.drop(self.norm(BreakGradient.apply(features, factor))).square().mean()
        if kind == BAD_VALUE:  # gradients stay finite
            loss = loss + float("nan")
        return {"square": loss * float("nan") if kind == BAD_LOSS else loss}

    def training_step(self, batch, _):
        torch.manual_seed(batch.image_ids[0])  # dropout by picture, so that runs of different lengths compare
        return sum(self.losses(batch).values())

    def configure_optimizers(self):
        return self.maker(self.parameters())

    def train_dataloader(self):
        own = self.pictures[self.trainer.global_rank] if isinstance(self.pictures[0], list) else self.pictures
        return torch.utils.data.DataLoader([picture(n) for n in own], batch_size=None)


def fit(module: Toy, folder, on_nan="stop", **settings) -> tuple[pl.Trainer, NonFinite]:
    guard = NonFinite(on_nan)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[guard], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, use_distributed_sampler=False,
        gradient_clip_val=1.0, **settings,
    )  # fmt: skip
    trainer.fit(module)
    return trainer, guard


def same(ours: dict, theirs: dict) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in ours) and ours.keys() == theirs.keys()


@pytest.mark.parametrize("bad", [BAD_LOSS, BAD_GRADIENT, BAD_OUTPUT, BAD_VALUE])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("steps", [[[10], [20], [None], [None], [30]], [[10, 20], [70, None], [None, 50], [30, 40]]])
def test_a_skipped_step_leaves_no_trace(bad, optimizer, steps, tmp_path, caplog):
    """Weights, momentum and statistics of the norm are those of a run that never saw the step's batches."""
    settings = {"momentum": 0.9, "weight_decay": 0.1} if optimizer is torch.optim.SGD else {}
    accumulate = len(steps[0])
    numbers = [[n or bad for n in step] for step in steps]
    without = [n for step in steps if None not in step for n in step]
    broken, whole = (
        Toy([n for step in numbers for n in step], optimizer, **settings),
        Toy(without, optimizer, **settings),
    )
    with caplog.at_level(logging.WARNING):
        trainer, guard = fit(broken, tmp_path, "skip", accumulate_grad_batches=accumulate)
    expected, _ = fit(whole, tmp_path / "whole", accumulate_grad_batches=accumulate)
    assert same(broken.state_dict(), whole.state_dict())
    ours, theirs = (t.optimizers[0].state_dict()["state"] for t in (trainer, expected))
    assert ours.keys() == theirs.keys()
    assert all(same(ours[key], theirs[key]) for key in theirs)
    at = [place for place, step in enumerate(steps) if None in step]
    ids = [[i for n in numbers[place] for i in (n, n + 1)] for place in at]
    assert guard.skipped == [{"step": place, "image_ids": own} for place, own in zip(at, ids, strict=True)]
    lines = [f"\n  step {place}: images {', '.join(map(str, own))}" for place, own in zip(at, ids, strict=True)]
    assert f"steps skipped: 2{''.join(lines)}" in caplog.text
    assert not (tmp_path / "whole" / "non_finite").exists()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (BAD_LOSS, "first: loss 'square'\n  gradients that are not finite: 4"),
        (BAD_GRADIENT, "is not finite; images 2000, 2001\n  gradients that are not finite: 2 (conv.weight, conv.bias)"),
        (BAD_OUTPUT, "first: output of conv"),
        (BAD_VALUE, "first: loss 'square'\n  gradients that are not finite: 0\n"),
    ],
)
def test_the_first_one_stops_and_leaves_what_replays_it(bad, said, tmp_path):
    module, before = Toy([10, bad, 30]), Toy([10])
    with pytest.raises(UserError) as stop:
        fit(module, tmp_path)
    assert said in str(stop.value)
    assert f"python -m aggmask.replay {tmp_path}/non_finite" in str(stop.value)
    assert f"images {bad}, {bad + 1}\n" in str(stop.value)
    fit(before, tmp_path / "before")
    state = torch.load(tmp_path / "non_finite" / "state.pt", weights_only=True)
    assert same(state["state_dict"], before.state_dict())
    assert state["global_step"] == 1
    assert (tmp_path / "non_finite" / "message.txt").read_text().strip() == str(stop.value)
    (batch,) = read_rank(tmp_path / "non_finite", 0)
    expected = picture(bad)
    assert torch.equal(batch.pixels, expected.pixels)
    assert batch.frames == expected.frames
    assert batch.image_ids == expected.image_ids
    for ours, theirs in zip(batch.objects, expected.objects, strict=True):
        assert torch.equal(ours.masks[4], theirs.masks[4])
        assert all(torch.equal(getattr(ours, f), getattr(theirs, f)) for f in ("labels", "boxes", "centers", "areas"))


def test_too_many_in_a_row_stop_a_run_that_skips(tmp_path):
    module = Toy([10, BAD_LOSS, 20] + [BAD_LOSS] * 21 + [30])
    with pytest.raises(UserError, match=r"step 23 is not finite(.|\n)*21 steps in a row: the training has diverged"):
        fit(module, tmp_path, "skip")


def test_statistics_of_norms_are_kept_from_the_start_of_a_run_too():
    """A resume in the middle of an epoch starts none."""
    guard, module = NonFinite("skip"), Toy([])
    guard.on_train_start(None, module)
    assert len(guard._kept) == len(list(module.norm.buffers())) == 3


def test_a_resumed_run_remembers_what_was_skipped():
    guard, again = NonFinite("skip"), NonFinite("skip")
    guard.skipped = [{"step": 3, "image_ids": [1, 2]}]
    again.load_state_dict(guard.state_dict())
    assert again.skipped == guard.skipped


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_scaler_that_looks_for_its_scale_is_left_alone(accumulate, tmp_path):
    """Scaled gradients overflow until the scale has come down; a loss that is not finite still stops."""
    mixed = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**120))
    mixed.autocast_context_manager = lambda: torch.autocast("cpu", enabled=False)
    module = Toy([10] * 24, factor=1e5)
    before = module.conv.weight.clone()
    _, guard = fit(module, tmp_path, plugins=[mixed], accumulate_grad_batches=accumulate)
    assert guard.skipped == []
    assert 2.0**100 < mixed.scaler.get_scale() < 2.0**120
    assert not torch.equal(before, module.conv.weight)


@pytest.mark.parametrize(("bad", "step"), [(BAD_LOSS, 1), (BAD_GRADIENT, 4)])
def test_a_scaler_does_not_hide_what_is_broken(bad, step, tmp_path):
    """With gradients that no scale mends the scale comes down: 8, 4, 2, 1, and then it is no longer the scale."""
    mixed = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    mixed.autocast_context_manager = lambda: torch.autocast("cpu", enabled=False)
    with pytest.raises(UserError, match="is not finite") as stop:
        fit(Toy([10] + [bad] * 9), tmp_path, plugins=[mixed])
    assert str(stop.value).startswith(f"step {step + (bad == BAD_GRADIENT)} ")


def test_gradients_are_large_and_finite(tmp_path):
    """Their squares overflow, they do not."""
    _, guard = fit(Toy([10, 20], factor=1e30), tmp_path)
    assert guard.skipped == []
    assert not (tmp_path / "non_finite").exists()


@pytest.mark.parametrize(("bad", "first"), [(BAD_OUTPUT, "output of conv"), (BAD_VALUE, "loss 'square'")])
@pytest.mark.parametrize("on_nan", ["skip", "stop"])
def test_two_ranks_decide_together(on_nan, bad, first, tmp_path):
    """Only rank 1 meets a batch that breaks: through its gradients rank 0 would know, through its loss it would not."""
    ranks = [[10, 20, 30], [40, bad, 60]]
    settings = {"strategy": "ddp_fork", "devices": 2}
    module, whole = Toy(ranks), Toy([[10, 30], [40, 60]])
    if on_nan == "stop":
        with pytest.raises(Exception, match=f"images {bad}, {bad + 1}\n  first on rank 1: {first}"):
            fit(module, tmp_path, on_nan, **settings)
    else:
        fit(module, tmp_path, on_nan, **settings)
        fit(whole, tmp_path / "whole", **settings)
        assert same(module.state_dict(), whole.state_dict())
    assert torch.load(tmp_path / "non_finite" / "state.pt", weights_only=True)["ranks"] == 2
    kept = [read_rank(tmp_path / "non_finite", rank)[0].image_ids for rank in range(2)]
    assert kept == [[20, 21], [bad, bad + 1]]


class Swell(pl.Callback):
    """Before a batch, a weight becomes so large that what it makes overflows."""

    def __init__(self, batch: int, last: int = 10**9, name: str = "segmenter.head.category.classifier") -> None:
        self.batch, self.last, self.name = batch, last, name

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        weight = pl_module.get_submodule(self.name).weight.data
        if batch_idx == self.batch:
            self.before = weight.clone()
            weight.fill_(3e38)
        if batch_idx == self.last:
            weight.copy_(self.before)


def test_replay_names_the_module(tmp_path):
    root = make_coco(tmp_path / "coco", images=4, val_images=1)
    swell = "+callbacks.swell={_target_: tests.callbacks.test_non_finite.Swell, batch: 1}"
    with pytest.raises(UserError, match="step 1 is not finite") as stop:
        small_run("solo_r50", root, tmp_path / "run", swell, "trainer.limit_val_batches=0", "data.batch_size=2")
    assert "first: output of segmenter.head.category.classifier" in str(stop.value)
    (line,) = replay(tmp_path / "run" / "non_finite", "cpu")
    assert "first not finite: output of segmenter.head.category.classifier" in line
    assert line.startswith("rank 0, batch 1 of 1, images ")


def test_on_nan_skip_on_the_command_line(tmp_path):
    root = make_coco(tmp_path / "coco", images=4, val_images=1)
    swell = "+callbacks.swell={_target_: tests.callbacks.test_non_finite.Swell, batch: 1, last: 2}"
    settings = ["trainer.limit_val_batches=0", "data.batch_size=1", "trainer.limit_train_batches=3"]
    parts = small_run("solo_r50", root, tmp_path / "run", swell, *settings, "trainer.on_nan=skip")
    (guard,) = [c for c in parts["trainer"].callbacks if isinstance(c, NonFinite)]
    assert [entry["step"] for entry in guard.skipped] == [1]
    assert all(value.isfinite().all() for value in parts["module"].state_dict().values())
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert kept["callbacks"]["NonFinite"]["skipped"] == guard.skipped


def test_replay_of_no_folder(tmp_path):
    with pytest.raises(UserError, match="holds no step to replay"):
        replay(tmp_path)


def test_replay_on_a_device_that_is_not_there(tmp_path):
    (tmp_path / STATE).touch()
    with pytest.raises(UserError, match="device=gpu: cannot be used here"):
        replay(tmp_path, "gpu")

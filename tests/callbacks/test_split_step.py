"""Steps in which memory is made to end: gradients against those of the whole batch, on one rank and on two."""

import logging
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy

from aggmask.assembly.build import build, build_module, build_trainer, make_recipe
from aggmask.assembly.config import plain
from aggmask.callbacks.split_step import OutOfMemory, Step, is_out_of_memory
from aggmask.errors import UserError
from aggmask.supervision.assign import Assigner
from aggmask.supervision.criterion import Criterion
from tests.data.make_coco import make_coco
from tests.runs import SMALL, composed, small_run
from tests.small import close, make_head, make_pyramid, random_objects

IMAGES = 3
FULL = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."


class Small:
    """Memory for so many images, at one place of the forward or the backward pass."""

    def __init__(self, images: int, place: str = "forward", module: str = "bank.tower") -> None:
        self.images, self.place, self.module, self.met = images, place, module, 0

    def install(self, model: torch.nn.Module) -> None:
        model.get_submodule(self.module).register_forward_hook(self)

    def full(self, *_) -> None:
        self.met += 1
        raise RuntimeError(FULL)

    def __call__(self, module, inputs, output):
        tensor = next(t for t in _tensors(output) if t.requires_grad)
        if len(tensor) > self.images:
            self.full() if self.place == "forward" else tensor.register_hook(self.full)


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    for item in value if isinstance(value, list | tuple) else ():
        yield from _tensors(item)


CANVAS = (32, 64)


def head_step(limit: Small | None = None, split: bool = True, factor: float = 1.0, **criterion):
    """One step of a small head over three images -> (step, its losses, the gradients)."""
    head, canvas = make_head(window=5), CANVAS
    pyramid = [m.detach() for m in make_pyramid(IMAGES, canvas)]
    objects = [random_objects(n, canvas=canvas, seed=n) for n in (3, 0, 4)]
    criterion = Criterion(**criterion)
    with torch.no_grad():
        targets = Assigner()(head([m[:1] for m in pyramid]), objects, canvas)
    counts = criterion.count(targets, 3)
    targets, counts = criterion.sample(targets, counts, seed=1)
    if limit:
        limit.install(head)

    def losses(first, last):
        outputs = head([m[first:last] for m in pyramid])
        return criterion(outputs, [t.part(first, last) for t in targets], counts)

    for parameter in head.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)  # of an earlier batch of the same step
    step = Step(losses, IMAGES, list(head.parameters()), split)
    values = step.forward()
    step.backward(torch.tensor(factor))
    return step, values, [p.grad for p in head.parameters()]


@pytest.mark.parametrize("options", [{}, {"normalizer": "rank", "max_cells": 20}])
def test_gradients_of_pieces_are_those_of_the_whole(options):
    places = [("forward", "bank.tower"), ("forward", "category.tower"),
              ("backward", "category.classifier"), ("backward", "aggregation.context")]  # fmt: skip
    _, losses, expected = head_step(factor=0.25, **options)
    for number, (place, module) in enumerate(places):
        limit = Small(1 + number % 2, place, module)
        step, values, gradients = head_step(limit, factor=0.25, **options)
        assert limit.met, "memory has ended"
        assert step.pieces == (3, 2)[number % 2]
        for name, value in losses.items():
            assert values[name].item() == pytest.approx(value.item(), rel=1e-5)
        for ours, theirs in zip(gradients, expected, strict=True):
            close(ours, theirs, 1e-5, 1e-2)


def test_a_scale_for_float16_is_taken_out_again():
    """Gradients of a failed forward pass are made under the scaler's scale, which the trainer's loss carries too."""
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    seen = []

    def losses(first, last):
        if last - first > 1:
            raise RuntimeError(FULL)
        loss = (weight * (first + 1)).sum()
        loss.register_hook(lambda g: seen.append(g.item()))
        return {"sum": loss}

    step = Step(losses, 2, [weight])
    assert step.forward(1024.0) == {"sum": torch.tensor(9.0)}
    step.backward(torch.tensor(512.0))  # half of each step, where two batches accumulate
    assert seen == [1024.0, 1024.0]
    assert weight.grad.tolist() == [1536.0, 1536.0]


def test_no_more_is_run_again_than_what_is_missing():
    """Of a backward pass that got as far as the bank, the classifier has its gradient."""
    asked = []
    real = torch.autograd.grad
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "grad", lambda loss, p, *a, **k: asked.append(len(p)) or real(loss, p, *a, **k))
        head_step(Small(2, "backward", "bank.tower"))
        head_step(Small(2, "forward"))
    every = len(list(make_head(window=5).parameters()))
    assert 0 < asked[0] < every
    assert asked[2:] == [every, every]


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="allocate memory"):
        head_step(Small(2), split=False)
    with pytest.raises(RuntimeError, match="allocate memory"):
        head_step(Small(2, "backward"), split=False)
    limit = Small(2)
    limit.full = lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        head_step(limit)


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_a_single_image_that_does_not_fit_is_explained(place):
    advice = (
        r"Lower data\.short_side or criterion\.max_cells, or set trainer\.precision=bf16-mixed or "
        r"model\.backbone\.grad_checkpointing=true"
    )
    with pytest.raises(UserError, match=rf"a single image does not fit into a training step\. {advice}"):
        head_step(Small(0, place))


def test_what_is_out_of_memory():
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**50)
    assert is_out_of_memory(real.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(dist.DistBackendError("NCCL error: out of memory"))


def module_and_data(root, *overrides: str):
    settings = ["experiment=solo_r50_agg", "name=x", "output_dir=x", f"data.root={root}", *SMALL, *overrides]
    config = plain(composed(*settings, "data.batch_size=2", "data.flip=0", "data.skip_empty=false"))
    pl.seed_everything(0, verbose=False)
    data = build(config["data"])
    return build_module(make_recipe(config, data.categories)), data


class Limit(pl.Callback):
    """Memory for few images on some ranks, from one batch on; counts the buckets that were reduced before."""

    def __init__(self, folder, place: str, module: str, ranks=(0,), first: int = 1, images: int = 1) -> None:
        self.folder, self.ranks, self.first, self.images = Path(folder), ranks, first, images
        self.small, self.reduced, self.before, self.gradients = Small(99, place, module), 0, [], []

    def on_fit_start(self, trainer, pl_module):
        self.small.install(pl_module.segmenter)
        full = self.small.full
        self.small.full = lambda *_: self.before.append(self.reduced) or full()
        if trainer.world_size > 1:
            trainer.strategy.model.register_comm_hook(None, self.counted)

    def counted(self, _, bucket):
        self.reduced += 1
        work = dist.all_reduce(bucket.buffer().div_(dist.get_world_size()), async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.reduced = 0
        self.small.images = self.images if batch_idx >= self.first and trainer.global_rank in self.ranks else 99

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append([p.grad.clone() for p in pl_module.parameters() if p.grad is not None])

    def on_train_end(self, trainer, pl_module):
        found = {"gradients": self.gradients, "before": self.before, "split": _guard(trainer).steps}
        torch.save(found, self.folder / f"{trainer.global_rank}.pt")


def _guard(trainer) -> OutOfMemory:
    return next(c for c in trainer.callbacks if isinstance(c, OutOfMemory))


def trained(root, folder, limit=("forward", "head.bank.tower", ()), **settings) -> list[dict]:
    """Two batches of each of two ranks -> what each rank has seen."""
    folder.mkdir()
    model, data = module_and_data(root)
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo", bucket_cap_mb=1)
    node = {"_target_": "pytorch_lightning.Trainer", "max_epochs": 1, "accelerator": "cpu", "devices": 2}
    trainer = build_trainer(
        node | settings, callbacks=[Limit(folder, *limit)], logger=False, strategy=strategy,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        use_distributed_sampler=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("data"), images=8, val_images=1, sizes=[(48, 64)])


@pytest.fixture(scope="module")
def whole(coco, tmp_path_factory):
    """What two ranks with memory for all have seen, for each setting once."""
    folder = tmp_path_factory.mktemp("whole")
    return cache(lambda accumulate: trained(coco, folder / str(accumulate), accumulate_grad_batches=accumulate))


@pytest.mark.parametrize(
    ("place", "module", "least", "ranks", "first", "accumulate"),
    [
        ("forward", "head.bank.tower", 0, (0,), 1, 1),
        # Before a bucket is reduced; after some, which the other rank has reduced too; when DDP has yet to plan them.
        pytest.param("backward", "head.category.classifier", 0, (1,), 1, 1, marks=pytest.mark.slow),
        ("backward", "backbone.net.layer1", 1, (0,), 1, 1),
        pytest.param("backward", "backbone.net.layer1", 1, (0, 1), 0, 1, marks=pytest.mark.slow),
        ("backward", "backbone", 0, (1,), 0, 2),
    ],
)
def test_two_ranks_where_memory_ends_on_some(place, module, least, ranks, first, accumulate, coco, whole, tmp_path):
    expected = whole(accumulate)
    found = trained(coco, tmp_path / "run", (place, module, ranks, first), accumulate_grad_batches=accumulate)
    for rank in range(2):
        times = 2 - first if rank in ranks else 0
        assert found[rank]["split"] == times
        assert len(found[rank]["before"]) == times
        assert max(found[rank]["before"], default=least) >= least
        for ours, theirs in zip(found[rank]["gradients"], expected[rank]["gradients"], strict=True):
            for mine, other in zip(ours, theirs, strict=True):
                close(mine, other, 1e-4, 1e-2)
    for ours, theirs in zip(found[0]["gradients"], found[1]["gradients"], strict=True):
        assert all(map(torch.equal, ours, theirs)), "ranks have the same gradients bit for bit"


@pytest.mark.slow
def test_a_rank_on_which_nothing_fits_ends_the_others(coco, tmp_path):
    with pytest.raises(Exception, match="a single image does not fit"):
        trained(coco, tmp_path / "run", ("backward", "backbone", (1,), 1, 0))


def small_training(coco, folder, caplog, *overrides: str):
    limit = "+callbacks.limit={_target_: tests.callbacks.test_split_step.Limit, folder: '" + str(folder) + "', "
    limit += "place: backward, module: backbone, first: 1}"
    settings = ["trainer.limit_val_batches=0", "trainer.limit_train_batches=3", "data.batch_size=2", limit, *overrides]
    folder.mkdir()
    with caplog.at_level(logging.WARNING):
        return small_run("solo_r50_agg", coco, folder, *settings)["trainer"]


def test_it_is_said_once_and_counted_at_the_end(coco, tmp_path, caplog):
    trainer = small_training(coco, tmp_path / "run", caplog)
    assert _guard(trainer).steps == 2
    assert caplog.text.count("out of memory in step") == 1
    assert "its batch is run in 2 pieces, with the gradients of the whole" in caplog.text
    assert "trainer.on_oom=split: batches split: 2, into 2 pieces at most" in caplog.text


def test_on_oom_raise(coco, tmp_path, caplog):
    with pytest.raises(RuntimeError, match="allocate memory"):
        small_training(coco, tmp_path / "run", caplog, "trainer.on_oom=raise")


def test_synchronized_norms_are_not_split(caplog):
    module = torch.nn.Sequential(torch.nn.SyncBatchNorm(3))
    trainer = SimpleNamespace(is_global_zero=True)
    OutOfMemory("split").on_fit_start(trainer, module)
    assert not module.split_steps
    assert "trainer.on_oom=split has no effect with trainer.sync_batchnorm=true" in caplog.text

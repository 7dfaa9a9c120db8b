"""What is free; what is needed, part by part; who is warned."""

import logging
import re
from types import SimpleNamespace

import pytest
import torch

from aggmask.accounting.memory import on_meta
from aggmask.assembly import memory_check
from aggmask.assembly.build import build, build_module, make_recipe
from aggmask.assembly.config import plain
from aggmask.assembly.memory_check import free_on, largest_canvas, needed_bytes, states_of
from aggmask.callbacks.ema import EMA
from tests.data.make_coco import make_coco
from tests.runs import SMALL, composed, small_run


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"), images=4, val_images=1)


def test_what_is_free_on_a_device():
    assert free_on(torch.device("cpu")) > 2**20  # of this machine
    assert free_on(torch.device("meta")) is None


def test_states_of_optimizers():
    weight = [torch.nn.Parameter(torch.zeros(1))]
    assert states_of(torch.optim.SGD(weight, 0.1)) == 0
    assert states_of(torch.optim.SGD(weight, 0.1, momentum=0.9)) == 1
    assert states_of(torch.optim.AdamW(weight, 0.1)) == 2


def test_what_is_needed_part_by_part(coco):
    config = plain(composed("experiment=solo_r50_agg", "name=x", "output_dir=x", f"data.root={coco}", *SMALL))
    data = build(config["data"])
    module = build_module(make_recipe(config, data.categories))
    weights = sum(p.numel() for p in module.parameters()) * 4

    def needed(size=(64, 96), cells=60.0, optimizer=torch.optim.SGD, callbacks=(), precision="32-true"):
        made = optimizer(module.parameters(), lr=0.1)
        return needed_bytes(
            SimpleNamespace(datamodule=data, precision=precision, callbacks=callbacks, optimizers=[made]),
            module, size, cells,
        )  # fmt: skip

    plainly = needed()
    kept = plainly - weights
    assert needed(optimizer=torch.optim.AdamW) - plainly == 2 * weights
    assert needed(precision="bf16-mixed") == weights + kept // 2
    assert needed(callbacks=[EMA()]) == plainly, "made before, on a CPU"
    assert needed(size=(128, 96)) > weights + 1.6 * kept
    assert needed(cells=600.0) > plainly
    module.criterion.max_cells = 120  # of two images
    assert needed(cells=600.0) == plainly
    data.batch_size = 4
    assert needed(cells=30.0) > weights + 1.5 * kept
    copy = on_meta(module.segmenter)
    assert {p.device.type for p in copy.parameters()} == {"meta"}
    assert [m.training for m in copy.modules()] == [m.training for m in module.segmenter.modules()]


def test_the_largest_image_as_the_network_sees_it(coco):
    settings = [f"data.root={coco}", "experiment=solo_r50_agg", "name=x", "output_dir=x"]
    # 48 x 64, 64 x 48 and 40 x 40; 36 x 90 has no objects. 128 x 171 is 128 x 192 on its canvas.
    data = build(plain(composed(*settings, "data.short_side=[60,128]", "data.long_side=256").data))
    assert largest_canvas(data) == (128, 192)
    jitter = "data.large_scale_jitter={min_scale: 0.5, max_scale: 1.0, size: 100}"
    assert largest_canvas(build(plain(composed(*settings, jitter).data))) == (128, 128)


@pytest.mark.parametrize("free", [2**20, 2**50])
def test_a_training_that_does_not_fit_is_warned_before_its_first_step(free, coco, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(memory_check, "free_on", lambda device: free)
    settings = ["data.batch_size=3", "trainer.limit_val_batches=0", "trainer.limit_train_batches=1"]
    with caplog.at_level(logging.WARNING):
        small_run("solo_r50_agg", coco, tmp_path, *settings, forecasts_memory=True)
    said = [r.getMessage() for r in caplog.records if "run out of memory" in r.getMessage()]
    if free == 2**50:
        assert said == []
        return
    (line,) = said
    assert re.search(r"a step of 3 images of 64 x 96 pixels takes \d+ MiB beside the weights, and 1 MiB are free", line)
    assert "data.batch_size=2 trainer.accumulate_grad_batches=2, trainer.precision=bf16-mixed" in line


@pytest.mark.parametrize(("device", "ranks", "warned"), [("cpu", 1, False), ("cpu", 2, True), ("cuda", 2, False)])
def test_ranks_share_the_memory_of_a_cpu_and_not_that_of_gpus(device, ranks, warned, caplog, monkeypatch):
    monkeypatch.setattr(memory_check, "free_on", lambda device: 1000)
    monkeypatch.setattr(memory_check, "needed_bytes", lambda *_: 700)
    monkeypatch.setattr(memory_check, "largest_canvas", lambda data: (64, 96))
    data = SimpleNamespace(batch_size=2)
    trainer = SimpleNamespace(local_rank=0, num_devices=ranks, datamodule=data, accumulate_grad_batches=1)
    module = SimpleNamespace(hparams={"model": {}}, device=torch.device(device))
    memory_check.MemoryCheck().on_fit_start(trainer, module)
    assert ("on each of 2 ranks" in caplog.text) == warned
    assert ("run out of memory" in caplog.text) == warned

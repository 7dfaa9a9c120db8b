import time
from types import SimpleNamespace

import pytest
import torch

from aggmask.callbacks.step_cost import StepCost, peak_megabytes


class Module:
    device = torch.device("cpu")

    def log_dict(self, values, **_):
        self.logged = values


def _stepped(monkeypatch, seconds: list[float], accumulate: int = 1, **options) -> float:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    callback, module = StepCost(**options), Module()
    trainer = SimpleNamespace(accumulate_grad_batches=accumulate)
    callback.on_train_start(trainer, module)
    for duration in seconds:
        now[0] += 100  # the wait for data
        callback.on_train_batch_start(trainer, module, None, 0)
        now[0] += duration
        callback.on_train_batch_end(trainer, module, None, None, 0)
    return module.logged["train/step_seconds"]


def test_a_step_takes_what_its_batches_take_without_the_wait_for_data(monkeypatch):
    assert _stepped(monkeypatch, [1.0, 3.0]) == pytest.approx(2.0)
    assert _stepped(monkeypatch, [9.0, 1.0, 3.0], window=2) == pytest.approx(2.0)
    assert _stepped(monkeypatch, [1.0, 3.0], accumulate=4) == pytest.approx(8.0)


def test_memory_is_the_peak_of_the_process_in_mebibytes():
    before = peak_megabytes(torch.device("cpu"))
    block = torch.ones(int(before) + 64, 2**18)  # MiB
    after = peak_megabytes(torch.device("cpu"))
    assert block.sum() > 0
    assert before + 32 < after < 3 * before + 500


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_keeps_its_own_time_and_memory():
    callback, module, trainer = StepCost(), Module(), SimpleNamespace(accumulate_grad_batches=1)
    module.device = torch.device("cuda", torch.cuda.current_device())
    callback.on_train_start(trainer, module)
    for _ in range(2):
        callback.on_train_batch_start(trainer, module, None, 0)
        product = torch.ones(4096, 4096, device="cuda") @ torch.ones(4096, 4096, device="cuda")
        callback.on_train_batch_end(trainer, module, None, None, 0)
        torch.cuda.synchronize()
    assert product[0, 0] == 4096
    assert 0 < module.logged["train/step_seconds"] < 5
    assert 192 <= module.logged["train/memory_mb"] < 4096

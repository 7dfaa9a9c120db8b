"""The same seed gives the same weights and detections on one machine, however many processes load the data."""

import json

import pytest
import torch

from tests.data.make_coco import make_coco
from tests.runs import small_run

RANDOM = [  # all that is drawn
    "data.short_side=[48,64,80]",
    "data.color_jitter={brightness: 0.2, hue: 0.1}",
    "data.copy_paste={probability: 0.5}",
    "data.skip_empty=false",
]
FINDS = ["decoder.score_threshold=0.0", "decoder.keep_threshold=0.0", "decoder.nms_pre=30"]
SHORT = ["trainer.max_epochs=2", "trainer.limit_train_batches=3", "trainer.check_val_every_n_epoch=2"]
SETTINGS = [*RANDOM, *FINDS, *SHORT, "optim.warmup_steps=0", "callbacks.pictures=null"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """From a seed and a number of loader processes to weights, detections and numbers of a run."""
    root = make_coco(tmp_path_factory.mktemp("coco"), images=8, val_images=2)

    def run(seed: int, workers: int) -> tuple[dict[str, torch.Tensor], list[dict], dict[str, float]]:
        folder = tmp_path_factory.mktemp("run")
        parts = small_run("solo_r50_agg", root, folder, *SETTINGS, f"seed={seed}", f"data.num_workers={workers}")
        weights = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
        numbers = {k: float(v) for k, v in parts["trainer"].callback_metrics.items() if k.startswith("val/")}
        return weights, json.loads((folder / "results.json").read_text()), numbers

    return run


@pytest.fixture(scope="module")
def first(run):
    return run(seed=0, workers=0)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_same_seed_gives_the_same(workers, run, first):
    weights, results, numbers = run(seed=0, workers=workers)
    assert weights.keys() == first[0].keys()
    assert all(torch.equal(weights[name], value) for name, value in first[0].items())
    assert results == first[1]
    assert results
    assert numbers == pytest.approx(first[2], abs=0, nan_ok=True)


def test_another_seed_gives_others(run, first):
    weights, results, _ = run(seed=1, workers=0)
    trained = [name for name, value in first[0].items() if name.endswith("weight") and value.dim() == 4]
    assert trained
    assert not any(torch.equal(weights[name], first[0][name]) for name in trained)
    assert results != first[1]

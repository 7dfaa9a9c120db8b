"""Mixed precision: what the network computes is half, what is summed, compared and placed is not."""

import json

import pytest
import torch

from aggmask import evaluate, train
from aggmask.assembly.build import load
from aggmask.decoding.decode import Decoder
from aggmask.decoding.matrix_nms import matrix_decay
from aggmask.lit_module import SegmentationModule
from aggmask.supervision.criterion import Criterion
from aggmask.supervision.losses import dice_losses, focal_loss_sum
from tests.runs import SMALL, command, small_run
from tests.small import make_head, make_pyramid
from tests.test_evaluate import eager_checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return eager_checkpoint(tmp_path_factory.mktemp("trained"))


def half():
    return torch.autocast("cpu", torch.bfloat16)


def test_losses_and_matrix_nms_are_the_same_inside():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(6, 24, 24, generator=generator)
    logits, labels = torch.randn(2, 3, 8, 8, generator=generator), torch.randint(4, (2, 8, 8), generator=generator)
    calls = (
        lambda: dice_losses(4 * masks - 2, masks > 0.5),
        lambda: focal_loss_sum(logits, labels, 0.25, 2.0),
        lambda: matrix_decay(masks > 0.3, torch.tensor([0, 0, 0, 1, 1, 1])).factor,
        lambda: matrix_decay(masks > 0.3, torch.tensor([0, 0, 0, 1, 1, 1]), "linear").factor,
    )
    for call in calls:
        with half():
            inside = call()
        assert inside.dtype == torch.float32
        assert torch.equal(inside, call())


@pytest.mark.parametrize("aggregation", [{}, {"window": 5}, {"window": 9, "context_channels": 0, "residual": True}])
def test_decoding_is_float32_of_half_outputs(aggregation, monkeypatch):
    seen = []

    def watched(self, found, plain=Decoder.decay):
        seen.append(found.scores.dtype)
        return plain(self, found)

    monkeypatch.setattr(Decoder, "decay", watched)
    head, pyramid = make_head(**aggregation), make_pyramid(1)
    with torch.no_grad(), half():
        outputs = head(pyramid)
        (found,) = Decoder(0.3)(outputs, (64, 96))
    assert {o.logits.dtype for o in outputs} == {torch.bfloat16}
    assert seen == [torch.float32]
    assert found.masks.dtype == found.scores.dtype == torch.float32
    assert len(found)
    with torch.no_grad():
        (exact,) = Decoder(0.3)(head(pyramid), (64, 96))
    assert float(found.scores[0]) == pytest.approx(float(exact.scores[0]), abs=0.03)


def test_training_and_evaluation_run_mixed(trained, tmp_path, monkeypatch):
    """The network is asked for half precision, everything that is told is float32."""
    kinds = set()

    class Watched(Criterion):
        def __call__(self, outputs, targets, counts=None):
            kinds.update(o.logits.dtype for o in outputs)
            return super().__call__(outputs, targets, counts)

    monkeypatch.setattr("aggmask.supervision.criterion.Criterion", Watched)
    parts = small_run(
        "solo_r50_agg", trained[0], tmp_path, "trainer.precision=bf16-mixed", "trainer.limit_val_batches=1"
    )
    assert kinds == {torch.bfloat16}
    for name in ("train/loss_mask", "train/loss_category", "val/AP"):
        value = parts["trainer"].callback_metrics[name]
        assert value.dtype == torch.float32
        assert value.isfinite()
    assert {p.dtype for p in parts["module"].parameters()} == {torch.float32}


def test_evaluate_takes_the_precision(trained, tmp_path, monkeypatch, capsys):
    kinds, detect = set(), SegmentationModule.detect

    def watched(self, batch):
        kinds.add(torch.is_autocast_enabled("cpu"))
        return detect(self, batch)

    monkeypatch.setattr(SegmentationModule, "detect", watched)
    found = []
    for precision in ("32-true", "bf16-mixed"):
        arguments = [f"checkpoint={trained[1]}", f"output={tmp_path}/{precision}", "trainer.accelerator=cpu"]
        status, _ = command(monkeypatch, capsys, evaluate, *arguments, f"trainer.precision={precision}")
        assert status == 0
        found.append([row["score"] for row in json.loads((tmp_path / precision / "results.json").read_text())])
    assert kinds == {False, True}
    assert found[0] != found[1]
    assert max(found[0]) == pytest.approx(max(found[1]), abs=0.02)


def test_predict_may_be_called_inside(trained):
    model = load(trained[1], device="cpu")
    picture = torch.randint(256, (40, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    (exact,) = model.predict([picture])
    with half():
        (found,) = model.predict([picture])
    assert len(found)
    assert found.scores.dtype == torch.float32
    assert float(found.scores[0]) == pytest.approx(float(exact.scores[0]), abs=0.02)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_what_would_lose_the_places_of_objects_is_refused(precision, trained, tmp_path, monkeypatch, capsys):
    settings = ["experiment=solo_r50", f"data.root={trained[0]}", f"hydra.run.dir={tmp_path}/run", *SMALL]
    status, said = command(monkeypatch, capsys, train, *settings, f"trainer.precision={precision}")
    assert status == 2
    assert f"trainer.precision={precision}: " in said
    assert "use 32-true, or bf16-mixed" in said

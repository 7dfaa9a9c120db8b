"""A GPU gives what the CPU gives: losses, gradients and detections of every kind of head, and whole trainings on it."""

import pytest
import torch

from aggmask.assembly.build import load
from aggmask.decoding.decode import Decoder
from aggmask.supervision import losses as losses_module
from aggmask.supervision.assign import Assigner
from aggmask.supervision.criterion import Criterion
from tests.data.make_coco import make_coco
from tests.golden_case import KINDS, GoldenCase, golden_files
from tests.oracle import dense_losses
from tests.runs import small_run
from tests.small import CANVAS, close, make_head, make_levels_of, make_pyramid, random_objects

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

HEADS = {
    "solo": {},
    "solov2": {"base": "predicted"},
    "agg": {"window": 5},
    "agg25": {"window": 25, "context_channels": 0, "residual": True},
    "half": {"window": 4, "levels": make_levels_of(mask_grids=(4, 3, 3, 2, 2))},
    "star": {"base": "star", "window": 5},
    "deformable": {"window": 5, "deformable": True},
}


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Convolutions in float32, which recent GPUs otherwise round to TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on(device, head, pyramid, objects):
    """The same head, features and objects on a device."""
    features = [f.detach().to(device).requires_grad_() for f in pyramid]
    return head.to(device), features, [found.to(device) for found in objects]


@pytest.mark.parametrize("kind", HEADS)
def test_losses_gradients_and_detections(kind):
    pyramid, objects = make_pyramid(), [random_objects(6, seed=3), random_objects(0)]
    results = []
    for device in ("cpu", "cuda"):
        head, features, found = on(device, make_head(**HEADS[kind]), pyramid, objects)
        outputs = head(features)
        losses = Criterion()(outputs, Assigner()(outputs, found, CANVAS))
        sum(losses.values()).backward()
        detections = Decoder(score_threshold=0.3)(outputs, CANVAS)
        results.append((losses, [f.grad for f in features], dict(head.named_parameters()), detections))
    (losses, grads, weights, detections), gpu = results
    for name, value in losses.items():
        assert gpu[0][name].item() == pytest.approx(value.item(), rel=1e-4)
    for expected, found in zip(grads, gpu[1], strict=True):
        close(found.cpu(), expected, 1e-3)
    for name, weight in weights.items():
        close(gpu[2][name].grad.cpu(), weight.grad, 2e-3, least=1e-2)  # some are 0 but for rounding
    for expected, found in zip(detections, gpu[3], strict=True):
        assert len(found) == len(expected) > 0
        close(found.scores.cpu(), expected.scores, 1e-3)
        same = found.cells.cpu() == expected.cells  # those of nearly the same score may change places
        assert same.float().mean() > 0.8
        assert torch.equal(found.labels.cpu()[same], expected.labels[same])
        close(found.masks.cpu()[same], expected.masks[same], 1e-3)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_masks_that_are_painted_a_few_at_a_time(precision, monkeypatch):
    head, pyramid, objects = on("cuda", make_head(window=5), make_pyramid(), [random_objects(6, seed=3)] * 2)

    def step() -> dict[str, torch.Tensor]:
        with torch.autocast("cuda", precision, enabled=precision != torch.float32):
            outputs = head(pyramid)
            losses = Criterion()(outputs, Assigner()(outputs, objects, CANVAS))
        gradients = torch.autograd.grad(sum(losses.values()), pyramid)
        return losses | {f"gradient {number}": gradient for number, gradient in enumerate(gradients)}

    together = step()
    monkeypatch.setattr(losses_module, "PIXELS_KEPT", 0)
    monkeypatch.setitem(losses_module.PIXELS_AT_ONCE, "cuda", 2 * 16 * 24)
    for name, value in step().items():
        close(value, together[name], 1e-4 if precision == torch.float32 else 0.1, least=1e-3)


@pytest.mark.parametrize("kind", HEADS)
def test_the_dense_formulation_agrees(kind):
    head, pyramid, objects = on("cuda", make_head(**HEADS[kind]), make_pyramid(), [random_objects(6)] * 2)
    outputs = head(pyramid)
    losses = Criterion()(outputs, Assigner()(outputs, objects, CANVAS))
    for name, value in dense_losses(head, pyramid, objects, CANVAS).items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-4)


@pytest.mark.parametrize("path", golden_files(*KINDS), ids=lambda path: path.stem)
def test_golden_losses(path):
    case = GoldenCase(path)
    head, pyramid, objects = on("cuda", case.head, case.pyramid(), case.objects)
    outputs = head(pyramid)
    losses = Criterion()(outputs, case.assigner(outputs, objects, case.canvas))
    for name in ("mask", "category"):
        assert losses[f"loss_{name}"].item() == pytest.approx(float(case.data[f"out.loss_{name}"]), rel=1e-4)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("experiment", ["solo_r50_agg", "solov2_r50_agg"])
def test_a_training_runs_on_it(experiment, precision, tmp_path):
    root = make_coco(tmp_path / "coco")
    settings = ["trainer.accelerator=gpu", f"trainer.precision={precision}", "data.num_workers=1"]
    parts = small_run(experiment, root, tmp_path / "run", *settings)
    assert parts["trainer"].global_step == 2
    assert parts["module"].device.type == "cuda"
    values = parts["trainer"].callback_metrics
    assert all(values[name].isfinite() for name in ("train/loss_mask", "train/loss_category", "val/AP"))
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        there, here = (
            load(tmp_path / "run" / "last.ckpt", device=d).segmenter(pixels.to(d))[0].logits for d in ("cuda", "cpu")
        )
    assert there.device.type == "cuda"
    close(there.cpu(), here, 1e-3)


@pytest.mark.slow
def test_a_compiled_training_runs_on_it(tmp_path):
    root = make_coco(tmp_path / "coco")
    settings = ["trainer.accelerator=gpu", "model.compile=inductor", "model.channels_last=true"]
    parts = small_run("solo_r50_agg", root, tmp_path / "run", *settings, "trainer.precision=bf16-mixed")
    assert parts["trainer"].callback_metrics["train/loss_mask"].isfinite()

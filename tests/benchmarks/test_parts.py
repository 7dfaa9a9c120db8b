"""Every part at a tiny size, in this process: it gives the figures that it should, and compares what is equal."""

import json
import math
from dataclasses import replace

import pytest
import torch

from aggmask.structures import Cells
from benchmarks import convolutions, data, evaluation, gpu, growth, inference, training
from benchmarks.harness import Case, interleaved
from benchmarks.models import Shapes, make_segmenter, pyramid_for
from benchmarks.settings import FULL, MODELS, QUICK
from benchmarks.stopwatch import Stopwatch
from tests.data.make_coco import make_coco

SMALL = (
    "model.backbone.name=test_resnet",
    "model.fpn_channels=32",
    "model.category.width=32",
    "model.category.depth=1",
    "model.bank.width=32",
    "model.bank.depth=1",
)
STAR = (*SMALL, "model.bank.channels=32", "model.bank.feature_width=32", "model.aggregation.weights.width=32")
TINY = replace(
    QUICK,
    models=("AggMask",),
    size=(64, 96),
    objects=3,
    candidates=30,
    repeats=1,
    threads=1,
    pictures=8,
    annotated=40,
    evaluated=4,
    detections=10,
    by_objects=(1, 3),
    by_grid=(0.5, 1.0),
    by_size=((64, 96), (96, 160)),
    by_ranks=(1,),
    by_candidates=(5, 30),
    by_images=(10, 30),
    separate=False,
    overrides=SMALL,
)


def measured(part, **changes):
    said = []
    found = list(part.figures(replace(TINY, **changes), said.append))
    assert all(math.isfinite(v) and v >= 0 for f in found if f.unit != "MB" for v in (*f.values, *f.against))
    return found, said


def test_training_has_every_stage_of_both_forms():
    found, said = measured(training)
    names = [(f.name, f.unit) for f in found]
    whole = [("AggMask, head", "s"), ("AggMask, head", "MB"), ("AggMask, head, with torch's convolutions", "s")]
    assert names[:3] == whole
    of_head = [f"AggMask, head: {stage}" for stage in ("head", "aggregation", "loss", "backward of head")]
    assert [name for name, _ in names[3:7]] == of_head
    whole = [f for f in found if f.name.startswith("AggMask, network: ")]
    assert [f.name.partition(": ")[2] for f in whole] == list(training.STAGES)
    total = next(f for f in found if (f.name, f.unit) == ("AggMask, network", "s"))
    assert sum(f.values[0] for f in whole) == pytest.approx(total.values[0])
    assert {f.baseline for f in found} == {"dense"}
    assert "AggMask, head, dense, 1 of 1" in said


def test_inference_has_every_stage_of_both_forms():
    found, _ = measured(inference)
    whole = [f for f in found if f.name.startswith("AggMask, network: ")]
    assert [f.name.partition(": ")[2] for f in whole] == list(inference.STAGES)
    total = next(f for f in found if (f.name, f.unit) == ("AggMask, network", "s"))
    assert sum(f.against[0] for f in whole) == pytest.approx(total.against[0])


@pytest.mark.parametrize("model", sorted(set(MODELS) - {"AggMask"}))
def test_both_forms_of_every_model_agree(model):
    common = {"experiment": MODELS[model], "size": TINY.size, "overrides": STAR if model == "AggMask*" else SMALL}
    step, picture = {**common, "batch": 2, "objects": 3}, {**common, "candidates": 20}
    for function, arguments in (("training:head_step", step), ("inference:head_decoding", picture)):
        cases = {f: Case(f"benchmarks.{function}", {**arguments, "form": f}) for f in ("lazy", "dense")}
        found = interleaved(cases, 1, 1, warmups=0, separate=False)  # compares losses, and scores
        assert found["lazy"]["seconds"][0] > 0


@pytest.mark.parametrize("count", [1, 30, 2000])
def test_as_many_candidates_as_asked_come_through(count):
    head = make_segmenter(MODELS["AggMask"], SMALL).head.eval()
    shapes = Shapes(head.levels, count, TINY.size)
    asked = sum(int((logits.sigmoid() > 0.1).sum()) for logits in shapes.logits)
    assert asked == count
    with torch.no_grad():
        outputs = shapes.on(head(pyramid_for(head, TINY.size, 1)), Stopwatch())
        masks = outputs[0].field.at(Cells(torch.zeros(1, dtype=torch.long), torch.tensor([0])))
    rows, columns = (masks[0] > 0).nonzero(as_tuple=True)
    assert len(rows) > 4  # an ellipse around the first cell: at the corner, large enough to be kept
    assert rows.min() == columns.min() == 0


def test_data_against_torchvision():
    found, _ = measured(data)
    starts = [f"{name}, 40 images" for name in ("first start", "later starts", "a worker")]
    pictures = "training pictures", "training pictures, every second with copy-paste"
    assert [f.name for f in found] == [*pictures, *starts]
    assert {f.baseline for f in found} == {"torchvision v2", "the same without it"}
    assert all(v > 0 for f in found for v in (*f.values, *f.against))


def test_the_baseline_gives_what_a_model_would_train_on(tmp_path):
    loader = data.plain_loader(make_coco(tmp_path, images=4, empty_every=0), [64], 96, batch_size=2)
    images, targets = next(iter(loader))
    assert images.dtype == torch.float32
    assert images.shape[:2] == (2, 3)
    assert images.shape[2] % 32 == images.shape[3] % 32 == 0
    for target in targets:
        assert target["masks"].shape == (len(target["labels"]), *images.shape[-2:])
        for mask, box in zip(target["masks"], target["boxes"], strict=True):
            columns = mask.any(0).nonzero()[:, 0]
            assert abs(columns[0] - box[0]) < 3  # masks and boxes were resized and flipped alike
            assert abs(columns[-1] + 1 - box[2]) < 3


def test_annotations_are_written_as_asked(tmp_path):
    data.write_annotations(tmp_path / "a" / "b.json", images=5, objects=3, points=6)
    content = json.loads((tmp_path / "a" / "b.json").read_text())
    assert [image["id"] for image in content["images"]] == [1, 2, 3, 4, 5]
    assert [a["image_id"] for a in content["annotations"]] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]
    assert all(len(a["segmentation"][0]) == 12 for a in content["annotations"])


def test_evaluation_gives_the_numbers_of_pycocotools():
    found, _ = measured(evaluation)  # which compares them
    assert [(f.name, f.unit) for f in found] == [("4 images with 10 detections each", unit) for unit in ("s", "MB")]


def test_growth_has_every_curve():
    found, _ = measured(growth)
    points = {(f.curve, f.unit): [] for f in found if f.curve}
    for f in found:
        if f.curve:
            points[f.curve, f.unit].append(f.x)
    assert points["training step of head by objects", "s"] == [1.0, 3.0]
    assert points["training step of head by category grid", "MB"] == [0.5, 1.0]
    assert points["training step by megapixels", "s"] == [0.006144, 0.01536]
    assert points["training step by ranks", "s"] == [1.0]
    assert points["inference of head by candidates", "s"] == [5.0, 30.0]
    assert points["inference by megapixels", "MB"] == [0.006144, 0.01536]
    assert points["index by images", "s"] == points["index, opened again by images", "s"] == [10.0, 30.0]
    first = next(f for f in found if f.curve == "index by images")
    assert first.baseline == "10 images"
    assert first.ratios == [1.0]


def test_memory_for_each_object_is_the_slope_of_the_line():
    found = {f"{n} objects": {"MB": [100 + 3.0 * n, 50 + 1.0 * n]} for n in (1, 2, 10)}
    places = {f"{n} objects": float(n) for n in (1, 2, 10)}
    slope = growth.slope("step", places, found, FULL)
    assert slope.values == pytest.approx([3.0, 1.0])
    assert slope.ratio == pytest.approx(1.0)  # of 2 MB
    assert growth.slope("step", places, found, QUICK).target is None


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ValueError("did not compute the same")])
def test_what_fails_on_a_gpu_is_told_and_left_out(error, monkeypatch):
    def fails(*_):
        raise error

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "against_dense", fails)
    monkeypatch.setattr(gpu, "training_step", lambda *_: None)
    monkeypatch.setattr(gpu, "measure", lambda *_: ([1.0], [2.0]))
    found, said = measured(gpu, tried=())
    assert len(found) == 4
    assert f"AggMask, against dense, failed: {error}" in said


def test_every_stage_is_compared_with_its_convolutions():
    found, _ = measured(convolutions)
    assert len(found) == 2 * len(convolutions.STAGES)
    assert {f.baseline for f in found} == {"its convolutions alone"}


def test_convolutions_are_written_down_with_their_operations():
    conv = torch.nn.Conv2d(2, 4, 3, padding=1, bias=False)
    pixels = torch.randn(1, 2, 8, 8, requires_grad=True)
    with convolutions.Convolutions() as seen:
        conv(pixels).sum().backward()
    forward = 2 * 4 * 2 * 9 * 64
    assert seen.flops == 3 * forward  # backward: gradients of pixels and of weights
    assert [operator for operator, _ in seen.calls] == [convolutions._FORWARD, convolutions._BACKWARD]
    seen.run()
    with convolutions.Convolutions() as seen:
        conv(pixels.detach()).sum().backward()
    assert seen.flops == 2 * forward


def test_what_runs_on_a_gpu_runs():
    for column in ("eager float32", "bf16, channels-last"):
        gpu.training_step(column, "AggMask", TINY, "cpu")()
    if not torch.cuda.is_available():
        assert measured(gpu) == ([], ["no GPU here: nothing to measure"])


@pytest.mark.slow
def test_two_ranks_average_their_gradients():
    common = {"form": "lazy", "experiment": MODELS["AggMask"], "overrides": SMALL}
    arguments = {**common, "size": TINY.size, "batch": 1, "objects": 3}
    found = interleaved({"two": Case("benchmarks.training:network_step", arguments, ranks=2)}, 1, 2)["two"]
    assert found["averaging"][0] > 0
    assert set(training.STAGES) < set(found)

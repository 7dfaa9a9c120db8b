"""The budget, and what a W&B mask says. That pictures arrive: `tests/test_wandb.py` and `tests/test_train.py`."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers import WandbLogger

from aggmask.callbacks.pictures import ValidationPictures, budget_due, flat_mask, mask_labels, padded
from aggmask.data.coco import CocoInstances
from aggmask.data.index import AnnotationIndex
from aggmask.data.storage import open_storage
from aggmask.errors import UserError
from aggmask.geometry.frame import Frame
from aggmask.structures import Category, Detections, ImageBatch, Instances
from benchmarks.memory import forget_peak, give_back, peak_mb, resident_mb


def sent(budget: int, evaluations: int, steps: float) -> list[int]:
    """Which of equally spaced evaluations spend something, from 1."""
    used, at = 0, []
    for number in range(1, evaluations + 1):
        due = budget_due(budget, number * 10, steps, used)
        if due > used:
            used, at = due, [*at, number]
    return at


def test_a_budget_is_spread_over_the_training_and_ends_with_it():
    assert sent(budget=4, evaluations=12, steps=120) == [3, 6, 9, 12]
    assert sent(budget=5, evaluations=12, steps=120) == [3, 5, 8, 10, 12]
    assert sent(budget=1, evaluations=12, steps=120) == [12]
    assert sent(budget=12, evaluations=3, steps=30) == [1, 2, 3]
    assert sent(budget=0, evaluations=3, steps=30) == []
    assert sent(budget=2, evaluations=5, steps=float("inf")) == [1, 2]
    assert sent(budget=2, evaluations=5, steps=20) == [1, 2]  # goes on after what was planned


def test_what_is_used_survives_a_resume(tmp_path):
    keeper = ValidationPictures(str(tmp_path))
    keeper.load_state_dict({"used": 7})
    assert ValidationPictures(str(tmp_path)).state_dict() == {"used": 0}
    assert keeper.state_dict() == {"used": 7}


def test_objects_side_by_side_have_ids_of_their_own_and_labels_that_fit_every_picture():
    categories = [Category(3, "disc"), Category(7, "block")]
    masks = torch.zeros(4, 1, 5, dtype=torch.bool)
    for number, columns in enumerate([[0, 1], [1, 2], [3], [2, 3, 4]]):
        masks[number, 0, columns] = True
    shown = Instances(masks, torch.ones(4), torch.tensor([1, 1, 0, 1]), categories)
    flat, labels = flat_mask(shown), mask_labels(["disc", "block"])
    assert [labels[i] for i in flat[0]] == ["block", "block", "block (2)", "disc", "block (3)"]
    assert labels[0] == "background"
    assert len(set(labels.values())) == len(labels) == 19


@pytest.mark.parametrize("count", [1, 80, 255, 1203])
def test_ids_fit_a_byte_and_have_labels(count):
    labels = mask_labels([f"c{i}" for i in range(count)])
    assert max(labels) <= 255
    categories = [Category(i, f"c{i}") for i in range(count)]
    classes = torch.tensor([0, count - 1] * 150)
    masks = torch.eye(300, dtype=torch.bool)[:, None]
    flat = flat_mask(Instances(masks, torch.ones(300), classes, categories))
    assert flat.min() > 0
    names = [labels[i] for i in flat[0].tolist()]
    if count <= 255:
        assert {name.partition(" ")[0] for name in names[::2]} == {"c0"}
        assert {name.partition(" ")[0] for name in names[1::2]} == {f"c{count - 1}"}
    assert not flat_mask(Instances.empty((2, 3), categories)).any()


def test_padding_is_below_and_at_the_right():
    grown = padded(np.ones((1, 2, 3), np.uint8), (2, 4))
    assert grown.shape == (2, 4, 3)
    assert grown[..., 0].tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert padded(np.ones((1, 2)), (1, 3)).tolist() == [[1, 1, 0]]


def test_a_negative_budget_is_refused(tmp_path):
    with pytest.raises(UserError, match="sends=-1: must not be negative"):
        ValidationPictures(str(tmp_path), sends=-1)


def crowded(folder, side: int, count: int) -> CocoInstances:
    """One picture with many small objects."""
    Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(folder / "a.png")
    corners = np.random.default_rng(0).integers(0, side - 40, (count, 2)).tolist()
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [x, y, 30, 30], "area": 900, "iscrowd": 0,
         "segmentation": [[x, y, x + 30, y, x + 30, y + 30, x, y + 30]]}
        for i, (x, y) in enumerate(corners, 1)
    ]  # fmt: skip
    images = [{"id": 1, "file_name": "a.png", "width": side, "height": side}]
    content = {"images": images, "categories": [{"id": 1, "name": "cell"}], "annotations": annotations}
    (folder / "a.json").write_text(json.dumps(content))
    index = AnnotationIndex.open(folder / "a.json", folder / "cache")
    return CocoInstances(index, open_storage(str(folder)), None, training=False)


def evaluated(folder, side: int, count: int) -> tuple[ValidationPictures, SimpleNamespace, list]:
    """The callback, its trainer, and the arguments that it gets of such a picture with as many detections."""
    data = crowded(folder, side, count)
    masks = torch.zeros(count, side // 16, side // 16)
    for number, (row, column) in enumerate(torch.randint(0, side // 16 - 3, (count, 2)).tolist()):
        masks[number, row : row + 3, column : column + 3] = 1
    zeros = torch.zeros(count, dtype=torch.long)
    outputs = [Detections(torch.full((count,), 0.9), zeros, masks, zeros, zeros)]
    batch = ImageBatch(torch.zeros(1, 3, 8, 8), [Frame.resized((side, side), (side // 4, side // 4))], [1])
    trainer = SimpleNamespace(
        sanity_checking=False, is_global_zero=True, datamodule=SimpleNamespace(val_dataset=data),
        loggers=[WandbLogger(offline=True, save_dir=folder)], global_step=1, estimated_stepping_batches=2,
    )  # fmt: skip
    decoder = SimpleNamespace(mask_threshold=0.5, pixels_at_once=side * side)
    shown = ValidationPictures(str(folder / "pictures"), sends=0)
    shown.on_validation_epoch_start(trainer, None)
    model = SimpleNamespace(decoder=decoder, categories=data.index.categories)
    return shown, trainer, [model, outputs, batch, 0]


def test_many_objects_of_a_large_picture_are_never_held_as_whole_masks(tmp_path):
    shown, trainer, arguments = evaluated(tmp_path, 1600, 150)  # 384 MB as whole masks, once
    give_back()
    forget_peak()
    before = resident_mb()
    shown.on_validation_batch_end(trainer, *arguments)
    assert peak_mb() - before < 200
    assert all(len(np.unique(layer["mask_data"])) == 10 for layer in shown._shown[0].layers.values())
    shown.on_validation_epoch_end(trainer, arguments[0])
    assert (tmp_path / "pictures" / "1.png").is_file()


def test_large_pictures_are_shrunk_before_they_are_kept(tmp_path):
    shown, trainer, arguments = evaluated(tmp_path, 2560, 3)
    shown.on_validation_batch_end(trainer, *arguments)
    (kept,) = shown._shown
    assert kept.pixels.shape == (1280, 1280, 3)
    truth, found = (kept.layers[name]["mask_data"] for name in ("ground_truth", "prediction"))
    assert truth.shape == found.shape == (1280, 1280)
    x, y, *_ = trainer.datamodule.val_dataset.index.annotations(0).boxes[0].astype(int) // 2
    assert truth[y + 2 : y + 13, x + 2 : x + 13].all()
    assert not truth[y - 3, x + 5]
    assert 2 * 1280 < kept.picture.width < 2 * 1400

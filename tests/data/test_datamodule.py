import shutil
import threading
from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from aggmask.data.datamodule import CocoDataModule
from aggmask.data.transforms import apply_frame
from aggmask.errors import UserError
from aggmask.structures import Category, ImageBatch
from tests.data.make_coco import make_coco

SMALL = {"short_side": [32, 48], "long_side": 96, "num_workers": 0, "batch_size": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"), images=12, val_images=5)


class Watcher(pl.LightningModule):
    """Trains a single number, and notes what it is shown."""

    def __init__(self, read_stepping_batches=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.read_stepping_batches = read_stepping_batches
        self.trained, self.validated = [], []

    def training_step(self, batch: ImageBatch, _):
        shown = [(f.scaled, f.flip, len(o)) for f, o in zip(batch.frames, batch.objects, strict=True)]
        self.trained.append((self.current_epoch, batch.image_ids, shown, int(batch.pixels.long().sum())))
        return self.weight * 0

    def validation_step(self, batch: ImageBatch, _):
        self.validated += batch.image_ids

    def configure_optimizers(self):
        if self.read_stepping_batches:
            assert self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), 0.1)


class Crash(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("crash")


def trainer(tmp_path, epochs=3, callbacks=(), **options):
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        **options,
    )


@pytest.fixture(scope="module")
def uninterrupted(root, tmp_path_factory):
    module = Watcher()
    trainer(tmp_path_factory.mktemp("run")).fit(module, CocoDataModule(str(root), **SMALL))
    return module


def test_training_by_hand(root, uninterrupted):
    """9 of 12 images have objects: 6 lying (with squares), 3 upright: 3 + 2 batches."""
    assert len(uninterrupted.trained) == 3 * 5
    for epoch in range(3):
        steps = [step for step in uninterrupted.trained if step[0] == epoch]
        assert {i for _, ids, _, _ in steps for i in ids} == {5, 15, 25, 45, 55, 65, 85, 95, 105}
        for _, ids, _, _ in steps:
            assert len({i % 40 == 15 for i in ids}) == 1  # the second of four sizes is the upright one
    shown = [image for step in uninterrupted.trained for image in step[2]]
    assert {flip for _, flip, _ in shown} == {False, True}
    assert {min(scaled) for scaled, _, _ in shown} == {32, 48}
    assert uninterrupted.validated[:5] == uninterrupted.validated[5:10]
    assert sorted(uninterrupted.validated[:5]) == [1005, 1015, 1025, 1035, 1045]


def test_workers_change_nothing(root, tmp_path, uninterrupted):
    module = Watcher()
    trainer(tmp_path).fit(module, CocoDataModule(str(root), **{**SMALL, "num_workers": 2}))
    assert module.trained == uninterrupted.trained
    assert module.validated == uninterrupted.validated


@pytest.mark.parametrize(
    ("stop", "read", "workers"),
    [(3, False, 0), (3, True, 0), (7, True, 0), (5, False, 0), (10, True, 0), (7, True, 2), (5, True, 2)],
)
def test_resume_is_exact(root, tmp_path, uninterrupted, stop, read, workers):
    """In the middle and at the end of an epoch, whether or not the schedule was read from the trainer."""
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=stop, save_top_k=-1)
    first = Watcher(read)
    with pytest.raises(RuntimeError, match="crash"):
        trainer(tmp_path, callbacks=[keep, Crash(stop + 2)]).fit(first, CocoDataModule(str(root), **SMALL))
    (checkpoint,) = tmp_path.glob(f"step={stop}.ckpt")
    resumed, data = Watcher(read), CocoDataModule(str(root), **{**SMALL, "num_workers": workers})
    trainer(tmp_path).fit(resumed, data, ckpt_path=checkpoint)
    assert first.trained[:stop] + resumed.trained == uninterrupted.trained


@pytest.mark.parametrize("when", ["epoch_end", "validation_end", "mid_epoch_validation"])
def test_resume_from_other_checkpoints(root, tmp_path, uninterrupted, when):
    options = {"val_check_interval": 2} if when == "mid_epoch_validation" else {}
    keep = ModelCheckpoint(
        dirpath=tmp_path, filename="{step}", save_top_k=-1, save_on_train_epoch_end=when == "epoch_end"
    )
    first = Watcher()
    trainer(tmp_path, 2, callbacks=[keep], **options).fit(first, CocoDataModule(str(root), **SMALL))
    stop = 2 if when == "mid_epoch_validation" else 5
    resumed = Watcher()
    checkpoint = tmp_path / f"step={stop}.ckpt"
    trainer(tmp_path, **options).fit(resumed, CocoDataModule(str(root), **SMALL), ckpt_path=checkpoint)
    assert first.trained[:stop] + resumed.trained == uninterrupted.trained


def test_state_passes_weights_only_and_evaluation_leaves_no_trace(root, tmp_path, uninterrupted):
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    trainer(tmp_path, 1, callbacks=[keep]).fit(Watcher(), CocoDataModule(str(root), **SMALL))
    state = torch.load(tmp_path / "step=3.ckpt", weights_only=True)["CocoDataModule"]
    assert state == {"epoch": 0, "batches": 3, "images_per_batch": 2, "batch_size": 2}
    data, module = CocoDataModule(str(root), **SMALL), Watcher()
    trainer(tmp_path).validate(module, data, ckpt_path=tmp_path / "step=3.ckpt", verbose=False)
    module.trained.clear()
    trainer(tmp_path, 1).fit(module, data)
    assert module.trained == uninterrupted.trained[:5]


def test_an_epoch_of_other_batches_is_not_gone_on_with(root):
    data = CocoDataModule(str(root), **{**SMALL, "batch_size": 3})
    begun = {"epoch": 1, "batches": 2}
    for size, devices in ((2, 1), (1, 3)):  # of the latter the product is the same
        state = {"images_per_batch": size * devices, "batch_size": size}
        told = rf"2 batches into an epoch of data\.batch_size={size} on {devices} devices; data\.batch_size=3 on 1 "
        with pytest.raises(UserError, match=told):
            data.load_state_dict(begun | state)
        data.load_state_dict(begun | state | {"batches": 0})
    data.load_state_dict(begun | {"images_per_batch": 3, "batch_size": 3})
    data.load_state_dict(begun | {"images_per_batch": 3})  # of an earlier version
    with pytest.raises(UserError, match=r"go on with data\.batch_size x devices = 2, or from"):
        data.load_state_dict(begun | {"images_per_batch": 2})


def test_categories_can_be_read_first(root):
    data = CocoDataModule(str(root))
    assert data.categories == [Category(3, "disc"), Category(7, "pair"), Category(18, "block")]


def batches(data, loader="train_dataloader", stage="fit"):
    data.prepare_data()
    data.setup(stage)
    return list(getattr(data, loader)())


def images(found):
    return [image_id for batch in found for image_id in batch.image_ids]


def test_each_setting_does_something(root):
    plain = {**SMALL, "flip": 0.0, "short_side": 32, "group_by_orientation": False, "skip_empty": False}
    base = batches(CocoDataModule(str(root), **plain))
    assert len(base) == 6
    assert {b.frames[0].flip for b in base} == {False}

    def changed(**options):
        return batches(CocoDataModule(str(root), **{**plain, **options}))

    assert all(frame.flip for b in changed(flip=1.0) for frame in b.frames)
    assert len(changed(skip_empty=True)) == 5
    assert len(changed(batch_size=5)) == 3
    assert max(b.pixels.shape[-1] for b in changed(long_side=64)) == 64
    assert images(changed(seed=1)) != images(base)
    for b in changed(group_by_orientation=True):
        assert len({frame.original[0] > frame.original[1] for frame in b.frames}) == 1
    assert any(len({frame.original[0] > frame.original[1] for frame in b.frames}) == 2 for b in base)
    square = changed(large_scale_jitter={"min_scale": 0.5, "max_scale": 2.0, "size": 64})
    assert {tuple(b.pixels.shape[-2:]) for b in square} == {(64, 64)}
    colored = changed(color_jitter={"brightness": 0.5})
    assert images(colored) == images(base)
    assert not torch.equal(colored[0].pixels, base[0].pixels)
    grey = changed(channels=1)
    assert {b.pixels.shape[1] for b in grey} == {1}
    luma = (base[0].pixels.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    assert float((grey[0].pixels - luma).abs().max()) < 3  # rounded before and after resizing
    assert {tuple(b.pixels[:, 3].unique().tolist()) for b in changed(channels=4)} <= {(255,), (0, 255)}
    with pytest.raises(UserError, match=r"model.backbone.in_chans \(data.channels\) = 2: pictures have 1"):
        changed(channels=2)
    pasted = changed(copy_paste={"probability": 1.0, "max_objects": 1})
    assert images(pasted) == images(base)
    assert all(
        len(objects) == 1
        for b, was in zip(pasted, base, strict=True)
        for objects, before in zip(b.objects, was.objects, strict=True)
        if not len(before)
    )
    per_batch = changed(short_side=[16, 32], long_side=500, scale_per="batch")
    assert all(len({min(frame.scaled) for frame in b.frames}) == 1 for b in per_batch)
    assert {min(b.frames[0].scaled) for b in per_batch} == {16, 32}


def test_evaluation_uses_the_largest_side_and_pads_nothing_more_than_alone(root):
    def canvases(batch_size):
        found = batches(CocoDataModule(str(root), **{**SMALL, "batch_size": batch_size}), "val_dataloader", "validate")
        assert {min(frame.scaled) for b in found for frame in b.frames} == {48, 38}  # 38: 36 x 90, long side 96
        assert not any(b.objects for b in found)
        return {image_id: frame.padded for b in found for image_id, frame in zip(b.image_ids, b.frames, strict=True)}

    assert canvases(1) == canvases(4)


def test_batches_without_objects_and_data_of_one_image(tmp_path, caplog):
    root = make_coco(tmp_path / "one", images=1)
    module = Watcher()
    trainer(tmp_path, 2).fit(module, CocoDataModule(str(root), **SMALL))
    assert [step[1] for step in module.trained] == [[5, 5], [5, 5]]
    assert module.validated == [1005, 1005]
    empty = make_coco(tmp_path / "empty", images=2, empty_every=1)
    module = Watcher()
    trainer(tmp_path, 1).fit(module, CocoDataModule(str(empty), skip_empty=False, **SMALL))
    assert [image[2] for step in module.trained for image in step[2]] == [0, 0, 0, 0]
    assert "has no object with a mask to learn from; crowds are none (CVAT" in caplog.text
    data = CocoDataModule(str(empty), skip_empty=True, **SMALL)
    with pytest.raises(UserError, match="skip_empty=false"):
        batches(data)


def test_a_zip_stands_in_for_a_folder(root, tmp_path):
    shutil.copytree(root / "annotations", tmp_path / "annotations")
    for split in ("train2017", "val2017"):
        shutil.make_archive(str(tmp_path / split), "zip", root / split)
    found, expected = (batches(CocoDataModule(str(place), **SMALL)) for place in (tmp_path, root))
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(found, expected, strict=True))


def test_places_may_be_named_one_by_one(root, tmp_path):
    shutil.copy(root / "annotations" / "instances_val2017.json", tmp_path / "mine.json")
    mine = {"annotations": str(tmp_path / "mine.json"), "images": str(root / "val2017")}
    assert len(batches(CocoDataModule(train=mine, val=mine, **SMALL))) == 3


def test_missing_data_says_what_was_looked_for(tmp_path, root):
    with pytest.raises(UserError) as error:
        CocoDataModule(str(tmp_path), **SMALL).setup("fit")
    for part in ("instances_train2017.json (missing)", "val2017 (missing)", "data.train.annotations=", "data.root="):
        assert part in str(error.value)
    assert "experiment=demo" in str(error.value)
    with pytest.raises(UserError, match="not given"):
        CocoDataModule(**SMALL).setup("fit")
    shutil.copytree(root / "annotations", tmp_path / "annotations")
    with pytest.raises(UserError, match=r"instances_train2017.json \(found\)"):
        CocoDataModule(str(tmp_path), **SMALL).setup("fit")


def test_evaluation_needs_no_training_data(root, tmp_path):
    shutil.copytree(root / "val2017", tmp_path / "val2017")
    (tmp_path / "annotations").mkdir()
    shutil.copy(root / "annotations" / "instances_val2017.json", tmp_path / "annotations")
    data = CocoDataModule(str(tmp_path), **SMALL)
    assert len(images(batches(data, "val_dataloader", "validate"))) == 5
    assert [c.id for c in data.categories] == [3, 7, 18]


def test_prepare_is_called_by_one_at_a_time(tmp_path):
    inside, calls = [], []

    def prepare(place):
        assert not inside
        inside.append(1)
        if not place.exists():
            make_coco(place, images=2)
            calls.append(place)
        inside.pop()

    modules = [CocoDataModule(str(tmp_path / "made"), prepare=prepare, **SMALL) for _ in range(3)]
    threads = [threading.Thread(target=module.prepare_data) for module in modules]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert calls == [tmp_path / "made"]
    fresh = CocoDataModule(str(tmp_path / "other"), prepare=partial(make_coco, images=3), **SMALL)
    assert len(fresh.categories) == 3  # before fit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_per": "epoch"}, "scale_per"),
        ({"scale_per": "batch", "large_scale_jitter": {"min_scale": 0.1, "max_scale": 2, "size": 64}}, "scale_per"),
        ({"large_scale_jitter": {"min": 0.1}}, "large_scale_jitter"),
        ({"color_jitter": {"hues": 0.1}}, "color_jitter"),
        ({"copy_paste": 0.5}, "copy_paste=0.5: give keys with values"),
        ({"copy_paste": {"max": 3}}, "copy_paste"),
        ({"train": {"annotation": "x"}}, "data.train.annotation: unknown"),
        ({"root": None, "prepare": make_coco}, "data.root"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        CocoDataModule(**{"root": str(tmp_path), **options})


def test_exif_tags_are_read_as_told_in_training_and_evaluation(tmp_path):
    root = make_coco(tmp_path, images=2)
    tag = Image.Exif()
    tag[0x0112] = 3  # half a turn, of which no size tells
    stored = {}
    for file in tmp_path.glob("*2017/*.jpg"):
        Image.open(file).save(file, "PNG", exif=tag)
        stored[file.parent.name, file.name] = np.asarray(Image.open(file))
    for told, turn in (("auto", -1), ("apply", -1), ("ignore", 1)):
        data = CocoDataModule(str(root), exif=told, **SMALL)
        data.setup()
        for half, folder in ((data.train_dataset, "train2017"), (data.val_dataset, "val2017")):
            expected = np.ascontiguousarray(stored[folder, half.index.file_name(0)][::turn, ::turn])
            assert np.array_equal(half.original(int(half.index.image_ids[0]))[0], expected)
            assert torch.equal(half[0].pixels[0], apply_frame(expected, half[0].frames[0]))
    with pytest.raises(UserError, match=r"data\.exif='no': use \"auto\", \"apply\" or \"ignore\""):
        CocoDataModule(str(root), exif="no", **SMALL)


def test_deep_pictures_have_the_scale_that_is_told_in_training_and_evaluation(tmp_path):
    root = make_coco(tmp_path, images=2)
    for file in tmp_path.glob("*2017/*.jpg"):
        twelve = np.asarray(Image.open(file).convert("L")).astype(np.uint16) * 16
        Image.fromarray(twelve).save(file, "PNG")
    for value_range, most in ((None, 16), (4095, 255)):
        data = CocoDataModule(str(root), value_range=value_range, **SMALL)
        data.setup()
        for half in (data.train_dataset, data.val_dataset):
            pixels = half.original(int(half.index.image_ids[0]))[0]
            assert most * 0.6 < pixels.max() <= most
            assert most * 0.6 < half[0].pixels.max() <= most
    with pytest.raises(UserError, match=r"data\.value_range="):
        CocoDataModule(str(root), value_range=[3, 1], **SMALL)

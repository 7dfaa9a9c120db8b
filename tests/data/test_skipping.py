import json
import logging
import shutil

import pytest
import torch

from aggmask.data.coco import collate
from aggmask.data.copy_paste import CopyPaste
from aggmask.data.datamodule import CocoDataModule
from aggmask.data.index import AnnotationIndex
from aggmask.data.sampler import Sample
from aggmask.data.skipping import SkippingInstances
from aggmask.data.storage import open_storage
from aggmask.data.transforms import Resize
from aggmask.errors import UserError
from tests.data.make_coco import make_coco
from tests.data.test_coco import equal
from tests.data.test_datamodule import SMALL, Watcher, trainer


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Of 12 + 5 images: number 1 is text, 2 is missing, 9 is cut short; of the others 0 is empty."""
    root = make_coco(tmp_path_factory.mktemp("coco"), images=12, val_images=5, empty_every=0)
    images = root / "train2017"
    (images / "00001.jpg").write_text("not a picture")
    (images / "00002.jpg").unlink()
    (images / "00009.jpg").write_bytes((images / "00009.jpg").read_bytes()[:-300])
    (root / "val2017" / "00000.jpg").write_bytes(b"")
    return root


def dataset(root, split="train", training=True):
    index = AnnotationIndex.open(root / "annotations" / f"instances_{split}2017.json")
    return SkippingInstances(index, open_storage(root / f"{split}2017"), Resize((48,), 96, 0.5), training)


def test_the_next_good_image_stands_in_while_training(root):
    data = dataset(root)
    batches = data.__getitems__([Sample(k, epoch=3) for k in (0, 1, 2, 9)])
    assert [batch.image_ids for batch in batches] == [[5], [35], [35], [105]]
    assert [len(batch.skipped) for batch in batches] == [0, 2, 1, 1]
    assert "00001.jpg" in batches[1].skipped[0]
    assert "00002.jpg" in batches[1].skipped[1]
    assert equal(batches[1], data[Sample(3, epoch=3)])
    joined = collate(batches)
    assert joined.image_ids == [5, 35, 35, 105]
    assert joined.skipped == [text for batch in batches for text in batch.skipped]


def test_a_bad_image_is_left_out_of_evaluation(root):
    data = dataset(root, "val", training=False)
    batch = collate(data.__getitems__([0, 1]))
    assert batch.image_ids == [1015]
    assert len(batch.frames) == len(batch.pixels) == len(batch) == 1
    assert "00000.jpg" in batch.skipped[0]
    nothing = collate(data.__getitems__([Sample(0)]))
    assert len(nothing) == len(nothing.pixels) == 0
    assert len(nothing.skipped) == 1
    assert len(nothing.to("cpu").skipped) == 1


def test_an_image_that_gets_objects_of_a_bad_one_is_replaced_too(root):
    index = AnnotationIndex.open(root / "annotations" / "instances_train2017.json")
    storage = open_storage(root / "train2017")
    data = SkippingInstances(index, storage, Resize((48,), 96), training=True, copy_paste=CopyPaste(probability=1.0))
    batches = [data[Sample(k, epoch)] for k in (0, 3, 4, 5) for epoch in range(6)]
    assert all(len(batch) == 1 for batch in batches)
    assert {text.partition(".jpg")[0][-5:] for batch in batches for text in batch.skipped} >= {"00001", "00009"}


def test_a_data_set_without_any_good_image_is_an_error(root, tmp_path):
    shutil.copytree(root / "annotations", tmp_path / "annotations")
    (tmp_path / "train2017").mkdir()
    with pytest.raises(UserError, match=r"12 images in a row .*00004\.jpg"):
        dataset(tmp_path)[4]


@pytest.mark.parametrize("workers", [0, 2])
def test_all_that_was_skipped_is_listed_at_the_end(root, tmp_path, caplog, workers):
    module = Watcher()
    settings = {**SMALL, "num_workers": workers, "on_bad_image": "skip", "group_by_orientation": False}
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path, 2).fit(module, CocoDataModule(str(root), **settings))
    assert len(module.trained) == 2 * 6
    assert sorted(module.validated[:4]) == [1015, 1025, 1035, 1045]
    (summary,) = [r.getMessage() for r in caplog.records if "images skipped: " in r.getMessage()]
    assert "images skipped: 4" in summary
    bad = {"'00002.jpg'": 4, "image 00001.jpg": 2, "image 00009.jpg": 2, "image 00000.jpg": 2}
    for name, count in bad.items():  # the second stands in for the first, and is bad itself
        assert next(line for line in summary.splitlines() if name in line).startswith(f"  {count} x ")
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("skipped: ")]
    assert len(told) == len(set(told)) == 4  # each once while it runs


def test_without_it_the_first_bad_image_ends_the_run(root, tmp_path):
    with pytest.raises(UserError, match=r"0000[129]\.jpg"):
        trainer(tmp_path, 1).fit(Watcher(), CocoDataModule(str(root), **SMALL))
    with pytest.raises(UserError, match="on_bad_image"):
        CocoDataModule(str(root), on_bad_image="ignore")


def test_names_that_lead_out_are_read_where_allowed(root, tmp_path):
    shutil.copytree(root, tmp_path / "coco")
    file = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["images"] = content["images"][1:2]
    content["images"][0]["file_name"] = "../train2017/00005.jpg"
    content["annotations"] = []
    file.write_text(json.dumps(content))
    data = CocoDataModule(str(tmp_path / "coco"), **SMALL)
    with pytest.raises(UserError, match="allow_outside=true"):
        next(iter(data.val_dataloader()))
    allowed = CocoDataModule(str(tmp_path / "coco"), allow_outside=True, **SMALL)
    assert torch.is_tensor(next(iter(allowed.val_dataloader())).pixels)

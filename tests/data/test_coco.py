import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader

from aggmask.data.coco import CocoInstances, collate
from aggmask.data.index import AnnotationIndex
from aggmask.data.sampler import Sample, TrainingBatches
from aggmask.data.storage import open_storage
from aggmask.data.transforms import ColorJitter, LargeScaleJitter, Resize
from aggmask.errors import UserError
from tests.data.make_coco import make_coco


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"))


def dataset(root, choose_frame=None, training=True, **options):
    index = AnnotationIndex.open(root / "annotations" / "instances_train2017.json")
    storage = open_storage(root / "train2017")
    return CocoInstances(index, storage, choose_frame or Resize((64, 96), 160, 0.5), training, **options)


def equal(a, b):
    same = torch.equal(a.pixels, b.pixels) and a.frames == b.frames and a.image_ids == b.image_ids
    for one, other in zip(a.objects, b.objects, strict=True):
        same &= all(torch.equal(getattr(one, k), getattr(other, k)) for k in ("labels", "boxes", "centers", "areas"))
        same &= torch.equal(one.masks[4], other.masks[4])
    return same


def test_objects_are_the_annotations_without_crowds(root):
    data = dataset(root, Resize((80,), 1000))
    content = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    ids = [category["id"] for category in content["categories"]]
    for i in range(len(data)):
        image = data[i]
        record = next(r for r in content["images"] if r["id"] == image.image_ids[0])
        expected = [a for a in content["annotations"] if a["image_id"] == record["id"] and not a["iscrowd"]]
        (objects,) = image.objects
        assert objects.labels.tolist() == [ids.index(a["category_id"]) for a in expected]
        scale = 80 / min(record["height"], record["width"])
        boxes = np.array([a["bbox"] for a in expected]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(objects.boxes.numpy(), boxes * scale, rtol=0.01)
        np.testing.assert_allclose(objects.areas.numpy(), [a["area"] * scale**2 for a in expected], rtol=0.06)
        np.testing.assert_allclose(objects.masks[4].sum((1, 2)) * 16, objects.areas, rtol=0.25)


def test_masks_lie_where_the_original_ones_do(root):
    data = dataset(root, Resize((128,), 1000, flip=1.0))
    image = data[0]
    annotations = data.index.annotations(0)
    size = image.frames[0].original
    k = int(np.flatnonzero(annotations.labels == 0)[0])
    expected = coco_mask.decode(coco_mask.frPyObjects([annotations.segmentations[k][0].ravel().tolist()], *size)[0])
    masks = torch.nn.functional.interpolate(image.objects[0].masks[4][:1, None].float(), image.frames[0].content)[:, 0]
    (back,) = next(image.frames[0].masks_to_original(masks)).numpy()
    assert np.logical_and(back, expected).sum() / np.logical_or(back, expected).sum() > 0.8


def test_pixels_are_the_picture(root):
    image = dataset(root, Resize((48,), 1000))[0]  # 48 x 64, as stored
    assert image.frames[0].scaled == image.frames[0].original
    from aggmask.data.decode import decode_image

    stored = decode_image((root / "train2017" / "00000.jpg").read_bytes(), "00000.jpg")
    assert np.array_equal(image.pixels[0].permute(1, 2, 0).numpy(), stored)


def test_grey_and_cmyk_pictures_and_images_without_annotations(root):
    data = dataset(root)
    assert len(data) == 8
    grey, cmyk = data[1], data[3]
    assert torch.equal(grey.pixels[:, 0], grey.pixels[:, 2])
    assert cmyk.pixels.shape[1] == 3
    (objects,) = cmyk.objects
    assert len(objects) == 0
    assert objects.masks[4].shape == (0, *(-(-side // 4) for side in cmyk.frames[0].padded))
    assert objects.boxes.shape == (0, 4)


def test_skip_empty(root):
    data = dataset(root, skip_empty=True)
    assert data.positions.tolist() == [0, 1, 2, 4, 5, 6]
    assert data[3].image_ids == [45]
    assert data.sizes.tolist() == data.index.sizes[data.positions].tolist()
    # randomness belongs to the image, not to its place
    assert equal(data[3], dataset(root)[4])


def test_randomness_is_that_of_seed_epoch_and_image(root):
    data = dataset(root, color_jitter=ColorJitter(brightness=0.5))
    one = data[Sample(2, epoch=1)]
    assert equal(one, data.__getitems__([Sample(0, 1), Sample(2, 1)])[1])
    seen = [data[Sample(2, epoch)].frames[0] for epoch in range(12)]
    assert {frame.flip for frame in seen} == {False, True}
    assert {frame.scaled[0] for frame in seen} == {64, 96}
    assert any(
        not equal(one, dataset(root, seed=seed, color_jitter=data.color_jitter)[Sample(2, 1)]) for seed in (1, 2)
    )


def test_color_jitter_leaves_frames_alone(root):
    plain, colored = dataset(root), dataset(root, color_jitter=ColorJitter(0.5, 0.5, 0.5, 0.1))
    for i in range(4):
        assert plain[i].frames == colored[i].frames
    assert not torch.equal(plain[0].pixels, colored[0].pixels)


def test_a_crop_drops_what_it_does_not_show(root):
    data = dataset(root, LargeScaleJitter(2.0, 2.0, 64, 0.5))
    whole = dataset(root, Resize((64,), 160))
    counts = []
    for epoch in range(10):
        (objects,) = data[Sample(0, epoch)].objects
        counts.append(len(objects))
        assert objects.masks[4].shape[1:] == (16, 16)
        assert (objects.masks[4].flatten(1).sum(1) > 0).all()
        assert (objects.areas > 0).all()
        assert objects.boxes.min() >= 0
        assert objects.boxes.max() <= 64
    assert min(counts) < max(counts) <= len(whole[0].objects[0])


def test_evaluation_has_no_objects(root):
    images = dataset(root, training=False).__getitems__([Sample(0), Sample(1)])
    assert collate(images).objects == []


def test_collate(root):
    images = dataset(root, Resize((64,), 160)).__getitems__([Sample(0), Sample(1), Sample(3)])
    batch = collate(images)
    sizes = [image.pixels.shape[-2:] for image in images]
    assert batch.pixels.shape == (3, 3, 96, 160)  # 64 x 85, 85 x 64, 64 x 160
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    assert [frame.padded for frame in batch.frames] == [(96, 160)] * 3
    assert [frame.content for frame in batch.frames] == [tuple(size) for size in sizes]
    assert batch.image_ids == [5, 15, 35]
    for k, image in enumerate(images):
        rows, columns = sizes[k]
        assert torch.equal(batch.pixels[k, :, :rows, :columns], image.pixels[0])
        assert not batch.pixels[k, :, rows:].any()
        assert not batch.pixels[k, :, :, columns:].any()
        before, after = image.objects[0].masks[4], batch.objects[k].masks[4]
        assert after.shape == (len(before), 24, 40)
        assert torch.equal(after[:, : before.shape[1], : before.shape[2]], before)
        assert after.sum() == before.sum()
        assert batch.objects[k].masks_at(8).shape == (len(before), 12, 20)


@pytest.mark.parametrize("workers", [2])
def test_workers_change_nothing(root, workers):
    data = dataset(root, color_jitter=ColorJitter(0.4, 0.4))
    sampler = TrainingBatches(np.arange(8) % 2, 2, short_sides=(64, 96))
    alone = list(DataLoader(data, batch_sampler=sampler, collate_fn=collate))
    shared = list(DataLoader(data, batch_sampler=sampler, collate_fn=collate, num_workers=workers))
    assert all(equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_panorama(tmp_path):
    root = make_coco(tmp_path, images=1, sizes=((20, 160),), empty_every=0)
    batch = collate(dataset(root, Resize((64,), 128)).__getitems__([Sample(0)]))
    assert batch.frames[0].content == (16, 128)
    assert batch.pixels.shape == (1, 3, 32, 128)
    assert len(batch.objects[0]) == 3


def test_a_size_that_does_not_fit_the_annotations(tmp_path):
    root = make_coco(tmp_path, images=2)
    (root / "train2017" / "00001.jpg").write_bytes((root / "train2017" / "00000.jpg").read_bytes())
    with pytest.raises(UserError, match=r"00001\.jpg"):
        dataset(root)[1]

"""Squares laid over squares: what is left of those below can be counted."""

import json

import numpy as np
import pytest
import simplejpeg
import torch
from torch.utils.data import DataLoader

from aggmask.data.coco import CocoInstances, collate
from aggmask.data.copy_paste import CopyPaste, Framed, paste, pasting_frame
from aggmask.data.index import AnnotationIndex
from aggmask.data.raster import rasterize
from aggmask.data.sampler import Sample, TrainingBatches
from aggmask.data.storage import open_storage
from aggmask.data.transforms import LargeScaleJitter, Resize
from aggmask.errors import UserError
from aggmask.geometry.frame import Frame
from aggmask.structures import Objects
from tests.data.make_coco import make_coco, runs_of

SIZE = (32, 48)


def square(x, y, side):
    return [np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], float)]


def runs(segmentation):
    from pycocotools import mask

    return mask.merge(mask.frPyObjects([part.ravel().tolist() for part in segmentation], *SIZE))


def framed(segmentations, color, frame=None, labels=None):
    frame = frame or Frame.resized(SIZE, SIZE)
    masks, centers, areas = rasterize(segmentations, frame, 4)
    corners = [s[0] for s in segmentations]
    boxes = frame.boxes_to_network(np.array([[*c.min(0), *c.max(0)] for c in corners]).reshape(-1, 4))
    objects = Objects(
        torch.tensor(labels or list(range(len(corners)))),
        torch.from_numpy(boxes).float(),
        torch.from_numpy(centers),
        torch.from_numpy(areas).float(),
        {4: torch.from_numpy(masks)},
    )
    return Framed(torch.full((3, *frame.content), color, dtype=torch.uint8), frame, objects, segmentations)


@pytest.mark.parametrize("coded", [False, True], ids=["polygons", "run-length codes"])
def test_squares_by_hand(coded):
    """Below: 16 x 16 at (0, 0), 8 x 8 at (12, 12), 8 x 8 far away. Above: 12 x 20 at (8, 8)."""
    below = framed([square(0, 0, 16), square(12, 12, 8), square(36, 4, 8)], 10)
    above = framed([[np.array([[8.0, 8], [20, 8], [20, 28], [8, 28]])]], 200, labels=[7])
    if coded:
        for image in (below, above):
            image.segmentations[:] = [runs(s) for s in image.segmentations]
    far = below.objects[2:]
    result = paste(below, above, stride=4)
    pixels = torch.full(SIZE, 10)
    pixels[8:28, 8:20] = 200
    assert torch.equal(result.pixels, pixels.expand(3, -1, -1).to(torch.uint8))
    found = result.objects
    assert found.labels.tolist() == [0, 2, 7]  # the second is hidden wholly
    assert len(result.segmentations) == 3
    assert found.areas.tolist() == [256 - 64, 64, 240]
    # An L: the whole minus the hidden quarter.
    middle = (256 * 7.5 - 64 * 11.5) / 192
    assert found.centers.flatten().tolist() == pytest.approx([middle, middle, 39.5, 7.5, 13.5, 17.5])
    assert found.boxes.tolist() == [[0, 0, 16, 16], [36, 4, 44, 12], [8, 8, 20, 28]]
    ell = torch.zeros(8, 12, dtype=torch.uint8)
    ell[:4, :4] = 1
    ell[2:4, 2:4] = 0
    assert torch.equal(found.masks[4][0], ell)
    assert all(torch.equal(a, b) for a, b in zip(found.masks[4][1:2], far.masks[4], strict=True))
    assert not (found.masks[4][:2] & found.masks[4][2]).any()
    assert found.masks[4][2].sum() == 15


def test_what_is_cut_off_shortens_the_box():
    result = paste(framed([square(4, 4, 8)], 0), framed([square(8, 0, 16)], 255), stride=4)
    assert result.objects.boxes.tolist() == [[4, 4, 8, 12], [8, 0, 24, 16]]
    assert result.objects.areas.tolist() == [32, 256]
    assert result.objects.centers[0].tolist() == [5.5, 7.5]


def test_pasted_twice_is_covered_twice():
    once = paste(framed([square(0, 0, 16)], 0), framed([square(8, 0, 8)], 100), stride=4)
    twice = paste(once, framed([square(0, 8, 8)], 200), stride=4)
    assert twice.objects.areas.tolist() == [256 - 64 - 64, 64, 64]
    gone = paste(twice, framed([square(0, 0, 16)], 250), stride=4)
    assert gone.objects.areas.tolist() == [256]


def test_only_the_content_of_the_first_image_is_pasted_into():
    """The first image fills 16 x 24 of its canvas; of an object that reaches beyond only that part is left."""
    target = Frame((32, 48), (16, 24), (16, 24), (64, 64))
    source = pasting_frame(Frame((32, 48), (64, 96), (64, 64), (64, 64), offset=(0, 16), flip=True), target)
    assert source.content == (16, 24)
    assert source.padded == (64, 64)
    above = framed([square(16, 4, 16), square(0, 0, 4)], 200, source)
    assert above.objects.areas.tolist() == [64, 0]
    result = paste(framed([], 10, target), above[np.flatnonzero(above.objects.areas > 0)], stride=4)
    assert result.pixels.shape == (3, 16, 24)
    assert int((result.pixels[0] == 200).sum()) == int(result.objects.areas.sum()) == 64
    assert result.objects.masks[4].shape == (1, 16, 16)
    assert result.objects.masks[4].sum() * 16 == 64
    # Where the pixels are is where the mask is.
    assert torch.equal(result.pixels[0, 2::4, 2::4] == 200, result.objects.masks[4][0, :4, :6].bool())


def test_an_object_smaller_than_a_pixel_is_pasted_as_one():
    above = framed([[np.array([[5.1, 5.1], [5.4, 5.1], [5.4, 5.4], [5.1, 5.4]])]], 200)
    result = paste(framed([square(4, 4, 4)], 0), above, stride=4)
    assert int((result.pixels[0] == 200).sum()) == 1
    assert result.objects.areas.tolist() == pytest.approx([15, 0.09])


def test_how_many_are_chosen():
    rng = np.random.default_rng(0)
    counts = [len(CopyPaste(1.0, 3).choose(5, rng)) for _ in range(60)]
    assert set(counts) == {1, 2, 3}
    assert {len(CopyPaste(1.0).choose(4, rng)) for _ in range(60)} == {1, 2, 3, 4}
    assert CopyPaste().choose(0, rng).tolist() == []
    chosen = CopyPaste(1.0, 3).choose(5, rng)
    assert (np.diff(chosen) > 0).all()


@pytest.mark.parametrize("values", [{"probability": 1.5}, {"max_objects": 0}])
def test_senseless_values_are_refused(values):
    with pytest.raises(UserError, match=r"data\.copy_paste"):
        CopyPaste(**values)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"))


def dataset(root, copy_paste=None, frame=None, **options):
    index = AnnotationIndex.open(root / "annotations" / "instances_train2017.json")
    frame = frame or Resize((64, 96), 160, 0.5)
    return CocoInstances(index, open_storage(root / "train2017"), frame, True, copy_paste=copy_paste, **options)


def test_images_get_objects_of_others_and_keep_their_frames(root):
    plain, pasted = dataset(root), dataset(root, CopyPaste(0.5))
    more = 0
    for i in range(len(plain)):
        for epoch in range(4):
            one, other = plain[Sample(i, epoch)], pasted[Sample(i, epoch)]
            assert one.frames == other.frames
            changed = not torch.equal(one.pixels, other.pixels)
            assert pasted._source(Sample(i, epoch)) not in ([i] if changed else [i, 0, 1, 2, 4, 5, 6])
            more += changed
            (objects,) = other.objects
            assert (objects.masks[4].flatten(1).sum(1) > 0).all()
            assert (objects.areas > 0).all()
    assert 8 < more < 24  # of 32


@pytest.mark.parametrize("frame", [None, LargeScaleJitter(0.3, 2.0, 64, 0.5)], ids=["resized", "jittered"])
def test_workers_and_batches_change_nothing(root, frame):
    data = dataset(root, CopyPaste(0.8, 2), frame)
    sampler = TrainingBatches(np.zeros(8), 2, seed=3)
    alone = list(DataLoader(data, batch_sampler=sampler, collate_fn=collate))
    shared = list(DataLoader(data, batch_sampler=sampler, collate_fn=collate, num_workers=2))
    for a, b in zip(alone, shared, strict=True):
        assert torch.equal(a.pixels, b.pixels)
        for one, other in zip(a.objects, b.objects, strict=True):
            assert torch.equal(one.masks[4], other.masks[4])
            assert torch.equal(one.boxes, other.boxes)


def test_crowds_are_never_pasted(tmp_path):
    """Image 0 is white all over: a block, and a crowd beside it. The other images are black and empty."""
    root = make_coco(tmp_path, images=3, sizes=[(64, 64)], empty_every=0)
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    block, crowd = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    block[8:24, 8:24] = crowd[32:64, 32:64] = True
    shared = {"image_id": 5, "category_id": 3, "bbox": [0, 0, 64, 64], "area": 9}
    content["annotations"] = [
        {"id": 1, "iscrowd": 0, "segmentation": runs_of(block), **shared},
        {"id": 2, "iscrowd": 1, "segmentation": runs_of(crowd), **shared},
    ]
    file.write_text(json.dumps(content))
    for i in range(3):
        picture = np.full((64, 64, 3), 255 if i == 0 else 0, np.uint8)
        (root / "train2017" / f"{i:05d}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, quality=100))
    image = dataset(root, CopyPaste(1.0), Resize((64,), 64))[1]
    white = np.zeros((64, 64), bool)
    white[8:24, 8:24] = True
    assert np.array_equal(image.pixels[0, 0].numpy() > 128, white)
    assert image.objects[0].areas.tolist() == [256]
    # Without any object in the data set there is nothing to paste.
    content["annotations"] = content["annotations"][1:]
    file.write_text(json.dumps(content))
    assert not len(dataset(root, CopyPaste(1.0), Resize((64,), 64))[1].objects[0])

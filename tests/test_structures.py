"""The nouns: indexing takes every field along, empty is a size like any other."""

import pytest
import torch

from aggmask.geometry.frame import Frame
from aggmask.structures import Category, Cells, Detections, ImageBatch, Instances, joined
from tests.small import disc, make_objects, random_objects


def test_cells_are_indexed_together():
    cells = Cells(torch.tensor([0, 0, 1]), torch.tensor([5, 6, 7]))
    assert len(cells) == 3
    assert (cells[1:].image.tolist(), cells[1:].index.tolist()) == ([0, 1], [6, 7])


@pytest.mark.parametrize("keep", [torch.tensor([2, 0]), torch.tensor([True, False, True]), slice(1, 3)])
def test_objects_are_indexed_with_their_masks(keep):
    objects = random_objects(3)
    kept = objects[keep]
    assert torch.equal(kept.labels, objects.labels[keep])
    assert torch.equal(kept.centers, objects.centers[keep])
    assert torch.equal(kept.masks[4], objects.masks[4][keep])
    assert len(kept) == 2


def test_objects_of_several_images_are_joined_in_their_order():
    images = [random_objects(n, seed=n) for n in (2, 0, 3)]
    images[0].masks[8] = images[0].masks_at(8)  # the others have no such masks
    together, image = joined(images)
    assert image.tolist() == [0, 0, 2, 2, 2]
    assert together.masks.keys() == {4}
    for number in (0, 2):
        part = together[image == number]
        assert torch.equal(part.centers, images[number].centers)
        assert torch.equal(part.masks[4], images[number].masks[4])


def test_joined_masks_need_a_stride_in_common():
    images = [random_objects(2, seed=n) for n in (0, 1)]
    images[0].masks = {8: images[0].masks_at(8)}
    with pytest.raises(ValueError, match=r"\[\{8\}, \{4\}\]"):
        joined(images)


def test_masks_at_coarser_strides_are_averaged_and_rounded_half_up():
    objects = make_objects([disc((20, 20), 9)], [0])
    objects.masks[4] = torch.zeros(1, 4, 6, dtype=torch.uint8)
    objects.masks[4][0, 0, :2] = 1  # half of a stride-8 pixel
    objects.masks[4][0, 2, 2] = 1  # a quarter
    assert objects.masks_at(8).tolist() == [[[1, 0, 0], [0, 0, 0]]]
    assert objects.masks_at(4) is objects.masks[4]
    assert objects.masks_at(8).dtype == torch.uint8
    with pytest.raises(ValueError, match="stride 6"):
        objects.masks_at(6)


def test_masks_that_are_given_are_not_averaged():
    objects = make_objects([disc((20, 20), 9)], [0])
    objects.masks[8] = torch.ones(1, 8, 12, dtype=torch.uint8)
    assert objects.masks_at(8).all()


def test_no_objects_have_empty_masks_at_every_stride():
    assert random_objects(0).masks_at(16).shape == (0, 4, 6)


def test_batches_move_as_a_whole():
    frame = Frame.resized((4, 4), (4, 4))
    batch = ImageBatch(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), [frame], [7], [random_objects(2)])
    moved = batch.to("meta")
    assert len(moved) == 1
    assert {moved.pixels.device.type, moved.objects[0].boxes.device.type, moved.objects[0].masks[4].device.type} == {
        "meta"
    }
    assert moved.image_ids == [7]


def test_detections_keep_their_order():
    found = Detections(torch.rand(3), torch.arange(3), torch.rand(3, 2, 2), torch.arange(3), torch.arange(3) + 5)
    assert found[torch.tensor([2, 0])].cells.tolist() == [7, 5]


def test_instances():
    categories = [Category(3, "cat"), Category(9, "dog")]
    masks = torch.zeros(3, 40, 50, dtype=torch.bool)
    masks[0, 20:23, 10:15] = True
    masks[1, 39, 49] = True
    instances = Instances(masks, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 0, 5]), categories)
    assert instances.boxes.tolist() == [[10, 20, 15, 23], [49, 39, 50, 40], [0, 0, 0, 0]]
    assert instances.names == ["dog", "cat", "5"]
    assert instances.size == (40, 50)
    assert instances[:1].categories is categories
    assert instances[instances.scores > 0.75].labels.tolist() == [1, 0]


def test_no_instances():
    empty = Instances.empty((5, 7))
    assert (len(empty), empty.size, tuple(empty.boxes.shape), empty.names) == (0, (5, 7), (0, 4), [])
    assert empty.masks.dtype == torch.bool

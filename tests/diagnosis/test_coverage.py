import json

import numpy as np
import pytest
import torch

from aggmask.data.coco import CocoInstances, collate
from aggmask.data.index import AnnotationIndex
from aggmask.data.storage import open_storage
from aggmask.data.transforms import Resize
from aggmask.diagnosis.coverage import (
    IN_PART,
    OUT_OF_RANGE,
    OVERWRITTEN,
    TOO_SMALL,
    WHOLE,
    Population,
    cover,
    populate,
    spread,
)
from aggmask.structures import GridLevel, Objects
from aggmask.supervision.assign import Assigner
from tests.data.make_coco import make_coco
from tests.small import CANVAS, disc, make_levels_of, make_objects, random_objects


def population(images: list[Objects], canvases=None) -> Population:
    counts = [len(objects) for objects in images]
    canvases = torch.tensor([CANVAS] * len(images) if canvases is None else canvases)
    image = torch.repeat_interleave(torch.arange(len(images)), torch.tensor(counts))
    columns = ("labels", "boxes", "centers", "areas")
    objects = Objects(**{c: torch.cat([getattr(o, c) for o in images]) for c in columns}, masks={})
    return Population(
        np.arange(len(images)), image, canvases[image], objects, objects.areas.double().numpy(), np.arange(sum(counts))
    )


def test_fates_by_hand():
    """One level of 8 x 12 pixel cells for objects of 8 to 40 pixels."""
    level = GridLevel(8, 8, 8, 8, 40)
    one = make_objects([disc((20, 20), 8), disc((20, 21), 7), disc((70, 40), 6)], [0, 0, 1])  # the second takes it all
    two = make_objects([disc((48, 32), 31), disc((10, 10), 1), disc((30, 50), 5)], [0, 0, 0])
    two.areas[1] = 9
    found = cover(population([one, two]), [level], Assigner())
    assert found.fates.tolist() == [OVERWRITTEN, WHOLE, WHOLE, OUT_OF_RANGE, TOO_SMALL, WHOLE]
    assert found.lost.tolist() == [True, False, False, True, True, False]
    assert found.shares().tolist() == pytest.approx([3 / 6, 0, 1 / 6, 1 / 6, 1 / 6])
    assert found.overwritten_at(0) == 1 / 4
    assert found.claimed[:, 0].tolist() == [1, 1, 2, 0, 0, 1]  # the third's center lies on a border between two


def test_an_object_lives_by_one_of_its_levels():
    """Two discs in one cell of the coarse grid, in two of the fine one."""
    objects = make_objects([disc((20, 20), 6), disc((28, 20), 6)], [0, 1])
    fine, coarse = GridLevel(8, 16, 16, 1, 40), GridLevel(8, 2, 2, 1, 40)
    assert cover(population([objects]), [coarse], Assigner()).fates.tolist() == [OVERWRITTEN, WHOLE]
    both = cover(population([objects]), [coarse, fine], Assigner())
    assert both.fates[0] == IN_PART
    assert both.overwritten_at(0) == 0.5
    assert both.overwritten_at(1) == 0


@pytest.mark.parametrize("center_fraction", [0.2, 0.8])
def test_cells_are_those_of_training(center_fraction):
    """Images of one canvas at once here, one by one there."""
    assigner = Assigner(center_fraction)
    images = [random_objects(9, seed=seed) for seed in range(4)] + [random_objects(0), random_objects(3, seed=9)]
    levels = make_levels_of()
    canvases = [CANVAS, (96, 96), CANVAS, (96, 96), CANVAS, (96, 128)]
    found = cover(population(images, canvases), levels, assigner)
    for k, level in enumerate(levels):
        expected = []
        for objects, canvas in zip(images, canvases, strict=True):
            alone = torch.zeros(len(objects), dtype=torch.long)
            owners = assigner.owners(*assigner.claims(level, objects, alone, canvas), level.grid**2)
            expected += torch.bincount(owners[owners >= 0], minlength=len(objects)).tolist()
        assert found.owned[:, k].tolist() == expected
    assert (found.owned <= found.claimed).all()
    assert (found.fates == OVERWRITTEN).any()


def test_objects_come_from_the_data_set_at_the_size_of_evaluation(tmp_path):
    square = [[4, 4, 12, 4, 12, 12, 4, 12]]
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 60} for i in (3, 4, 5)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 7, "image_id": 4, "category_id": 1, "segmentation": square},
            {"id": 8, "image_id": 4, "category_id": 1, "segmentation": square, "iscrowd": 1},
            {"id": 9, "image_id": 5, "category_id": 1, "segmentation": square, "area": 5},
        ],
    }
    (tmp_path / "file.json").write_text(json.dumps(content))
    data = CocoInstances(AnnotationIndex.open(tmp_path / "file.json"), None, Resize((20,), 90), training=True)
    found = populate(data.index, Resize((20, 80), 120), np.array([1, 2]))
    assert found.ids.tolist() == [7, 9]
    assert found.image.tolist() == [0, 1]
    assert found.original_areas.tolist() == [64, 5]
    assert found.canvas.tolist() == [[96, 128]] * 2  # 80 x 120
    assert found.objects.boxes.tolist() == [[8, 8, 24, 24]] * 2
    assert found.objects.areas.tolist() == [256] * 2
    assert len(populate(data.index, Resize((20,), 90), np.array([0])).ids) == 0


def test_objects_are_those_of_training(tmp_path):
    root = make_coco(tmp_path)
    index = AnnotationIndex.open(root / "annotations" / "instances_train2017.json")
    data = CocoInstances(index, open_storage(root / "train2017"), Resize((64,), 160), training=True)
    found = populate(index, Resize((64,), 160), np.arange(len(data)))
    trained = collate([data[i] for i in range(len(data))]).objects
    for name in ("labels", "boxes", "centers", "areas"):
        assert torch.equal(getattr(found.objects, name), torch.cat([getattr(objects, name) for objects in trained]))


def test_spread():
    assert spread(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert spread(101, 3).tolist() == [0, 50, 100]
    assert spread(0, 3).tolist() == spread(5, 0).tolist() == []

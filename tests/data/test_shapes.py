"""The drawn data set: what is annotated is what is seen."""

import itertools
import json
import re

import numpy as np
import pytest
import simplejpeg
from pycocotools.coco import COCO

from aggmask.data import shapes
from aggmask.data.outlines import segment
from aggmask.data.shapes import CATEGORIES, draw_scene, write_shapes
from aggmask.errors import UserError

SPLITS = ("train2017", "val2017")
SMALL = {"train_images": 60, "val_images": 30, "seed": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "deep" / "shapes"
    write_shapes(folder, **SMALL)
    return folder


@pytest.fixture(scope="module")
def splits(root):
    return {split: COCO(root / "annotations" / f"instances_{split}.json") for split in SPLITS}


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def scenes(count=40, size=(96, 96), seed=0, hint=0.8):
    return [draw_scene(np.random.default_rng([seed, i]), size, 4, hint) for i in range(count)]


def test_layout_loads_in_pycocotools(root, splits):
    for split, count in (("train2017", 60), ("val2017", 30)):
        coco = splits[split]
        assert len(coco.imgs) == count == len(list((root / split).iterdir()))
        for record in coco.imgs.values():
            pixels = simplejpeg.decode_jpeg((root / split / record["file_name"]).read_bytes())
            assert pixels.shape == (record["height"], record["width"], 3) == (96, 96, 3)
        assert {c["id"]: c["name"] for c in coco.cats.values()} == {c.id: c.name for c in CATEGORIES}
        assert {a["category_id"] for a in coco.anns.values()} == {c.id for c in CATEGORIES}
        assert all(a["iscrowd"] == 0 for a in coco.anns.values())
    assert not set(splits["train2017"].imgs) & set(splits["val2017"].imgs)


def test_area_and_box_agree_with_the_decoded_mask(splits):
    kinds, slacks = set(), []
    for coco in splits.values():
        for annotation in coco.anns.values():
            mask = coco.annToMask(annotation)
            kinds.add(type(annotation["segmentation"]))
            assert mask.sum() == pytest.approx(annotation["area"], rel=0.08)
            rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            x, y, w, h = annotation["bbox"]
            # How far the box of the decoded mask stays inside; a thin tip may end without covering a pixel's center.
            slack = [columns[0] - x, rows[0] - y, x + w - columns[-1] - 1, y + h - rows[-1] - 1]
            assert min(slack) > -1
            slacks += slack
            assert min(x, y) >= 0
            assert max(x + w, y + h) <= 96
    assert np.abs(slacks).mean() < 0.35
    assert kinds == {list, dict}


def without_edge(mask):
    inner = np.pad(mask, 1)
    return mask & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]


def test_masks_of_one_picture_are_disjoint(splits):
    """Polygons share an edge, and pycocotools may give a pixel that it cuts to both; no other pixel has two owners."""
    pairs = twice = total = 0
    for coco in splits.values():
        for annotations in coco.imgToAnns.values():
            for a, b in itertools.combinations([coco.annToMask(a) for a in annotations], 2):
                assert not (without_edge(a) & b).any()
                assert not (without_edge(b) & a).any()
                pairs, twice, total = pairs + 1, twice + int((a & b).sum()), total + int((a | b).sum())
    assert pairs > 50
    assert twice < 0.002 * total


def test_annotated_masks_are_the_visible_parts_of_the_drawing():
    for scene in scenes():
        coco_masks = COCO()
        coco_masks.imgs = {0: {"height": 96, "width": 96}}
        for visible in scene.visible:
            mask = coco_masks.annToMask({"image_id": 0, **segment(visible)}).astype(bool)
            seen = visible[1::2, 1::2]
            assert mask[seen > 0.75].all()
            assert (mask & (seen < -0.75)).sum() <= 1


def test_the_color_changes_at_the_outline_and_not_inside():
    """The mean step across a free outline is many times the one within, so masks and pixels lie on each other."""
    compared = 0
    for scene in scenes(20, hint=1.0):
        free = [i for i, d in enumerate(scene.depths) if np.array_equal(d > 0, scene.visible[i] > 0)]
        pixels = scene.pixels.astype(float)
        for i in free:
            depth = scene.depths[i, 1::2, 1::2]
            above = scene.depths[i + 1 :, 1::2, 1::2].max(0, initial=-9.0)
            inside, outside = (depth > 2) & (depth < 4), (depth < -0.5) & (depth > -1.5) & (above < -4)
            if outside.sum() < 10 or not inside.any():
                continue
            step = np.abs(pixels[inside].mean(0) - pixels[outside].mean(0)).max()
            assert step > 25
            assert step > 2 * pixels[inside].std(0).max()
            compared += 1
    assert compared > 15


def test_sizes_counts_and_visible_shares_are_as_asked():
    sides, counts, hidden = [], [], 0
    for scene in scenes(150):
        counts.append(len(scene.labels))
        whole, seen = scene.depths[:, 1::2, 1::2] > 0, scene.visible[:, 1::2, 1::2] > 0
        shares = seen.sum((1, 2)) / whole.sum((1, 2))
        assert (shares >= shapes.MIN_VISIBLE).all()
        hidden += (shares < 0.95).sum()
        centers = np.array([[axis.mean() for axis in mask.nonzero()] for mask in seen])
        for a, b in itertools.combinations(centers, 2):
            assert np.hypot(*(a - b)) >= 0.1 * 96 - 1e-6
        for mask in whole:
            rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            if min(rows[0], columns[0]) > 0 and max(rows[-1], columns[-1]) < 95:
                sides.append(np.sqrt((np.ptp(rows) + 1) * (np.ptp(columns) + 1)))
    assert set(counts) == {0, 1, 2, 3, 4}
    assert 13 < min(sides) < 19
    assert 48 < max(sides) < 66
    assert hidden > 0.12 * sum(counts)


def test_color_hint_ties_color_to_category():
    def saturated_hues(hint):
        hues = {}
        for scene in scenes(60, hint=hint):
            for label, visible in zip(scene.labels, scene.visible, strict=True):
                red, green, blue = scene.pixels[visible[1::2, 1::2] > 2].mean(0)
                hues.setdefault(label, []).append(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))
        return [np.abs(np.exp(1j * np.array(values)).mean()) for values in hues.values()]  # 1: all the same

    assert min(saturated_hues(1.0)) > 0.9
    assert max(saturated_hues(0.0)) < 0.6


def test_the_same_seed_gives_the_same_bytes_and_a_complete_folder_is_left_alone(root, tmp_path):
    again = tmp_path / "again"
    write_shapes(again, **SMALL)
    assert contents(again) == contents(root)
    (again / "val2017" / "mine.txt").write_text("kept")
    write_shapes(again, **SMALL)
    assert (again / "val2017" / "mine.txt").exists()
    write_shapes(tmp_path / "other", **SMALL | {"seed": 4})
    other = json.loads((tmp_path / "other" / "annotations" / "instances_val2017.json").read_text())
    assert other != json.loads((root / "annotations" / "instances_val2017.json").read_text())


def test_splits_differ_and_more_pictures_keep_the_first_ones(root, tmp_path):
    train, val = (sorted((root / split).iterdir()) for split in SPLITS)
    assert not {p.read_bytes() for p in train} & {p.read_bytes() for p in val}
    write_shapes(tmp_path / "fewer", train_images=5, val_images=2, seed=SMALL["seed"])
    for path in (tmp_path / "fewer").glob("*2017/*.jpg"):
        assert path.read_bytes() == (root / path.parent.name / path.name).read_bytes()


def test_pictures_need_not_be_square(tmp_path):
    write_shapes(tmp_path / "wide", 4, 2, size=(64, 100))
    coco = COCO(tmp_path / "wide" / "annotations" / "instances_train2017.json")
    assert {(r["height"], r["width"]) for r in coco.imgs.values()} == {(64, 100)}
    assert all(coco.annToMask(a).shape == (64, 100) for a in coco.anns.values())
    assert max(a["bbox"][0] + a["bbox"][2] for a in coco.anns.values()) > 64


@pytest.mark.parametrize(
    "wrong",
    [{"size": 16}, {"size": (96, 8)}, {"train_images": 0}, {"max_objects": 0}, {"seed": -1}, {"color_hint": 1.5}],
)
def test_impossible_parameters_are_refused(tmp_path, wrong):
    with pytest.raises(UserError, match=re.escape("{}={!r}".format(*next(iter(wrong.items()))))):
        write_shapes(tmp_path / "data", **wrong)
    assert not list(tmp_path.iterdir())

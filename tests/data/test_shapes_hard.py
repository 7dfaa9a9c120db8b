"""The harder drawn data set: true masks, three splits of their own, the kinds of shape that it promises."""

import re

import numpy as np
import pytest
from pycocotools.coco import COCO

from aggmask.assembly.build import build
from aggmask.assembly.checking import check
from aggmask.assembly.config import plain
from aggmask.data.outlines import segment
from aggmask.data.shapes_hard import CATEGORIES, STROKE, draw_scene, outlines, write_shapes_hard
from aggmask.data.silhouettes import place
from aggmask.data.textures import texture
from aggmask.errors import UserError
from tests.data.test_shapes import contents
from tests.runs import composed

SMALL = {"train_images": 12, "val_images": 4, "test_images": 6, "size": 96, "seed": 3}
SPLITS = ("train2017", "val2017", "test2017")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes_hard"
    write_shapes_hard(folder, **SMALL)
    return folder


def test_three_splits_share_no_picture_and_no_id(root):
    ids, pictures = [], []
    for split, count in zip(SPLITS, (12, 4, 6), strict=True):
        coco = COCO(root / "annotations" / f"instances_{split}.json")
        assert len(coco.imgs) == count
        assert [c["name"] for c in coco.dataset["categories"]] == [c.name for c in CATEGORIES]
        ids += coco.imgs
        pictures += [(root / split / record["file_name"]).read_bytes() for record in coco.imgs.values()]
    assert len(ids) == len(set(ids)) == len(set(pictures)) == 22


def test_the_same_seed_gives_the_same_bytes(root, tmp_path):
    write_shapes_hard(tmp_path / "fewer", **SMALL | {"train_images": 3})
    for path in (tmp_path / "fewer").glob("*2017/*.jpg"):
        assert path.read_bytes() == (root / path.parent.name / path.name).read_bytes()
    before = contents(root)
    write_shapes_hard(root, **SMALL)
    assert contents(root) == before


def test_annotated_masks_are_the_visible_parts_of_the_drawing():
    pairs = 0
    for number in range(12):
        scene = draw_scene(np.random.default_rng([5, number]), (128, 96), 12)
        coco = COCO()
        coco.imgs = {0: {"height": 128, "width": 96}}
        for visible in scene.visible:
            mask = coco.annToMask({"image_id": 0, **segment(visible)}).astype(bool)
            seen = visible[1::2, 1::2]
            assert mask[seen > 0.75].all()
            assert (mask & (seen < -0.75)).sum() <= 1
            pairs += 1
    assert pairs > 30


def test_sizes_reach_from_small_to_most_of_the_picture_and_kinds_stand_together():
    sizes, beside, labels = [], 0, set()
    for number in range(15):
        scene = draw_scene(np.random.default_rng([6, number]), (256, 256), 12)
        seen = scene.visible[:, 1::2, 1::2] > 0
        labels |= set(scene.labels.tolist())
        sizes += np.sqrt((scene.depths[:, 1::2, 1::2] > 0).sum((1, 2))).tolist()
        beside += (scene.labels[1:] == scene.labels[:-1]).sum()
        assert (seen.sum((1, 2)) >= 12).all()
    assert labels == set(range(len(CATEGORIES)))
    assert min(sizes) < 12
    assert max(sizes) > 80
    assert beside > 0.25 * len(sizes)  # an eighth would be by chance


def parts_and_holes(mask):
    """Connected pieces (of 8 neighbors) of a mask, and of what surrounds it less the outside."""
    return pieces(mask, corners=True), pieces(~np.pad(mask, 1), corners=False) - 1


def pieces(mask, corners):
    left, count = {tuple(place) for place in np.argwhere(mask)}, 0
    steps = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (corners or 0 in (r, c)) and (r, c) != (0, 0)]
    while left:
        count, stack = count + 1, [left.pop()]
        while stack:
            row, column = stack.pop()
            near = {(row + r, column + c) for r, c in steps} & left
            left -= near
            stack += near
    return count


@pytest.mark.parametrize("side", [20.0, 70.0])
@pytest.mark.parametrize(
    ("name", "parts", "holes"),
    [
        ("crescent", 1, 0), ("stick", 1, 0), ("ring", 1, 1), ("frame", 1, 1),
        ("horseshoe", 1, 0), ("gear", 1, 1), ("dots", 3, 0), ("wave", 1, 0),
    ],
)  # fmt: skip
def test_each_category_has_its_parts_holes_and_a_least_width(name, parts, holes, side):
    depth = place(outlines(side)[name], (96, 96), (48, 48), side, turn=0.3)[1::2, 1::2]
    mask = depth > 0
    assert parts_and_holes(mask) == (parts, holes)
    assert depth.max() > STROKE / 2 - 0.75
    box = mask.any(0).sum() * mask.any(1).sum()
    assert mask.sum() < 0.65 * box  # concave, thin or holed: none fills its box
    outside = np.delete(depth, np.s_[int(48 - 0.6 * side) : int(48 + 0.6 * side) + 2], 0)
    assert (outside < 0).all()


def test_textures_have_two_colors_and_vary():
    means, spreads = [], []
    for number in range(20):
        pixels = texture(np.random.default_rng(number), (64, 48))
        assert pixels.shape == (64, 48, 3)
        assert 0 <= pixels.min() <= pixels.max() <= 1
        directions = np.linalg.svd((pixels - pixels.mean((0, 1))).reshape(-1, 3), compute_uv=False)
        assert directions[1] < 1e-3 * directions[0] + 1e-3  # all colors lie between two
        means.append(pixels.mean((0, 1)))
        spreads.append(pixels.std((0, 1)).max())
    assert np.std(means, axis=0).min() > 0.1
    assert max(spreads) > 2 * np.median(spreads)


@pytest.mark.parametrize("wrong", [{"size": 32}, {"test_images": 0}, {"max_objects": 0}, {"seed": -1}])
def test_impossible_parameters_are_refused(tmp_path, wrong):
    with pytest.raises(UserError, match=re.escape("{}={!r}".format(*next(iter(wrong.items()))))):
        write_shapes_hard(tmp_path / "data", **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["shapes_hard", "composites"])
def test_its_configuration_makes_it(name, tmp_path):
    few = [f"data.prepare.{key}={value}" for key, value in SMALL.items()]
    cfg = composed("experiment=study", f"data={name}", "name=x", "output_dir=x", f"data.root={tmp_path / name}", *few)
    check(cfg, "train")
    data = build(plain(cfg.data))
    assert len(data.categories) == 8
    data.setup("fit")
    assert len(data.train_dataset) == SMALL["train_images"]
    assert len(data.val_dataset) == SMALL["val_images"]


def test_fewer_objects_may_be_asked_for():
    assert max(len(draw_scene(np.random.default_rng([7, i]), (64, 64), 2).labels) for i in range(20)) == 2

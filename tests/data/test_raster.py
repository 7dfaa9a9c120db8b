import numpy as np
import pytest
from pycocotools import mask as coco_mask

from aggmask.data.raster import rasterize
from aggmask.geometry.frame import Frame
from tests.data.make_coco import circle

PLAIN = Frame.resized((64, 96), (64, 96))


def rectangle(x0, y0, x1, y1):
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float32)


def blob(rng, x, y, radius):
    turn = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    wobble = sum(rng.normal() * 0.3 / k * np.cos(k * turn + rng.uniform(0, 6.3)) for k in range(2, 6))
    reach = np.clip(1 + wobble, 0.25, 2)[:, None] * radius
    return (np.array([x, y]) + reach * np.stack([np.cos(turn), np.sin(turn)], axis=1)).astype(np.float32)


def fine_bitmap(parts, frame, factor):
    """(H * factor, W * factor) of the frame's content, painted by pycocotools at that resolution."""
    height, width = frame.content
    outlines = [(frame.points_to_network(p.astype(float)) * factor).ravel().tolist() for p in parts]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(outlines, height * factor, width * factor)))


def coverage(bitmap, factor, shape):
    """(rows, columns) covered share of each 4 x 4 pixel cell."""
    padded = np.zeros((shape[0] * 4 * factor, shape[1] * 4 * factor))
    padded[: bitmap.shape[0], : bitmap.shape[1]] = bitmap
    return padded.reshape(shape[0], 4 * factor, shape[1], 4 * factor).mean((1, 3))


def iou(a, b):
    return np.logical_and(a, b).sum() / np.logical_or(a, b).sum()


def test_rectangle_on_cell_borders():
    masks, centers, areas = rasterize([[rectangle(8, 16, 32, 24)]], PLAIN)
    expected = np.zeros((16, 24))
    expected[4:6, 2:8] = 1
    np.testing.assert_array_equal(masks[0], expected)
    np.testing.assert_allclose(centers[0], (19.5, 19.5))  # pixels 8..31 and 16..23
    assert areas[0] == 24 * 8


def test_half_covered_cells_are_set_and_less_covered_ones_not():
    masks, _, _ = rasterize([[rectangle(4, 4, 18, 12)], [rectangle(4, 4, 17, 12)]], PLAIN)
    assert masks[0, 1, :7].tolist() == [0, 1, 1, 1, 1, 0, 0]
    assert masks[1, 1, :7].tolist() == [0, 1, 1, 1, 0, 0, 0]


def test_scale_and_flip():
    frame = Frame.resized((32, 48), (64, 96), flip=True)
    masks, centers, areas = rasterize([[rectangle(0, 0, 8, 4)]], frame)
    expected = np.zeros((16, 24))
    expected[:2, 20:] = 1
    np.testing.assert_array_equal(masks[0], expected)
    np.testing.assert_allclose(centers[0], (87.5, 3.5))
    assert areas[0] == 16 * 8


def test_parts_are_united():
    parts = [rectangle(0, 0, 16, 8), rectangle(8, 0, 24, 8), rectangle(40, 40, 48, 48)]
    masks, _, areas = rasterize([parts], PLAIN)
    assert areas[0] == 24 * 8 + 8 * 8  # the overlap counts once
    assert masks[0].sum() == 6 * 2 + 2 * 2


def test_runs_and_polygons_of_the_same_rectangle_agree():
    bitmap = np.zeros((64, 96), np.uint8, order="F")
    bitmap[10:31, 20:57] = 1
    for frame in (PLAIN, Frame((64, 96), (100, 151), (80, 90), (80, 90), (5, 31), flip=True)):
        masks, centers, areas = rasterize([coco_mask.encode(bitmap), [rectangle(20, 10, 57, 31)]], frame)
        np.testing.assert_allclose(centers[0], centers[1], atol=0.3)
        np.testing.assert_allclose(areas[0], areas[1], rtol=0.02)
        assert iou(masks[0], masks[1]) > 0.93
        assert areas[0] > 500


def test_runs_are_exact_under_any_scale():
    bitmap = np.zeros((64, 96), np.uint8, order="F")
    bitmap[10:31, 20:57] = 1
    frame = Frame.resized((64, 96), (45, 200))
    _, centers, areas = rasterize([coco_mask.encode(bitmap)], frame)
    np.testing.assert_allclose(areas[0], 21 * 45 / 64 * 37 * 200 / 96, rtol=1e-5)
    np.testing.assert_allclose(centers[0], (38.5 * 200 / 96 - 0.5, 20.5 * 45 / 64 - 0.5), rtol=1e-5)


@pytest.mark.parametrize("scaled", [(64, 96), (16, 24)])
def test_tiny_objects_keep_a_cell(scaled):
    dot = np.zeros((64, 96), np.uint8, order="F")
    dot[33, 50] = 1
    # around a pixel's center, and between centers, where painting pixels finds nothing
    specks = [[rectangle(x + 0.3, 40.2, x + 0.6, 40.4)] for x in np.arange(10, 80, 0.25)]
    shrink = scaled[0] / 64
    masks, centers, areas = rasterize([coco_mask.encode(dot), *specks], Frame.resized((64, 96), scaled))
    assert (masks.sum((1, 2)) == 1).all()
    assert (areas <= 1).all()
    assert areas[0] == pytest.approx(shrink**2)
    middles = np.array([(50.5, 33.5), *[(speck[0][:, 0].mean(), 40.3) for speck in specks]]) * shrink
    np.testing.assert_allclose(centers, middles - 0.5, atol=0.55)
    found = np.isclose(areas, 0.06 * shrink**2, rtol=1e-3)
    assert found.sum() > 50  # those that painting pixels does not find: exact
    np.testing.assert_allclose(centers[found], middles[found] - 0.5, atol=1e-3)


def test_a_hair_is_kept():
    masks, _, areas = rasterize([[rectangle(10.0, 5.0, 60.0, 5.01)]], PLAIN)
    assert masks.sum() >= 1
    assert areas[0] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("flip", [False, True])
def test_outside_of_the_content_is_empty(flip):
    frame = Frame((64, 96), (64, 96), (32, 40), (64, 64), (8, 16), flip)
    far = np.zeros((64, 96), np.uint8, order="F")
    far[60:, 90:] = 1
    touching = rectangle(0, 8, 16, 40)  # its right side is the crop's left side
    masks, _, areas = rasterize([[rectangle(60, 45, 90, 60)], coco_mask.encode(far), [touching], []], frame)
    assert masks.shape == (4, 16, 16)
    assert not masks.any()
    np.testing.assert_array_equal(areas, 0)


def test_crop_cuts_the_object_and_padding_stays_empty():
    frame = Frame((64, 96), (64, 96), (32, 40), (64, 64), (8, 16))
    masks, centers, areas = rasterize([[rectangle(-50, -50, 300, 300)]], frame)
    assert areas[0] == 32 * 40
    np.testing.assert_allclose(centers[0], (19.5, 15.5))
    assert masks[0, :8, :10].all()
    assert masks[0].sum() == 80


def test_far_away_points_do_no_harm():
    masks, _, areas = rasterize([[np.array([(-1e9, -1e9), (1e9, -1e9), (1e9, 1e9), (-1e9, 1e9)], np.float32)]], PLAIN)
    assert areas[0] == 64 * 96
    assert masks.all()


def test_no_objects():
    masks, centers, areas = rasterize([], Frame.resized((50, 70), (50, 70)))
    assert masks.shape == (0, 13, 18)
    assert centers.shape == (0, 2)
    assert areas.shape == (0,)


@pytest.mark.parametrize(("radius", "mean_iou", "center_error"), [(2.5, 0.9, 0.15), (8, 0.95, 0.1), (40, 0.985, 0.1)])
def test_against_painting_four_times_finer(radius, mean_iou, center_error):
    """Resizing bitmaps, as published, gives IoU 0.85 and centers off by 0.96 px for small objects."""
    rng = np.random.default_rng(0)
    frame = Frame.resized((120, 160), (200, 267), flip=True)
    ious, errors, ratios = [], [], []
    for _ in range(40):
        part = blob(rng, rng.uniform(20, 140), rng.uniform(20, 100), radius / 1.667 * rng.uniform(0.7, 1.3))
        masks, centers, areas = rasterize([[part]], frame)
        fine = fine_bitmap([part], frame, 4)
        covered = coverage(fine, 4, masks[0].shape)
        ious.append(iou(masks[0], covered >= 0.5) if (covered >= 0.5).any() else 1.0)
        rows, columns = np.nonzero(fine)
        errors.append(np.hypot(*(np.array([columns.mean(), rows.mean()]) / 4 + 0.125 - 0.5 - centers[0])))
        ratios.append(areas[0] / (fine.sum() / 16))
    assert np.mean(ious) > mean_iou
    assert np.mean(errors) < center_error
    assert max(errors) < 0.5
    assert abs(np.mean(ratios) - 1) < 0.02


def test_against_full_resolution():
    """Area and center are those of the object painted at network resolution."""
    rng = np.random.default_rng(1)
    frame = Frame.resized((240, 320), (400, 533))
    for radius in (6, 20, 80):
        part = blob(rng, 160, 120, radius)
        _, centers, areas = rasterize([[part]], frame)
        full = fine_bitmap([part], frame, 1)
        rows, columns = np.nonzero(full)
        np.testing.assert_allclose(centers[0], (columns.mean(), rows.mean()), atol=0.15)
        assert abs(areas[0] - full.sum()) <= 0.02 * full.sum()


def test_other_strides():
    masks, _, areas = rasterize([[circle(40, 30, 12)]], PLAIN, stride=8)
    assert masks.shape == (1, 8, 12)
    assert abs(masks.sum() * 64 - areas[0]) < 100

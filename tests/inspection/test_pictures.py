"""Small pictures by hand."""

import tracemalloc

import numpy as np
import pytest
import torch

from aggmask.geometry.frame import Frame
from aggmask.inspection.pictures import (
    OWN,
    base_picture,
    display_size,
    limit_of,
    map_picture,
    mask_picture,
    thumbnail,
)

FRAME = Frame.resized((48, 60), (64, 80)).on_canvas((64, 96))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((48, 60), (384, 480)), ((1000, 2000), (320, 640)), ((640, 480), (640, 480)), ((1, 1), (480, 480))],
)
def test_large_pictures_shrink_and_small_ones_grow_by_whole_factors(size, expected):
    assert display_size(size) == expected
    assert base_picture(np.zeros((*size, 3), np.uint8)).size == expected[::-1]


def test_red_is_inside_and_padding_is_cut_off():
    values = torch.full((16, 24), -2.0)
    values[:, 20:] = 2.0  # padding
    values[:8, :10] = 2.0
    pixels = np.asarray(map_picture(values, FRAME, -2.0, 2.0).convert("RGB")).astype(int)
    assert pixels.shape == (48, 60, 3)
    assert pixels[4, 4, 0] > pixels[4, 4, 2] + 50  # red
    assert (pixels[30:, :, 2] > pixels[30:, :, 0] + 30).all()  # blue
    assert (pixels[:, 40:56, 2] > pixels[:, 40:56, 0] + 30).all()


def test_maps_of_large_pictures_are_small():
    frame = Frame.resized((1200, 600), (64, 32)).on_canvas((64, 32))
    assert map_picture(torch.zeros(16, 8), frame, -1.0, 1.0).size == (56, 112)


def test_colors_end_at_the_limit_and_one_pixel_does_not_decide_it():
    values = torch.full((10, 100), 3.0)
    values[0, 0] = -1000.0
    assert limit_of(values) == pytest.approx(3.0)
    assert limit_of(values, most=2.0) == 2.0
    assert limit_of(torch.zeros(4, 4)) > 0
    low, high = (
        np.asarray(map_picture(torch.full((16, 24), v), FRAME, -1.0, 1.0).convert("RGB")) for v in (-1.0, -9.0)
    )
    assert (low == high).all()


def test_a_mask_is_clear_outside_and_has_an_edge_between_dark_lines():
    mask = torch.zeros(48, 60, dtype=torch.bool)
    mask[10:30, 20:50] = True
    sheet = np.asarray(mask_picture(mask, OWN).convert("RGBA"))  # enlarged by 8
    assert sheet.shape == (384, 480, 4)
    alpha = sheet[..., 3]
    assert alpha[:70].max() == alpha[:, :150].max() == 0
    assert tuple(sheet[160, 280, :3]) == OWN
    assert 0 < alpha[160, 280] < 255
    assert alpha[80, 280] == 255
    assert tuple(sheet[80, 280, :3]) == OWN
    assert tuple(sheet[79, 280, :3]) == (0, 0, 0)
    assert alpha[79, 280] > 100
    whole = np.asarray(mask_picture(torch.ones(48, 60, dtype=torch.bool), OWN).convert("RGBA"))
    assert len(np.unique(whole[..., 3])) == 1  # no edge where the picture ends


def test_a_thumbnail_is_a_square_around_the_object():
    pixels = np.zeros((48, 60, 3), np.uint8)
    pixels[..., 0] = 200
    mask = torch.zeros(48, 60, dtype=torch.bool)
    mask[40:48, 50:60] = True  # in the corner
    shown = np.asarray(thumbnail(pixels, mask))
    assert shown.shape == (72, 72, 3)
    assert tuple(shown[36, 36]) == (200, 0, 0)
    assert shown[5, 36].min() > 150  # pale
    assert shown[71, 36].min() > 230  # beyond the picture
    assert thumbnail(pixels, torch.zeros(48, 60, dtype=torch.bool)).size == (72, 72)


def test_a_thumbnail_needs_no_more_than_its_part_of_the_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (1400, 1600, 3), dtype=np.uint8)
    mask = torch.zeros(1400, 1600, dtype=torch.bool)
    mask[690:750, 830:841] = mask[700, 800:860] = True
    part = np.s_[600:800, 700:1000]
    tracemalloc.start()
    shown = np.asarray(thumbnail(pixels, mask))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
    assert np.array_equal(shown, thumbnail(pixels[part], mask[part]))

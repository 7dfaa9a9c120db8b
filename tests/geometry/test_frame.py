"""To the network frame and back: what is drawn at (10, 20) returns to (10, 20)."""

import numpy as np
import pytest
import torch

from aggmask.geometry.frame import Frame, content_mask, fit_within, pad_to_multiple

ORIGINAL = (60, 80)


def square(x: int, y: int, side: int, size: tuple[int, int]) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y : y + side, x : x + side] = True
    return mask


def painted_on_canvas(frame: Frame, x: int, y: int, side: int, stride: int) -> torch.Tensor:
    """The square's share of each canvas pixel of `stride`, from its corners in the network frame."""
    corners = frame.points_to_network(np.array([[x, y], [x + side, y + side]], dtype=float)) / stride
    (left, right), (top, bottom) = np.sort(corners[:, 0]), np.sort(corners[:, 1])
    height, width = (s // stride for s in frame.padded)
    across = np.clip(np.minimum(np.arange(width) + 1, right) - np.maximum(np.arange(width), left), 0, 1)
    down = np.clip(np.minimum(np.arange(height) + 1, bottom) - np.maximum(np.arange(height), top), 0, 1)
    return torch.from_numpy(np.outer(down, across)).float()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("scaled", "stride"), [((60, 80), 1), ((120, 160), 2), ((240, 320), 4), ((180, 240), 3)])
def test_a_square_drawn_at_10_20_comes_back_at_10_20(scaled, stride, flip):
    frame = Frame.resized(ORIGINAL, scaled, flip).on_canvas(pad_to_multiple(scaled, 32 * stride))
    masks = painted_on_canvas(frame, 10, 20, 16, stride)[None]
    (back,) = frame.masks_to_original(masks)
    assert back.shape == (1, *ORIGINAL)
    differ = back[0] != square(10, 20, 16, ORIGINAL)
    assert differ.sum() <= 4, "only corners may be rounded off"
    assert not differ[22:34].any()
    assert not differ[:, 12:24].any()


def test_full_resolution_masks_come_back_exactly():
    frame = Frame.resized(ORIGINAL, ORIGINAL, flip=True).on_canvas((64, 96))
    drawn = torch.zeros(64, 96)
    drawn[:60, :80] = square(10, 20, 7, ORIGINAL).float().flip(-1)
    (back,) = frame.masks_to_original(drawn[None])
    assert torch.equal(back[0], square(10, 20, 7, ORIGINAL))


def test_what_lies_on_the_padding_is_dropped():
    frame = Frame.resized(ORIGINAL, ORIGINAL).on_canvas((64, 96))
    canvas = torch.zeros(1, 64, 96)
    canvas[:, 60:], canvas[:, :, 80:] = 1, 1
    (back,) = frame.masks_to_original(canvas)
    assert not back.any()


@pytest.mark.parametrize("chunk_pixels", [1, 64 * 96, 2 * 64 * 96 + 5])
def test_chunks_change_nothing(chunk_pixels):
    frame = Frame.resized((50, 70), ORIGINAL, flip=True).on_canvas((64, 96))
    masks = torch.rand(5, 16, 24, generator=torch.Generator().manual_seed(0))
    (whole,) = frame.masks_to_original(masks)
    parts = list(frame.masks_to_original(masks, chunk_pixels))
    assert len(parts) == {1: 5, 64 * 96: 5, 2 * 64 * 96 + 5: 3}[chunk_pixels]
    assert torch.equal(torch.cat(parts), whole)


def test_threshold_is_exclusive_and_free():
    frame = Frame.resized((8, 8), (8, 8))
    (half,) = frame.masks_to_original(torch.full((1, 8, 8), 0.5))
    (lower,) = frame.masks_to_original(torch.full((1, 8, 8), 0.5), threshold=0.4)
    assert not half.any()
    assert lower.all()


def test_no_masks_yield_nothing():
    assert list(Frame.resized(ORIGINAL, ORIGINAL).masks_to_original(torch.zeros(0, 15, 20))) == []


def test_masks_of_a_crop_cannot_return():
    frame = Frame(ORIGINAL, ORIGINAL, (30, 30), (32, 32), offset=(5, 5))
    with pytest.raises(ValueError, match="crop"):
        list(frame.masks_to_original(torch.zeros(1, 8, 8)))


@pytest.mark.parametrize("flip", [False, True])
def test_points_and_their_inverse(flip):
    frame = Frame(ORIGINAL, (90, 160), (50, 70), (64, 96), offset=(11, 13), flip=flip)
    points = np.random.default_rng(0).uniform(-20, 100, (7, 3, 2))
    np.testing.assert_allclose(frame.points_to_original(frame.points_to_network(points)), points, atol=1e-9)
    x = 10 * 2 - 13
    np.testing.assert_allclose(frame.points_to_network(np.array([10.0, 20.0])), [70 - x if flip else x, 20 * 1.5 - 11])


def test_boxes_are_flipped_in_order_and_clipped_to_the_content():
    frame = Frame.resized(ORIGINAL, (120, 160), flip=True).on_canvas((128, 192))
    boxes = frame.boxes_to_network(np.array([[10, 20, 30, 50], [-5, -5, 90, 70]]))
    np.testing.assert_allclose(boxes, [[100, 40, 140, 100], [0, 0, 160, 120]])
    assert frame.boxes_to_network(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 427), (1199, 800)), ((300, 900), (444, 1333)), ((1, 4000), (1, 1333))],
)
def test_fit_within_800_1333(size, expected):
    assert fit_within(size, 800, 1333) == expected


def test_canvas_sizes():
    assert pad_to_multiple((800, 1067), 32) == (800, 1088)
    frame = Frame.resized(ORIGINAL, (40, 50))
    assert frame.on_canvas((64, 64)).padded == (64, 64)
    with pytest.raises(ValueError, match="does not fit"):
        frame.on_canvas((32, 64))


def test_content_mask_marks_the_images():
    frames = [Frame.resized(ORIGINAL, s).on_canvas((4, 5)) for s in ((4, 2), (3, 5))]
    found = content_mask(frames)
    assert found.shape == (2, 1, 4, 5)
    assert found[0, 0].int().tolist() == [[1, 1, 0, 0, 0]] * 4
    assert found[1, 0].int().tolist() == [[1] * 5] * 3 + [[0] * 5]


@pytest.mark.parametrize("size", [ORIGINAL, (30, 40), (120, 160)])
def test_maps_return_at_any_size(size):
    frame = Frame.resized(ORIGINAL, (120, 160), flip=True).on_canvas((128, 192))
    canvas = torch.full((2, 32, 48), 5.0)
    canvas[1, :, :20] = -3.0  # the right half of the original
    left, right = frame.maps_to_original(canvas, size)
    assert left.shape == right.shape == size
    assert (left == 5).all()
    half = size[1] // 2
    assert (right[:, : half - 4] == 5).all()
    assert (right[:, half + 4 :] == -3).all()


def test_cells_keep_their_edges():
    frame = Frame.resized(ORIGINAL, ORIGINAL).on_canvas((64, 96))
    grid = torch.arange(16.0).view(1, 4, 4)  # cells of 16 x 24 pixels
    (shown,) = frame.maps_to_original(grid, ORIGINAL, "nearest")
    assert shown.unique().tolist() == list(range(16))
    assert shown[15, 23] == 0
    assert shown[16, 24] == 5


def test_maps_of_a_crop_are_refused():
    frame = Frame(ORIGINAL, (120, 160), (60, 60), (64, 64), offset=(5, 5))
    with pytest.raises(ValueError, match="crop"):
        frame.maps_to_original(torch.zeros(1, 16, 16), ORIGINAL)

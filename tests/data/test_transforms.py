import numpy as np
import pytest
import torch

from aggmask.data.transforms import ColorJitter, LargeScaleJitter, Resize, apply_frame
from aggmask.errors import UserError
from aggmask.geometry.frame import Frame


def rng(seed=0):
    return np.random.default_rng(seed)


def smooth_picture(height, width):
    """(H, W, 3): red grows with x, green with y, blue is constant."""
    x = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    y = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return np.stack([x, y, np.full_like(x, 40)], axis=-1).round().astype(np.uint8)


def test_resize_draws_each_short_side_and_both_mirrorings():
    resize = Resize((64, 80, 96), 1000, flip=0.5)
    frames = [resize((100, 150), rng(seed)) for seed in range(200)]
    counts = {short: sum(f.scaled[0] == short for f in frames) for short in (64, 80, 96)}
    assert min(counts.values()) > 40
    assert 70 < sum(f.flip for f in frames) < 130
    assert all(f.scaled[1] == int(f.scaled[0] * 1.5 + 0.5) for f in frames)


def test_an_asked_short_side_does_not_change_the_mirroring():
    resize = Resize((64, 80, 96), 1000, flip=0.5)
    for seed in range(20):
        assert resize((100, 150), rng(seed), 80).flip == resize((100, 150), rng(seed)).flip
        assert resize((100, 150), rng(seed), 80).scaled == (80, 120)


def test_long_side_limits_a_panorama():
    frame = Resize((800,), 1333)((100, 800), rng())
    assert frame.scaled == (167, 1333)
    assert not frame.flip


def test_large_scale_jitter_keeps_its_square():
    jitter = LargeScaleJitter(0.1, 2.0, 128, flip=0.5)
    frames = [jitter((60, 90), rng(seed)) for seed in range(200)]
    assert {f.padded for f in frames} == {(128, 128)}
    assert any(f.offset != (0, 0) for f in frames)
    assert any(f.scaled[1] < 40 for f in frames)
    for f in frames:
        assert f.content == (min(f.scaled[0], 128), min(f.scaled[1], 128))
        assert all(0 <= f.offset[i] <= f.scaled[i] - f.content[i] for i in (0, 1))
        assert abs(f.scale[0] - f.scale[1]) < 0.1


def test_large_scale_jitter_of_one_fits_the_square():
    frame = LargeScaleJitter(1.0, 1.0, 128)((60, 90), rng())
    assert frame.scaled == (85, 128)
    assert frame.offset == (0, 0)


def test_large_scale_jitter_refuses_nonsense():
    with pytest.raises(UserError, match="min_scale=2"):
        LargeScaleJitter(2.0, 0.1, 128)
    with pytest.raises(ValueError, match="short side"):
        LargeScaleJitter(0.1, 2.0, 128)((10, 10), rng(), 800)


@pytest.mark.parametrize(
    "frame",
    [
        Frame.resized((30, 50), (60, 100)),
        Frame.resized((30, 50), (60, 100), flip=True),
        Frame((30, 50), (60, 100), (40, 50), (64, 64), (12, 33), flip=True),
        Frame((30, 50), (15, 25), (15, 25), (64, 64)),
        Frame.resized((30, 50), (30, 50)),
    ],
)
def test_pixels_follow_the_frame(frame):
    """A color that is linear in the place says where each pixel came from."""
    picture = smooth_picture(30, 50)
    pixels = apply_frame(picture, frame)
    assert pixels.shape == (3, *frame.content)
    assert pixels.dtype == torch.uint8
    rows, columns = np.mgrid[: frame.content[0], : frame.content[1]] + 0.5
    x, y = np.moveaxis(frame.points_to_original(np.stack([columns, rows], axis=-1)), -1, 0)
    red, green = (x - 0.5) * 255 / 49, (y - 0.5) * 255 / 29
    np.testing.assert_allclose(pixels[0].numpy(), np.clip(red, 0, 255), atol=3)
    np.testing.assert_allclose(pixels[1].numpy(), np.clip(green, 0, 255), atol=5)
    assert (pixels[2] == 40).all()


def test_apply_frame_takes_read_only_arrays_and_checks_the_size():
    picture = smooth_picture(30, 50)
    picture.flags.writeable = False
    assert apply_frame(picture, Frame.resized((30, 50), (30, 50))).shape == (3, 30, 50)
    with pytest.raises(ValueError, match=r"\(30, 50\)"):
        apply_frame(picture, Frame.resized((50, 30), (50, 30)))


def test_resizing_is_that_of_the_published_pipeline():
    """Bilinear at the pixel centers, no antialias: halving takes the mean of two by two, a third only every third."""
    picture = rng().integers(0, 256, (30, 60, 3), dtype=np.uint8)
    half = apply_frame(picture, Frame.resized((30, 60), (15, 30))).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(half, picture.reshape(15, 2, 30, 2, 3).mean((1, 3)), atol=1.01)
    third = apply_frame(picture, Frame.resized((30, 60), (10, 20))).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(third, picture[1::3, 1::3], atol=1.01)


def test_color_jitter():
    picture = smooth_picture(20, 24)
    assert np.array_equal(ColorJitter()(picture, rng()), picture)
    for name in ("brightness", "contrast", "saturation", "hue"):
        jitter = ColorJitter(**{name: 0.4})
        changed = jitter(picture, rng())
        assert changed.shape == picture.shape
        assert changed.dtype == np.uint8
        assert not np.array_equal(changed, picture), name
        assert np.array_equal(changed, jitter(picture, rng()))
    factors = [ColorJitter(brightness=0.4)(picture, rng(seed))[..., 2].mean() / 40 for seed in range(50)]
    assert 0.58 < min(factors) < 0.75
    assert 1.25 < max(factors) < 1.42
    with pytest.raises(UserError, match="hue"):
        ColorJitter(hue=0.7)


def test_color_jitter_of_grey_and_of_transparent_pictures():
    picture = smooth_picture(20, 24)
    jitter = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    opacity = picture[..., :1] // 2
    jittered = jitter(np.concatenate([picture, opacity], 2), rng())
    assert np.array_equal(jittered, np.concatenate([jitter(picture, rng()), opacity], 2))
    grey = jitter(picture[..., :1], rng())
    assert grey.shape == (20, 24, 1)
    assert not np.array_equal(grey, picture[..., :1])

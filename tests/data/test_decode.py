"""Every kind of image file becomes the RGB pixels a viewer shows, or an error that names it."""

import io
import mmap
import multiprocessing
import struct
import subprocess
import sys
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from aggmask.data import decode as decode_module
from aggmask.data.decode import decode_image, largest_value, pixels_of, size_of
from aggmask.depth import as_range
from aggmask.errors import UserError

rng = np.random.default_rng(0)
NOISE = rng.integers(0, 256, (20, 30, 3), np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(np.arange(20)[:, None] * 12, np.arange(30) * 8, 100), -1).astype(np.uint8)
GREY = NOISE[..., 0]


def encoded(pixels, format, mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, format, **options)
    return buffer.getvalue()


def pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def exif(orientation):
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


def check(data, expected, **options):
    pixels = decode_image(data, "x.jpg", **options)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, expected)


def grey(values):
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_bit_identical_to_pillow(subsampling, progressive, monkeypatch):
    data = encoded(NOISE, "JPEG", subsampling=subsampling, progressive=progressive)
    expected = pillow(data)
    monkeypatch.setattr(decode_module, "_decode_other", lambda *_: pytest.fail("an ordinary JPEG took the slow way"))
    check(data, expected)


def test_grey_jpeg():
    data = encoded(GREY, "JPEG")
    check(data, pillow(data))


def test_rgb_jpeg():
    data = encoded(NOISE, "JPEG", keep_rgb=True)
    check(data, pillow(data))


def test_cmyk_jpeg():
    """Pillow writes CMYK as Adobe does, inverted."""
    data = encoded(SMOOTH, "JPEG", "CMYK", quality=95)
    assert b"Adobe" in data
    assert np.abs(decode_image(data, "x").astype(int) - SMOOTH).max() < 12


def test_ycck_jpeg():
    """A CMYK file whose ink channels hold, inverted, the YCbCr of the inks, and whose Adobe marker says so."""
    inks = np.asarray(Image.fromarray(255 - SMOOTH).convert("YCbCr"))
    channels = np.concatenate([255 - inks, np.zeros_like(inks[..., :1])], 2)
    data = bytearray(encoded(Image.fromarray(channels, "CMYK"), "JPEG", quality=95, subsampling=0))
    data[data.index(b"Adobe") + 11] = 2
    assert np.abs(decode_image(bytes(data), "x").astype(int) - SMOOTH).max() < 12


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "TIFF"])
def test_lossless_rgb(format):
    check(encoded(NOISE, format, **({"lossless": True} if format == "WEBP" else {})), NOISE)


def test_one_bit_and_grey_png():
    check(encoded(GREY, "PNG"), grey(GREY))
    check(encoded(Image.fromarray(GREY > 127), "PNG"), grey((GREY > 127) * 255))


def test_palette():
    image = Image.fromarray(GREY // 86, "P")
    palette = np.array([[255, 0, 0], [0, 200, 0], [10, 20, 30]], np.uint8)
    image.putpalette(palette.tobytes())
    check(encoded(image, "PNG"), palette[GREY // 86])
    check(encoded(image, "PNG", transparency=1), palette[GREY // 86])
    check(encoded(image, "PNG", transparency=bytes([0, 128, 255])), palette[GREY // 86])


def test_transparency_is_dropped():
    alpha = rng.integers(0, 256, (20, 30, 1), np.uint8)
    check(encoded(np.concatenate([NOISE, alpha], 2), "PNG"), NOISE)
    check(encoded(np.concatenate([GREY[..., None], alpha], 2), "PNG"), grey(GREY))


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in (10, 200)]
    check(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), np.full((8, 9, 3), 10))


def test_sixteen_bits():
    values = np.array([[0, 257, 128 * 257, 65535], [300, 128, 129, 65407]], np.uint16)
    eight = grey([[0, 1, 128, 255], [1, 0, 1, 255]])
    check(encoded(values, "PNG"), eight)
    check(encoded(values, "TIFF"), eight)
    check(encoded(values.astype(np.int32), "TIFF"), eight)


def sixteen_bit_colors(values):
    """A PNG of (H, W, 3) uint16, which Pillow cannot write."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in (*chunks, (b"IEND", b""))
    )


def test_eight_bit_values_in_deeper_pixels_are_kept():
    check(encoded(GREY.astype(np.int32), "TIFF"), grey(GREY))
    check(encoded(GREY.astype(np.uint16), "PNG"), grey(GREY))


def test_the_scale_of_deep_pictures_does_not_depend_on_their_values():
    twelve = np.array([[0, 2000], [4000, 4095]], np.uint16)
    check(encoded(twelve, "PNG"), grey((twelve.astype(int) + 128) // 257))
    floats = np.array([[0.5, 0.25], [np.nan, np.inf]], np.float32)
    check(encoded(floats, "TIFF"), grey([[128, 64], [0, 0]]))
    check(encoded(floats / 2, "TIFF"), grey([[64, 32], [0, 0]]))


@pytest.mark.parametrize("values", [np.array([[-1, 5]], np.int32), np.array([[0, 70000]], np.int32), np.float32([[2]])])
def test_deep_pictures_on_no_known_scale_are_refused(values):
    with pytest.raises(UserError, match=r"image x.*must lie in 0\.\.(65535|1): say data\.value_range"):
        decode_image(encoded(values, "TIFF"), "x")
    with pytest.raises(UserError, match="must lie in"):
        pixels_of(Image.fromarray(values))


@pytest.mark.parametrize(
    ("given", "values", "eight"),
    [(4095, np.uint16([[0, 4095, 2048, 60000]]), [[0, 255, 128, 255]]),
     ([-1000, 1000], np.int32([[-2000, -1000, 0, 1000]]), [[0, 0, 128, 255]]),
     ([1, 3], np.float32([[0, np.nan, 2, 3]]), [[0, 0, 128, 255]])],
)  # fmt: skip
def test_a_range_of_values_is_that_of_all_deep_pictures(given, values, eight):
    value_range = as_range(given)
    check(encoded(values, "TIFF"), grey(eight), value_range=value_range)
    np.testing.assert_array_equal(pixels_of(values, 1, value_range)[..., 0], eight)
    np.testing.assert_array_equal(pixels_of(Image.fromarray(values), 1, value_range)[..., 0], eight)
    for shallow in (GREY, NOISE):
        check(encoded(shallow, "PNG"), decode_image(encoded(shallow, "PNG"), "x"), value_range=value_range)
    with pytest.raises(UserError, match=r"x\.png.*one channel"):
        decode_image(sixteen_bit_colors(np.full((3, 4, 3), 4095)), "x.png", value_range=value_range)


@pytest.mark.parametrize("given", [0, [1], [3, 1], "abc", ["a", "b"], [0, None]])
def test_a_range_that_is_none_is_refused(given):
    with pytest.raises(UserError, match=r"data\.value_range="):
        as_range(given)


@pytest.mark.parametrize("values", [np.array([[0, -1]]), np.array([[0, 256]]), np.float64([[1.5]])])
def test_arrays_on_no_known_scale_are_refused(values):
    with pytest.raises(UserError, match=r"must lie in 0\.\.(255|1), and this one"):
        pixels_of(values)


def test_arrays_have_the_scale_of_their_type():
    np.testing.assert_array_equal(pixels_of(GREY.astype(np.int64), 1), GREY[..., None])
    np.testing.assert_array_equal(pixels_of(GREY.astype(np.uint16) * 257, 1), GREY[..., None])
    np.testing.assert_array_equal(pixels_of(GREY > 128, 1), (GREY[..., None] > 128) * 255)


@pytest.mark.parametrize("values", [GREY, GREY.astype(np.uint16) * 257])
def test_a_tiff_whose_white_is_zero_is_no_negative(values):
    plain = encoded(values, "TIFF")
    tag = struct.pack("<HHI", 262, 3, 1)
    assert plain.count(tag + b"\1\0") == 1
    negative = plain.replace(tag + b"\1\0", tag + b"\0\0")
    check(negative, 255 - decode_image(plain, "x"))
    assert (decode_image(negative, "x", channels=4)[..., 3] == 255).all()


def test_lab_colors():
    lab = Image.new("LAB", (6, 5), (200, 128, 128))
    file = io.BytesIO()
    lab.save(file, "TIFF")
    for channels in (1, 3, 4):
        pixels = decode_image(file.getvalue(), "x", channels=channels)
        assert pixels.shape == (5, 6, channels)
        assert abs(pixels[..., :3].astype(int) - 194).max() <= 2  # a grey of L* = 78


def test_pictures_of_twelve_bits_are_told_once(caplog, monkeypatch):
    monkeypatch.setattr(decode_module, "_told", mmap.mmap(-1, 1))
    twelve = np.full((3, 4), 4095, np.uint16)
    for data in (encoded(twelve, "PNG"), sixteen_bit_colors(np.dstack([twelve] * 3))):
        assert largest_value(data) == pytest.approx(1 / 16, abs=0.01)
        decode_image(data, "twelve.png")
    assert caplog.text.count("twelve.png") == 1
    assert "4095 of 65535" in caplog.text
    for data in (encoded(NOISE, "JPEG"), encoded(NOISE, "PNG"), encoded(GREY, "TIFF")):
        assert largest_value(data) is None


def test_what_one_loader_process_told_the_others_do_not(caplog, monkeypatch):
    monkeypatch.setattr(decode_module, "_told", mmap.mmap(-1, 1))
    data = encoded(np.full((3, 4), 4095, np.uint16), "PNG")
    process = multiprocessing.get_context("fork").Process(target=decode_image, args=(data, "twelve.png"))
    process.start()
    process.join()
    assert process.exitcode == 0
    decode_image(data, "twelve.png")
    assert caplog.text == ""


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
class TestExif:
    """Pictures of 20 x 30 pixels as stored."""

    def test_is_applied_as_pillow_does(self, orientation, format):
        data = encoded(NOISE, format, exif=exif(orientation))
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        check(data, expected)
        check(data, expected, expected_size=expected.shape[:2])

    def test_is_left_when_only_the_stored_size_matches(self, orientation, format):
        data = encoded(NOISE, format, exif=exif(orientation))
        plain = np.asarray(Image.open(io.BytesIO(encoded(NOISE, format))))
        # A half turn has both sizes: it is applied.
        expected = plain if orientation >= 5 else decode_image(data, "x")
        check(data, expected, expected_size=(20, 30))

    def test_neither_size_matches(self, orientation, format):
        data = encoded(NOISE, format, exif=exif(orientation))
        with pytest.raises(UserError, match=r"x\.jpg is 20 x 30 .* 20 x 31"):
            decode_image(data, "x.jpg", (20, 31))


@pytest.mark.parametrize("told", ["auto", "apply", "ignore"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF"])
def test_the_size_by_the_header_is_that_of_the_pixels(format, told):
    for orientation in range(1, 9) if format != "GIF" else (1,):
        data = encoded(NOISE, format, exif=exif(orientation))
        assert size_of(data, told) == decode_image(data, "x", exif=told).shape[:2]
    assert size_of(b"", told) is size_of(b"<html>", told) is None


def test_exif_of_a_square_is_applied_unless_told_otherwise():
    square = NOISE[:, :20]
    data = encoded(square, "PNG", exif=exif(6))
    for told, expected in (("auto", np.rot90(square, -1)), ("apply", np.rot90(square, -1)), ("ignore", square)):
        check(data, expected, expected_size=(20, 20), exif=told)
        check(data, expected, exif=told)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize(("told", "size", "other"), [("apply", (30, 20), (20, 30)), ("ignore", (20, 30), (30, 20))])
def test_exif_is_read_as_told_or_not_at_all(format, told, size, other):
    data = encoded(NOISE, format, exif=exif(6))
    expected = decode_image(data, "x", size)  # which auto takes for its size
    check(data, expected, expected_size=size, exif=told)
    with pytest.raises(UserError, match=rf"x\.jpg is {size[0]} x {size[1]} .*data\.exif={told} of EXIF orientation 6"):
        decode_image(data, "x.jpg", other, exif=told)
    with pytest.raises(UserError, match=rf"x\.jpg is {size[0]} x {size[1]} .*Use the images they were made for"):
        decode_image(data, "x.jpg", (20, 31), exif=told)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_senseless_orientation_is_ignored(orientation):
    check(encoded(NOISE, "PNG", exif=exif(orientation)), NOISE)


def test_exif_without_orientation():
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = "Camera"
    data = encoded(NOISE, "JPEG", exif=tags)
    check(data, pillow(data))


def test_broken_exif_is_ignored():
    broken = b"Exif\0\0garbage!" * 2
    data = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(broken) + 2) + broken + JPEG[2:]
    check(data, pillow(JPEG))


def test_size_without_exif_is_checked():
    with pytest.raises(UserError, match=r"20 x 30 .* 30 x 20\. Height and width are exchanged"):
        decode_image(encoded(NOISE, "JPEG"), "x.jpg", (30, 20))


@pytest.mark.parametrize("size", [(1, 1), (100, 20000), (20000, 100)])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_extreme_sizes(size, format):
    assert decode_image(encoded(np.zeros((*size, 3), np.uint8), format), "x.jpg").shape == (*size, 3)


JPEG, PROGRESSIVE, PNG = encoded(NOISE, "JPEG"), encoded(NOISE, "JPEG", progressive=True), encoded(NOISE, "PNG")


DAMAGED = {
    "empty": b"",
    "one byte": b"\0",
    "zeros": bytes(5000),
    "text": b"<html>404</html>",
    "JPEG marker": JPEG[:2],
    "JPEG header": JPEG[:40],
    "half a JPEG": JPEG[: len(JPEG) // 2],
    "half a JPEG, closed": JPEG[: len(JPEG) // 2] + b"\xff\xd9",
    "JPEG without its end": JPEG[:-2],
    "half a JPEG, padded": JPEG[: len(JPEG) // 2] + bytes(2 * len(JPEG)),
    "half a progressive JPEG, padded": PROGRESSIVE[: len(PROGRESSIVE) // 2] + bytes(2 * len(JPEG)),
    "JPEG without its last bytes, padded": JPEG[:-6] + bytes(100),
    "half a progressive JPEG": PROGRESSIVE[: len(PROGRESSIVE) // 2],
    "PNG header": PNG[:20],
    "half a PNG": PNG[: len(PNG) // 2],
    "GIF": encoded(GREY, "GIF")[:60],
    "WebP": encoded(NOISE, "WEBP")[:60],
    "TIFF": encoded(NOISE, "TIFF")[:300],
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_named(data):
    with pytest.raises(UserError, match=r"some/image\.jpg"):
        decode_image(data, "some/image.jpg")


def test_stray_bytes_at_the_end_of_a_jpeg_are_harmless():
    check(JPEG[:-2] + b"\0\0\0" + JPEG[-2:], pillow(JPEG))
    check(JPEG + b"appended", pillow(JPEG))


def with_scan_parameters(data, values):
    """A JPEG with other bytes Ss, Se and Ah/Al at the end of its (first) scan header."""
    at = data.index(b"\xff\xda")
    start = at + 5 + 2 * data[at + 4]
    return data[:start] + values + data[start + 3 :]


def with_segment(data, marker, body):
    return data[:2] + marker + struct.pack(">H", len(body) + 2) + body + data[2:]


ODD = {
    "scan parameters of some phones": with_scan_parameters(JPEG, b"\0\0\0"),
    "the same with a preview": with_segment(
        with_scan_parameters(JPEG, b"\0\0\0"), b"\xff\xe1", b"Exif\0\0" + encoded(GREY, "JPEG")
    ),
    "JFIF revision": JPEG.replace(b"JFIF\0\1", b"JFIF\0\7"),
    "Adobe transform": with_segment(JPEG, b"\xff\xee", b"Adobe\0\x64\0\0\0\0\x09"),
    "ICC profile": with_segment(JPEG, b"\xff\xe2", b"ICC_PROFILE\0\7\1profile"),
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD.keys())
def test_headers_that_libjpeg_only_warns_of_are_harmless(data):
    assert data != JPEG
    check(data, pillow(data))


RESTARTS = encoded(NOISE, "JPEG", restart_marker_blocks=1)
SCANS = PROGRESSIVE.split(b"\xff\xc4")  # each with its table
BROKEN = {
    "Premature end of JPEG file": JPEG[:-2],
    "premature end of data segment": JPEG[:-200] + b"\xff\xd9",
    "bad Huffman code": JPEG[:-200] + b"\xff\0" * 90 + JPEG[-20:],
    "premature end": with_scan_parameters(JPEG, b"\0\0\0")[:-200] + b"\xff\xd9",
    "instead of RST": RESTARTS.replace(b"\xff\xd1", b"\xff\xd6", 1),
    "Inconsistent progression": b"\xff\xc4".join(SCANS[:2] + SCANS[3:]),
}


@pytest.mark.parametrize(("told", "data"), BROKEN.items())
def test_pixels_that_libjpeg_misses_are_told(told, data):
    with pytest.raises(UserError, match=told):
        decode_image(data, "x")


@pytest.mark.parametrize("zeros", [2, 500])
def test_an_end_that_zeros_have_overwritten_is_harmless(zeros):
    check(JPEG[:-2] + bytes(zeros), pillow(JPEG))


def test_no_part_of_a_jpeg_is_taken_for_the_whole():
    for whole in (JPEG, PROGRESSIVE):
        for length in range(len(whole) - 2):
            with pytest.raises(UserError):
                decode_image(whole[:length] + bytes(len(whole)), "x")


def test_a_picture_that_ends_in_ff_before_the_zeros():
    pixels = (rng.integers(0, 256, (20, 30, 3), np.uint8) for _ in range(5000))
    data = next(
        data for data in map(partial(encoded, format="JPEG", quality=100), pixels) if data.endswith(b"\xff\0\xff\xd9")
    )
    check(data[:-2] + bytes(50), pillow(data))


def huge_png():
    """A PNG whose header promises 60000 x 60000 pixels."""
    chunks = b""
    for kind, body in ((b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b""))):
        chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


def huge_jpeg():
    """A small JPEG whose header promises 60000 x 60000 pixels."""
    at = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:at] + struct.pack(">HH", 60000, 60000) + JPEG[at + 4 :]


@pytest.mark.parametrize("bomb", [huge_png(), huge_jpeg()])
def test_decompression_bombs_are_refused(bomb):
    with pytest.raises(UserError, match=r"bomb\.png.*pixels"):
        decode_image(bomb, "bomb.png")


def test_large_pictures_are_no_attack():
    """Pillow warns of those that it reads, too."""
    told = (
        "import io; from PIL import Image; from aggmask.data.decode import decode_image; Image.MAX_IMAGE_PIXELS = 9; "
    )
    told += "file = io.BytesIO(); Image.new('L', (4, 4)).save(file, 'PNG'); decode_image(file.getvalue(), 'large.png')"
    run = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert run.stderr == ""


def test_pillow_limit_still_holds():
    assert decode_module.MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


PALETTE = Image.fromarray(NOISE).quantize(16)


@pytest.mark.parametrize(
    ("pixels", "format", "mode"),
    [(NOISE, "JPEG", None), (GREY, "JPEG", None), (NOISE, "PNG", "RGBA"), (NOISE, "PNG", "LA"), (PALETTE, "PNG", None),
     (NOISE, "JPEG", "CMYK"), (GREY.astype(np.uint16) * 257, "PNG", None)],
)  # fmt: skip
def test_grey_and_opaque_pixels_agree_with_the_colors(pixels, format, mode):
    data = encoded(pixels, format, mode)
    colors = decode_image(data, "x")
    luma = np.asarray(Image.fromarray(colors).convert("L"))
    check(data, luma[..., None], channels=1)
    check(data, np.concatenate([colors, np.full((20, 30, 1), 255, np.uint8)], 2), channels=4)


def test_opacity_is_what_the_file_stores():
    stored = np.dstack([NOISE, GREY])
    check(encoded(stored, "PNG"), stored, channels=4)
    check(encoded(stored, "PNG"), NOISE)
    check(encoded(stored, "PNG"), np.asarray(Image.fromarray(NOISE).convert("L"))[..., None], channels=1)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("given", [1, 3, 4])
def test_pictures_in_memory_have_the_same_channels_as_files(given, channels):
    stored = np.dstack([NOISE, GREY])[..., :given]
    expected = decode_image(encoded(stored.squeeze(), "PNG"), "x", channels=channels)
    for picture in (stored, stored.squeeze(), stored / 255.0, Image.fromarray(stored.squeeze())):
        found = pixels_of(picture, channels)
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected)

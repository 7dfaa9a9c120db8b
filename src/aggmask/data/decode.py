"""From the bytes of an image file to its pixels: 8-bit RGB, or grey, or RGB with transparency.

Ordinary JPEG goes through simplejpeg (libjpeg-turbo: Pillow's pixels in 0.6 of the time), everything else through
Pillow. Transparency is dropped, not composited: as with OpenCV, what training sees is the stored color, and no
background is invented. Difference from Pillow: ordinary JPEGs of which a part is missing are refused, not filled with
grey. Changed bytes inside of a picture mostly go unnoticed, as in viewers: libjpeg takes them for another picture.
"""

from __future__ import annotations

import io
import logging
import mmap
import warnings
from typing import Literal

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from aggmask.cocofile.records import MAX_PIXELS
from aggmask.depth import WHITE, Range, UnknownScale, eight_bits, is_deep, largest_share, shallow, too_dark
from aggmask.errors import UserError

Exif = Literal["auto", "apply", "ignore"]
CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}  # number of channels -> Pillow's name of it
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a TIFF's tag
_DARK = 1 / 8  # of white: a deep picture without larger values was made for another range
EXCHANGED = "Height and width are exchanged: in the annotations, or the picture was turned after annotating"
# libjpeg's warnings after which pixels are missing or nonsense. All others are of headers that cameras and editors get
# wrong (scan parameters, JFIF revision, Adobe transform, ICC profile) or of bytes to spare: every viewer reads on. Its
# errors end Pillow's reading, too.
_DAMAGE = ("remature end", "bad Huffman code", "bad arithmetic code", "instead of RST", "Inconsistent progression")
_logger = logging.getLogger(__name__)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS is the limit here
_told = mmap.mmap(-1, 1)  # whether a warning was given: a byte that loader processes share, as they are forked


def decode_image(
    data: bytes,
    name: str,
    expected_size: tuple[int, int] | None = None,
    channels: int = 3,
    value_range: Range | None = None,
    exif: Exif = "auto",
) -> np.ndarray:
    """Pixels (H, W, channels) uint8, C-contiguous and writable, of an image file.

    Args:
        data: the whole file.
        name: of the file, for messages.
        expected_size: (height, width) the annotation file gives.
        channels: 3: RGB. 1: grey, of colors their luma. 4: RGB and opacity, 255 where the file says nothing of it.
        value_range: what is black and white where values have more than 8 bits; None: by their type.
        exif: the rotation that an EXIF tag asks for. "apply" it, as viewers do; "ignore" it, where annotations were
            made on pictures as stored; "auto": apply it, unless only the stored picture has the expected size.

    Raises:
        UserError: not an image, damaged, too large, or of another size than expected in any reading that `exif` allows.
    """
    if not data:
        raise UserError(f"The image {name} is empty (0 bytes). Download or copy it again.")
    try:
        orientation = orientation_of(data)
        stored = _decode_jpeg(data)
        if stored is None:
            stored = _decode_other(data, orientation, channels, name, value_range)
        elif channels != 3:
            stored = _pixels(Image.fromarray(stored), channels)
    except UnknownScale as error:
        raise UnknownScale(f"The image {name}: {error}") from error
    except Exception as error:  # on damaged files decoders raise nearly anything
        reason, advice = error, "Download or export it again."
        if isinstance(error, UnidentifiedImageError):
            reason = "it is damaged, or in no image format that Pillow reads (HEIC, camera raw, TIFF of many bands)"
            advice = "Save it as PNG or JPEG, or download it again."
        raise UserError(
            f"The image {name} ({len(data)} bytes, starting with {data[:12]!r}) cannot be decoded: {reason}. {advice}"
        ) from error
    return np.ascontiguousarray(_turned(stored, orientation, name, expected_size, exif))


def told_to_turn(exif: Exif, orientation: int) -> str:
    """Why a picture is turned otherwise than its annotations want it."""
    return f"That is data.exif={exif} of EXIF orientation {orientation}"


def _turned(
    stored: np.ndarray, orientation: int, name: str, expected_size: tuple[int, int] | None, exif: Exif
) -> np.ndarray:
    """The reading of the stored pixels, rotated or not, that has the expected size."""
    rotated = _rotate(stored, orientation)
    readings = {"auto": (rotated, stored), "apply": (rotated,), "ignore": (stored,)}[exif]
    for pixels in readings:
        if expected_size is None or pixels.shape[:2] == tuple(expected_size):
            return pixels
    height, width = readings[-1].shape[:2]
    advice = "Use the images they were made for, or scale the annotations."
    if tuple(expected_size) == (width, height):
        advice = f"{EXCHANGED}."
    if tuple(expected_size) in (rotated.shape[:2], stored.shape[:2]):
        advice = f"{told_to_turn(exif, orientation)}; data.exif=auto goes by the size."
    raise UserError(
        f"The image {name} is {height} x {width} pixels (height x width), but its annotations are for "
        f"{expected_size[0]} x {expected_size[1]}. {advice}"
    )


def _rotate(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as EXIF orientation 1 to 8 wants them seen. 6 and 8 undo each other, each other one undoes itself."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def orientation_of(data: bytes) -> int:
    """EXIF orientation of an image file, 1 (upright) to 8; from 5 on a viewer swaps height and width."""
    # Opening a file with Pillow costs as much as a tenth of decoding it: most JPEGs carry no such tag at all.
    if data.startswith(b"\xff\xd8") and b"Exif\0\0" not in data and b"tiff:Orientation" not in data:
        return 1
    try:
        with _open(data) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken tag does not spoil the picture; whether that is broken, decoding will tell
        return 1
    return orientation if orientation in range(1, 9) else 1


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    """Stored pixels of an ordinary JPEG; None for what simplejpeg cannot do as Pillow does."""
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(height, width)
    if colorspace not in ("Gray", "YCbCr", "RGB"):
        return None
    try:
        return simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError as error:
        if "Invalid SOS parameters" in str(error) and (usual := _with_usual_scan(data)) != data:
            return _decode_jpeg(usual)  # not by Pillow, which says nothing of what is missing
        if not any(sign in str(error) for sign in _DAMAGE):
            return None
        # A progressive one (FF C2) may end at any of its scans: of that nobody could tell whether it is whole.
        if "Premature end of JPEG file" not in str(error) or not data.endswith(b"\0") or b"\xff\xc2" in data:
            raise
    # Zeros, to which some programs pad files, where the end marker was. Nothing is missing if there is no complaint
    # once it stands right behind the last byte of the picture (an FF has a 0 behind it).
    closed = data.rstrip(b"\0")
    closed += b"\0" * closed.endswith(b"\xff") + b"\xff\xd9"
    return simplejpeg.decode_jpeg(closed, "RGB", strict=True)


def _with_usual_scan(data: bytes) -> bytes:
    """A sequential JPEG with the only scan parameters that such a one can have; some phones write others."""
    at = 2
    while data[at + 1] != 0xDA:  # from segment to segment: a preview inside of one has a scan of its own
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[: end - 3] + b"\0\x3f\0" + data[end:]


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    _check_size(image.height, image.width)
    return image


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ValueError(f"{height} x {width} are more than {MAX_PIXELS} pixels")


def _decode_other(data: bytes, orientation: int, channels: int, name: str, value_range: Range | None) -> np.ndarray:
    """Stored pixels (first frame) through Pillow."""
    with _open(data) as image:
        if (largest := largest_share(image, value_range)) is not None and largest < _DARK and not _told[0]:
            _logger.warning("%s", too_dark(name, largest, value_range))
            _told[0] = 1
        image.load()
        pixels = _pixels(image, channels, value_range)
        if image.format == "TIFF":  # the one format that Pillow rotates by itself
            pixels = _rotate(pixels, {6: 8, 8: 6}.get(orientation, orientation))
            if is_deep(image) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow sees to it up to 8 bits
                pixels[..., :3] = 255 - pixels[..., :3]  # not the opacity
    return pixels


def _pixels(image: Image.Image, channels: int, value_range: Range | None = None) -> np.ndarray:
    """(H, W, channels) uint8 of any Pillow mode."""
    image = shallow(image, value_range)
    if image.mode == "LAB":  # of which Pillow makes nothing but RGB
        image = image.convert("RGB")
    if image.mode in ("P", "PA"):  # by way of RGBA: a palette's transparent colors have colors, too
        image = image.convert("RGBA")
    # A copy: Pillow's own memory is read-only.
    return np.array(image.convert(CHANNELS[channels])).reshape(image.height, image.width, channels)


def size_of(data: bytes, exif: Exif = "auto") -> tuple[int, int] | None:
    """(height, width) that the header of an image file promises, as `exif` reads it; None where it is in no format."""
    try:
        with _open(data) as image:
            # Of a TIFF the tags: whether Pillow rotates it on opening or on loading depends on its version.
            size = tuple(image.tag_v2[tag] for tag in (257, 256)) if image.format == "TIFF" else image.size[::-1]
    except Exception:  # on damaged files decoders raise nearly anything
        return None
    return size[::-1] if exif != "ignore" and orientation_of(data) >= 5 else size


def largest_value(data: bytes, value_range: Range | None = None) -> float | None:
    """Largest value of an image file with more than 8 bits, as a share of white; None for any other file."""
    if data.startswith(b"\xff\xd8"):  # JPEG has 8
        return None
    with _open(data) as image:
        return largest_share(image, value_range)


def pixels_of(image: Image.Image | np.ndarray, channels: int = 3, value_range: Range | None = None) -> np.ndarray:
    """(H, W, channels) uint8 of a picture in memory; a Pillow image is turned upright by its EXIF tag.

    Args:
        image: any Pillow image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): uint16 in 0..65535, other
            integers in 0..255, floats in 0..1, truth values. `value_range` takes the place of these.
        channels, value_range: see `decode_image`.

    Raises:
        UserError: an array of another shape, or values outside of their range.
    """
    if isinstance(image, Image.Image):
        return np.ascontiguousarray(_pixels(ImageOps.exif_transpose(image), channels, value_range))
    values = np.asarray(image)
    if value_range is not None and values.dtype not in (bool, np.uint8):
        values = eight_bits(values, value_range)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[-1] not in (1, 3, 4) or 0 in values.shape:
        raise UserError(f"an array of shape {values.shape} is not an image: use (H, W), (H, W, 3) or (H, W, 4)")
    values = values.astype(np.float32) if values.dtype == bool else values
    white = 1 if values.dtype.kind == "f" else WHITE if values.dtype == np.uint16 else 255
    if not (values.min() >= 0 and values.max() <= white):
        raise UserError(
            f"an image of {values.dtype} must lie in 0..{white}, and this one in {values.min()}..{values.max()}"
        )
    values = values.astype(np.uint8) if white == 255 else eight_bits(values)
    if values.shape[-1] == channels:
        return np.ascontiguousarray(values)
    return _pixels(Image.fromarray(values.squeeze(-1) if values.shape[-1] == 1 else values), channels)

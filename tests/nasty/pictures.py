"""Image files of every kind that a folder called "images" holds, made here: what they show, or why they cannot."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

SIZE = (20, 30)  # (height, width), as a viewer shows them
BLOCK = (4, 6, 14, 16)  # top, left, bottom, right of the only object: white on black


@dataclass(frozen=True)
class Picture:
    """One file.

    Attributes:
        data: its bytes.
        size: (height, width) that the annotations say.
        kind: what the doctor must find; None: nothing.
        evidence: a text of the finding, and of the loader's error where it has one.
        block: where the white block lies, in the frame of the annotations.
    """

    data: bytes
    size: tuple[int, int] = SIZE
    kind: str | None = None
    evidence: str = ""
    block: tuple[int, int, int, int] = BLOCK


def scene(size=SIZE, block=BLOCK) -> Image.Image:
    """A white block on black."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[block[0] : block[2], block[1] : block[3]] = 255
    return Image.fromarray(pixels)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    """The scene stored so that a viewer shows it upright."""
    back = {3: 3, 6: 8, 8: 6}[orientation]  # the turn that undoes the viewer's
    angle = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}[back]
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return encoded(scene().transpose(angle), "JPEG", quality=95, exif=tags)


def only_tagged(orientation: int) -> bytes:
    """The scene as stored, with a tag that its annotator did not heed."""
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return encoded(scene(), "JPEG", quality=95, exif=tags)


def bomb() -> bytes:
    """A PNG of a few bytes whose header promises 60000 x 60000 pixels."""
    chunks = b""
    for kind, body in ((b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b""))):
        chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


def sixteen_bits(high: int) -> bytes:
    grey = (np.asarray(scene())[..., 0] > 127).astype(np.uint16) * high
    return encoded(Image.fromarray(grey), "PNG")


def _jpeg(**options) -> bytes:
    return encoded(scene(), "JPEG", quality=95, **options)


def pictures() -> dict[str, Picture]:
    """File name -> picture."""
    rgba = scene().convert("RGBA")
    rgba.putalpha(Image.fromarray(np.full(SIZE, 3, np.uint8)))
    frames = [Image.new("RGB", SIZE[::-1], color) for color in ("red", "lime")]
    long, large = (0, 0, 100, 50), (0, 0, 50, 100)
    jpeg, broken = _jpeg(), "unreadable"
    return {
        "rgb.jpg": Picture(jpeg),
        "progressive.jpg": Picture(_jpeg(progressive=True)),
        "grey.jpg": Picture(encoded(scene().convert("L"), "JPEG", quality=95)),
        "cmyk.jpg": Picture(encoded(scene().convert("CMYK"), "JPEG", quality=95)),
        "grey.png": Picture(encoded(scene().convert("L"), "PNG")),
        "bits.png": Picture(encoded(scene().convert("1"), "PNG")),
        "sixteen.png": Picture(sixteen_bits(65535)),
        "palette.png": Picture(encoded(scene().convert("P"), "PNG")),
        "palette_transparent.png": Picture(encoded(scene().convert("P"), "PNG", transparency=0)),
        "rgba.png": Picture(encoded(rgba, "PNG")),
        "web.webp": Picture(encoded(scene(), "WEBP", lossless=True)),
        "moving.gif": Picture(encoded(scene(), "GIF", save_all=True, append_images=frames)),
        "moving.webp": Picture(encoded(scene(), "WEBP", lossless=True, save_all=True, append_images=frames)),
        "tiff.tif": Picture(encoded(scene(), "TIFF")),
        "png_called.jpg": Picture(encoded(scene(), "PNG")),
        "turned_6.jpg": Picture(turned(6)),
        "turned_8.jpg": Picture(turned(8)),
        "turned_3.jpg": Picture(turned(3), kind="turned", evidence="orientation 3"),
        "stored_6.jpg": Picture(only_tagged(6), kind="stored-frame", evidence="orientation 6"),
        "straße/ü 1.jpg": Picture(jpeg),
        "dot.png": Picture(encoded(Image.new("RGB", (1, 1), "white"), "PNG"), (1, 1), block=(0, 0, 1, 1)),
        "long.png": Picture(encoded(scene((100, 20000), long), "PNG"), (100, 20000), block=long),
        "high.jpg": Picture(encoded(scene((20000, 100), large), "JPEG"), (20000, 100), block=large),
        "empty.jpg": Picture(b"", kind=broken, evidence="0 bytes"),
        "text.jpg": Picture(b"<html>404 not found</html>", kind=broken, evidence="no image format"),
        "zeros.png": Picture(bytes(4000), kind=broken, evidence="no image format"),
        "truncated.jpg": Picture(jpeg[: len(jpeg) // 2], kind=broken, evidence="cannot be decoded"),
        "truncated.png": Picture(encoded(scene(), "PNG")[:60], kind=broken, evidence="cannot be decoded"),
        "bomb.png": Picture(bomb(), kind=broken, evidence="pixels"),
        "swapped.jpg": Picture(jpeg, (30, 20), "wrong-size", "exchanged", (4, 6, 14, 16)),
        "other_size.jpg": Picture(jpeg, (40, 60), "wrong-size", "20 x 30"),
    }


def write(root: Path, choose: Callable[[Picture], bool] = lambda picture: True) -> dict[str, Picture]:
    """`root/images` with the chosen pictures, and `root/file.json` with the block of each; name -> picture."""
    chosen = {name: picture for name, picture in pictures().items() if choose(picture)}
    images, annotations = [], []
    for id, (name, picture) in enumerate(chosen.items(), start=1):
        file = root / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture.data)
        images.append({"id": id, "file_name": name, "height": picture.size[0], "width": picture.size[1]})
        top, left, bottom, right = picture.block
        polygon = [left, top, right, top, right, bottom, left, bottom]
        annotations.append({"id": 100 + id, "image_id": id, "category_id": 1, "segmentation": [polygon]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "block"}]}
    (root / "file.json").write_text(json.dumps(content), encoding="utf-8")
    return chosen

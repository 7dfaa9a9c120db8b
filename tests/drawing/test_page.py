"""Pages of one file."""

import base64
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from aggmask.drawing.page import data_address, jpeg_address, png_address, script_hash, write_page
from aggmask.errors import UserError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))


def test_addresses_hold_what_they_point_to():
    assert data_address("text/plain", b"hello") == "data:text/plain;base64,aGVsbG8="
    for kind, address in (("png", png_address(PICTURE)), ("jpeg", jpeg_address(PICTURE))):
        head, _, content = address.partition(",")
        assert head == f"data:image/{kind};base64"
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        assert image.size == PICTURE.size
    assert len(jpeg_address(PICTURE, quality=20)) < len(jpeg_address(PICTURE))


def test_the_hash_is_that_of_the_script():
    script = '"use strict"; // ü'
    digest = base64.b64decode(script_hash(script).removeprefix("'sha256-").removesuffix("'"))
    assert digest == hashlib.sha256(script.encode()).digest()


def test_a_page_is_put_in_its_place(tmp_path):
    assert write_page("grün", f"{tmp_path}/new folder/page.html", "html").read_text(encoding="utf-8") == "grün"
    with pytest.raises(UserError, match=r"output=.*: cannot be written: Is a directory"):
        write_page("x", str(tmp_path), "output")

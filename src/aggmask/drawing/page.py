"""Pages that are one HTML file: pictures inside of it, nothing to load, whatever a name from a file may say."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from aggmask.errors import UserError


def render_page(package: str, **values: Any) -> str:
    """The `page.html` of a package; it may include its own files and those of this room (`base.css`).

    Names in the values are text and never markup, and a name that the values lack is an error.
    """
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(place, "") for place in (package, __package__)])
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False, keep_trailing_newline=False
    )
    environment.filters["script_hash"] = script_hash
    return environment.get_template("page.html").render(**values)


def write_page(text: str, path: str, key: str) -> Path:
    """Put a page in its place, whose folder is made; `key` is what the command calls the place.

    Raises:
        UserError: it cannot be written.
    """
    place = Path(path).expanduser()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{key}={path}: cannot be written: {error.strerror or error}") from error
    return place


def script_hash(script: str) -> str:
    """What a Content-Security-Policy calls a script, so that no other one is run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def data_address(kind: str, content: bytes) -> str:
    """An address that holds what it points to; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def jpeg_address(picture: Image.Image, quality: int = 88) -> str:
    """A photograph as an address."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality, optimize=True)
    return data_address("image/jpeg", content.getvalue())


def png_address(picture: Image.Image) -> str:
    """A drawing, or what is transparent, as an address."""
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return data_address("image/png", content.getvalue())

"""File names of images: known to stay inside the place where the images lie, and what is said of those that do not."""

from __future__ import annotations

import posixpath
import re

from aggmask.errors import UserError

COCO_LAYOUT = (
    "COCO is laid out as ROOT/annotations/instances_train2017.json, ROOT/annotations/instances_val2017.json and the "
    "images in ROOT/train2017 and ROOT/val2017 (folders, or the zips as downloaded)."
)


def inside(name: str, place: str) -> str:
    """The name in its plainest form, known to stay inside the storage."""
    plain = posixpath.normpath(name)
    if (
        plain in (".", "")
        or "\0" in name
        or re.match(r"[/\\]|[A-Za-z]:[/\\]", name)
        or ".." in re.split(r"[/\\]", plain)
    ):
        raise leads_out(name, place)
    return plain


def leads_out(name: str, place: str) -> UserError:
    return UserError(
        f"The file name {name!r} leads out of {place}. Names must be relative to the images' folder and stay in it; "
        "data.allow_outside=true lets names and links lead out of a local folder."
    )


def missing(name: str, place: str) -> UserError:
    return UserError(
        f"There is no image {name!r} in {place}. Check that annotations and images belong together (train, val), and "
        "that the images are complete."
    )

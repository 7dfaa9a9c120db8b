"""File names of images: known to stay inside the place where the images lie, and what is said of those that do not."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Sequence

from aggmask.errors import UserError


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


def missing(name: str, place: str, near: Sequence[str] = (), namesake: str | None = None) -> UserError:
    """What is said of a name that is not there.

    Args:
        near: names that are, see `Storage.near`.
        namesake: one that is the same without folders, which may be another image.
    """
    if len(near) == 1:
        return UserError(
            f"There is no image {name!r} in {place}, but {near[0]!r}. Write the name as the file has it: "
            "python -m aggmask.doctor fix=FILE makes such a copy of the annotations."
        )
    found = "" if namesake is None else f", but {namesake!r}. If that is the image, write names from the same folder on"
    return UserError(
        f"There is no image {name!r} in {place}{found}. Check that annotations and images belong together (train, "
        "val), and that the images are complete."
    )


def spellings(name: str) -> list[str]:
    """Other ways to write the same name: with / for Windows's backslash, accents joined to letters or apart (macOS)."""
    plain = name.replace("\\", "/")
    return sorted({plain, *(unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))} - {name})


def alike(name: str) -> str:
    """Equal for names that differ in spelling, or in upper and lower case."""
    return unicodedata.normalize("NFC", name.replace("\\", "/")).casefold()


def endings(name: str, place: str) -> list[str]:
    """The name, and what is left of it without folders that `place` ends in: it may repeat them."""
    parts, outer = (alike(path).removesuffix(".zip").split("/") for path in (name, place))
    plain = name.replace("\\", "/").split("/")
    return ["/".join(plain[k:]) for k in range(len(parts)) if not k or parts[:k] == outer[-k:]]

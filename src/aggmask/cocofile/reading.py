"""Opening an annotation file, wherever it lies: what goes wrong before its content is looked at (see `records`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import fsspec

from aggmask.errors import UserError

COCO_LAYOUT = (
    "COCO is laid out as ROOT/annotations/instances_train2017.json, ROOT/annotations/instances_val2017.json and the "
    "images in ROOT/train2017 and ROOT/val2017 (folders, or the zips as downloaded)."
)


@contextmanager
def readable(source: str) -> Iterator[None]:
    """Turn what goes wrong in reading `source` (a path, or an address that fsspec knows) into a UserError."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"There is no annotation file {source}. {COCO_LAYOUT}") from error
    except Exception as error:  # each remote file system has its own exceptions
        raise UserError(
            f"The annotation file {source} cannot be read: {error or repr(error)}. {COCO_LAYOUT}"
        ) from error


def read(source: str) -> bytes:
    """The bytes of an annotation file.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    with readable(source), fsspec.open(source, "rb") as file:
        return file.read()

"""Bytes of images by file name from where they lie: a folder, a zip, an URL of either. Nothing is unpacked."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from aggmask.cocofile.reading import COCO_LAYOUT
from aggmask.data.byte_ranges import LocalFile, Remote, RemoteFile
from aggmask.data.names import alike, endings, inside, leads_out, missing, spellings
from aggmask.data.zip_images import Zip
from aggmask.errors import UserError

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)  # no such file in a folder


class Storage(Protocol):
    """Images by name. Pickles, and may be used in forked processes.

    A name may hold folders ("a/b.jpg"). A name that leads out of the storage, or that it does not hold, is a UserError.
    """

    place: str  # for messages

    def read(self, name: str) -> bytes: ...

    def read_many(self, names: list[str]) -> list[bytes]:
        """Bytes of each name, in order; from a remote store with several requests in flight."""
        ...

    def __contains__(self, name: str) -> bool: ...

    def near(self, name: str) -> list[str]:
        """Images whose names are this one but for upper and lower case, or folders in front; for a missing one.

        A store that cannot be listed in a moment says none.
        """
        ...


def open_storage(place: str | Path, allow_outside: bool = False) -> Storage:
    """Storage of the images in a folder, in a .zip, or under an fsspec URL (http, s3, gs, ...) of either.

    Args:
        allow_outside: names may lead out of a local folder (`../`, absolute paths, symbolic links): for annotations of
            your own. Whoever wrote another's could otherwise have any file of yours read.

    Raises:
        UserError: there is no such folder or zip, or the zip is damaged.
    """
    if is_url(place):
        is_zip = str(place).partition("?")[0].lower().endswith(".zip")
        return Zip(RemoteFile(str(place))) if is_zip else Remote(str(place))
    path = Path(place).expanduser().absolute()
    if path.is_dir():
        return _Folder(str(path), allow_outside)
    if path.is_file():
        return Zip(LocalFile(str(path)))
    beside = path.with_name(path.name + ".zip")
    hint = f"There is {beside}: name that, it need not be unpacked." if beside.is_file() else COCO_LAYOUT
    raise UserError(f"There is no folder or zip of images {path}. {hint}")


def is_url(place: str | Path) -> bool:
    """Whether `place` is for fsspec to open, not the local file system."""
    return "://" in str(place)


@dataclass
class _Folder:
    """Images in a local folder."""

    place: str
    allow_outside: bool = False

    def __post_init__(self) -> None:
        self._real = os.path.realpath(self.place)

    def _path(self, name: str) -> Path:
        if self.allow_outside and "\0" not in name:
            return Path(self.place, name)
        path = os.path.join(self.place, inside(name, self.place))
        if not os.path.realpath(path).startswith(os.path.join(self._real, "")):  # by a symbolic link
            raise leads_out(name, self.place)
        return Path(path)

    def read(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except OSError as error:
            if error.errno not in _MISSING:
                raise UserError(f"The image {name!r} in {self.place} cannot be read: {error.strerror}.") from error
            for other in spellings(name):
                if os.path.isfile(self._path(other)):
                    return self._path(other).read_bytes()
            raise missing(name, self.place, self.near(name)) from error

    def read_many(self, names: list[str]) -> list[bytes]:
        return [self.read(name) for name in names]

    def __contains__(self, name: str) -> bool:
        # not Path.is_file, which fails where a name is longer than any file's
        return any(os.path.isfile(self._path(spelled)) for spelled in (name, *spellings(name)))

    def near(self, name: str) -> list[str]:
        try:
            plain = inside(name, self.place)
        except UserError:  # which is allowed, but not searched for
            return []
        found = []
        for ending in endings(plain, self.place):
            paths = [""]
            for part in ending.split("/"):
                listed = ((path, _listed(os.path.join(self.place, path))) for path in paths)
                paths = [os.path.join(path, entry) for path, names in listed for entry in names.get(alike(part), ())]
            found += paths
        return [path for path in found if os.path.isfile(os.path.join(self.place, path))]


@lru_cache(64)
def _listed(folder: str) -> dict[str, list[str]]:
    """What is in a folder, by `alike`; asked for once, as many names may be missing."""
    names: dict[str, list[str]] = {}
    try:
        entries = os.listdir(folder)
    except OSError:  # no folder, or one that must not be listed
        entries = []
    for entry in entries:
        names.setdefault(alike(entry), []).append(entry)
    return names

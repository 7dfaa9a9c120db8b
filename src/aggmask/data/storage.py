"""Bytes of images by file name from where they lie: a folder, a zip, an URL of either. Nothing is unpacked.

A zip is read through a table of where its members lie: 5 MB for COCO's 118k images, made once and handed to the worker
processes, instead of `zipfile`'s list of objects in each of them. Difference from `zipfile`: members are looked up by
a 64-bit hash of their name.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import struct
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import quote

import fsspec
import numpy as np

from aggmask.errors import UserError

COCO_LAYOUT = (
    "COCO is laid out as ROOT/annotations/instances_train2017.json, ROOT/annotations/instances_val2017.json and the "
    "images in ROOT/train2017 and ROOT/val2017 (folders, or the zips as downloaded)."
)
IN_FLIGHT = 16  # requests at once to a remote store: hides 30 ms of latency
_ATTEMPTS = 3


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
        return _Zip(_RemoteFile(str(place))) if is_zip else _Remote(str(place))
    path = Path(place).expanduser().absolute()
    if path.is_dir():
        return _Folder(str(path), allow_outside)
    if path.is_file():
        return _Zip(_LocalFile(str(path)))
    beside = path.with_name(path.name + ".zip")
    hint = f"There is {beside}: name that, it need not be unpacked." if beside.is_file() else COCO_LAYOUT
    raise UserError(f"There is no folder or zip of images {path}. {hint}")


def is_url(place: str | Path) -> bool:
    """Whether `place` is for fsspec to open, not the local file system."""
    return "://" in str(place)


def _inside(name: str, place: str) -> str:
    """The name in its plainest form, known to stay inside the storage."""
    plain = posixpath.normpath(name)
    if (
        plain in (".", "")
        or "\0" in name
        or re.match(r"[/\\]|[A-Za-z]:[/\\]", name)
        or ".." in re.split(r"[/\\]", plain)
    ):
        raise _leads_out(name, place)
    return plain


def _leads_out(name: str, place: str) -> UserError:
    return UserError(
        f"The file name {name!r} leads out of {place}. Names must be relative to the images' folder and stay in it; "
        "data.allow_outside=true lets names and links lead out of a local folder."
    )


def _missing(name: str, place: str) -> UserError:
    return UserError(
        f"There is no image {name!r} in {place}. Check that annotations and images belong together (train, val), and "
        "that the images are complete."
    )


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
        path = os.path.join(self.place, _inside(name, self.place))
        if not os.path.realpath(path).startswith(os.path.join(self._real, "")):  # by a symbolic link
            raise _leads_out(name, self.place)
        return Path(path)

    def read(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise _missing(name, self.place) from error
        except OSError as error:
            raise UserError(f"The image {name!r} in {self.place} cannot be read: {error.strerror}.") from error

    def read_many(self, names: list[str]) -> list[bytes]:
        return [self.read(name) for name in names]

    def __contains__(self, name: str) -> bool:
        return self._path(name).is_file()


class _PerProcess:
    """What `_connect` gives, made anew in each process: neither file descriptors nor connections survive a fork."""

    _made: tuple[int, object] | None = None

    def _connection(self):
        if self._made is None or self._made[0] != os.getpid():
            self._made = (os.getpid(), self._connect())
        return self._made[1]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_made": None}


class _Remote(_PerProcess):
    """Images under an URL. Also the byte ranges of any file there."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/")
        self._connection()  # an unknown protocol or a missing package shows here, not in a worker

    def _connect(self) -> tuple[fsspec.AbstractFileSystem, str]:
        try:
            return fsspec.core.url_to_fs(self.place)
        except (ImportError, ValueError) as error:
            raise UserError(f"{self.place} cannot be opened: {error}") from error

    def _path(self, name: str) -> str:
        fs, root = self._connection()
        name = _inside(name, self.place)
        return f"{root}/{quote(name) if 'http' in fs.protocol else name}"

    def fetch(self, paths: list[str], starts: list[int] | None = None, ends: list[int] | None = None) -> list:
        """Bytes, or the exception, of each path; whole, or from its start to its end. Hiccups are retried."""
        fs, _ = self._connection()
        options = {"batch_size": IN_FLIGHT} if fs.async_impl else {}
        starts, ends = starts or [None] * len(paths), ends or [None] * len(paths)
        results: list = [None] * len(paths)
        todo = list(range(len(paths)))
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(0.2 * 5**attempt)
            asked = ([values[i] for i in todo] for values in (paths, starts, ends))
            for i, answer in zip(todo, fs.cat_ranges(*asked, on_error="return", **options), strict=True):
                results[i] = answer
            todo = [
                i for i in todo if isinstance(results[i], Exception) and not isinstance(results[i], FileNotFoundError)
            ]
            if not todo:
                break
        return results

    def read(self, name: str) -> bytes:
        return self.read_many([name])[0]

    def read_many(self, names: list[str]) -> list[bytes]:
        answers = self.fetch([self._path(name) for name in names])
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, FileNotFoundError):
                raise _missing(name, self.place) from answer
            if isinstance(answer, Exception):
                raise UserError(f"The image {name!r} cannot be read from {self.place}: {answer!r}.") from answer
        return answers

    def __contains__(self, name: str) -> bool:
        return self._connection()[0].exists(self._path(name))


class _LocalFile(_PerProcess):
    """Byte ranges of a local file."""

    def __init__(self, place: str) -> None:
        self.place = place

    def open(self) -> BinaryIO:
        return open(self.place, "rb", buffering=0)

    _connect = open

    def ranges(self, starts: list[int], ends: list[int]) -> list[bytes]:
        descriptor = self._connection().fileno()
        return [os.pread(descriptor, end - start, start) for start, end in zip(starts, ends, strict=True)]


class _RemoteFile:
    """Byte ranges of a file at an URL."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._remote = _Remote(place)

    def open(self) -> BinaryIO:
        fs, path = self._remote._connection()
        return fs.open(path, "rb", cache_type="readahead", block_size=2**16)

    def ranges(self, starts: list[int], ends: list[int]) -> list[bytes]:
        path = self._remote._connection()[1]
        answers = self._remote.fetch([path] * len(starts), starts, ends)
        for start, end, answer in zip(starts, ends, answers, strict=True):
            if isinstance(answer, Exception):
                raise UserError(f"Bytes {start} to {end} of {self.place} cannot be read: {answer!r}.") from answer
            if len(answer) > end - start:
                raise UserError(
                    f"The server of {self.place} answers a request for a byte range with the whole file. Use a server "
                    "that knows byte ranges, or download the zip."
                )
        return answers


class _Zip:
    """Images in a zip. `name` also stands for `top/name` when `top` is the only folder at the top of the zip."""

    def __init__(self, file: _LocalFile | _RemoteFile) -> None:
        self.place = file.place
        self._file = file
        try:
            with file.open() as stream, zipfile.ZipFile(stream) as archive:
                members, directory_start = archive.infolist(), archive.start_dir
        except FileNotFoundError as error:
            raise UserError(f"There is no zip {self.place}. {COCO_LAYOUT}") from error
        except Exception as error:  # each remote file system has its own exceptions
            raise UserError(
                f"{self.place} cannot be read as a zip of images: {error or repr(error)}. Download it again if it is "
                "damaged; pack images of other archives (tar) into a zip, or unpack them into a folder."
            ) from error
        members = [m for m in members if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
        names = [_member_name(member) for member in members]
        tops = {name.partition("/")[0] if "/" in name else None for name in names}
        self._top = tops.pop() if len(tops) == 1 else None
        hashes = np.array([_hash(name) for name in names], np.uint64)
        order = np.argsort(hashes, kind="stable")
        starts = np.array([m.header_offset for m in members], np.int64)
        # A member ends at the latest where the next one starts: one request fetches its header and its data.
        bounds = np.append(np.sort(starts), directory_start)
        self._hashes = hashes[order]
        self._starts = starts[order]
        self._ends = bounds[np.searchsorted(bounds, self._starts, side="right")]
        self._packed_sizes = np.array([m.compress_size for m in members], np.int64)[order]
        self._sizes = np.array([m.file_size for m in members], np.int64)[order]
        self._checksums = np.array([m.CRC for m in members], np.uint32)[order]
        self._methods = np.array([99 if m.flag_bits & 1 else m.compress_type for m in members], np.uint8)[order]

    def _find(self, name: str) -> int | None:
        plain = _inside(name, self.place)
        for candidate in (plain, f"{self._top}/{plain}") if self._top else (plain,):
            key = np.uint64(_hash(candidate))
            row = int(np.searchsorted(self._hashes, key, side="right")) - 1  # the last of a repeated name, as zipfile
            if row >= 0 and self._hashes[row] == key:
                return row
        return None

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def read(self, name: str) -> bytes:
        return self.read_many([name])[0]

    def read_many(self, names: list[str]) -> list[bytes]:
        rows = [self._find(name) for name in names]
        for name, row in zip(names, rows, strict=True):
            if row is None:
                raise _missing(name, self.place)
        spans = self._file.ranges(self._starts[rows].tolist(), self._ends[rows].tolist())
        return [self._member(row, span, name) for row, span, name in zip(rows, spans, names, strict=True)]

    def _member(self, row: int, span: bytes, name: str) -> bytes:
        """The bytes of a member, taken from the stretch of the zip from its local header on."""
        if self._methods[row] not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(
                f"The image {name!r} in {self.place} is encrypted or packed by method {self._methods[row]}. Only "
                "stored and deflated images can be read: pack the zip anew (zip -0)."
            )
        try:
            signature, name_length, extra_length = struct.unpack_from("<4s22xHH", span)
            data = span[30 + name_length + extra_length :][: self._packed_sizes[row]]
            if self._methods[row] == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-15).decompress(data, int(self._sizes[row]) + 1)
            sound = signature == b"PK\3\4" and zlib.crc32(data) == self._checksums[row]
        except (struct.error, zlib.error):
            sound = False
        if not sound:
            raise UserError(
                f"The image {name!r} in {self.place} is damaged, or the zip was changed while in use. Download it "
                "again."
            )
        return data


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest(), "little")


def _member_name(member: zipfile.ZipInfo) -> str:
    """Name of a member; many tools write UTF-8 without saying so, which `zipfile` reads as code page 437."""
    if member.flag_bits & 0x800:
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename

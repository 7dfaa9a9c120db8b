"""Images in a zip, read in place through a table of where its members lie: 5 MB for COCO's 118k images.

It is made once and handed to the worker processes, instead of `zipfile`'s list of objects in each of them. Difference
from `zipfile`: members are looked up by a 64-bit hash of their name.
"""

from __future__ import annotations

import hashlib
import posixpath
import struct
import zipfile
import zlib
from functools import cached_property
from itertools import accumulate, takewhile

import numpy as np

from aggmask.cocofile.reading import COCO_LAYOUT
from aggmask.data.byte_ranges import LocalFile, RemoteFile
from aggmask.data.names import alike, endings, inside, missing, spellings
from aggmask.errors import UserError

_PICTURES = (".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2")


class Zip:
    """Images in a zip. `name` also stands for `a/name` and `a/b/name` where `a/b` is the folder of all pictures.

    The name as it is goes first; one that would stand for several members otherwise stands for none.
    """

    def __init__(self, file: LocalFile | RemoteFile) -> None:
        self.place = file.place
        self._file = file
        try:
            members, directory_start = _members(file)
        except FileNotFoundError as error:
            raise UserError(f"There is no zip {self.place}. {COCO_LAYOUT}") from error
        except Exception as error:  # each remote file system has its own exceptions
            raise UserError(
                f"{self.place} cannot be read as a zip of images: {error or repr(error)}. Download it again if it is "
                "damaged; pack images of other archives (tar) into a zip, or unpack them into a folder."
            ) from error
        names = [_member_name(member) for member in members]
        self._folders = _folders(names)
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
        plain = inside(name, self.place)
        for spelled in (plain, *spellings(plain)):
            if (row := self._row(spelled)) is not None:
                return row
            deeper = [row for folder in self._folders if (row := self._row(folder + spelled)) is not None]
            if deeper:
                return deeper[0] if len(deeper) == 1 else None
        return None

    def _row(self, member: str) -> int | None:
        key = np.uint64(_hash(member))
        row = int(np.searchsorted(self._hashes, key, side="right")) - 1  # the last of a repeated name, as zipfile
        return row if row >= 0 and self._hashes[row] == key else None

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def near(self, name: str) -> list[str]:
        tops = ["", *self._folders]
        wanted = dict.fromkeys(
            alike(top + ending) for ending in endings(inside(name, self.place), self.place) for top in tops
        )
        return [found for key in wanted for found in self._names.get(key, ())]

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """All names by `alike`: large, and only made where an image is missing."""
        names: dict[str, list[str]] = {}
        for member in _members(self._file)[0]:
            names.setdefault(alike(_member_name(member)), []).append(_member_name(member))
        return names

    @cached_property
    def _namesakes(self) -> dict[str, str]:
        """The first member of each name without folders, by `alike`."""
        members = (member for members in self._names.values() for member in members)
        return {posixpath.basename(alike(member)): member for member in reversed(list(members))}

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key not in ("_names", "_namesakes")}

    def read(self, name: str) -> bytes:
        return self.read_many([name])[0]

    def read_many(self, names: list[str]) -> list[bytes]:
        rows = [self._find(name) for name in names]
        for name, row in zip(names, rows, strict=True):
            if row is None:
                namesake = self._namesakes.get(posixpath.basename(alike(name)))
                raise missing(name, self.place, self.near(name), namesake)
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


def _members(file: LocalFile | RemoteFile) -> tuple[list[zipfile.ZipInfo], int]:
    """The files of a zip, and where its directory begins."""
    with file.open() as stream, zipfile.ZipFile(stream) as archive:
        members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
        return members, archive.start_dir


def _folders(names: list[str]) -> list[str]:
    """The folder of all pictures and those around it, outermost first, each with a / at its end.

    Where no name ends as those of pictures do, all of them are taken for pictures.
    """
    pictures = [n for n in names if n.lower().endswith(_PICTURES) and not posixpath.basename(n).startswith(".")]
    paths = [name.split("/")[:-1] for name in pictures or names]
    first, last = min(paths, default=[]), max(paths, default=[])  # what these two share, all do
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return list(accumulate(f"{part}/" for part, _ in shared))


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

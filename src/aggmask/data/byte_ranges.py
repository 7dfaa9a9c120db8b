"""Bytes of files and stretches of files, local or under an URL that fsspec opens, from any process."""

from __future__ import annotations

import os
import time
from typing import BinaryIO
from urllib.parse import quote

import fsspec

from aggmask.data.names import inside, missing
from aggmask.errors import UserError

IN_FLIGHT = 16  # requests at once to a remote store: hides 30 ms of latency
_ATTEMPTS = 3


class PerProcess:
    """What `_connect` gives, made anew in each process: neither file descriptors nor connections survive a fork."""

    _made: tuple[int, object] | None = None

    def connection(self):
        if self._made is None or self._made[0] != os.getpid():
            self._made = (os.getpid(), self._connect())
        return self._made[1]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_made": None}


class Remote(PerProcess):
    """Images under an URL. Also the byte ranges of any file there."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/")
        self.connection()  # an unknown protocol or a missing package shows here, not in a worker

    def _connect(self) -> tuple[fsspec.AbstractFileSystem, str]:
        try:
            return fsspec.core.url_to_fs(self.place)
        except (ImportError, ValueError) as error:
            raise UserError(f"{self.place} cannot be opened: {error}") from error

    def _path(self, name: str) -> str:
        fs, root = self.connection()
        name = inside(name, self.place)
        return f"{root}/{quote(name) if 'http' in fs.protocol else name}"

    def fetch(self, paths: list[str], starts: list[int] | None = None, ends: list[int] | None = None) -> list:
        """Bytes, or the exception, of each path; whole, or from its start to its end. Hiccups are retried."""
        fs, _ = self.connection()
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
                raise missing(name, self.place) from answer
            if isinstance(answer, Exception):
                raise UserError(f"The image {name!r} cannot be read from {self.place}: {answer!r}.") from answer
        return answers

    def __contains__(self, name: str) -> bool:
        return self.connection()[0].exists(self._path(name))

    def near(self, name: str) -> list[str]:
        return []


class LocalFile(PerProcess):
    """Byte ranges of a local file."""

    def __init__(self, place: str) -> None:
        self.place = place

    def open(self) -> BinaryIO:
        return open(self.place, "rb", buffering=0)

    _connect = open

    def ranges(self, starts: list[int], ends: list[int]) -> list[bytes]:
        descriptor = self.connection().fileno()
        return [os.pread(descriptor, end - start, start) for start, end in zip(starts, ends, strict=True)]


class RemoteFile:
    """Byte ranges of a file at an URL."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._remote = Remote(place)

    def open(self) -> BinaryIO:
        fs, path = self._remote.connection()
        return fs.open(path, "rb", cache_type="readahead", block_size=2**16)

    def ranges(self, starts: list[int], ends: list[int]) -> list[bytes]:
        path = self._remote.connection()[1]
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

"""Disks as they fail: full ones, and ones that can only be read. Real ones, where this user may mount."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def disk(place: Path, kilobytes: int) -> Iterator[Path]:
    """A disk of its own in the folder `place`, which is made; the test is skipped where nothing may be mounted."""
    place.mkdir(parents=True)
    options = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(place)]
    try:
        mounted = subprocess.run(options, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a disk takes more rights than this user has")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def make_read_only(place: Path) -> None:
    """From now on a `disk` can only be read."""
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)


@contextmanager
def small_files_only(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: what a full disk looks like, for every user."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

"""What is resident of this process, and the most that was; Linux only."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path


def give_back() -> None:
    """Free memory goes back to the system: what a repetition takes then shows, whatever was used before it."""
    with suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def resident_mb() -> float:
    return _status("VmRSS")


def peak_mb() -> float:
    """Most that was resident since `forget_peak`. Not getrusage: a child inherits its parent's peak there."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Linux starts to count anew; where it may not, the peak is that of the whole process, warm-up included."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {key}: memory is measured on Linux only")

"""Processes of sweeps as the tests start, watch and kill them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aggmask

ROOT = Path(__file__).parents[2]
_started: list[subprocess.Popen] = []


def python_path() -> str:
    """Where `tests` and `aggmask` are found from any folder."""
    places = [str(ROOT), str(Path(aggmask.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(filter(None, places))


def environment(**extra: str) -> dict[str, str]:
    left_out = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "AGGMASK_RUN_STAMP", "AGGMASK_PARENT")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    return env | {"PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"} | extra


def start(*arguments: str, cwd: Path | None = None, **extra: str) -> subprocess.Popen:
    """`python -m ...` in a session of its own; what it prints is kept. `end_all` ends it at the latest."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env=environment(**extra),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    _started.append(process)
    return process


def end_all() -> None:
    """What a failed test has left; the jobs end with their parent."""
    while _started:
        process = _started.pop()
        process.kill()
        process.wait()


def finish(process: subprocess.Popen, seconds: float = 600) -> str:
    said = process.communicate(timeout=seconds)[0]
    assert process.returncode == 0, said[-4000:]
    return said


def until(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    """Living processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return found

"""One thread per test process: small tensors gain nothing from more, and machines are shared."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("short", max_examples=150, deadline=None, derandomize=True)  # the same for everybody
settings.register_profile("fuzz", max_examples=2000, deadline=None)  # other ones each time
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

# A shell that runs the tests in the background has them ignore Ctrl-C, and every process that they start with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# They begin first, the longest in front. Most have few tests, and one that is left for the end keeps one process busy
# while the others have nothing to do.
LONGEST = (
    "test_train.py",
    "test_distributed.py",
    "launcher/test_training.py",
    "benchmarks/test_parts.py",
    "test_resume.py",
    "launcher/test_launch.py",
    "test_wandb.py",
    "test_notebooks.py",
    "launcher/test_schedule.py",
    "callbacks/test_split_step.py",
    "launcher/test_slurm.py",
    "metrics/test_distributed.py",
    "supervision/test_criterion_distributed.py",
    "benchmarks/test_step_times.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    assert all(file.is_file() for file in places), "a name in LONGEST is that of no file"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True, scope="session")
def _nothing_waits_for_the_disk():
    """A small training makes twenty files, and each would be waited for; no test pulls the plug of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield

import os
import shutil
from copy import deepcopy
from pathlib import Path

import pytest

from aggmask.reporting.summary import Summary, summarize
from tests.reporting.made_sweep import make_sweep


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    return make_sweep(tmp_path_factory.mktemp("made"), {1: 2, 5: 0, 9: 1})


@pytest.fixture
def sweep(made, tmp_path) -> Path:
    """Windows 1, 5 and 9 with two seeds each, runs 0 to 5; window 5 is the best. A copy to spoil.

    Only its checkpoints are no copies: remove one before you write another in its place.
    """
    return copied(made, tmp_path)


@pytest.fixture(scope="session")
def _summary(made) -> Summary:
    return summarize(made, "window=5", resample_count=20)


@pytest.fixture
def summary(_summary) -> Summary:
    """Of that sweep, with window 5 as the baseline. To spoil, too."""
    return deepcopy(_summary)


def copied(sweep: Path, folder: Path) -> Path:
    return Path(shutil.copytree(sweep, folder / "sweep", copy_function=_copy))


def _copy(source: str, target: str) -> None:
    (os.link if source.endswith(".ckpt") else shutil.copy2)(source, target)

import shutil
from pathlib import Path

import pytest

from tests.reporting.made_sweep import make_sweep


@pytest.fixture(scope="session")
def _made(tmp_path_factory) -> Path:
    return make_sweep(tmp_path_factory.mktemp("made"), {1: 2, 5: 0, 9: 1})


@pytest.fixture
def sweep(_made, tmp_path) -> Path:
    """Windows 1, 5 and 9 with two seeds each, runs 0 to 5; window 5 is the best. A copy to spoil."""
    return Path(shutil.copytree(_made, tmp_path / "sweep"))

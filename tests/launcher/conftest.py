"""No test leaves a process behind, not even one that fails."""

import pytest

from tests.launcher.processes import end_all


@pytest.fixture(autouse=True)
def _no_process_is_left():
    yield
    end_all()

"""Arguments; what is kept, and when, is in tests/test_resume.py."""

import pytest

from aggmask.callbacks.last_checkpoint import LastCheckpoint
from aggmask.errors import UserError
from tests.runs import composed


def test_the_interval_is_checked(tmp_path):
    with pytest.raises(UserError, match=r"callbacks\.last\.every_n_steps=0: must be at least 1, or null"):
        LastCheckpoint(str(tmp_path), 0)


def test_the_configuration_keeps_one_inside_long_epochs():
    assert composed("experiment=demo", "name=x", "output_dir=x").callbacks.last.every_n_steps == 1000

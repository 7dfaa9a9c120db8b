"""Its own states; a whole run that moves is in tests/test_resume.py."""

from pathlib import Path

import pytest
import torch

from aggmask.callbacks.best_checkpoint import BestCheckpoint
from aggmask.checkpoints.run_folder import BEST


def keeper(folder: Path) -> BestCheckpoint:
    return BestCheckpoint(str(folder), "best", monitor="val/AP", mode="max", enable_version_counter=False)


@pytest.fixture
def state(tmp_path):
    """Of a run in `old` whose best AP is 0.5."""
    best, path = keeper(tmp_path / "old"), str(tmp_path / "old" / BEST)
    best.best_model_path = best.kth_best_model_path = path
    best.best_model_score = best.kth_value = torch.tensor(0.5)
    best.best_k_models = {path: torch.tensor(0.5)}
    return best.state_dict()


def test_the_score_counts_where_its_checkpoint_lies(state, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    (new / BEST).touch()
    moved = keeper(new)
    moved.load_state_dict(state)
    assert moved.best_model_score == 0.5
    assert moved.best_model_path == moved.kth_best_model_path == str(new / BEST)
    assert moved.best_k_models == {str(new / BEST): 0.5}


def test_in_a_new_folder_the_best_is_yet_to_come(state, tmp_path):
    begun = keeper(tmp_path / "new")
    begun.load_state_dict(state)
    assert (begun.best_model_path, begun.best_model_score, begun.best_k_models) == ("", None, {})

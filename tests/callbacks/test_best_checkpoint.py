"""Its own states; a whole run that moves is in tests/test_resume.py."""

from pathlib import Path
from typing import Any

import torch

from aggmask.callbacks.best_checkpoint import BestCheckpoint
from aggmask.checkpoints.run_folder import BEST


def keeper(folder: Path) -> BestCheckpoint:
    return BestCheckpoint(str(folder), "best", monitor="val/AP", mode="max", enable_version_counter=False)


def state_with(score: float, folder: Path) -> dict[str, Any]:
    """Of a run in `folder` with that best AP."""
    best, path = keeper(folder), str(folder / BEST)
    best.best_model_path = best.kth_best_model_path = path
    best.best_model_score = best.kth_value = torch.tensor(score)
    best.best_k_models = {path: torch.tensor(score)}
    return best.state_dict()


def begun(folder: Path, own: dict[str, Any] | None, loaded: dict[str, Any]) -> BestCheckpoint:
    """A run in `folder`, whose `best.ckpt` has the state `own`, that goes on with another one."""
    folder.mkdir()
    best = keeper(folder)
    if own is not None:
        torch.save({"callbacks": {best.state_key: own}}, folder / BEST)
    best.load_state_dict(loaded)
    return best


def test_a_run_that_was_moved_keeps_its_score(tmp_path):
    state = state_with(0.5, tmp_path / "old")
    moved = begun(tmp_path / "new", state, state)
    assert moved.best_model_score == moved.kth_value == 0.5
    assert moved.best_model_path == moved.kth_best_model_path == str(tmp_path / "new" / BEST)
    assert moved.best_k_models == {str(tmp_path / "new" / BEST): 0.5}


def test_the_score_is_that_of_the_checkpoint_in_the_folder(tmp_path):
    """Not of another run's, which this one began from, nor of an evaluation before the best."""
    for number, (own, loaded) in enumerate(((0.4, 0.5), (0.4, 0.3))):
        states = (state_with(own, tmp_path), state_with(loaded, tmp_path))
        assert begun(tmp_path / str(number), *states).best_model_score == 0.4


def test_in_a_new_folder_the_best_is_yet_to_come(tmp_path):
    new = begun(tmp_path / "new", None, state_with(0.5, tmp_path / "old"))
    assert (new.best_model_path, new.best_model_score, new.best_k_models) == ("", None, {})


def test_a_best_checkpoint_that_cannot_be_read_is_taken_by_its_name(tmp_path):
    (tmp_path / BEST).write_bytes(b"cut off")
    best = keeper(tmp_path)
    best.load_state_dict(state_with(0.5, tmp_path / "old"))
    assert best.best_model_score == 0.5


def test_the_state_has_the_name_of_earlier_versions(tmp_path):
    assert keeper(tmp_path).state_key.startswith("ModelCheckpoint{'monitor': 'val/AP'")

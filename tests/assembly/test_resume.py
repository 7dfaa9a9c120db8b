"""What `resume` becomes; whole runs are in tests/test_resume.py."""

import pytest
import torch

from aggmask.assembly import resume
from aggmask.checkpoints.run_folder import LAST, came_to_its_end
from aggmask.errors import UserError
from aggmask.structures import Category


def checkpoint_of(config, names=()) -> str | None:
    return resume.checkpoint_of(config, lambda: [Category(3 * number, name) for number, name in enumerate(names)])


def config(folder, resume, **trainer) -> dict:
    return {"resume": resume, "output_dir": str(folder), "trainer": trainer, "callbacks": {}}


def write(folder, epochs: int, step: int) -> str:
    progress = {"epoch_progress": {"current": {"processed": epochs}}}
    torch.save({"loops": {"fit_loop": progress}, "global_step": step}, folder / LAST)
    return str(folder / LAST)


def test_nothing_to_go_on_from(tmp_path, caplog):
    caplog.set_level("INFO", "aggmask")
    assert checkpoint_of(config(tmp_path, None)) is None
    assert caplog.text == ""
    assert checkpoint_of(config(tmp_path, "auto")) is None
    assert "begins at the beginning" in caplog.text


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"max_epochs": 3}, "goes on after step 8"),
        ({"max_epochs": 2}, "already finished at step 8"),
        ({"max_epochs": 3, "max_steps": 8}, "already finished at step 8"),
        ({"max_epochs": -1, "max_steps": -1}, "goes on after step 8"),
        ({"max_epochs": None, "max_steps": 9}, "goes on after step 8"),
    ],
)
def test_how_far_it_is(trainer, said, tmp_path, caplog):
    caplog.set_level("INFO", "aggmask")
    write(tmp_path, 2, 8)
    assert checkpoint_of(config(tmp_path, "auto", **trainer)) == str(tmp_path / LAST)
    assert said in caplog.text


@pytest.mark.parametrize(
    ("evaluated", "limit", "ended"), [(4, 1.0, False), (None, 1.0, False), (8, 1.0, True), (None, 0, True)]
)
def test_a_training_whose_last_evaluation_was_not_made_is_not_at_its_end(evaluated, limit, ended):
    progress = {"epoch_progress": {"current": {"processed": 2}}}
    content = {"global_step": 8, "evaluated_at": evaluated, "loops": {"fit_loop": progress}}
    assert came_to_its_end(content, {"max_steps": 8, "limit_val_batches": limit}) is ended
    assert came_to_its_end(content, {"max_epochs": 2, "limit_val_batches": limit}) is ended


def test_slurm_queued_it_again(tmp_path, monkeypatch):
    path = write(tmp_path, 1, 4)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert checkpoint_of(config(tmp_path, None, max_epochs=2)) == path
    began_with = tmp_path / "before.ckpt"
    began_with.touch()
    assert checkpoint_of(config(tmp_path, str(began_with), max_epochs=2)) == path
    for count in ("", "0"):
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        with pytest.raises(UserError, match="holds a training already"):
            checkpoint_of(config(tmp_path, None, max_epochs=2))


def test_a_folder_with_a_training_is_not_begun_anew_in(tmp_path):
    write(tmp_path, 2, 8)
    with pytest.raises(UserError, match=r"output_dir=.*: holds a training already \(last\.ckpt\): resume=auto goes on"):
        checkpoint_of(config(tmp_path, None, max_epochs=2))
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other", 1, 4)
    with pytest.raises(
        UserError, match="holds a training already"
    ):  # which would be replaced by what the other becomes
        checkpoint_of(config(tmp_path, other, max_epochs=2))
    assert checkpoint_of(config(tmp_path / "other", other, max_epochs=2)) == other
    (tmp_path / LAST).unlink()
    assert checkpoint_of(config(tmp_path, None, max_epochs=2)) is None


def test_weights_alone(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "model.ckpt")
    with pytest.raises(UserError, match=r"resume=.*model\.ckpt: holds no state of a training"):
        checkpoint_of(config(tmp_path, f"{tmp_path}/model.ckpt"))
    with pytest.raises(UserError, match=r"resume=.*none\.ckpt: there is no such file"):
        checkpoint_of(config(tmp_path, f"{tmp_path}/none.ckpt"))


def test_another_model_or_optimizer_is_refused_by_name(tmp_path):
    """Lightning would load the optimizer's old rate without a word, and of the model name a tensor's shape."""
    began = {"model": {"window": 5, "compile": None}, "optim": {"lr": 0.1}, "data": {"batch_size": 2}}
    progress = {"epoch_progress": {"current": {"processed": 1}}}
    content = {"loops": {"fit_loop": progress}, "global_step": 4, "hyper_parameters": began}
    torch.save(content, tmp_path / LAST)
    same = config(tmp_path, "auto", max_epochs=9) | began
    assert checkpoint_of(same | {"model": {"window": 5, "compile": "inductor"}, "data": {"batch_size": 4}})
    for part, changed, said in (
        ("model", {"window": 9, "compile": None}, "model.window: 5 in the checkpoint, 9 now"),
        ("optim", {"lr": 0.2}, "optim.lr: 0.1 in the checkpoint, 0.2 now"),
    ):
        for asked in ("auto", str(tmp_path / LAST)):
            with pytest.raises(UserError, match=said):
                checkpoint_of(same | {"resume": asked, part: changed})


def test_other_categories_are_refused_by_name(tmp_path):
    """The same number under other names would be trained on without a word, with labels that mean something else."""
    progress = {"epoch_progress": {"current": {"processed": 1}}}
    began = {"categories": [[1, "cat"], [2, "dog"], [5, "cow"]]}
    torch.save({"loops": {"fit_loop": progress}, "global_step": 4, "hyper_parameters": began}, tmp_path / LAST)
    for asked in ("auto", str(tmp_path / LAST)):
        words = config(tmp_path, asked, max_epochs=9)
        assert checkpoint_of(words, ["cat", "dog", "cow"])  # other ids, the same labels
        with pytest.raises(UserError, match=r"label 0: 'cat' in the checkpoint, 'dog' now\n  label 1: 'dog' in"):
            checkpoint_of(words, ["dog", "cat", "cow"])
        with pytest.raises(
            UserError, match=r"the 3 categories.* have 4.*:\n  label 3: none in the checkpoint, 'emu' now"
        ):
            checkpoint_of(words, ["cat", "dog", "cow", "emu"])
        with pytest.raises(UserError, match=r"label 2: 'cow' in the checkpoint, none now"):
            checkpoint_of(words, ["cat", "dog"])
    with pytest.raises(UserError, match=r"label 9: none(.|\n)*\n  and 70 more\nGive it"):
        checkpoint_of(words, ["cat", "dog", "cow", *map(str, range(80))])

import pytest

from aggmask.callbacks.wandb_run import wandb_logger
from aggmask.errors import UserError


@pytest.fixture(autouse=True)
def _no_account(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))


def test_without_an_account_the_run_is_offline_and_says_so(tmp_path, caplog):
    logger = wandb_logger(str(tmp_path), project="p")
    assert logger._wandb_init["mode"] == "offline"
    assert "wandb sync" in caplog.text


def test_the_run_id_is_kept(tmp_path):
    first, again = (wandb_logger(str(tmp_path), mode="offline", project="p") for _ in range(2))
    assert first._id == again._id == (tmp_path / "wandb_id.txt").read_text()
    assert wandb_logger(str(tmp_path / "other"), mode="offline", project="p")._id != first._id


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"logger\.wandb\.mode=onlin: must be online"):
        wandb_logger(str(tmp_path), mode="onlin")

import signal
import time

import pytest
import wandb

from aggmask.callbacks import wandb_run
from aggmask.callbacks.wandb_run import _process_of, finished, wandb_logger
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


def test_the_id_that_a_sweeps_agent_gives_is_kept(tmp_path, monkeypatch):
    """W&B then ignores the one that it is told, and a resumed run would be another one."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "agent1")
    wandb.teardown()  # or it keeps to the environment that it was first used in
    logger = wandb_logger(str(tmp_path), "p", mode="offline")
    assert logger._id != "agent1"
    with finished([logger]):
        assert logger.experiment.id == "agent1"
    assert (tmp_path / "wandb_id.txt").read_text() == "agent1"
    wandb.teardown()
    monkeypatch.delenv("WANDB_SWEEP_ID")
    monkeypatch.delenv("WANDB_RUN_ID")
    assert wandb_logger(str(tmp_path), "p", mode="offline")._id == "agent1"


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"logger\.wandb\.mode=onlin: must be online"):
        wandb_logger(str(tmp_path), project="p", mode="onlin")


def test_what_is_asked_of_wandb(tmp_path):
    named = {"name": "n", "entity": "me", "group": "g", "tags": ["a"]}
    logger = wandb_logger(str(tmp_path), "p", mode="online", init_timeout=3, finish_timeout=4, **named)
    asked = logger._wandb_init
    assert {key: asked[key] for key in named} == named
    assert (asked["settings"].init_timeout, asked["settings"].finish_timeout) == (3, 4)
    assert asked["resume"] == "allow"


class Run:
    """Ends as wandb's does."""

    def __init__(self):
        self.code, self.dir = None, "wandb/run-1/files"

    def finish(self, exit_code):
        self.code = exit_code


def test_runs_end_with_the_block_and_other_errors_are_raised(tmp_path, monkeypatch):
    loggers = [wandb_logger(str(tmp_path / str(i)), "p", mode="offline") for i in range(2)]
    for logger in loggers:
        logger._experiment = Run()
    with finished(loggers[:1]):
        pass
    with pytest.raises(KeyboardInterrupt), finished(loggers[1:]):
        raise KeyboardInterrupt
    assert [logger.experiment.code for logger in loggers] == [0, 1]

    def refuse(**_):
        raise wandb.Error("no")

    monkeypatch.setattr(wandb, "init", refuse)
    for use in (lambda run: run.experiment, lambda run: run.log_hyperparams({})):
        with pytest.raises(wandb.Error):  # offline there is nothing to fall back on
            use(wandb_logger(str(tmp_path / "2"), "p", mode="offline"))


def test_a_server_that_has_gone_away_is_told_and_stops_nothing(tmp_path, caplog):
    class Gone(Run):
        id = "x"
        summary = None

        def log(self, _):
            raise wandb.errors.AuthenticationError("no answer")

        def log_artifact(self, *_, **__):
            raise wandb.errors.CommError("none")

        def finish(self, exit_code):
            raise ConnectionResetError("Connection lost")

    logger = wandb_logger(str(tmp_path), "p", mode="offline", checkpoints=True)
    logger._experiment = Gone()
    for step in (3, 4):
        logger.log_metrics({"val/categories": 1}, step)
    logger.summarize("best/AP", 0.5)
    (tmp_path / "best.ckpt").write_bytes(b"x")
    logger._files = {"best": tmp_path / "best.ckpt"}
    logger.finalize("success")
    with finished([logger]):
        pass
    assert "W&B did not take val/categories of step 3: no answer" in caplog.text
    assert "step 4" not in caplog.text  # the same again
    assert "W&B did not take best/AP: " in caplog.text
    assert "W&B did not take best.ckpt: none" in caplog.text
    assert "(Connection lost). Send it later: wandb sync wandb/run-1" in caplog.text


def test_a_hanging_process_of_wandb_is_left_behind(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(wandb_run, "_GRACE", 0.5)
    logger = wandb_logger(str(tmp_path), "p", mode="offline", finish_timeout=0.5)
    with finished([logger]):
        logger.log_metrics({"a": 1.0}, 0)
        process = _process_of(logger.experiment)
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert "not all of this run was sent (it hangs)" in caplog.text
    assert process.poll() == -signal.SIGKILL


def test_a_killed_process_of_wandb_stops_nothing(tmp_path, caplog):
    logger = wandb_logger(str(tmp_path), "p", mode="offline")
    with finished([logger]):
        logger.log_metrics({"a": 1.0}, 0)
        process = _process_of(logger.experiment)
        process.kill()
        process.wait()
        for step in range(1, 4):
            logger.log_metrics({"a": 1.0}, step)
        logger.summarize("best/AP", 0.5)
    assert "W&B did not take " in caplog.text
    assert f"wandb sync {tmp_path}/wandb/offline-run-" in caplog.text
    again = wandb_logger(str(tmp_path / "again"), "p", mode="offline")  # another run of this process has a new one
    with finished([again]):
        again.log_metrics({"a": 1.0}, 0)
    assert _process_of(again.experiment).poll() is None
    wandb.teardown()

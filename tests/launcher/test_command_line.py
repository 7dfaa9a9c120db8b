import pytest

from aggmask import train
from aggmask.errors import UserError
from aggmask.launcher.command_line import arguments_of
from aggmask.launcher.ledger import Ledger
from tests.runs import command


@pytest.mark.parametrize("devices", ["2", "auto"])
def test_jobs_of_several_devices_do_not_share_a_process(devices, monkeypatch, capsys, tmp_path):
    arguments = ["hydra/launcher=basic", f"trainer.devices={devices}", "seed=0", f"hydra.sweep.dir={tmp_path}/sweep"]
    status, said = command(monkeypatch, capsys, train, "--multirun", "experiment=demo", *arguments)
    assert status == 2
    assert f"trainer.devices={devices} with BasicLauncher" in said
    assert "hydra/launcher=processes is the default" in said


def test_a_command_line_stands_for_the_one_that_the_sweep_began_with(tmp_path):
    began = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=x", "hydra/launcher=processes", "experiment=demo", "seed=0,1"]
    Ledger(tmp_path).open(began, "/")
    kept = ["hydra/launcher=processes", "experiment=demo", "seed=0,1"]
    resume = f"sweep.resume={tmp_path}"
    assert arguments_of([resume]) == ["--multirun", *kept, resume]
    assert arguments_of(["-m", resume, "sweep.n_jobs=2"]) == ["--multirun", *kept, resume, "sweep.n_jobs=2"]
    assert arguments_of(["seed=7", resume]) == ["--multirun", "seed=7", resume]
    assert arguments_of(["--multirun", "seed=7"]) == ["--multirun", "seed=7"]
    assert arguments_of(["sweep.resume=null", "seed=7"]) == ["sweep.resume=null", "seed=7"]
    with pytest.raises(UserError, match="no sweep was started here"):
        arguments_of(["sweep.resume='no where'"])

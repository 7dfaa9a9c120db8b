import errno
import os
import re

import pytest
from hydra.errors import HydraException
from torch.utils.data import DataLoader, Dataset

from aggmask.assembly.explain import explain
from aggmask.depth import UnknownScale
from aggmask.errors import UserError
from tests.runs import composed

KILLED = "DataLoader worker (pid 4711) is killed by signal: Killed. "
BUS = (
    "DataLoader worker (pid 4711) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
    "shared memory. Please try to raise your shared memory limit."
)
FULL = "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"


def raised(error: Exception, cause: Exception | None = None, context: Exception | None = None) -> Exception:
    try:
        try:
            if context:
                raise context
        except Exception:
            raise error  # noqa: B904
        raise error from cause
    except Exception as caught:
        return caught


@pytest.mark.parametrize("said", [KILLED, BUS, FULL, "DataLoader worker (pid(s) 1, 2) exited unexpectedly"])
def test_a_dead_loader_process_is_a_matter_of_memory(said):
    text = explain(RuntimeError(said))
    assert "a process that loads data has died: " + said.splitlines()[0].strip() in text
    assert "data.num_workers=2" in text
    assert "data.num_workers=0" in text
    assert "--shm-size" in text
    if os.path.isdir("/dev/shm"):
        assert re.search(r"\d+ MB of RAM are free, \d+ of \d+ MB in /dev/shm", text)


class Broken(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise ValueError("42")
        except ValueError as cause:
            raise self.error from cause


@pytest.mark.parametrize("error", [UserError("a.jpg is no picture: b\nGet another"), UnknownScale("say: more")])
def test_a_mistake_that_a_loader_process_met_reads_as_it_was_told(error):
    with pytest.raises(UserError, match="in DataLoader worker process 0") as met:
        list(DataLoader(Broken(error), num_workers=1))
    assert explain(met.value) == str(error)


def test_faults_of_a_disk():
    full = OSError(errno.ENOSPC, "No space left on device", "/tmp/a")
    assert explain(full).startswith("/tmp/a: the disk is full (No space left on device; ")
    assert explain(raised(RuntimeError("x"), cause=full)).startswith("/tmp/a: the disk is full")
    refused = PermissionError(errno.EACCES, "Permission denied", "/root/runs")
    assert explain(refused).startswith("/root/runs: this user may not do that (Permission denied): change the")


def test_torch_and_torchvision_of_different_releases():
    said = explain(raised(ImportError("timm"), cause=RuntimeError("operator torchvision::nms does not exist")))
    assert re.search(r"torch \S+ and torchvision \S+ are not built for each other", said)
    assert "pip install --upgrade --force-reinstall torch torchvision" in said
    assert explain(RuntimeError("operator aten::nms does not exist")) is None


def test_a_fault_of_the_program_stays_one():
    full = OSError(errno.ENOSPC, "No space left on device", "/tmp/a")
    assert explain(raised(KeyError("x"), context=full)) is None  # which came after it, and not from it
    assert explain(RuntimeError("The size of tensor a must match")) is None
    assert explain(FileNotFoundError(errno.ENOENT, "No such file", "a")) is None


def test_a_users_mistake_below_any_other_error():
    assert (
        explain(raised(RuntimeError("x"), cause=UserError("data.root=x: is not there"))) == "data.root=x: is not there"
    )


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("experiment=solo_r50_ag", "experiment=solo_r50_ag: there is no such option; did you mean 'solo_r50_agg'?"),
        ("model/backbone=xx", "model/backbone=xx: there is no such option; valid: convnext_tiny, efficientnet_lite0,"),
    ],
)
def test_an_option_that_a_group_does_not_have(said, told):
    with pytest.raises(HydraException) as raised_here:
        composed(said)
    assert explain(raised_here.value).startswith(told)

"""Two real ranks (gloo) that were started with different configurations."""

import socket
from types import SimpleNamespace

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from aggmask.callbacks.agreement import SameConfiguration, differences
from aggmask.errors import UserError


def test_where_two_configurations_differ():
    ours = {"a": 1, "b": {"c": [1, 2], "d": 3}, "only": 0}
    theirs = {"a": 1, "b": {"c": [1, 3], "d": 3}}
    assert list(differences(ours, theirs)) == [("b.c", [1, 2], [1, 3]), ("only", 0, None)]
    assert list(differences(ours, ours)) == []


def _rank(rank: int, port: int, same: bool, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    callback = SameConfiguration({"optim": {"lr": 0.1 if same else 0.1 + rank}, "seed": 1})
    try:
        callback.setup(SimpleNamespace(world_size=2), None, "fit")
        said = "agreed"
    except UserError as error:
        said = str(error)
    with open(f"{folder}/{rank}", "w") as file:
        file.write(said)
    dist.destroy_process_group()


@pytest.mark.parametrize("same", [True, False])
def test_ranks_that_differ_stop_and_say_where(same, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(_rank, args=(port, same, str(tmp_path)), nprocs=2, start_method="fork")
    said = {(tmp_path / str(rank)).read_text() for rank in range(2)}
    if same:
        assert said == {"agreed"}
    else:
        expected = (
            "rank 1 was started with another configuration than rank 0:\n  optim.lr: 0.1 on rank 0, 1.1 on rank 1"
        )
        assert said == {expected}


def test_one_rank_has_nobody_to_agree_with():
    SameConfiguration({}).setup(SimpleNamespace(world_size=1), None, "fit")

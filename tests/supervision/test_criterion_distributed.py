"""The loss and the gradients of two ranks are those of one process with all the images."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from aggmask.supervision.assign import Assigner
from aggmask.supervision.criterion import Criterion
from tests.small import CANVAS, make_head, make_pyramid, random_objects

OBJECTS = {"uneven": (7, 1), "none on one rank": (6, 0), "none at all": (0, 0)}


class Training(torch.nn.Module):
    """The head and its loss as one module, as Lightning hands them to DDP."""

    def __init__(self, normalizer: str) -> None:
        super().__init__()
        self.head, self.criterion = make_head(window=5), Criterion(normalizer=normalizer)

    def forward(self, pyramid, objects):
        outputs = self.head(pyramid)
        return sum(self.criterion(outputs, Assigner()(outputs, objects, CANVAS)).values())


def step(model, images: slice, counts: tuple[int, ...]) -> tuple[float, list[torch.Tensor]]:
    pyramid = [m[images].detach() for m in make_pyramid(2)]
    objects = [random_objects(n, seed=i) for i, n in enumerate(counts)][images]
    model.zero_grad()
    loss = model(pyramid, objects)
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters()]


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    seen = {}
    for normalizer in ("global", "rank"):
        model = DistributedDataParallel(Training(normalizer))
        for name, counts in OBJECTS.items():
            seen[normalizer, name] = step(model, slice(rank, rank + 1), counts)
    torch.save(seen, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_have_the_loss_and_the_gradients_of_the_double_batch(tmp_path):
    needed = ["pytest", "torch._dynamo", "tests.small"]  # the second by DDP
    mp.get_context("forkserver").set_forkserver_preload(needed)
    mp.start_processes(process, (tmp_path,), nprocs=2, start_method="forkserver")
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, counts in OBJECTS.items():
        loss, gradients = step(Training("global"), slice(0, 2), counts)
        assert sum(rank["global", name][0] for rank in ranks) / 2 == pytest.approx(loss, rel=1e-6)
        for rank in ranks:  # DDP has averaged them
            for ours, theirs in zip(rank["global", name][1], gradients, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    alone = [step(Training("rank"), slice(i, i + 1), OBJECTS["uneven"])[0] for i in range(2)]
    assert [rank["rank", "uneven"][0] for rank in ranks] == pytest.approx(alone, rel=1e-6)
    assert ranks[0]["rank", "uneven"][0] != pytest.approx(ranks[0]["global", "uneven"][0], rel=1e-3)

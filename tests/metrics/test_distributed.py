"""Several processes give the numbers of one: unequal shares, repeats, a process that saw nothing, a mistake on one.

Starting processes is what takes time here: they are forked from a server that has imported everything once, and one
start of three and one of two carry all checks.
"""

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from aggmask.errors import UserError
from aggmask.metrics.coco_mask_ap import CocoMaskAP
from tests.metrics.made_up import CATEGORY_IDS, data_set, independent_results, plain_pycocotools


def shares(detections, processes):
    """Unequal, the last one empty when there are three; the second begins with repeats, changed so as to be noticed."""
    images = list(detections.items())
    if processes == 2:
        return [images[:3], images[3:]]
    repeats = [(image_id, (masks.flip(1), torch.ones(len(masks)), labels)) for image_id, (masks, _, labels) in images]
    return [images[:13], repeats[4:9] + images[13:], []]


def process(rank, processes, backend, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=processes)
    # Only the first process reads the annotations: the others are given a file that does not exist.
    metric = CocoMaskAP(folder / ("truth.json" if rank == 0 else "missing.json"), CATEGORY_IDS, backend)
    share = shares(data_set(seed=5)[1], processes)[rank]
    seen = {}
    with pytest.raises(UserError) as raised:
        CocoMaskAP(folder / "missing.json", CATEGORY_IDS, backend).read_ground_truth()
    seen["unreadable"] = str(raised.value)
    metric.read_ground_truth()
    for epoch in ("first", "second"):
        for image_id, found in share:
            metric.update(image_id, *found)
        if epoch == "second":
            calls = count_collectives()
        seen[epoch] = {name: value.item() for name, value in metric.compute().items()}
        seen[epoch + " categories"] = {str(k): list(v) for k, v in metric.per_category().items()}
        metric.write_results(folder / f"results_{epoch}.json")
        if epoch == "second":
            seen["collectives"] = len(calls)
        metric.reset()

    if rank == processes - 1:
        metric.update(123456, torch.zeros(0, 4, 4), torch.zeros(0), torch.zeros(0))
    seen["mistake"] = message(metric, UserError)
    metric.reset()
    for image_id, found in share:
        metric.update(image_id, *found)
    if rank == 0:
        metric._truth = "broken"
    seen["defect"] = message(metric, Exception)
    metric._truth = None
    seen["after"] = {name: value.item() for name, value in metric.compute().items()}
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()


def message(metric, kind):
    with pytest.raises(kind) as raised:
        metric.compute()
    return f"{raised.type.__name__}: {raised.value}"


def count_collectives():
    """Names of collectives, appended when called from now on."""
    calls = []

    def counting(name, original):
        def counted(*args, **kwargs):
            calls.append(name)
            return original(*args, **kwargs)

        return counted

    for name in ("barrier", "all_gather", "broadcast", "all_reduce", "gather"):
        counted = counting(name, getattr(dist, name))
        setattr(dist, name, counted)  # what others call
        setattr(dist.distributed_c10d, name, counted)  # what torch's own functions call
    return calls


@pytest.mark.parametrize(("processes", "backend"), [(3, "hotcoco"), (2, "pycocotools")])
def test_several_processes_are_as_good_as_one(processes, backend, tmp_path):
    truth, detections = data_set(seed=5)
    expected = plain_pycocotools(truth, independent_results(detections), tmp_path)
    mp.get_context("forkserver").set_forkserver_preload(["pytest", "aggmask.metrics.coco_mask_ap"])
    mp.start_processes(process, (processes, backend, tmp_path), nprocs=processes, start_method="forkserver")
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(processes)]

    one = CocoMaskAP(truth, CATEGORY_IDS)
    for image_id, found in detections.items():
        one.update(image_id, *found)
    one.compute()
    for there in seen:
        for epoch in ("first", "second", "after"):
            np.testing.assert_allclose(list(there[epoch].values()), expected, rtol=0, atol=1e-12)
        assert there["first categories"] == there["second categories"]
        assert there["first categories"] == {str(k): list(v) for k, v in one.per_category().items()}
        assert there["collectives"] == 5  # barrier, sizes, bytes; length and content of the answer
        assert there["unreadable"].startswith("There is no annotation file ")
        assert "missing.json" in there["unreadable"]
        assert there["mistake"].startswith("UserError: image 123456 was predicted")
    for epoch in ("first", "second"):
        assert json.loads((tmp_path / f"results_{epoch}.json").read_text()) == one.results()
    assert seen[0]["defect"].startswith("AttributeError: 'str' object")
    for there in seen[1:]:
        assert there["defect"].startswith("RuntimeError: process 0 could not evaluate: AttributeError: 'str' object")

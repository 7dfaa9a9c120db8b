"""Two processes on this machine, as `trainer=ddp` starts them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from aggmask import evaluate
from aggmask.metrics.evaluators import NAMES
from tests.data.make_coco import make_coco
from tests.launcher.processes import environment
from tests.runs import SMALL, command
from tests.test_evaluate import eager_checkpoint

ROWS = (*NAMES, "disc", "pair", "block")  # of the table that an evaluation prints


def run(folder: Path, module: str, *arguments: str) -> str:
    """Give a command in the empty folder `here`."""
    (folder / "here").mkdir(exist_ok=True)
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "AGGMASK_RUN_STAMP")}
    done = subprocess.run(
        [sys.executable, "-m", f"aggmask.{module}", *arguments],
        capture_output=True,
        text=True,
        env=env | {"OMP_NUM_THREADS": "1"},
        timeout=280,
        cwd=folder / "here",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_two_ranks_train_without_objects_on_one_of_them_and_share_one_folder(tmp_path):
    """Three of four images are empty, so that some batch of some rank has no positive cell. Each skips an image."""
    root = make_coco(tmp_path / "coco", images=4, val_images=3, sizes=[(40, 60)], empty_every=1)
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    full = json.loads(
        (make_coco(tmp_path / "full", images=1, sizes=[(40, 60)]) / "annotations" / file.name).read_text()
    )
    content["annotations"] = [a for a in full["annotations"] if not a["iscrowd"]]
    file.write_text(json.dumps(content))
    for name in ("00001.jpg", "00002.jpg"):
        (root / "val2017" / name).write_text("not a picture")
    settings = [s for s in SMALL if not s.startswith("trainer.max_epochs")]
    said = run(
        tmp_path,
        "train",
        "experiment=solo_r50_agg",
        "trainer=ddp",
        "trainer.devices=2",
        "trainer.max_epochs=2",
        "data.skip_empty=false",
        "data.batch_size=1",
        "data.on_bad_image=skip",
        f"data.root={root}",
        f"hydra.run.dir={tmp_path}/runs/one",
        *settings,
    )
    summary = said[said.index("images skipped: 2") :]
    assert "image 00001.jpg" in summary  # of rank 1
    assert "image 00002.jpg" in summary  # of rank 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["one"]
    assert list((tmp_path / "here").iterdir()) == []  # nothing where the command was given
    last = torch.load(tmp_path / "runs" / "one" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4
    assert all(value.isfinite().all() for value in last["state_dict"].values())


def test_two_nodes_of_torchrun_share_one_folder_and_configuration(tmp_path):
    """The second one starts its rank two seconds late, and nobody says what the run is called."""
    root = make_coco(tmp_path / "coco", images=4, val_images=2)
    (tmp_path / "late.py").write_text(
        "import os, runpy, time\ntime.sleep(2 * int(os.environ['RANK']))\nrunpy.run_module('aggmask.train', "
        "run_name='__main__')\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    node = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes=2",
        "--master-addr=127.0.0.1",
        "--nproc-per-node=1",
    ]
    settings = ["experiment=solo_r50_agg", "trainer=ddp", "trainer.num_nodes=2", "trainer.devices=1", *SMALL]
    settings += [f"data.root={root}", "data.batch_size=1", "data.skip_empty=false", "trainer.limit_val_batches=1"]
    command = [*node, "--master-addr=127.0.0.1", f"--master-port={port}", f"{tmp_path}/late.py", *settings]
    nodes = [
        subprocess.Popen(
            [*command[:3], f"--node-rank={rank}", *command[3:]], env=environment(), cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for process in nodes:
            said = process.communicate(timeout=280)[0]
            assert process.returncode == 0, said[-4000:]  # different configurations would be refused
    finally:
        for process in nodes:
            process.kill()
    (folder,) = (tmp_path / "runs" / "solo_r50_agg").iterdir()
    assert [path.parent for path in tmp_path.rglob("last.ckpt")] == [folder]
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 2


def test_two_ranks_evaluate_like_one(tmp_path, monkeypatch, capsys):
    """The one is this process. Of nine batches, the first rank has a fifth, before which it may not ask the other."""
    checkpoint = eager_checkpoint(tmp_path, val_images=9)[1]

    def arguments(name: str, *trainer: str) -> list[str]:
        places = [f"checkpoint={checkpoint}", f"output={tmp_path}/{name}", "trainer.accelerator=cpu"]
        return [*places, *trainer, "trainer.enable_progress_bar=false", "data.batch_size=1"]

    status, one = command(monkeypatch, capsys, evaluate, *arguments("one", "trainer=cpu"))
    assert status == 0, one
    two = run(tmp_path, "evaluate", *arguments("two", "trainer=ddp", "trainer.devices=2"))
    numbers = [[row for row in map(str.split, said.splitlines()) if row and row[0] in ROWS] for said in (one, two)]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 15
    found = [json.loads(Path(tmp_path, name, "results.json").read_text()) for name in ("one", "two")]
    keys = [sorted((row["image_id"], row["score"], row["segmentation"]["counts"]) for row in rows) for rows in found]
    assert keys[0] == keys[1]
    assert list((tmp_path / "here").iterdir()) == []

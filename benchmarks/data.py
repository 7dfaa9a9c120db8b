"""The training data pipeline against plain torchvision (`plain_pipeline`): rate, start-up, memory of a worker.

Rates are pictures a second of processor time on one core. Start-up and memory are those of an annotation file of the
size of COCO's; of its pictures, nothing is read. A worker's memory is what is private and written in a process forked
from the one that opened the data set, after an epoch's annotations were read in it: what each further worker costs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aggmask.data.datamodule import CocoDataModule
from aggmask.data.index import AnnotationIndex
from benchmarks.harness import Case, interleaved
from benchmarks.pictures import picture_folder, temporary_folder
from benchmarks.plain_pipeline import plain_dataset, plain_loader
from benchmarks.records import Figure
from benchmarks.settings import Settings
from tests.data.make_coco import circle

SHORT_SIDES, LONG_SIDE = [640, 672, 704, 736, 768, 800], 1333
BATCH = 4
FORMS = ("aggmask", "plain")
COPY_PASTE = {"probability": 0.5}  # of an image that gets objects of another


def loading(form: str, pictures: int) -> Callable[[], dict[str, float]]:
    """Case: an epoch of pictures of 640 x 480 with eight objects each."""
    root = picture_folder(pictures, 8, 640, 480)
    if form == "plain":
        loader = plain_loader(root, SHORT_SIDES, LONG_SIDE, BATCH)
    else:
        sides = {"short_side": SHORT_SIDES, "long_side": LONG_SIDE}
        copy_paste = COPY_PASTE if form == "copy-paste" else None
        data = CocoDataModule(str(root), batch_size=BATCH, num_workers=0, copy_paste=copy_paste, **sides)
        data.setup("fit")
        loader = data.train_dataloader()

    def run() -> dict[str, float]:
        begin, seen = time.process_time(), 0
        for batch in loader:
            seen += len(batch[0]) if form == "plain" else len(batch)
        return {"rate": seen / (time.process_time() - begin)}

    return run


def write_annotations(file: Path, images: int, objects: int = 7, points: int = 20) -> None:
    """A COCO file of so many images, which need not exist, with that many polygons each; written piece by piece."""
    rng = np.random.default_rng(0)
    file.parent.mkdir(parents=True, exist_ok=True)
    shapes = [circle(*rng.uniform(80, 400, 2), rng.uniform(8, 70), points).round(2) for _ in range(1000)]
    corners = [[*s.min(0).tolist(), *np.ptp(s, axis=0).tolist()] for s in shapes]
    texts = [json.dumps({"bbox": c, "segmentation": [s.ravel().tolist()]})[1:] for s, c in zip(shapes, corners)]  # noqa: B905
    with file.open("w") as out:
        out.write('{"categories": [{"id": 1, "name": "blob"}], "images": [')
        for i in range(images):
            name = f'"file_name": "{i:012d}.jpg", "height": 480, "width": 640'
            out.write(f'{", " if i else ""}{{"id": {i + 1}, {name}}}')
        out.write('], "annotations": [')
        for k, pick in enumerate(rng.integers(0, len(texts), images * objects).tolist()):
            fixed = f'"id": {k + 1}, "image_id": {k // objects + 1}, "category_id": 1, "iscrowd": 0, "area": 900.0'
            out.write(f"{', ' if k else ''}{{{fixed}, {texts[pick]}")
        out.write("]}")


def opening(form: str, annotated: int, objects: int = 7, points: int = 20) -> Callable[[], dict[str, float]]:
    """Case: from an annotation file to a data set that could give its first picture; then what a worker costs.

    "again": ours, of a file that it has seen before.
    """
    root = temporary_folder()
    file = root / "annotations" / "instances_train2017.json"
    write_annotations(file, annotated, objects, points)
    os.utime(file, (0, time.time() - 60))  # one that has just been written would be hashed each time

    def run() -> dict[str, float]:
        cache, found = temporary_folder(), {}
        for name in ("seconds",) if form == "plain" else ("seconds", "again"):
            begin = time.perf_counter()
            opened = open_dataset(form, root, cache)
            found[name] = time.perf_counter() - begin
        return {**found, "MB of a worker": worker_mb(form, opened, cache)}

    return run


def open_dataset(form: str, root: Path, cache: Path) -> Any:
    """torchvision's data set, or our index with what the samplers ask it first."""
    if form == "plain":
        return plain_dataset(root, SHORT_SIDES, LONG_SIDE)
    index = AnnotationIndex.open(root / "annotations" / "instances_train2017.json", cache)
    index.object_counts(), index.sizes[:]
    return index


def worker_mb(form: str, opened: Any, cache: Path) -> float:
    """Private memory, written to, of a forked process that has read all annotations."""
    for path in cache.rglob("*.npy"):
        with path.open("rb+") as file:  # mapped pages that are not on the disk yet would count as their reader's
            os.fsync(file.fileno())
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_read_all, args=(form, opened, send))
    child.start()
    found = receive.recv()
    child.join()
    return found


def _read_all(form: str, opened: Any, send: Any) -> None:
    if form == "plain":
        coco = opened.coco
        for image_id in opened.ids:
            for annotation in coco.loadAnns(coco.getAnnIds(image_id)):
                coco.annToRLE(annotation)
    else:
        for i in range(len(opened)):
            opened.file_name(i), opened.annotations(i)
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    send.send(sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024)


def figures(settings: Settings, tell: Callable[[str], None]) -> Iterator[Figure]:
    forms = (*FORMS, "copy-paste")
    cases = {form: Case("benchmarks.data:loading", {"form": form, "pictures": settings.pictures}) for form in forms}
    found = interleaved(cases, settings.repeats, 1, tell, separate=settings.separate)
    ours, plain, pasted = (found[form]["rate"] for form in forms)
    target, label = settings.target(5.0), "training pictures"
    yield Figure("data", label, "images/s", ours, "torchvision v2", plain, target=target)
    yield Figure("data", f"{label}, every second with copy-paste", "images/s", pasted, "the same without it", ours)
    cases = {form: Case("benchmarks.data:opening", {"form": form, "annotated": settings.annotated}) for form in FORMS}
    found = interleaved(cases, settings.repeats, 1, tell, warmups=0, separate=settings.separate)
    ours, plain, label = found["aggmask"], found["plain"], f"{settings.annotated} images"
    yield Figure("data", f"first start, {label}", "s", ours["seconds"], "torchvision v2", plain["seconds"])
    yield Figure("data", f"later starts, {label}", "s", ours["again"], "torchvision v2", plain["seconds"])
    each = ours["MB of a worker"], "torchvision v2", plain["MB of a worker"]
    yield Figure("data", f"a worker, {label}", "MB", *each, sense="share")

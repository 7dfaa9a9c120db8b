"""An index gives back what the file says, lives under a hash of its content, and travels to other processes."""

import json
import multiprocessing
import os
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from aggmask.data import index as index_module
from aggmask.data.index import AnnotationIndex
from aggmask.errors import UserError
from aggmask.structures import Category
from tests.data.test_packing import compressed


def annotation(id, image_id, category_id, segmentation, area, bbox, **more):
    keys = ("id", "image_id", "category_id", "segmentation", "area", "bbox")
    return dict(zip(keys, (id, image_id, category_id, segmentation, area, bbox), strict=True)) | more


FILE = {
    "images": [
        {"id": 30, "file_name": "straße/ü b.jpg", "height": 6, "width": 8},
        {"id": 2, "file_name": "two.jpg", "height": 100, "width": 50},
        {"id": 7, "file_name": "empty.jpg", "height": 3, "width": 4},
    ],
    "categories": [{"id": 9, "name": "dog"}, {"id": 1, "name": "cat"}],
    "annotations": [
        annotation(1, 30, 9, compressed(), 15, [2, 1, 5, 3], iscrowd=1),
        annotation(2, 2, 1, [[0, 0, 10, 0, 10, 10], [20, 20, 30, 20, 30, 30.5, 20, 30]], 150.25, [0, 0, 30, 30.5]),
        annotation(5, 30, 1, [[1, 1, 2, 1, 2, 2]], 0.5, [1, 1, 1, 1]),
        annotation(3, 30, 1, [], 0, [1, 1, 1, 1]),
        annotation(4, 30, 9, [[1, 1, 2, 1, 2, 3]], 1, [1, 1, 1, 2]),
    ],
}


@pytest.fixture(autouse=True)
def _own_user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "annotations" / "instances.json"
    path.parent.mkdir()
    path.write_text(json.dumps(FILE), encoding="utf-8")
    return path


def age(path):
    """Make a file old enough for its time stamp to be trusted."""
    os.utime(path, ns=(10**18, 10**18))


def built(root: Path) -> list[str]:
    return sorted(folder.name for folder in root.iterdir() if folder.is_dir())


def test_images(file):
    index = AnnotationIndex.open(file)
    assert len(index) == 3
    assert index.image_ids.tolist() == [2, 7, 30]
    assert index.sizes.tolist() == [[100, 50], [3, 4], [6, 8]]
    assert (index.image_ids.dtype, index.sizes.dtype) == (np.int64, np.int32)
    assert [index.file_name(i) for i in range(3)] == ["two.jpg", "empty.jpg", "straße/ü b.jpg"]
    assert index.categories == [Category(1, "cat"), Category(9, "dog")]
    assert index.deviations == {"without a usable mask were left out": 1}


def test_annotations(file):
    index = AnnotationIndex.open(file)
    two, empty, thirty = (index.annotations(i) for i in range(3))
    assert [len(two), len(empty), len(thirty)] == [1, 0, 3]

    [[triangle, square]] = two.segmentations
    assert triangle.dtype == np.float32
    assert triangle.tolist() == [[0, 0], [10, 0], [10, 10]]
    assert square.tolist() == [[20, 20], [30, 20], [30, 30.5], [20, 30]]
    assert two.areas.tolist() == [150.25]
    assert two.boxes.tolist() == [[0, 0, 30, 30.5]]

    assert empty.boxes.shape == (0, 4)
    assert empty.segmentations == []

    assert thirty.ids.tolist() == [1, 5, 4]  # in order of the file
    assert thirty.labels.tolist() == [1, 0, 1]
    assert thirty.crowd.tolist() == [True, False, False]
    assert thirty.segmentations[0]["size"] == [6, 8]
    assert coco_mask.area(thirty.segmentations[0]) == 15
    assert thirty.segmentations[2][0].tolist() == [[1, 1], [2, 1], [2, 3]]
    dtypes = {key: getattr(thirty, key).dtype for key in ("labels", "crowd", "areas", "boxes", "ids")}
    assert dtypes == {"labels": np.int64, "crowd": bool, "areas": np.float64, "boxes": np.float64, "ids": np.int64}


def test_categories_that_no_object_has(file):
    assert AnnotationIndex.open(file).unseen() == []
    crowd = {**FILE["annotations"][0], "id": 9}  # of the dogs
    file.write_text(json.dumps({**FILE, "annotations": [crowd]}))
    assert AnnotationIndex.open(file).unseen() == [Category(1, "cat"), Category(9, "dog")]


def test_returned_arrays_may_be_changed(file):
    index = AnnotationIndex.open(file)
    index.annotations(0).segmentations[0][0][:] = -1
    index.annotations(0).boxes[:] = -1
    assert index.annotations(0).segmentations[0][0].min() == 0
    assert index.annotations(0).boxes.min() == 0


def test_file_without_annotations_or_images(tmp_path):
    path = tmp_path / "info.json"
    path.write_text(json.dumps({**FILE, "annotations": []}))
    assert [len(AnnotationIndex.open(path).annotations(i)) for i in range(3)] == [0, 0, 0]
    path.write_text(json.dumps({"images": [], "categories": []}))
    assert len(AnnotationIndex.open(path)) == 0


def test_pickles_to_its_folder(file):
    index = AnnotationIndex.open(file)
    index.annotations(0)  # maps are open
    data = pickle.dumps(index)
    assert len(data) < 500
    assert pickle.loads(data).annotations(2).ids.tolist() == [1, 5, 4]


def _build(path, gate, results):
    gate.wait()
    index = AnnotationIndex.open(path)
    results.put((str(index._folder), index.annotations(2).ids.tolist()))


def test_processes_that_start_at_once(file):
    context = multiprocessing.get_context("fork")
    gate, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_build, args=(file, gate, results)) for _ in range(4)]
    for process in processes:
        process.start()
    seen = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert len({folder for folder, _ in seen}) == 1
    assert {tuple(ids) for _, ids in seen} == {(1, 5, 4)}
    assert len(built(file.parent / ".aggmask")) == 1  # no draft is left


def test_lost_race_uses_the_winners_folder(file, monkeypatch):
    winner = AnnotationIndex.open(file)._folder
    ever_built = index_module._is_built
    answers = iter([False])  # not there when looked for, there when the draft is to be renamed
    monkeypatch.setattr(index_module, "_is_built", lambda folder: next(answers, None) is None and ever_built(folder))
    assert AnnotationIndex.open(file)._folder == winner
    assert built(file.parent / ".aggmask") == [winner.name]


def test_cache_lies_beside_the_file_or_where_told(file, tmp_path):
    assert AnnotationIndex.open(file)._folder.parent == file.parent / ".aggmask"
    assert AnnotationIndex.open(file, tmp_path / "there")._folder.parent == tmp_path / "there"


def test_read_only_data_uses_the_user_cache(file, tmp_path):
    (file.parent / ".aggmask").write_text("a file where the folder would be: not writable, even for root")
    assert AnnotationIndex.open(file)._folder.parent == tmp_path / "user_cache" / "aggmask"
    with pytest.raises(UserError, match="cache_dir"):
        AnnotationIndex.open(file, file)


def test_content_decides(file, monkeypatch):
    first = AnnotationIndex.open(file)._folder
    changed = json.loads(json.dumps(FILE).replace('"dog"', '"cow"'))  # same length
    file.write_text(json.dumps(changed), encoding="utf-8")
    index = AnnotationIndex.open(file)
    assert index.categories[1].name == "cow"
    assert index._folder != first
    file.write_text(json.dumps(FILE), encoding="utf-8")
    monkeypatch.setattr(index_module, "pack", lambda *_: pytest.fail("known content is parsed again"))
    assert AnnotationIndex.open(file)._folder == first


def test_stamp_saves_reading_the_file(file, monkeypatch):
    age(file)
    first = AnnotationIndex.open(file)._folder
    monkeypatch.setattr(index_module.fsspec, "open", lambda *_: pytest.fail("the file is read again"))
    assert AnnotationIndex.open(file)._folder == first


def test_stamp_of_another_content_is_not_believed(file):
    age(file)
    AnnotationIndex.open(file)
    file.write_text(json.dumps(FILE).replace('"dog"', '"cow"'), encoding="utf-8")
    age(file)  # same size, same time: the time of change of the file's record still differs
    assert AnnotationIndex.open(file).categories[1].name == "cow"


def test_format_number_is_part_of_the_key(file, monkeypatch):
    age(file)
    AnnotationIndex.open(file)
    monkeypatch.setattr(index_module, "FORMAT", index_module.FORMAT + 1)
    AnnotationIndex.open(file)
    assert len(built(file.parent / ".aggmask")) == 2


def test_url(tmp_path):
    url = "memory://index/instances.json"
    with fsspec.open(url, "wb") as stream:
        stream.write(json.dumps(FILE).encode())
    index = AnnotationIndex.open(url)
    assert index._folder.parent == tmp_path / "user_cache" / "aggmask"
    assert index.annotations(2).ids.tolist() == [1, 5, 4]
    with fsspec.open(url, "wb") as stream:
        stream.write(json.dumps(FILE).replace('"dog"', '"cow"').encode())
    assert AnnotationIndex.open(url).categories[1].name == "cow"
    with pytest.raises(UserError, match=r"memory://index/other\.json"):
        AnnotationIndex.open("memory://index/other.json")
    with pytest.raises(UserError, match="nosuch"):
        AnnotationIndex.open("nosuch://index/other.json")


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json.*annotations/instances_train2017\.json"):
        AnnotationIndex.open(tmp_path / "nowhere.json")
    with pytest.raises(UserError, match="cannot be read"):
        AnnotationIndex.open(tmp_path)


def test_faulty_file_leaves_no_cache(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(FILE)[:-30])
    with pytest.raises(UserError, match="truncated"):
        AnnotationIndex.open(path)
    assert not (tmp_path / ".aggmask").exists()


@pytest.mark.parametrize("aged", [False, True])
def test_dropped_annotations_are_told_each_time_by_the_main_rank(file, caplog, monkeypatch, aged):
    if aged:
        age(file)  # found again by its stamp, else by its content
    for start in (1, 2, 3):
        AnnotationIndex.open(file)
        assert caplog.text.count("1 annotations without a usable mask were left out") == start
    monkeypatch.setenv("LOCAL_RANK", "1")
    AnnotationIndex.open(file)
    assert len(caplog.records) == 3

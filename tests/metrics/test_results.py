"""Detections travel as bytes and come back; COCO results hold what evaluators need and nothing that misleads them."""

import json

import numpy as np

from aggmask.metrics.results import ImageDetections, as_coco, first_of_each_image, read_records, write


def record(image_id: int, n: int, seed: int = 0) -> ImageDetections:
    rng = np.random.default_rng(seed)
    counts = [bytes(rng.integers(48, 112, rng.integers(1, 30)).astype("u1")) for _ in range(n)]
    return ImageDetections(image_id, (30, 40) if n else (0, 0), rng.integers(0, 3, n), rng.random(n, "f4"), counts)


def test_bytes_and_back():
    records = [record(7, 3), record(2**40, 0), record(-1, 11, seed=5), record(0, 0)]
    back = list(read_records(b"".join(r.to_bytes() for r in records)))
    assert [b.image_id for b in back] == [7, 2**40, -1, 0]
    for before, after in zip(records, back, strict=True):
        assert after.size == before.size
        assert (after.labels == before.labels).all()
        assert (after.scores == before.scores).all()
        assert after.counts == before.counts


def test_nothing():
    assert list(read_records(b"")) == []


def test_the_first_of_an_image_counts():
    first, repeat = record(7, 2, seed=1), record(7, 4, seed=2)
    assert first_of_each_image([record(3, 1), first, repeat])[1] is first
    assert len(first_of_each_image([first, repeat])) == 1


def test_coco_results(tmp_path):
    labels, scores = np.array([1, 0]), np.array([0.1, 1.0], dtype=np.float32)
    results = as_coco([ImageDetections(9, (30, 40), labels, scores, [b"04", b"5Q"])], [3, 90])
    assert results == [
        {
            "image_id": 9,
            "category_id": 90,
            "score": float(np.float32(0.1)),
            "segmentation": {"size": [30, 40], "counts": "04"},
        },
        {"image_id": 9, "category_id": 3, "score": 1.0, "segmentation": {"size": [30, 40], "counts": "5Q"}},
    ]
    write(results, tmp_path / "a" / "results.json")
    assert json.loads((tmp_path / "a" / "results.json").read_text()) == results

import msgspec
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from aggmask.cocofile.segmentation import Rle, mask_of, runs_of, shape_of, shoelace


@pytest.mark.parametrize("seed", range(20))
def test_runs_are_those_that_pycocotools_compresses(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 300, 2)
    bitmap = np.asfortranarray((rng.random((height, width)) < rng.random() ** 3).astype(np.uint8))
    if seed % 2:  # long runs, which take several characters
        bitmap[:] = 0
        bitmap[height // 3 :, width // 4 : width // 2 + 1] = 1
    encoded = coco_mask.encode(bitmap)
    runs = runs_of(encoded["counts"].decode())
    assert runs.min() >= 0
    assert runs.sum() == bitmap.size
    assert runs[1::2].sum() == bitmap.sum()
    assert coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width) == encoded


def test_json_and_objects_are_read_alike():
    for text in ("[[1,2,3,4,5,6]]", "[1,2,3,4,5,6]", '{"size":[2,3],"counts":[1,5]}', "null"):
        from_json = shape_of(msgspec.Raw(text.encode()))
        assert from_json == shape_of(msgspec.json.decode(text))
        assert from_json[1] == text.startswith("[1")


def test_numbers_may_be_text():
    for text in ('[["1","2",3,4,5,6]]', '["1","2",3,4,5,6]'):
        assert shape_of(msgspec.Raw(text.encode()))[0] == shape_of(msgspec.json.decode(text))[0] == [[1, 2, 3, 4, 5, 6]]


def test_a_mask_is_what_has_three_points():
    assert mask_of([[1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]], 9, 9) == [[1, 2, 3, 4, 5, 6]]
    assert mask_of(None, 9, 9) == []
    assert mask_of(Rle((2, 3), [6]), 2, 3)["counts"] == b""
    assert coco_mask.decode(mask_of(Rle((2, 3), [1, 2, 3]), 2, 3)).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_shoelace():
    square = np.array([(0, 0), (10, 0), (10, 10), (0, 10)], float)
    assert shoelace(square) == 100
    assert shoelace(square[::-1] + 1e6) == 100
    assert shoelace(square[:2]) == 0

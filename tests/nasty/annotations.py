"""Annotation files with one thing wrong in each, as tools, people and broken downloads make them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

SIZE = (20, 30)  # (height, width) of the only image
SQUARE = [2, 3, 12, 3, 12, 13, 2, 13]
GOOD = {"id": 10, "image_id": 5, "category_id": 1, "segmentation": [SQUARE], "area": 100, "bbox": [2, 3, 10, 10]}
FILE = {
    "info": {"year": 2026},
    "images": [{"id": 5, "file_name": "a.jpg", "height": 20, "width": 30, "license": 7}],
    "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}],
    "annotations": [GOOD],
}


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        data: its bytes.
        kinds: what the doctor must find: exactly these kinds.
        names: texts that the findings must hold.
        refused: a text of the error with which the loaders refuse it; None where they read it.
        kept: ids of the annotations that are used where it is read.
        hopeless: no clean copy can be made.
    """

    data: bytes
    kinds: set[str]
    names: tuple[str, ...] = ()
    refused: str | None = None
    kept: tuple[int, ...] = (10,)
    hopeless: bool = False


def file(*annotations: dict, **lists) -> bytes:
    """The plain file with more annotations, or other lists."""
    return json.dumps({**FILE, "annotations": [GOOD, *annotations], **lists}).encode()


def other(**values) -> dict:
    """A second annotation, number 11, of the same image, somewhere else."""
    return {"id": 11, "image_id": 5, "category_id": 1, "segmentation": [[15, 5, 25, 5, 25, 15]], **values}


def rle(top: int, left: int, bottom: int, right: int, size=SIZE, compressed: bool = True) -> dict:
    """A filled rectangle."""
    bitmap = np.zeros(size, np.uint8, order="F")
    bitmap[top:bottom, left:right] = 1
    runs = coco_mask.encode(bitmap)
    if compressed:
        return {"size": list(size), "counts": runs["counts"].decode()}
    flat = np.concatenate([[0], bitmap.T.ravel()])
    changes = np.flatnonzero(np.diff(flat.astype(int)))
    return {"size": list(size), "counts": np.diff([0, *changes, bitmap.size]).tolist()}


def one(segmentation, kinds, refused=None, kept=(10, 11), **values) -> Case:
    """A case of a second annotation with this `segmentation`."""
    kinds = kinds if isinstance(kinds, set) else {kinds}
    names = ("annotation 11 ",) if kinds else ()
    return Case(file(other(segmentation=segmentation, **values)), kinds, names, refused, kept)


_NAMED = "annotation 11 of image 5"
_STAR = [15, 2, 25, 18, 15, 18, 25, 2]  # an hourglass
_RING = [[14, 2, 28, 2, 28, 16, 14, 16], [18, 6, 24, 6, 24, 12, 18, 12]]
_ISLAND = [*_RING, [20, 8, 22, 8, 22, 10, 20, 10]]
_BRIDGED = [14, 2, 28, 2, 28, 16, 14, 16, 14, 2, 18, 6, 18, 12, 24, 12, 24, 6, 18, 6, 14, 2]

SHAPES = {
    "no segmentation": one(None, "no-mask", kept=(10,)),
    "empty list": one([], "no-mask", kept=(10,)),
    "list of an empty list": one([[]], "no-mask", kept=(10,)),
    "box": one([[15, 5, 10, 10]], "box-as-mask", kept=(10,)),
    "flat box": one([15, 5, 10, 10], "box-as-mask", kept=(10,)),
    "flat polygon": one([15, 5, 25, 5, 25, 15], "flat"),
    "two points": one([[15, 5, 25, 5], [15, 5, 25, 5, 25, 15]], "broken-part"),
    "half a point": one([[15, 5, 25, 5, 25, 15], [15, 5, 25, 5, 25, 15, 17]], "broken-part"),
    "pairs": one([[[15, 5], [25, 5], [25, 15]]], "bad-shape", _NAMED),
    "points as pairs": one([[15, 5], [25, 5], [25, 15]], "pairs", kept=(10,)),
    "far pairs": one([[15, 5], [1e300, 5], [25, 15]], "pairs", kept=(10,)),
    "null inside": one([[15, 5, None, 5, 25, 15]], "bad-shape", _NAMED),
    "text": one("polygon", "bad-shape", _NAMED),
    "NaN as text": one([[15, 5, "nan", 5, 25, 15]], "bad-shape", _NAMED),
    "numbers as text": one([["15", "5", "25", "5", "25", "15"]], set()),
    "huge numbers": one([[15, 5, 1e300, 5, 25, 15]], "bad-shape", _NAMED),
    "far outside": one([[15, 5, 1e8, 5, 25, 15]], "outside"),
    "half outside": one([[15, 5, 40, 5, 40, 15, 15, 15]], "outside"),
    "all outside": one([[45, 5, 60, 5, 60, 15, 45, 15]], "no-area"),
    "a line": one([[15, 5, 25, 5, 15, 5]], "no-area"),
    "a point": one([[15, 5, 15, 5, 15, 5]], "no-area"),
    "a speck": one([[15.1, 5.1, 15.4, 5.1, 15.4, 5.4]], set()),
    "crossing": one([_STAR], "crossing"),
    "two parts": one([[15, 5, 18, 5, 18, 9], [22, 5, 25, 5, 25, 9]], "parts"),
    "hole as a part": one(_RING, {"filled-hole", "parts"}),
    "island in a hole": one(_ISLAND, {"filled-hole", "parts"}),
    "hole by a bridge": one([_BRIDGED], set()),
    "RLE": one(rle(2, 15, 9, 25), set()),
    "uncompressed RLE": one(rle(2, 15, 9, 25, compressed=False), set()),
    "RLE of nothing": one(rle(0, 0, 0, 0), "no-mask", kept=(10,)),
    "RLE without counts": one({"size": [20, 30], "counts": []}, "no-mask", kept=(10,)),
    "RLE of another size": one(rle(2, 5, 9, 9, (10, 12)), "bad-rle", _NAMED),
    "uncompressed RLE of another size": one(rle(2, 5, 9, 9, (10, 12), compressed=False), "bad-rle", _NAMED),
    "RLE, width first": one({**rle(2, 5, 9, 9, (30, 20)), "size": [30, 20]}, "bad-rle", _NAMED),
    "RLE too short": one({**rle(2, 5, 9, 9, (10, 12)), "size": [20, 30]}, "bad-rle", _NAMED),
    "RLE too long": one({**rle(2, 5, 9, 9, (40, 50)), "size": [20, 30]}, "bad-rle", _NAMED),
    "uncompressed RLE too short": one({"size": [20, 30], "counts": [100, 20]}, "bad-rle", _NAMED),
    "RLE with a negative run": one({"size": [20, 30], "counts": [-20, 120, 500]}, "bad-rle", _NAMED),
    "RLE of other letters": one({"size": [20, 30], "counts": "Hello, world!"}, "bad-rle", _NAMED),
    "RLE beyond ASCII": one({"size": [20, 30], "counts": "é"}, "bad-rle", _NAMED),
    "RLE without an end": one({"size": [20, 30], "counts": "PPPP"}, "bad-rle", _NAMED),
    "RLE of endless digits": one({"size": [20, 30], "counts": "o" * 40 + "1"}, "bad-rle", _NAMED),
    "crowd": one(rle(2, 15, 9, 25, compressed=False), "crowd", iscrowd=1),
    "crowd as text": one(rle(2, 15, 9, 25, compressed=False), "crowd", iscrowd="1"),
    "no crowd as text": one(rle(2, 15, 9, 25), set(), iscrowd="0"),
    "no crowd as a word": one(rle(2, 15, 9, 25), set(), iscrowd="false"),
    "area as text": one([[15, 5, 25, 5, 25, 15]], set(), area="55.0"),
    "ignore": one([[15, 5, 25, 5, 25, 15]], "ignore", ignore=1),
    "ignore as text": one([[15, 5, 25, 5, 25, 15]], "ignore", ignore="1"),
    "no ignore as text": one([[15, 5, 25, 5, 25, 15]], set(), ignore="0"),
    "no ignore as a word": one([[15, 5, 25, 5, 25, 15]], set(), ignore="False"),
    "ignore of nothing": one([[15, 5, 25, 5, 25, 15]], set(), ignore=0),
    "no area": one([[15, 5, 25, 5, 25, 15]], "wrong-area", area=0),
    "area of another scale": one([[15, 5, 25, 5, 25, 15]], "wrong-area", area=0.08),
    "box by corners": one([[15, 5, 25, 5, 25, 15]], "wrong-box", bbox=[15, 5, 25, 15]),
    "box of another scale": one([[15, 5, 25, 5, 25, 15]], "wrong-box", bbox=[0.5, 0.25, 0.3, 0.5]),
    "box of zeros": one([[15, 5, 25, 5, 25, 15]], "no-box", bbox=[0, 0, 0, 0]),
    "box of no width": one(rle(2, 15, 9, 16), "no-box", bbox=[15, 2, 0, 7]),
    "empty box": one([[15, 5, 25, 5, 25, 15]], "no-box", bbox=[]),
    "box of NaN": one([[15, 5, 25, 5, 25, 15]], "not-a-number", "annotation 11 ", bbox=["nan", 5, 10, 10]),
    "area of infinity": one([[15, 5, 25, 5, 25, 15]], "not-a-number", "annotation 11 ", area="inf"),
}
_IMAGE, _CATEGORY = FILE["images"][0], FILE["categories"][0]
RECORDS = {
    "sound": Case(file(), set()),
    "byte order mark": Case(b"\xef\xbb\xbf" + file(), set()),
    "ids as text": Case(file(other(id="11", image_id="5", category_id="1")), set(), kept=(10, 11)),
    "repeated annotation id": Case(
        file(other(id=10)), {"repeated-annotation-id"}, ("annotation 10 of image 5",), kept=(10, 10)
    ),
    "repeated annotation": Case(
        file({**GOOD, "id": 11}), {"repeated-annotation"}, (_NAMED, "annotation 10"), kept=(10, 11)
    ),
    "each mask a crowd": Case(
        file(*(other(id=11 + k, segmentation=rle(2, 15 + k, 9, 25), iscrowd=1) for k in range(5))),
        {"crowd", "many-crowds"}, ("5 of 6 annotations: each RLE and no polygon is one",), kept=tuple(range(10, 16)),
    ),
    "repeated record": Case(file(GOOD), {"repeated-annotation", "repeated-annotation-id"}, kept=(10, 10)),
    "repeated image id": Case(file(images=[_IMAGE, _IMAGE]), {"repeated-image-id"}, ("id 5",), "id 5"),
    "one id, two images": Case(
        file(other(image_id=6), images=[_IMAGE, *({**_IMAGE, "id": 6, "file_name": f"{k}.jpg"} for k in "bc")]),
        {"repeated-image-id"}, ("id 6",), "id 6",
    ),
    "repeated category id": Case(
        file(categories=[_CATEGORY, {"id": 1, "name": "dog"}]), {"repeated-category-id"}, ("id 1",), "id 1"
    ),
    "repeated category name": Case(
        file(other(category_id=2), categories=[_CATEGORY, {"id": 2, "name": "cat"}]),
        {"repeated-category-name"}, ("categories 1 and 2",), kept=(10, 11),
    ),
    "unknown image": Case(file(other(image_id=6)), {"unknown-image"}, ("annotation 11", "image 6"), "annotation 11"),
    "unknown category": Case(
        file(other(category_id=7)), {"unknown-category"}, ("annotation 11", "category 7"), "annotation 11"
    ),
    "ids from 0 with gaps": Case(
        file(categories=[{"id": 0, "name": "dog"}, _CATEGORY, {"id": 4, "name": "cow"}]),
        {"category-gaps", "unused-category"}, ("from 0 to 4", "2, 3", "category 0 ('dog')", "category 4 ('cow')"),
    ),
    "parent category": Case(
        file(
            other(category_id=2),
            categories=[{"id": 0, "name": "animals", "supercategory": "none"},
                        {"id": 1, "name": "cat", "supercategory": "animals"},
                        {"id": 2, "name": "dog", "supercategory": "animals"}],
        ), {"parent-category", "category-gaps"}, ("category 0 ('animals')",), kept=(10, 11),
    ),
    "its own supercategory": Case(
        file(categories=[FILE["categories"][0], {"id": 2, "name": "person", "supercategory": "person"}]),
        {"unused-category"}, ("category 2 ('person')",),
    ),
    "id as words": Case(file(other(id="eleven")), {"text-id"}, ("annotations[1]", "eleven"), "annotations[1]"),
    "ids as words": Case(
        file(
            *(other(id=f"a{k}", image_id="x", category_id="c", segmentation=[[k, 5, 25, 5, 25, 15]]) for k in range(3)),
            images=[FILE["images"][0], {**FILE["images"][0], "id": "x", "file_name": "b.jpg"}],
            categories=[FILE["categories"][0], {"id": "c", "name": "dog"}],
        ), {"text-id"}, ("images[1]: id 'x' becomes 1", "category_id 'c' becomes 2"), "images[1]",
    ),
    "id beyond 64 bits": Case(file(other(id=10**30)), {"record"}, ("annotations[1]",), "annotations[1]"),
    "id of letters beside one beyond 64 bits": Case(
        file(other(id=10**30), other(id="a")), {"record", "text-id"}, ("annotations[1]", "'a' becomes 1"),
        "annotations[1]",
    ),
    "id beyond 64 bits as text": Case(
        file(other(id="9" * 30)), {"text-id"}, ("annotations[1]", "becomes 1"), "annotations[1]"
    ),
    "largest id, repeated": Case(
        file(other(id=2**63 - 1), other(id=2**63 - 1, segmentation=[[1, 1, 5, 1, 5, 5]])),
        {"repeated-annotation-id"}, (f"annotation {2**63 - 1}",), kept=(10, 2**63 - 1, 2**63 - 1),
    ),
    "names that are numbers": Case(
        file(other(category_id=2), categories=[{"id": 1, "name": 7}, {"id": 2, "name": 0.5}]),
        {"number-name"}, ("categories[0]: name 7 becomes '7'", "'0.5'"), "categories[0]",
    ),
    "annotation is a number": Case(file(12), {"record"}, ("annotations[1]",), "annotations[1]"),
    "box of three": Case(file(other(bbox=[1, 2, 3])), {"record"}, ("annotations[1]", ".bbox"), "annotations[1]"),
    "image without a size": Case(
        file(images=[_IMAGE, {"id": 6, "file_name": "b.jpg"}]), {"record"}, ("images[1]", "height"), "images[1]"
    ),
    "image of no size": Case(
        file(images=[_IMAGE, {**_IMAGE, "id": 6, "file_name": "b.jpg", "height": 0}]),
        {"record"}, ("images[1]", "height"), "images[1]",
    ),
    "image of a billion pixels": Case(
        file(images=[_IMAGE, {**_IMAGE, "id": 6, "file_name": "b.jpg", "height": 10**5, "width": 10**5}]),
        {"image-too-large", "no-objects"}, ("image 6",), "image 6",
    ),
    "image without objects": Case(
        file(images=[_IMAGE, {**_IMAGE, "id": 6, "file_name": "b.jpg"}]), {"no-objects"}, ("image 6",)
    ),
    "names": Case(
        file(images=[{**_IMAGE, "file_name": "straße/ü 1.jpg"}]), {"odd-name"}, ("image 5 ('straße/ü 1.jpg')",)
    ),
    "one file, two images": Case(
        file(images=[_IMAGE, {**_IMAGE, "id": 6}]), {"repeated-file", "no-objects"}, ("images 5 and 6",)
    ),
    "no annotations": Case(file(annotations=[]), {"no-objects", "unused-category"}, ("image 5",), kept=()),
}  # fmt: skip
_DEEP = b"[" * 100_000 + b"]" * 100_000
FILES = {
    "nothing": b"",
    "text": b"<html>404 not found</html>",
    "zeros": bytes(5000),
    "truncated": file()[:-20],
    "truncated in the middle": file()[:100],
    "a list": b"[]",
    "an empty object": b"{}",
    "a number": b"5",
    "another format": json.dumps({"shapes": [], "imagePath": "a.jpg"}).encode(),
    "images only": json.dumps({"images": FILE["images"]}).encode(),
    "images by id": json.dumps({**FILE, "images": {"5": _IMAGE}}).encode(),
    "NaN": file(other(area=float("nan"))),
    "UTF-16": file().decode().encode("utf-16"),
    "broken UTF-8 where nobody looks": file().replace(b"animal", b"anim\xff\xfe"),
    "broken UTF-8": file().replace(b"a.jpg", b"a\xff\xfe.jpg"),
    "half a surrogate pair": file().replace(b'"a.jpg"', b'"\\ud800.jpg"'),
    "two files": file() + file(),
    "a pickle": b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "Python": b"__import__('os').system('touch pwned')",
    "brackets without end": _DEEP,
    "brackets in a record": file(other(segmentation=0)).replace(b'"segmentation": 0', b'"segmentation": ' + _DEEP),
}
HOPELESS = {name: Case(data, {"no-file"}, ("file.json",), "file.json", (), True) for name, data in FILES.items()}
CASES = {**SHAPES, **RECORDS, **HOPELESS}

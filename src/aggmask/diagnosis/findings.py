"""What can be wrong with a data set, and what is done about it: the one list of both."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aggmask.cocofile.records import CVAT_CROWDS

_STOP = "training and evaluation stop and name "
_STOPS = _STOP + "the first one"
_SKIPS = _STOP + "it; data.on_bad_image=skip goes on without it"
_OUT, _OUT_TOO = "left out", "left out, with its annotations"
_ONE_OR_NONE = "the first, if all of that id say the same; else none, nor their annotations: whose they are is unknown"


@dataclass(frozen=True)
class Kind:
    """One sort of thing to find.

    Attributes:
        fault: something is lost, stops the run, or means something else than was meant; else it is good to know.
        what: in a few words.
        done: what training and evaluation do about it.
        remedy: what a clean copy of the annotations has instead.
    """

    fault: bool
    what: str
    done: str
    remedy: str = "kept"

    @property
    def stops(self) -> bool:
        """Whether training does not go on."""
        return self.done.startswith(_STOP)


KINDS = {
    # the file
    "no-file": Kind(True, "the annotations cannot be read", _STOPS, "no copy can be made"),
    "too-large": Kind(True, "the annotations do not fit into memory", "reading them would end in an error", "no copy"),
    "no-images": Kind(True, "there is no folder or zip of images", _STOPS),
    "empty": Kind(True, "no image is listed", "training and evaluation stop and say so", "the same: list some"),
    "no-target": Kind(
        True, "there is no object with a mask to learn from", "training stops; data.skip_empty=false trains on images "
        "without objects all the same",
        "none is made up: add objects with masks, or write iscrowd=0 where a crowd is an object",
    ),
    # records
    "record": Kind(True, "an entry is not what the format says", _STOPS, _OUT),
    "text-id": Kind(True, "an id is text that is no whole number of 64 bits", _STOPS, "renumbered"),
    "number-name": Kind(True, "a category's name is a number", _STOPS, "written as text"),
    "no-size": Kind(True, "an image has no height and width", _STOPS, "read from the image file"),
    "repeated-image-id": Kind(True, "an image id is listed twice", _STOPS, _ONE_OR_NONE),
    "repeated-category-id": Kind(True, "a category id is listed twice", _STOPS, _ONE_OR_NONE),
    "repeated-category-name": Kind(
        True, "two categories have the same name", "they are learned as two; training stops before its "
        "first step where the file to evaluate on has other ids for the name",
        "objects of the later one go to the first",
    ),
    "missing-category": Kind(
        True, "a category that is trained on is not listed", "training stops before its first step, and evaluation of "
        "its model stops", "the same: add it to `categories`, by that name; it may well have no annotations",
    ),
    "ambiguous-category": Kind(
        True, "a name stands for several categories, under other ids than in training", "training stops before its "
        "first step, and evaluation of its model stops", "equal names are one category: make a copy of each file",
    ),
    "image-too-large": Kind(True, "an image has too many pixels", _STOPS, _OUT_TOO),
    "unknown-image": Kind(True, "an annotation of an image that is not listed", _STOPS, _OUT),
    "unknown-category": Kind(True, "an annotation of a category that is not listed", _STOPS, _OUT),
    "not-a-number": Kind(True, "an area or a box that is not a number", _STOPS, "computed from the mask"),
    "repeated-annotation-id": Kind(
        True, "an annotation id is used twice", "both are used; other programs keep one of them", "renumbered"
    ),
    "repeated-annotation": Kind(
        True, "the same object is annotated twice", "the later one takes the cells of the earlier one; in evaluation "
        "one of them is always missed", "the later one is left out",
    ),
    # masks
    "no-mask": Kind(True, "an annotation has no mask", "left out and counted", _OUT),
    "box-as-mask": Kind(True, "a box (4 numbers) stands where a polygon belongs", "left out and counted", _OUT),
    "pairs": Kind(
        True, "points as pairs, [[x, y], ...], where polygons belong", "left out and counted", "one polygon, flat"
    ),
    "bad-shape": Kind(True, "`segmentation` is neither polygons nor RLE", _STOPS, _OUT),
    "bad-rle": Kind(True, "an RLE is not one of an image of this size", _STOPS, _OUT),
    "broken-part": Kind(
        True, "a polygon has fewer than 3 points, or half a point", "that part is left out", "that part is left out"
    ),
    "no-area": Kind(
        True, "a mask has no area inside the image", "never a target; in evaluation it is always missed", _OUT
    ),
    "outside": Kind(True, "a polygon reaches out of the image", "cut at the border", "cut at the border"),
    "crossing": Kind(
        True, "a polygon crosses itself", "what it winds around twice may be a hole", "an RLE of what is painted"
    ),
    "filled-hole": Kind(
        True, "a polygon lies inside another one of the same object", "the hole, if it is one, is filled",
        "an RLE with the hole; what lies in the hole is object again",
    ),
    "wrong-area": Kind(
        True, "`area` is not that of the mask", "AP by size takes it as it is", "computed from the mask"
    ),
    "wrong-box": Kind(
        True, "`bbox` is not around the mask", "the object goes to the levels and cells of its box",
        "computed from the mask",
    ),
    "no-box": Kind(
        True, "`bbox` has no width or height, or is empty", "the box of the mask is used, and counted",
        "computed from the mask",
    ),
    "flat": Kind(False, "a polygon is not in a list of polygons", "read as one polygon", "put into a list"),
    "parts": Kind(False, "an object has several parts", "all of them are one object"),
    "crowd": Kind(False, "a crowd", "never a target; detections on it count neither way"),
    "many-crowds": Kind(
        True, "so many crowds that they may be single objects",
        f"never targets; detections on them count neither way. {CVAT_CROWDS}",
        "where each RLE and no polygon is a crowd, as CVAT writes them, iscrowd is 0; else kept: look at them",
    ),
    "ignore": Kind(
        False, "an annotation marked `ignore`", "never a target; evaluated as any other object, as pycocotools does"
    ),
    # categories and images, as the file has them
    "category-gaps": Kind(False, "category ids have gaps, or do not start at 1", "labels count them through; ids in "
                          "results are the file's"),
    "parent-category": Kind(
        True, "a category without any object that is the supercategory of others", "the model gets a class that it "
        "never sees", "left out of a training file; others keep it, since they must list all that the model knows",
    ),
    "unused-category": Kind(
        False, "a category without any object", "the model gets a class that it never sees, unless the other file has "
        "objects of it: which is why a clean copy keeps it",
    ),
    "no-objects": Kind(False, "an image without objects", "not trained on, unless data.skip_empty=false; evaluated"),
    "odd-name": Kind(False, "a file name with folders, spaces or letters beyond ASCII", "read as it is"),
    "repeated-file": Kind(
        True, "two images have the same file", "seen twice, each time with half of the objects",
        "one image, of the file's size or else the first, with the objects of those of its size",
    ),
    # image files
    "near-name": Kind(
        True, "an image file has nearly the name that the annotations say", _SKIPS, "the name of the file"
    ),
    "missing": Kind(True, "an image file is missing", _SKIPS, _OUT_TOO),
    "outside-folder": Kind(
        True, "a file name leads out of the images' folder", _STOPS + "; data.allow_outside=true reads it", _OUT_TOO
    ),
    "unreadable": Kind(True, "an image file is damaged or none at all", _SKIPS, _OUT_TOO),
    "wrong-size": Kind(True, "an image has another size than the annotations say", _SKIPS, _OUT_TOO),
    "too-dark": Kind(
        True, "pictures deeper than 8 bits use a small part of their range", "seen nearly black: integers are white at "
        "65535, floats at 1, or as data.value_range says", "kept: data.value_range is a word of the training",
    ),
    "no-scale": Kind(
        True, "a picture deeper than 8 bits has values of no known scale", "training stops at the picture and says so",
        "kept: data.value_range is a word of the training",
    ),
    "stored-frame": Kind(
        False, "an image is turned by its EXIF tag, but annotated as stored", "not turned; other programs may turn it"
    ),
    "turned": Kind(
        False, "an EXIF tag turns an image and its size does not tell whether annotations follow",
        "turned, as viewers show it: look at one of them; data.exif=ignore reads all pictures as stored",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing found."""

    kind: str  # of KINDS
    where: str  # "annotation 12 of image 5"; empty where the text tells
    text: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.text) if part)


@dataclass
class Findings:
    """All that was found, by kind in the order of KINDS."""

    found: list[Finding] = field(default_factory=list)

    def add(self, kind: str, where: str, text: str = "") -> None:
        """Note one thing.

        Raises:
            KeyError: there is no such kind.
        """
        KINDS[kind]
        self.found.append(Finding(kind, where, text))

    @property
    def faults(self) -> int:
        """How many of them are faults."""
        return sum(KINDS[finding.kind].fault for finding in self.found)

    @property
    def stops(self) -> bool:
        """Whether training stops at any of them."""
        return any(KINDS[finding.kind].stops for finding in self.found)

    def counts(self) -> dict[str, int]:
        """Kind -> how many, faults first."""
        counts = Counter(finding.kind for finding in self.found)
        return {kind: counts[kind] for kind in sorted(KINDS, key=lambda k: not KINDS[k].fault) if kind in counts}

    def of(self, kind: str) -> list[Finding]:
        return [finding for finding in self.found if finding.kind == kind]


@dataclass
class Repairs:
    """What a clean copy has otherwise, by list and position in the file; None: it does not have that record."""

    changes: dict[tuple[str, int], dict | None] = field(default_factory=dict)

    def drop(self, list_name: str, position: int) -> None:
        self.changes[list_name, position] = None

    def change(self, list_name: str, position: int, **values: object) -> None:
        """Set keys of one record; nothing changes on a record that is dropped."""
        present = self.changes.setdefault((list_name, position), {})
        if present is not None:
            present.update(values)

    def value(self, list_name: str, position: int, record: Any, key: str) -> Any:
        """What a record has under a key when it is repaired."""
        return (self.changes.get((list_name, position)) or {}).get(key, getattr(record, key))

    def dropped(self, list_name: str, position: int) -> bool:
        return self.changes.get((list_name, position), {}) is None

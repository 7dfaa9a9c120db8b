"""Records that contradict each other or stand for one thing: which of them a clean copy has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from aggmask.cocofile.records import Annotation, Image
from aggmask.diagnosis.findings import Findings, Repairs
from aggmask.diagnosis.masks import MaskCheck

if TYPE_CHECKING:
    from aggmask.diagnosis.first_aid import SizeOf
    from aggmask.diagnosis.structure import Examination

Placed = tuple[int, Image]  # position in the file, record


def drop_contradictions(examination: Examination) -> None:
    """Leave out records of one id that say different things, with their annotations: whose these are is not known."""
    file, positions, repairs = examination.file.file, examination.file.positions, examination.repairs
    torn = {
        "images": _torn(file.images, attrgetter("file_name", "height", "width")),
        "categories": _torn(file.categories, attrgetter("name")),
    }
    if not any(torn.values()):
        return
    for list_name, ids in torn.items():
        for position, record in zip(positions[list_name], getattr(file, list_name), strict=True):
            if record.id in ids:
                repairs.drop(list_name, position)
    for position, a in zip(positions["annotations"], file.annotations, strict=True):
        if a.image_id in torn["images"] or a.category_id in torn["categories"]:
            repairs.drop("annotations", position)


def _torn(records: Sequence[Any], content: Callable[[Any], object]) -> set[int]:
    """Ids of which two records have different contents."""
    first: dict[int, object] = {}
    return {record.id for record in records if first.setdefault(record.id, content(record)) != content(record)}


def join(examination: Examination, groups: Iterable[list[Placed]], size_of: SizeOf | None = None) -> set[int]:
    """Make one image of each group, whose images have one file: the first that has the file's size, else the first.

    It gets the objects of the others of its size. Outlines for another size do not fit: they go with their image.

    Args:
        size_of: asked for the size of the file where those of the images differ.

    Returns:
        The ids of the images that got objects.
    """
    findings, repairs = examination.findings, examination.repairs
    moved: dict[int, int] = {}
    for group in groups:
        if size_of is not None and len({_size(image) for _, image in group}) > 1:
            size = size_of(group[0][1].file_name)
            group = sorted(group, key=lambda placed: _size(placed[1]) != size)
        (_, first), *others = group
        for position, image in others:
            sizes = "" if _size(image) == _size(first) else f", for {_size(first)} and {_size(image)} (height, width)"
            findings.add("repeated-file", f"images {first.id} and {image.id}", f"{first.file_name!r}{sizes}")
            repairs.drop("images", position)
            if not sizes:
                moved[image.id] = first.id
    if moved:
        for position, a in examination.annotations():
            image_id = repairs.value("annotations", position, a, "image_id")
            if image_id in moved:
                repairs.change("annotations", position, image_id=moved[image_id])
    return set(moved.values())


def _size(image: Image) -> tuple[int, int]:
    return image.height, image.width


class Repeats:
    """Finds annotations that say what an earlier one of the same image says, and leaves them out."""

    def __init__(self, examination: Examination) -> None:
        self.examination = examination
        self._seen: dict[tuple, tuple[int, int]] = {}

    def look(self, position: int, a: Annotation, mask: bytes) -> None:
        """Hold an annotation with this mask against those before."""
        repairs = self.examination.repairs
        ids = (repairs.value("annotations", position, a, key) for key in ("image_id", "category_id"))
        first = self._seen.setdefault((*ids, bool(a.iscrowd), a.is_target, hash(mask)), (position, a.id))
        if first[0] != position:
            self.examination.findings.add("repeated-annotation", name_of(a), f"the same as annotation {first[1]}")
            repairs.drop("annotations", position)


def drop_repeats(examination: Examination, among: set[int]) -> None:
    """Leave out annotations that became the same as others when images with these ids got objects."""
    images = {image.id: image for _, image in examination.images() if image.id in among}
    repeats, check = Repeats(examination), MaskCheck(Findings(), Repairs())  # what it finds is known
    for position, a in examination.annotations() if images else ():
        image = images.get(examination.repairs.value("annotations", position, a, "image_id"))
        mask = check(position, a, image, "") if image is not None else None
        if mask is not None:
            repeats.look(position, a, mask)


def name_of(annotation: Annotation) -> str:
    return f"annotation {annotation.id} of image {annotation.image_id}"

"""An annotation file by itself: everything that is wrong in it, not only the first thing.

What is refused and how shapes are read is said in `cocofile`, by which training and evaluation read, too; here the
reading only goes on after a fault. What those two take silently but nobody can have meant is looked for on top.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import fsspec

from aggmask.cocofile.reading import readable
from aggmask.cocofile.records import LISTS, Annotation, File, LenientFile, parse_leniently, problems_of
from aggmask.diagnosis.crowds import examine_crowds
from aggmask.diagnosis.findings import Findings, Repairs
from aggmask.diagnosis.first_aid import Progress, SizeOf, first_aid, free_ids
from aggmask.diagnosis.masks import MaskCheck
from aggmask.diagnosis.merging import Placed, Repeats, drop_contradictions, join, name_of
from aggmask.errors import UserError, listed
from aggmask.memory import free_bytes

_MEMORY_PER_BYTE = 4  # of a file, while it is read and checked (measured: 1.7 where polygons are long, 3.9 where short)


@dataclass
class Examination:
    """A file's records as far as they can be read, what is wrong with them, and how to put it right."""

    source: str
    data: bytes  # of the file, with ids and sizes put right where they kept records from being read
    file: LenientFile = field(default_factory=lambda: LenientFile(File([], []), {name: [] for name in LISTS}, []))
    findings: Findings = field(default_factory=Findings)
    repairs: Repairs = field(default_factory=Repairs)

    @property
    def readable(self) -> bool:
        """Whether there are records at all."""
        return not self.findings.of("no-file") + self.findings.of("too-large")

    def images(self) -> list[Placed]:
        """(position in the file, image) of those that no repair leaves out."""
        pairs = zip(self.file.positions["images"], self.file.file.images, strict=True)
        return [(position, image) for position, image in pairs if not self.repairs.dropped("images", position)]

    def annotations(self) -> Iterator[tuple[int, Annotation]]:
        """(position in the file, annotation) of those that no repair leaves out by itself."""
        pairs = zip(self.file.positions["annotations"], self.file.file.annotations, strict=True)
        return ((position, a) for position, a in pairs if not self.repairs.dropped("annotations", position))


def examine_file(
    source: str, progress: Progress = iter, size_of: SizeOf | None = None, training: bool = True
) -> Examination:
    """All faults of an annotation file (a path, or an address that fsspec knows).

    Args:
        progress: put around the loops over images without sizes and over annotations.
        size_of: asked for the size of an image file where records lack it, or contradict each other.
        training: whether the model takes its categories from this file; a file to evaluate on must list all of them.

    Raises:
        UserError: there is nothing to read.
    """
    with readable(source), fsspec.open(source, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        needed, free = size * _MEMORY_PER_BYTE, free_bytes()
        if free is not None and needed > free:
            examination = Examination(source, b"")
            text = f"{size / 1e9:.2f} GB take about {needed / 1e9:.2f} GB to be read; {free / 1e9:.2f} GB are free"
            examination.findings.add("too-large", source, text)
            return examination
        file.seek(0)
        data = file.read()
    return examine(data, source, progress, size_of, training)


def examine(
    data: bytes, source: str, progress: Progress = iter, size_of: SizeOf | None = None, training: bool = True
) -> Examination:
    """All faults of an annotation file's bytes."""
    examination = Examination(source, data)
    try:
        examination.file = parse_leniently(data, source)
    except UserError as error:
        examination.findings.add("no-file", "", str(error))
        return examination
    if examination.file.problems:
        examination.data, mended = first_aid(data, size_of, progress)
        for found in mended:
            examination.findings.add(*found)
        examination.file = parse_leniently(examination.data, source)
    _problems(examination)
    _categories(examination, training)
    _image_records(examination, size_of)
    _annotations(examination, progress)
    examine_crowds(examination)
    return examination


def _problems(examination: Examination) -> None:
    """What training and evaluation stop at."""
    file, positions = examination.file.file, examination.file.positions
    for problem in examination.file.problems:
        examination.findings.add(problem.kind, "", problem.text)
        examination.repairs.drop(problem.list, problem.position)
    for problem in problems_of(file):
        examination.findings.add(problem.kind, "", problem.text)
        if problem.kind == "not-a-number":
            continue  # the mask tells both, see `masks`
        examination.repairs.drop(problem.list, positions[problem.list][problem.position])
    drop_contradictions(examination)


def _categories(examination: Examination, training: bool) -> None:
    file, findings, repairs = examination.file.file, examination.findings, examination.repairs
    ids = sorted({category.id for category in file.categories})
    if ids and (ids[0] != 1 or any(after - id > 1 for id, after in pairwise(ids))):
        text = f"{len(ids)} ids from {ids[0]} to {ids[-1]}"
        missing = [id for id in range(max(1, ids[0]), min(ids[-1], ids[0] + 1000)) if id not in set(ids)]
        findings.add("category-gaps", "", text + (f"; not used: {listed(missing)}" if missing else ""))
    used = {a.category_id for a in file.annotations}
    first: dict[str, int] = {}
    renamed: dict[int, int] = {}
    parents = Counter(c.supercategory for c in file.categories if isinstance(c.supercategory, str))
    for position, category in zip(examination.file.positions["categories"], file.categories, strict=True):
        is_parent = parents[category.name] > (category.supercategory == category.name)
        if training and category.id not in used and is_parent:
            findings.add("parent-category", f"category {category.id} ({category.name!r})")
            repairs.drop("categories", position)
            continue
        if category.id not in used:
            findings.add("unused-category", f"category {category.id} ({category.name!r})")
        if repairs.dropped("categories", position):
            continue
        if (before := first.setdefault(category.name, category.id)) != category.id:
            findings.add("repeated-category-name", f"categories {before} and {category.id}", f"{category.name!r}")
            renamed[category.id] = before
            repairs.drop("categories", position)
    for position, a in zip(examination.file.positions["annotations"], file.annotations, strict=True):
        if a.category_id in renamed:
            repairs.change("annotations", position, category_id=renamed[a.category_id])


def _annotations(examination: Examination, progress: Progress) -> None:
    file, findings, repairs = examination.file.file, examination.findings, examination.repairs
    images = {image.id: image for _, image in examination.images()}
    check, repeats = MaskCheck(findings, repairs), Repeats(examination)
    ids: set[int] = set()
    free = free_ids({a.id for a in file.annotations})
    for position, a in progress(list(zip(examination.file.positions["annotations"], file.annotations, strict=True))):
        if a.id in ids:
            findings.add("repeated-annotation-id", name_of(a))
            repairs.change("annotations", position, id=next(free))
        ids.add(a.id)
        if repairs.dropped("annotations", position):
            continue
        image = images.get(repairs.value("annotations", position, a, "image_id"))
        if image is None:
            continue
        mask = check(position, a, image, name_of(a))
        if mask is None:
            repairs.drop("annotations", position)
        else:
            repeats.look(position, a, mask)


def _image_records(examination: Examination, size_of: SizeOf | None) -> None:
    file, findings, repairs = examination.file.file, examination.findings, examination.repairs
    objects = Counter(a.image_id for a in file.annotations if a.is_target)
    files: dict[str, list[Placed]] = {}
    for position, image in zip(examination.file.positions["images"], file.images, strict=True):
        name = f"image {image.id} ({image.file_name!r})"
        if not objects[image.id]:
            findings.add("no-objects", name)
        if "/" in image.file_name or " " in image.file_name or not image.file_name.isascii():
            findings.add("odd-name", name)
        if not repairs.dropped("images", position):
            files.setdefault(image.file_name, []).append((position, image))
    join(examination, (group for group in files.values() if len(group) > 1), size_of)

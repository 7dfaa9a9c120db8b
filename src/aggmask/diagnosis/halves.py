"""What keeps a training from its data though each record is sound: nothing to use, categories that do not match."""

from __future__ import annotations

from aggmask.cocofile.records import File
from aggmask.cocofile.segmentation import mask_of, shape_of
from aggmask.diagnosis.structure import Examination


def examine_use(examination: Examination, training: bool, skip_empty: bool) -> None:
    """Look whether there is an image to train or to evaluate on, in a file at which nothing else stops.

    Args:
        skip_empty: images without objects are not trained on.
    """
    file, findings = examination.file.file, examination.findings
    if not examination.readable or findings.stops:
        return
    if not file.images:
        findings.add("empty", "", "`images` has no entry")
    elif training and skip_empty and not _has_target(file):
        others = sum(not a.is_target for a in file.annotations)
        text = f"{others} of {len(file.annotations)} annotations are crowds or marked `ignore`, the others have no mask"
        findings.add("no-target", "", text)


def _has_target(file: File) -> bool:
    """Whether any annotation is an object that the index of the data set keeps."""
    sizes = {image.id: (image.height, image.width) for image in file.images}
    masks = (mask_of(shape_of(a.segmentation)[0], *sizes[a.image_id]) for a in file.annotations if a.is_target)
    return any(mask["counts"] if isinstance(mask, dict) else mask for mask in masks)


def compare_categories(train: Examination, val: Examination) -> None:
    """Look whether the file to evaluate on lists all categories that a model learns, by their names."""
    if not (train.readable and val.readable):
        return
    listed = {category.name for category in val.file.file.categories}
    for category in train.file.file.categories:
        if category.name not in listed:
            val.findings.add("missing-category", f"category {category.id} ({category.name!r}) of {train.source}")

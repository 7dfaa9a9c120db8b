"""What keeps a training from its data though each record is sound: nothing to use, categories that do not match."""

from __future__ import annotations

from aggmask.cocofile.categories import ambiguous
from aggmask.cocofile.records import CVAT_CROWDS, File
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
        findings.add("no-target", "", f"{text}. {CVAT_CROWDS}" if any(a.iscrowd for a in file.annotations) else text)


def _has_target(file: File) -> bool:
    """Whether any annotation is an object that the index of the data set keeps."""
    sizes = {image.id: (image.height, image.width) for image in file.images}
    masks = (mask_of(shape_of(a.segmentation)[0], *sizes[a.image_id]) for a in file.annotations if a.is_target)
    return any(mask["counts"] if isinstance(mask, dict) else mask for mask in masks)


def compare_categories(train: Examination, val: Examination) -> None:
    """Look whether the file to evaluate on lists all categories that a model learns, as evaluation looks for them."""
    if not (train.readable and val.readable):
        return
    own, found = train.file.file.categories, val.file.file.categories
    listed = {category.name for category in found}
    missing = [category for category in own if category.name not in listed]
    for kind, categories in (("missing-category", missing), ("ambiguous-category", ambiguous(own, found))):
        for category in categories:
            val.findings.add(kind, f"category {category.id} ({category.name!r}) of {train.source}")

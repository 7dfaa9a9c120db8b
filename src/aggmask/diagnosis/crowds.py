"""Single objects that an exporter marked as crowds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggmask.cocofile.records import too_many_crowds

if TYPE_CHECKING:
    from aggmask.diagnosis.structure import Examination


def examine_crowds(examination: Examination) -> None:
    """Look whether there are too many crowds among the annotations that no repair leaves out.

    In a clean copy they are none where it is CVAT's way of writing: each RLE is a crowd, and no polygon is. COCO writes
    its crowds in that way, too, but has few.
    """
    annotations = list(examination.annotations())
    crowds = [position for position, a in annotations if a.iscrowd]
    if not too_many_crowds(len(crowds), len(annotations)):
        return
    by_exporter = all((bytes(a.segmentation)[:1] == b"{") == bool(a.iscrowd) for _, a in annotations)
    which = "each RLE and no polygon is one" if by_exporter else "not just each RLE"
    examination.findings.add("many-crowds", "", f"{len(crowds)} of {len(annotations)} annotations: {which}")
    for position in crowds if by_exporter else ():
        examination.repairs.change("annotations", position, iscrowd=0)

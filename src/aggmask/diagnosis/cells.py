"""What the grids of an experiment make of one annotation file: coverage, a proposal, pictures of the worst images."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from aggmask.data.coco import CocoInstances
from aggmask.data.decode import Exif
from aggmask.data.index import AnnotationIndex
from aggmask.data.storage import Storage
from aggmask.data.transforms import Resize
from aggmask.depth import Range
from aggmask.diagnosis.coverage import FATES, SIZES, Coverage, Population, cover, populate, spread
from aggmask.diagnosis.proposal import Proposal, input_size, propose
from aggmask.diagnosis.repair import repaired
from aggmask.diagnosis.structure import Examination, Progress
from aggmask.drawing.overlay import draw
from aggmask.errors import UserError
from aggmask.structures import Category, GridLevel, Instances
from aggmask.supervision.assign import Assigner

_WIDEST = 640  # pixels of a picture in the report


@dataclass(frozen=True)
class Picture:
    """An image with the objects that no cell learns."""

    title: str
    jpeg: bytes


@dataclass(frozen=True)
class CellReport:
    """One annotation file on an experiment's grids, and on grids made for it."""

    population: Population
    all_images: int
    resize: Resize
    coverage: Coverage
    categories: Sequence[Category]
    proposal: Proposal
    proposed: Coverage
    pictures: list[Picture]
    mended: bool  # the objects are those of a copy without the faults, as training stops at the file itself

    @property
    def improves(self) -> bool:
        """Whether the proposal loses noticeably fewer objects."""
        return float(self.coverage.lost.mean() - self.proposed.lost.mean()) > 0.002

    def by_category(self) -> list[tuple[str, int, np.ndarray]]:
        """(name, objects, share of each fate), the category that loses most first."""
        labels = self.population.objects.labels.numpy()
        groups = [(category.name, labels == label) for label, category in enumerate(self.categories)]
        rows = [(name, int(chosen.sum()), self.coverage.shares(chosen)) for name, chosen in groups]
        return sorted(rows, key=lambda row: (-row[2][2:].sum(), -row[1]))

    def by_size(self) -> list[tuple[str, int, np.ndarray]]:
        """(COCO's size, objects, share of each fate)."""
        areas = self.population.original_areas
        groups = [(name, (areas >= low) & (areas < high)) for low, high, name in SIZES]
        return [(name, int(chosen.sum()), self.coverage.shares(chosen)) for name, chosen in groups]

    def by_level(self) -> list[tuple[GridLevel, int, float, float]]:
        """(level, objects in its range, share of them that lose all their cells of it, cells that they claim)."""
        claimed = self.coverage.claimed
        counts = (claimed > 0).sum(0).tolist()
        means = (claimed.sum(0) / (claimed > 0).sum(0).clamp(min=1)).tolist()
        overwritten = map(self.coverage.overwritten_at, range(len(counts)))
        return list(zip(self.coverage.levels, counts, overwritten, means, strict=True))


def examine_cells(
    examination: Examination,
    storage: Storage | None,
    levels: Sequence[GridLevel],
    assigner: Assigner,
    resize: Resize,
    most_images: int,
    cache_dir: str | None = None,
    worst: int = 6,
    progress: Progress = iter,
    value_range: Range | None = None,
    exif: Exif = "auto",
) -> CellReport | None:
    """Send the objects of a file to cells, as training does; None where there are no objects.

    Where training would stop at the file, a copy without its faults takes its place: None where none can be made.

    Args:
        storage: of the images, for the pictures; None: no pictures.
        levels, assigner, resize: the experiment's; the evaluation's network input.
        most_images: of which objects are looked at.
        cache_dir: of the annotation index.
        worst: how many pictures.
        value_range, exif: of the pictures, see `decode.decode_image`.
    """
    with TemporaryDirectory() as folder:
        if examination.findings.stops:
            copy = Path(folder, "annotations.json")
            try:
                copy.write_bytes(repaired(examination))
            except UserError:  # which `fix=` tells; what was found is told all the same
                return None
            index = AnnotationIndex.open(copy, folder, called=f"the mended copy of {examination.source}", warn=False)
        else:
            index = AnnotationIndex.open(examination.source, cache_dir, warn=False)
        data = CocoInstances(index, storage, resize, training=True, value_range=value_range, exif=exif)
        images = spread(len(index), most_images)
        population = populate(index, resize, images, progress)
        if not len(population.ids):
            return None
        coverage = cover(population, levels, assigner)
        other = input_size(index, images, resize)
        moved = population if other is resize else populate(index, other, images)
        proposal, proposed = propose(moved, other, assigner, resize)
        pictures = [] if storage is None else list(_worst(data, population, coverage, worst))
        categories = index.categories
    return CellReport(population, len(index), resize, coverage, categories, proposal, proposed, pictures,
                          examination.findings.stops)  # fmt: skip


def _worst(data: CocoInstances, population: Population, coverage: Coverage, count: int) -> Iterator[Picture]:
    """The images that lose most objects, with what became of each."""
    numbers = population.image.numpy()
    lost = np.bincount(numbers[coverage.lost], minlength=len(population.images))
    for number in np.argsort(-lost, kind="stable")[:count].tolist():
        if not lost[number]:
            return
        here = np.flatnonzero(numbers == number)
        image_id = int(data.index.image_ids[population.images[number]])
        try:
            pixels, truth = data.original(image_id)
        except UserError:  # the images have not been looked at
            continue
        gone = np.flatnonzero(coverage.lost[here])
        names = [f"{truth.names[k]} {FATES[coverage.fates[here[k]]]}" for k in gone]
        shown = truth[gone.tolist()]
        shown = Instances(shown.masks, shown.scores, shown.labels.new_tensor(range(len(gone))),
                          [Category(k, name) for k, name in enumerate(names)])  # fmt: skip
        file_name = data.index.file_name(int(population.images[number]))
        title = f"image {image_id} ({file_name!r}): {len(gone)} of {len(here)} objects get no cell"
        yield Picture(title, _jpeg(draw(pixels, shown)))


def _jpeg(picture: Image.Image) -> bytes:
    picture.thumbnail((_WIDEST, _WIDEST))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()

"""Doctor: `python -m aggmask.doctor data.root=DIR [experiment=NAME] [key=value ...]`.

Takes the words of a training and looks at its data instead. Ends with 0 where nothing is wrong, with 1 where there are
faults (also a file that cannot be read as annotations), with 2 where a word is wrong or there is nothing to look at.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from aggmask.assembly.command import hydra_task, run_command
from aggmask.assembly.config import plain, register_resolvers
from aggmask.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from aggmask.data.datamodule import CocoDataModule
    from aggmask.data.places import Split
    from aggmask.diagnosis.report import Report

register_resolvers()


def doctor(cfg: DictConfig) -> list[Report]:
    """Examine the halves of a data set, print and write what was found.

    Args:
        cfg: composed from `conf/doctor.yaml`.

    Raises:
        UserError: there is nothing to look at, or a file cannot be written.
    """
    from aggmask.assembly.build import build
    from aggmask.diagnosis.halves import compare_categories
    from aggmask.diagnosis.page import write_page
    from aggmask.diagnosis.repair import repaired, write_copy
    from aggmask.diagnosis.report import about_copy, as_text

    data = build(plain(cfg.data))
    splits = chosen(data, cfg.split)
    if cfg.fix is not None and len(splits) > 1:
        raise UserError(f"fix={cfg.fix} is one file, but there are two to mend: say split=train or split=val.")
    reports = []
    for split in splits:
        reports.append(examine_split(split, data, cfg))
        reports[-1].advises = split is splits[0]
        if len(reports) > 1:
            compare_categories(*(report.examination for report in reports))
        print(as_text(reports[-1], cfg.examples))
    if cfg.html is not None:
        write_page(reports, cfg.html)
        print(f"the same with pictures: {cfg.html}")
    if cfg.fix is not None:
        write_copy(repaired(reports[0].examination), cfg.fix)
        print(f"a copy without the faults: {cfg.fix} ({about_copy(reports[0].examination)})")
    return reports


def chosen(data: CocoDataModule, split: str | None) -> list[Split]:
    """The halves to look at: the one asked for, else those named one by one, else those that are there.

    Raises:
        UserError: there is none.
    """
    from aggmask.data.places import is_found, require

    if split not in (None, "train", "val"):
        raise UserError(f"split={split}: must be train, val or null")
    halves = [data.train, data.val] if split is None else [getattr(data, split)]
    named = [half for half in halves if half.named]
    halves = named or halves
    if not any(is_found(half.annotations) for half in halves):
        data.prepare_data()  # the embedded data set draws itself
    found = [half for half in halves if is_found(half.annotations)]
    if not found or (named and len(found) < len(named)):
        require(*halves)
    return found


def examine_split(split: Split, data: CocoDataModule, cfg: DictConfig) -> Report:
    """Annotations, images and cells of one half."""
    from aggmask.assembly.build import build
    from aggmask.data.places import existing, is_found
    from aggmask.data.storage import open_storage
    from aggmask.diagnosis.cells import examine_cells
    from aggmask.diagnosis.halves import examine_use
    from aggmask.diagnosis.pictures import examine_pictures, size_in
    from aggmask.diagnosis.report import Report
    from aggmask.diagnosis.structure import examine_file
    from aggmask.geometry.grid import make_levels

    storage = open_storage(existing(split.images), data.allow_outside) if is_found(split.images) else None
    reading = {"value_range": data.value_range, "exif": data.exif}
    size_of = partial(size_in, storage, exif=data.exif) if storage is not None and cfg.check_images else None
    progress = _progress(f"{split.name} annotations")
    examination = examine_file(split.annotations, progress, size_of, training=split.name == "train")
    examine_use(examination, split.name == "train", data.skip_empty)
    if storage is None:
        examination.findings.add("no-images", f"data.{split.name}.images={split.images}")
    elif cfg.check_images:
        examine_pictures(examination, storage, data.num_workers, _progress(f"{split.name} images"), **reading)
    report = Report(split.name, examination, experiment=cfg.name)
    if cfg.coverage_images and examination.readable:
        report.cells = examine_cells(
            examination,
            storage,
            make_levels(plain(cfg.model.levels), cfg.model.interpolation.stride),
            build(plain(cfg.assigner)),
            data.evaluation_resize,
            cfg.coverage_images,
            data.cache_dir,
            progress=_progress(f"{split.name} cells"),
            **reading,
        )
    return report


def _progress(name: str) -> Any:
    from tqdm import tqdm

    return lambda items: tqdm(items, desc=name, disable=None, leave=False)


@hydra_task("doctor")
def _main(cfg: DictConfig) -> None:
    if any(report.examination.findings.faults for report in doctor(cfg)):
        sys.exit(1)


def main() -> None:
    """Entry point of `python -m aggmask.doctor` and `aggmask-doctor`."""
    run_command(_main)


if __name__ == "__main__":
    main()

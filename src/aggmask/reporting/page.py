"""One HTML file with everything in it: tables, figures and pictures; it opens from a disk and prints."""

from __future__ import annotations

import io
import math
import os
import shlex
import time
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

import aggmask
from aggmask.drawing.page import data_address, jpeg_address, render_page
from aggmask.files import read_json
from aggmask.reporting import figures
from aggmask.reporting.costs import CANDIDATES
from aggmask.reporting.pictures import Strip, pictures_or_reason
from aggmask.reporting.runs import FINISHED
from aggmask.reporting.summary import Row, Summary
from aggmask.reporting.tables import NOTHING, Cell, cells, columns, explanation, percent, said_of
from aggmask.reporting.variants import flat, group

TABLES = ("table.md", "table.tex")  # beside the page
_FIGURES = (  # function, title, caption
    (
        figures.differences,
        "Difference to the baseline",
        "AP of each variant minus AP of the baseline, over all objects and by size, with 95 % bootstrap intervals over "
        "images.",
    ),
    (
        figures.costs,
        "AP against what it costs",
        f"Bars: standard deviation over seeds. Multiply-adds: of one image with {CANDIDATES} masks. Step: median of a "
        "run, without the wait for data. Memory: the most of a run, of tensors on a GPU, of the process on a CPU.",
    ),
    (
        figures.sizes,
        "AP by size",
        "Small: below 32 x 32 pixels; large: 96 x 96 and more; touching: beside another one of its "
        "category. Bars: deviation over seeds.",
    ),
    (
        figures.curves,
        "Learning curves",
        "Thin: one seed; thick: mean over seeds. The loss is averaged over equal parts of the training.",
    ),
    (figures.categories, "AP by category", "Best category of the baseline first. Bars: standard deviation over seeds."),
)


def render(summary: Summary, pictures: int) -> str:
    """The page, with so many validation pictures for each variant."""
    strips, no_pictures = pictures_or_reason(summary, pictures)
    lines = [
        {"cells": line, "baseline": row.variant is summary.baseline}
        for row, line in zip(summary.rows, cells(summary), strict=True)
    ]
    return render_page(
        __package__,
        title=f"Sweep {summary.folder.resolve().name}",
        facts=_facts(summary),
        trained=_trained(summary),
        notes=summary.notes,
        headings=columns(summary),
        lines=lines,
        explanation=explanation(summary),
        files=" and ".join(TABLES),
        figures=[shown for parts in _FIGURES if (shown := _figure(summary, *parts))],
        categories=_categories(summary),
        baseline=summary.baseline.label,
        strips=[_strip(strip, lines) for strip in strips],
        no_pictures=no_pictures,
        jobs=_jobs(summary),
        jobs_text="Only finished jobs are in the tables and figures above.",
    )


def _facts(summary: Summary) -> str:
    finished = sum(run.state == FINISHED for run in summary.runs)
    return (
        f"{len(summary.rows)} variants, {finished} of {len(summary.runs)} jobs finished. "
        f"{len(summary.truth.sizes)} {said_of(summary.split)} images, {len(summary.truth.annotations)} objects "
        f"({_from_here(summary.data.val.annotations)}). Baseline: {summary.baseline.label}."
    )


def _from_here(place: str) -> str:
    """A page is read on other machines: what lies below the working folder is called from there."""
    return place.removeprefix(f"{Path.cwd()}{os.sep}")


def _trained(summary: Summary) -> list[str]:
    """What a print has to say of itself: the command, what all variants share, when, with which version."""
    began = read_json(summary.folder / "sweep.json")
    told = [f"python -m aggmask.train --multirun {shlex.join(began['arguments'])}"] if began else []
    configs = [flat(row.variant.finished[0].config) for row in summary.rows]
    shared = [
        f"{key}={value}"
        for key in ("trainer.max_epochs", "trainer.max_steps", "data.batch_size", "data.short_side", "optim.lr")
        if (value := configs[0].get(key)) not in (None, -1) and all(config.get(key) == value for config in configs)
    ]
    counted = [run for row in summary.rows for run in row.variant.finished]
    last = max(run.results_file(summary.split).stat().st_mtime for run in counted)
    ended = time.strftime("%Y-%m-%d %H:%M", time.localtime(last))
    told.append(f"{', '.join(shared)}. Last evaluation: {ended}. aggmask {aggmask.__version__}.")
    return told


def _categories(summary: Summary) -> list[dict[str, Any]]:
    """In the order of the figure above it."""
    return [
        {"name": summary.category_names[number], "cells": [_category(row, number) for row in summary.rows]}
        for number in figures.by_baseline(summary)
    ]


def _category(row: Row, number: int) -> Cell:
    spread, interval = row.categories[number], row.category_differences.get(number)
    clear = interval is not None and (interval.low > 0 or interval.high < 0)
    return Cell(percent(spread), None if math.isnan(spread.mean) else spread.mean, clear)


def _jobs(summary: Summary) -> list[dict[str, Any]]:
    # All of them: those of the summary leave out a seed that was run before.
    variants = {run.folder: variant for variant in group(summary.runs) for run in variant.runs}
    jobs = []
    for run in summary.runs:
        variant = variants[run.folder]
        ap = max((value for _, _, value in run.logged.get("val/AP", [])), default=None)
        jobs.append(
            {
                "name": run.name,
                "label": variant.label,
                "settings": " ".join(variant.settings) or NOTHING,
                "seed": NOTHING if run.seed is None else run.seed,
                "state": run.state,
                "detail": run.detail,
                "ap": ap,
                "ap_text": NOTHING if ap is None else f"{100 * ap:.1f}",
            }
        )
    return jobs


def _figure(summary: Summary, make: Any, title: str, caption: str) -> dict[str, Any] | None:
    figure = make(summary)
    if figure is None:
        return None
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return {"title": title, "caption": caption, "source": svg(figure), "width": width, "height": height}


def svg(figure: Figure) -> str:
    """A figure as a data address; the same figure gives the same bytes."""
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "aggmask", "svg.fonttype": "path"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return data_address("image/svg+xml", content.getvalue())


def _strip(strip: Strip, lines: list[dict[str, Any]]) -> dict[str, Any]:
    labels = ["ground truth", *(line["cells"][0].text for line in lines)]
    pictures = [
        {
            "source": jpeg_address(picture),
            "width": picture.width,
            "height": picture.height,
            "text": f"image {strip.image_id}: {label}",
        }
        for picture, label in zip(strip.pictures, labels, strict=True)
    ]
    return {"image_id": strip.image_id, "pictures": pictures}

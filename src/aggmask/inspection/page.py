"""What a model did on one picture, as one HTML file: objects to choose from, neighbors to point at."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from aggmask.drawing.page import jpeg_address, png_address, render_page
from aggmask.inspection.candidates import Fate
from aggmask.inspection.parts import key_of, parts_of, results_of
from aggmask.inspection.pictures import OWN, RIVAL, base_picture, mask_picture, thumbnail
from aggmask.inspection.trace import Inspection, Neighbor, Trace
from aggmask.inspection.words import gathered, number_of, story_of, why_no_object

_DOT = (0.36, 0.02)  # most that a dot's radius is: of the cell's shorter side, of the picture's longer one
_SCORES = 5  # categories whose best score is told where there is no object


def render(inspection: Inspection, title: str, max_objects: int, max_removed: int) -> str:
    """The page, with so many of the objects that are shown and of the candidates that were not."""
    candidates = inspection.candidates
    shown, removed = candidates.shown[:max_objects], candidates.removed[:max_removed]
    traces = [inspection.trace(number) for number in [*shown, *removed]]
    base = base_picture(inspection.pixels)
    height, width = inspection.frame.original
    return render_page(
        __package__,
        title=title,
        facts=_facts(inspection),
        notes=_notes(inspection),
        funnel=[(fate.value, count) for fate, count in candidates.counts.items()],
        groups=[
            ("Objects", [_entry(inspection, trace) for trace in traces[: len(shown)]], len(candidates.shown)),
            ("Not shown", [_entry(inspection, trace) for trace in traces[len(shown) :]], len(candidates.removed)),
        ],
        objects=[_object(inspection, trace) for trace in traces],
        base={"source": jpeg_address(base), "width": base.width, "height": base.height},
        pixelated=base.width > width,
        size={"width": width, "height": height},
        colors={"own": _css(OWN), "rival": _css(RIVAL)},
        best=[] if candidates.shown else inspection.best_scores()[:_SCORES],
        script=files(__package__).joinpath("page.js").read_text(encoding="utf-8"),
    )


def _facts(inspection: Inspection) -> str:
    (height, width), padded = inspection.frame.original, inspection.frame.padded
    levels = "; ".join(
        f"level {number}: stride {o.level.stride}, {o.level.grid} x {o.level.grid} category cells, "
        f"{o.level.mask_grid} x {o.level.mask_grid} mask cells"
        for number, o in enumerate(inspection.outputs)
    )
    return f"{width} x {height} pixels, seen by the network on a canvas of {padded[1]} x {padded[0]}. L{levels[1:]}."


def _notes(inspection: Inspection) -> list[str]:
    if inspection.candidates.shown:
        return []
    return [f"No object: {why_no_object(inspection.candidates)}. Beside the picture are the highest category scores."]


def _entry(inspection: Inspection, trace: Trace) -> dict[str, Any]:
    """Its line in the list."""
    return {
        "key": str(trace.number),
        "number": number_of(trace),
        "name": trace.name,
        "score": f"{trace.score:.2f}",
        "before": f"{trace.score_before:.2f} → " if trace.fate is Fate.DUPLICATE else "",
        "picture": jpeg_address(thumbnail(inspection.pixels, trace.mask), quality=80),
    }


def _object(inspection: Inspection, trace: Trace) -> dict[str, Any]:
    level, cell = trace.level, trace.cell
    x1, y1, x2, y2 = trace.cell_box
    rival = None if trace.by is None else inspection.instances([trace.by]).masks[0]
    lowered = [i for i, by in enumerate(inspection.candidates.decay.by.tolist()) if by == trace.number]
    facts = [
        (
            "level",
            f"{trace.level_number}: {level.grid} x {level.grid} cells, mask grid {level.mask_grid} x {level.mask_grid}",
        ),
        ("cell", f"row {cell[0]}, column {cell[1]}"),
        ("score", story_of(trace)),
        ("fate", trace.fate.value),
    ]
    if lowered:
        facts.append(("lowers", ", ".join(map(number_of, lowered[:12])) + (" ..." if len(lowered) > 12 else "")))
    return {
        "key": str(trace.number),
        "number": number_of(trace),
        "name": trace.name,
        "facts": facts,
        "dot": min(_DOT[0] * min(x2 - x1, y2 - y1), _DOT[1] * max(inspection.frame.original)),
        "box": {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1},
        "mask": png_address(mask_picture(trace.mask, OWN)),
        "rival": None if rival is None else png_address(mask_picture(rival, RIVAL)),
        "rival_number": "" if trace.by is None else number_of(trace.by),
        "dots": [_dot(trace, number, neighbor) for number, neighbor in enumerate(trace.neighbors)],
        "gathered": gathered(trace),
        "parts": parts_of(inspection, trace),
        "results": results_of(inspection, trace),
    }


def _dot(trace: Trace, number: int, neighbor: Neighbor) -> dict[str, Any]:
    (x, y), (start_x, start_y) = neighbor.point, neighbor.start_point
    return {
        "part": key_of(trace, number),
        "number": number + 1,
        "x": x,
        "y": y,
        "start_x": start_x,
        "start_y": start_y,
        "moved": neighbor.place != neighbor.start,
    }


def _css(color: tuple[int, int, int]) -> str:
    return "rgb({} {} {})".format(*color)

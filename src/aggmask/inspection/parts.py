"""What a page shows of one candidate as small maps: its representations, the context, the mask, the level's scores."""

from __future__ import annotations

from dataclasses import dataclass

from aggmask.drawing.page import png_address
from aggmask.inspection.pictures import CERTAIN, RISING, limit_of, map_picture
from aggmask.inspection.trace import Context, Inspection, Neighbor, Trace
from aggmask.inspection.words import place_of

Bars = list[tuple[str, float, str]]  # name, share of the longest, value


@dataclass(frozen=True)
class Part:
    """Something to point at: a neighbor, the context, a result; `key` ties its map to its dot on the picture."""

    key: str
    title: str
    picture: str  # address of its map
    text: str  # what the map shows, for the legend and for whoever does not see it
    lines: list[str]
    bars: Bars


def parts_of(inspection: Inspection, trace: Trace) -> list[Part]:
    """The representations, and the context where there is one."""
    limit = max(limit_of(neighbor.logits) for neighbor in trace.neighbors)
    span = f"logits from {-limit:.1f} (blue) to {limit:.1f} (red)"
    heard = [*trace.neighbors, *([trace.context] if trace.context else [])]
    parts = [
        Part(
            key=key_of(trace, number),
            title=str(number + 1),
            picture=png_address(map_picture(neighbor.logits, inspection.frame, -limit, limit)),
            text=f"representation {number + 1}, of mask cell {place_of(neighbor)}: {span}",
            lines=_lines(neighbor),
            bars=_bars(neighbor, heard),
        )
        for number, neighbor in enumerate(trace.neighbors)
    ]
    return parts + ([_context(inspection, trace, trace.context, heard)] if trace.context else [])


def _lines(neighbor: Neighbor) -> list[str]:
    without = [f"without it: IoU {neighbor.iou_without:.2f}"] if neighbor.strength is not None else []
    return [place_of(neighbor), *without, *(["passed on as it is"] if neighbor.direct else [])]


def _context(inspection: Inspection, trace: Trace, context: Context, heard: list[Neighbor | Context]) -> Part:
    high, count = limit_of(context.shares), len(context.strengths)
    return Part(
        key=key_of(trace, "context"),
        title="context",
        picture=png_address(map_picture(context.shares, inspection.frame, 0.0, high, RISING)),
        text=f"what the {count} context channels add to the first layer, from 0 (black) to {high:.1f} (light)",
        lines=[f"{count} channels", "shared by all cells"],
        bars=_bars(context, heard),
    )


def _bars(part: Neighbor | Context, heard: list[Neighbor | Context]) -> Bars:
    """Of one of all that the network hears; nothing where there is no network."""
    bars = []
    for name, attribute in (("weights", "strength"), ("response", "response")):
        value = getattr(part, attribute)
        if value is not None:
            bars.append((name, value / (max(getattr(other, attribute) for other in heard) or 1.0), f"{value:.2f}"))
    return bars


def results_of(inspection: Inspection, trace: Trace) -> list[Part]:
    """The aggregated mask, and the scores of the level among which the cell stands."""
    limit, scores = limit_of(trace.logits, CERTAIN), inspection.category_map(trace)
    return [
        Part(
            key=key_of(trace, "mask"),
            title="aggregated" if trace.neighbors[0].strength is not None else "mask logits",
            picture=png_address(map_picture(trace.logits, inspection.frame, -limit, limit)),
            text=f"mask logits of this cell: {-limit:.1f} and less is blue, {limit:.1f} and more is red",
            lines=["blue: outside, red: inside"],
            bars=[],
        ),
        Part(
            key=key_of(trace, "scores"),
            title=f"scores of {trace.name}",
            picture=png_address(map_picture(scores, inspection.frame, 0.0, 1.0, RISING, mode="nearest")),
            text=f"scores of {trace.name} in the cells of level {trace.level_number}, from 0 (black) to 1 (light)",
            lines=[f"in the cells of level {trace.level_number}"],
            bars=[],
        ),
    ]


def key_of(trace: Trace, name: int | str) -> str:
    """What ties a map to its dot on the picture."""
    return f"{trace.number}-{name}"

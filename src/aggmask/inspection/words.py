"""What a trace says, in words, for page and figure."""

from __future__ import annotations

from aggmask.inspection.candidates import Candidates
from aggmask.inspection.trace import Neighbor, Trace


def number_of(trace: Trace | int) -> str:
    """What a candidate is called: its place before Matrix NMS, from 1."""
    return f"#{(trace if isinstance(trace, int) else trace.number) + 1}"


def place_of(neighbor: Neighbor) -> str:
    """(row, column) on the mask grid, and how far it has moved."""
    if neighbor.place == neighbor.start:
        return "({:.0f}, {:.0f})".format(*neighbor.place)
    moves = (f"{place - start:+.1f}" for place, start in zip(neighbor.place, neighbor.start, strict=True))
    return "({:.1f}, {:.1f}), moved by ({})".format(*neighbor.place, ", ".join(moves))


def story_of(trace: Trace) -> str:
    """How the score came about, in a sentence."""
    certainty = trace.score_before / trace.category_score
    text = (
        f"category score {trace.category_score:.2f} x certainty of the mask {certainty:.2f} = {trace.score_before:.2f}"
    )
    if trace.by is None:
        return f"{text}; Matrix NMS leaves it as it is"
    why = f"because of {number_of(trace.by)} (IoU {trace.iou:.2f})"
    return f"{text}; Matrix NMS x {trace.decay:.2f} {why} = {trace.score:.2f}"


def gathered(trace: Trace) -> str:
    """What the cell gathers, in a sentence or two."""
    count = len(trace.neighbors)
    if trace.neighbors[0].strength is None:
        return "No aggregation: the mask is the representation of the nearest mask cell, as it is."
    text = f"{count} representation{'s' * (count > 1)} around the cell" + (", and the context" if trace.context else "")
    text += " enter a small network whose weights were predicted for this cell."
    if any(neighbor.place != neighbor.start for neighbor in trace.neighbors):
        text += " They lie at learned offsets: a line leads to each from its place in the window."
    if any(neighbor.direct for neighbor in trace.neighbors):
        text += " The nearest representation is also added to what comes out."
    return f"{text} Without any representation the mask would keep an IoU of {trace.iou_without_any:.2f}."


def why_no_object(candidates: Candidates) -> str:
    """Why a picture has no object, in half a sentence, and what would show one, if anything does."""
    decoder, best = candidates.decoder, max(candidates.scores.tolist(), default=None)
    if not sum(candidates.counts.values()):
        return f"no category score reaches the decoder's own score_threshold, {decoder.score_threshold:g}"
    if best is None:
        return "every mask is too small for its level"
    ends = f"the best candidate ends with a score of {best:.2f}"
    if best < decoder.keep_threshold:
        return f"{ends}, below the decoder's own keep_threshold, {decoder.keep_threshold:g}"
    return f"{ends}; a lower score_threshold shows it"

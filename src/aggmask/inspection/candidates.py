"""Every candidate of one picture, and what became of it on its way through decoding (method.md section 7).

It runs the steps of `decoding.decode.Decoder` and keeps what lies between them: scores and masks are the model's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from aggmask.decoding.decode import Decoder, category_peaks
from aggmask.decoding.matrix_nms import Decay
from aggmask.structures import Detections, LevelOutput


class Fate(Enum):
    """What became of a cell that scored above the decoder's threshold for some class."""

    SHOWN = "shown"
    DUPLICATE = "lowered below the threshold by a better candidate of its class (Matrix NMS)"
    WEAK = "too low a score once its mask's certainty is counted"
    SURPLUS = "beyond the number of candidates or objects that decoding keeps"  # some of them may be small, too
    SMALL = "a mask no larger than the level's stride"
    NEIGHBOR = "next to a cell with a higher score for the class"


@dataclass(frozen=True)
class Candidates:
    """The n candidates of one picture that entered Matrix NMS, best first; of the others, how many there were."""

    found: Detections  # with the scores before Matrix NMS
    category_scores: Tensor  # (n,) of the cell, before the mask's certainty is counted
    decay: Decay  # of Matrix NMS
    scores: Tensor  # (n,) after it
    fates: list[Fate]  # n
    others: Counter[Fate]  # of those that did not enter
    decoder: Decoder  # whose thresholds hold whatever a caller asks for

    @property
    def shown(self) -> list[int]:
        """Numbers of the objects that are shown, best first."""
        return [i for i in self._best_first if self.fates[i] is Fate.SHOWN]

    @property
    def removed(self) -> list[int]:
        """Numbers of what entered and is not shown, best first."""
        return [i for i in self._best_first if self.fates[i] is not Fate.SHOWN]

    @property
    def counts(self) -> dict[Fate, int]:
        """How many met each fate, of all cells and classes that scored above the threshold."""
        total = self.others + Counter(self.fates)
        return {fate: total[fate] for fate in Fate}

    @property
    def _best_first(self) -> list[int]:
        return self.scores.argsort(descending=True, stable=True).tolist()


@torch.no_grad()
def examine(
    decoder: Decoder, outputs: Sequence[LevelOutput], canvas: tuple[int, int], score_threshold: float
) -> Candidates:
    """The candidates of the only picture of a batch.

    Args:
        outputs: one a level.
        canvas: (H, W) of the picture's canvas.
        score_threshold: objects below are not shown.
    """
    peaks = [category_peaks(output.logits) for output in outputs]
    found = decoder.candidates(0, outputs, peaks, canvas)
    decay = decoder.decay(found)
    scores = found.scores.float() * decay.factor
    kept = set(decoder.kept(scores).tolist())
    least = max(score_threshold, decoder.keep_threshold)
    fates = [
        _fate(i in kept, before, after, least)
        for i, (before, after) in enumerate(zip(found.scores.tolist(), scores.tolist(), strict=True))
    ]
    places = zip(found.levels.tolist(), found.labels.tolist(), found.cells.tolist(), strict=True)
    of_cells = [float(peaks[level][0, label].flatten()[cell]) for level, label, cell in places]
    above, best = (
        sum(int((scores > decoder.score_threshold).sum()) for scores in maps)
        for maps in ([output.logits.float().sigmoid() for output in outputs], peaks)
    )
    # Masks are dropped for their size before, and all but the best `nms_pre` after they are painted.
    left_out = Fate.SURPLUS if len(found) == decoder.nms_pre else Fate.SMALL
    others = Counter({Fate.NEIGHBOR: above - best, left_out: best - len(found)})
    return Candidates(found, found.scores.new_tensor(of_cells), decay, scores, fates, others, decoder)


def _fate(kept: bool, before: float, after: float, least: float) -> Fate:
    if after >= least:
        return Fate.SHOWN if kept else Fate.SURPLUS
    return Fate.DUPLICATE if before >= least else Fate.WEAK


def best_of_each_category(outputs: Sequence[LevelOutput]) -> list[tuple[int, float, int, int]]:
    """(label, score, level, row-major cell) of the highest category score of each class, best first.

    What a picture without objects still has to say.
    """
    best = []
    for number, output in enumerate(outputs):
        scores, cells = output.logits[0].float().sigmoid().flatten(1).max(1)
        found = enumerate(zip(scores.tolist(), cells.tolist(), strict=True))
        best += [(label, score, number, cell) for label, (score, cell) in found]
    best.sort(key=lambda row: -row[1])
    first = {row[0]: row for row in reversed(best)}
    return sorted(first.values(), key=lambda row: -row[1])

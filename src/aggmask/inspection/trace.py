"""How one candidate came to its mask: cell, neighbors, representations, strengths (method.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aggmask.data.decode import pixels_of
from aggmask.decoding.decode import as_instances
from aggmask.geometry.frame import Frame
from aggmask.geometry.grid import category_grid_position, points_of, rows_and_columns
from aggmask.inspection.candidates import Candidates, Fate, best_of_each_category, examine
from aggmask.model.aggregation.neighbors import neighbors
from aggmask.predictor import Picture, Predictor, read_picture
from aggmask.structures import Category, Cells, GridLevel, Instances, LevelOutput

Point = tuple[float, float]


@dataclass(frozen=True)
class Neighbor:
    """One of the N representations that a cell gathers."""

    place: Point  # (row, column) on the mask grid
    start: Point  # without its learned offset; equal to `place` where neighbors do not move
    point: Point  # (x, y) of the place, original pixels
    start_point: Point
    logits: Tensor  # (H, W) the representation, on the canvas at the level's mask stride
    strength: float | None  # L2 norm of the first layer's weights for it; None: there is no network
    response: float | None  # mean size of what it adds to the first layer's outputs; None: there is no network
    iou_without: float  # of the cell's mask with the one that comes out when this representation is 0
    direct: bool  # it is also passed on to the result as it is


@dataclass(frozen=True)
class Context:
    """What the X context channels that all cells share add to a cell's aggregation."""

    strengths: list[float]  # X, L2 norms of the first layer's weights for each
    strength: float  # of all together
    response: float  # mean size of what all together add to the first layer's outputs
    shares: Tensor  # (H, W) the same, for each pixel


@dataclass(frozen=True)
class Trace:
    """One candidate, with all that led to its mask and its score."""

    number: int  # among the candidates, best first before Matrix NMS
    name: str  # of the category
    level: GridLevel
    level_number: int
    mask_stride: int
    cell: tuple[int, int]  # (row, column) on the category grid
    cell_box: tuple[float, float, float, float]  # x1 y1 x2 y2, original pixels
    category_score: float
    score_before: float  # times the mask's certainty
    decay: float  # of Matrix NMS
    by: int | None  # the candidate that it owes its decay to
    iou: float  # with that one
    score: float  # times the decay
    fate: Fate
    neighbors: list[Neighbor]
    iou_without_any: float  # as `Neighbor.iou_without`, with all N representations 0: what else there is, alone
    context: Context | None  # None: there is none
    logits: Tensor  # (H, W) the aggregated mask, on the canvas at the level's mask stride
    mask: Tensor  # (H, W) bool, original frame


@dataclass(frozen=True)
class Inspection:
    """A picture, what the head says about it, and its candidates; `trace` tells how one of them came about."""

    pixels: object  # (H, W, 3) uint8 array, RGB
    frame: Frame
    outputs: list[LevelOutput]
    candidates: Candidates
    categories: list[Category]
    mask_threshold: float

    def instances(self, numbers: list[int]) -> Instances:
        """These candidates as objects in the original frame, with their final scores."""
        keep = torch.tensor(numbers, dtype=torch.long, device=self.candidates.scores.device)
        instances = as_instances(self.candidates.found[keep], self.frame, self.categories, self.mask_threshold)
        instances.scores = self.candidates.scores[keep].cpu()
        return instances

    def best_scores(self) -> list[tuple[str, float, int, tuple[int, int]]]:
        """(category, score, level, (row, column)) of the highest score of each category, best first."""
        rows = []
        for label, score, number, cell in best_of_each_category(self.outputs):
            rows.append((self.categories[label].name, score, number, divmod(cell, self.outputs[number].level.grid)))
        return rows

    def category_map(self, trace: Trace) -> Tensor:
        """(S, S) scores of a candidate's category on its level."""
        label = int(self.candidates.found.labels[trace.number])
        return self.outputs[trace.level_number].logits[0, label].float().sigmoid().cpu()

    @torch.no_grad()
    def trace(self, number: int) -> Trace:
        """How the candidate of this number came about; tensors are on the CPU."""
        found = self.candidates.found
        level_number = int(found.levels[number])
        output, index = self.outputs[level_number], found.cells[number][None]
        cells = Cells(torch.zeros_like(index), index)
        place = rows_and_columns(index, output.level.grid)[0]
        corners = torch.stack([place - 0.5, place + 0.5])
        by = int(self.candidates.decay.by[number])
        instances = self.instances([number])
        around, without_any, context, logits = self._aggregation(output, cells)
        return Trace(
            number=number,
            name=instances.names[0],
            level=output.level,
            level_number=level_number,
            mask_stride=output.mask_stride,
            cell=tuple(place.tolist()),
            cell_box=tuple(x for point in self._points(corners, output.level) for x in point),
            category_score=float(self.candidates.category_scores[number]),
            score_before=float(found.scores[number]),
            decay=float(self.candidates.decay.factor[number]),
            by=None if by < 0 else by,
            iou=float(self.candidates.decay.iou[number]) if by >= 0 else 0.0,
            score=float(self.candidates.scores[number]),
            fate=self.candidates.fates[number],
            neighbors=around,
            iou_without_any=without_any,
            context=context,
            logits=logits.cpu(),
            mask=instances.masks[0],
        )

    def _aggregation(self, output: LevelOutput, cells: Cells) -> tuple[list[Neighbor], float, Context | None, Tensor]:
        """Of one cell: its neighbors, the mask's IoU without any, the context's part, the mask's logits (H, W)."""
        rule, level = output.field.rule, output.level
        places = rule.neighbors(cells)
        count = places.shape[1]
        starts = neighbors(cells.index, level, count)[0]
        stack = output.field.bank.at(cells.image, places)
        logits = rule.combine(stack, cells)[0]
        spared = torch.cat([1 - torch.eye(count, device=stack.device), stack.new_zeros(1, count)])
        mask = logits.sigmoid() > self.mask_threshold
        # One after the other: N copies of N representations of a large picture would not be small.
        others = (rule.combine(stack * row[:, None, None], cells)[0].sigmoid() > self.mask_threshold for row in spared)
        *overlaps, without_any = (_iou(other, mask) for other in others)
        first = rule.first_layer(stack, cells)
        strengths, shares = first.strengths()[0], first.shares()[0]
        responses = shares.abs().mean((1, 2, 3))
        heard = len(strengths) > 0
        direct = None if first.direct is None else int(first.direct)
        points, start_points = (self._points(category_grid_position(p[0], level), level) for p in (places, starts))
        around = [
            Neighbor(
                place=tuple(places[0, i].tolist()),
                start=tuple(starts[0, i].tolist()),
                point=points[i],
                start_point=start_points[i],
                logits=stack[0, i].float().cpu(),
                strength=float(strengths[i]) if heard else None,
                response=float(responses[i]) if heard else None,
                iou_without=overlaps[i],
                direct=i == direct,
            )
            for i in range(count)
        ]
        return around, without_any, _context(strengths[count:], shares[count:]), logits.float()

    def _points(self, places: Tensor, level: GridLevel) -> list[Point]:
        """(n, 2) (row, column) places on the category grid -> (x, y) original pixels."""
        points = points_of(places, level.grid, self.frame.padded).cpu().numpy()
        return [tuple(point) for point in self.frame.points_to_original(points).tolist()]


def inspect(model: Predictor, image: Picture, score_threshold: float = 0.3) -> Inspection:
    """Look at one picture as `model.predict` does, and keep what lies between.

    Args:
        image: whatever `Predictor.predict` takes.
        score_threshold: objects below are not shown; nor are those that the model itself leaves out.

    Raises:
        UserError: the file cannot be read, or it is no image.
    """
    pixels = read_picture(image, model.segmenter.backbone.in_chans, model.value_range)
    batch, outputs = model.outputs(pixels)
    candidates = examine(model.decoder, outputs, batch.pixels.shape[-2:], score_threshold)
    shown = pixels_of(pixels, 3)
    return Inspection(shown, batch.frames[0], outputs, candidates, model.categories, model.decoder.mask_threshold)


def _context(strengths: Tensor, shares: Tensor) -> Context | None:
    """Of (X,) strengths and (X, M, H, W) shares; None for X = 0."""
    if not len(strengths):
        return None
    together = shares.sum(0).abs()
    return Context(strengths.tolist(), float(strengths.norm()), float(together.mean()), together.mean(0).float().cpu())


def _iou(first: Tensor, second: Tensor) -> float:
    """Of two (H, W) bool; 1 where both are empty."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0

"""The head computed the slow, plain way (method.md sections 2 to 7): everything is painted, then picked from.

Shares no code with the package: it only reads a head's weights. All T*T representations and all S*S targets exist as
tensors, as in the published code; with `every_cell` all S*S cells are aggregated too, without it only the cells that
the published code aggregates (positive cells in training, the context copied to each). The second form is the dense
baseline of the timings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aggmask.model.aggregation.keep import KeepCell
from aggmask.model.head import Head
from aggmask.model.representation.predicted import PredictedBank
from aggmask.structures import GridLevel, Objects

CENTER_FRACTION = 0.2


@dataclass
class DenseLevel:
    """One level with every representation painted."""

    head: Head
    level: GridLevel
    logits: Tensor  # (B, classes, S, S)
    representations: Sequence[Tensor]  # per image (T*T, H, W)
    context: Tensor | None  # (B, X, H, W)
    dynamic: Tensor | None  # (B, numbers, S, S)
    offsets: Tensor | None  # (B, 2 N, S, S)

    def masks(self, image: int, cells: Sequence[int] | None = None) -> Tensor:
        """(k, H, W) mask logits of the given cells, of all S*S without any."""
        size = self.level.grid
        cells = list(range(size**2)) if cells is None else list(cells)
        net, window, maps = self.head.aggregation, 1, self.representations[image]
        if self.dynamic is not None:
            window = net.window
        around = [neighbor_list(cell // size, cell % size, size, self.level.mask_grid, window) for cell in cells]
        if self.dynamic is None or not cells:
            return maps[[places[0] for places in around]]
        stack = maps[torch.tensor(around, device=maps.device)]  # (k, N, H, W)
        if self.offsets is not None:
            stack = self._sampled(maps, around, self.offsets[image].flatten(1).T[cells])
        result = self._aggregated(image, cells, stack)
        if net.residual:
            nearest = [neighbor_list(cell // size, cell % size, size, self.level.mask_grid, 1)[0] for cell in cells]
            result = result + maps[nearest]
        return result

    def _sampled(self, maps: Tensor, around: list[list[int]], offsets: Tensor) -> Tensor:
        """Representations between the cells of the mask grid: every pixel's T x T values are resampled."""
        grid, bound = self.level.mask_grid, self.head.aggregation.neighbors.bound
        places = torch.tensor(around, device=maps.device)
        places = torch.stack([places // grid, places % grid], dim=-1)
        places = places + bound * torch.tanh(offsets.reshape(places.shape) / bound)
        values = maps.flatten(1).T.reshape(1, -1, grid, grid)
        points = (places.flip(-1) / max(grid - 1, 1) * 2 - 1)[None]
        found = F.grid_sample(values, points, align_corners=True, padding_mode="border")
        return found[0].movedim(0, -1).unflatten(-1, maps.shape[-2:])

    def _aggregated(self, image: int, cells: list[int], stack: Tensor) -> Tensor:
        net, count = self.head.aggregation, len(cells)
        if self.context is not None:
            stack = torch.cat([stack, self.context[image].expand(count, -1, -1, -1)], dim=1)
        vectors = self.dynamic[image].flatten(1).T[cells]
        widths = [stack.shape[1]] + [shape[0] for shape in net.shapes]
        x, start = stack.reshape(1, -1, *stack.shape[-2:]), 0
        for number, (fan_in, out) in enumerate(pairwise(widths)):
            end = start + out * fan_in * net.kernel**2
            weight = vectors[:, start:end].reshape(count * out, fan_in, net.kernel, net.kernel)
            bias = vectors[:, end : end + out].reshape(-1)
            start = end + out
            x = F.conv2d(F.relu(x) if number else x, weight, bias, padding=net.kernel // 2, groups=count)
        assert start == vectors.shape[1]
        return x[0]


def neighbor_list(row: int, column: int, grid: int, mask_grid: int, window: int) -> list[int]:
    """Row-major mask cells around a category cell (method.md section 4), in single precision as published."""
    scale = np.float32((mask_grid - 1) / max(grid - 1, 1))
    y, x = float(np.float32(row) * scale), float(np.float32(column) * scale)
    if window == 4:
        top, left, bottom, right = math.floor(y), math.floor(x), math.ceil(y), math.ceil(x)
        places = [(top, right), (bottom, right), (bottom, left), (top, left)]
    else:
        reach = {1: 0, 5: 1, 9: 1, 25: 2}[window]
        steps = range(-reach, reach + 1)
        places = [
            (round(y) + dy, round(x) + dx) for dy in steps for dx in steps if window != 5 or abs(dy) + abs(dx) <= 1
        ]
    last = mask_grid - 1
    return [min(max(r, 0), last) * mask_grid + min(max(c, 0), last) for r, c in places]


def dense_head(head: Head, pyramid: Sequence[Tensor]) -> list[DenseLevel]:
    """Everything that the head could say about a batch."""
    half = F.interpolate(pyramid[0], scale_factor=0.5, mode="bilinear")
    last = F.interpolate(pyramid[4], size=pyramid[3].shape[-2:], mode="bilinear")
    features = [half, *pyramid[1:4], last]
    plain = isinstance(head.aggregation, KeepCell)
    context = None if plain else _context(head, pyramid)
    levels = []
    for level, x, maps in zip(head.levels, features, _representations(head, features, pyramid), strict=True):
        cells = _tower(head.category.tower, _resized(x, level.grid))
        logits = F.conv2d(cells, head.category.classifier.weight, head.category.classifier.bias, padding=1)
        dynamic = offsets = None
        if not plain:
            source = head.aggregation.weights
            branch = hasattr(source, "tower")
            if branch:
                cells = _tower(source.tower, _resized(_with_coordinates(x), level.grid))
            dynamic = _same(cells, source.conv)
            if hasattr(head.aggregation.neighbors, "offsets"):
                offsets = _same(cells, head.aggregation.neighbors.offsets.conv)
            dynamic = dynamic if branch else torch.tanh(dynamic)
        seen = context
        if seen is not None and seen.shape[-2:] != maps.shape[-2:]:
            seen = F.interpolate(seen, size=maps.shape[-2:], mode="bilinear", align_corners=True)
        # Images are taken apart once: picking them from the batch would make its gradient anew for each.
        levels.append(DenseLevel(head, level, logits, maps.unbind(), seen, dynamic, offsets))
    return levels


def _representations(head: Head, features: Sequence[Tensor], pyramid: Sequence[Tensor]) -> list[Tensor]:
    """All T*T maps of each level (method.md section 3)."""
    bank = head.bank
    if not isinstance(bank, PredictedBank):
        towers = [
            F.interpolate(_tower(bank.tower, _with_coordinates(x)), scale_factor=2, mode="bilinear") for x in features
        ]
        return [F.conv2d(maps, k.weight, k.bias) for maps, k in zip(towers, bank.kernels, strict=True)]
    total = _tower(bank.features.levels[0], pyramid[0])
    for number, inputs in enumerate([pyramid[1], pyramid[2], _with_coordinates(pyramid[3])], start=1):
        for block in bank.features.levels[number]:
            inputs = F.interpolate(_tower([block], inputs), scale_factor=2, mode="bilinear")
        total = total + inputs
    total, representations = _tower([bank.features.fuse], total), []
    for level, x in zip(head.levels, features, strict=True):
        kernels = _same(_tower(bank.tower, _resized(_with_coordinates(x), level.mask_grid)), bank.kernels)
        maps = [F.conv2d(f[None], k.flatten(1).T[:, :, None, None]) for f, k in zip(total, kernels, strict=True)]
        representations.append(torch.cat(maps))
    return representations


def _resized(x: Tensor, grid: int) -> Tensor:
    return F.interpolate(x, size=(grid, grid), mode="bilinear")


def _same(x: Tensor, conv) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias, padding=conv.weight.shape[-1] // 2)


def _tower(tower, x: Tensor) -> Tensor:
    for block in tower:
        x = F.conv2d(x, block.conv.weight, padding=block.conv.weight.shape[-1] // 2)
        if isinstance(block.gn, torch.nn.GroupNorm):
            x = F.group_norm(x, 32, block.gn.weight, block.gn.bias)
        x = F.relu(x)
    return x


def _with_coordinates(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    axes = torch.linspace(-1, 1, height, device=x.device), torch.linspace(-1, 1, width, device=x.device)
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    return torch.cat([x, torch.stack([columns, rows]).expand(len(x), -1, -1, -1)], dim=1)


def _context(head: Head, pyramid: Sequence[Tensor]) -> Tensor | None:
    """(B, X, H/4, W/4): all maps at P2's size, concatenated, convolved."""
    if not head.aggregation.context_channels:
        return None
    branch, size = head.aggregation.context, pyramid[0].shape[-2:]
    x = torch.cat([F.interpolate(m, size=size, mode="bilinear", align_corners=True) for m in pyramid], dim=1)
    x = F.conv2d(x, branch.fuse.weight, branch.fuse.bias)
    if isinstance(branch.norm, torch.nn.GroupNorm):
        x = F.relu(F.group_norm(x, 32, branch.norm.weight, branch.norm.bias))
        x = F.conv2d(x, branch.reduce[1].weight, branch.reduce[1].bias)
    return F.relu(x)


@dataclass
class DenseTargets:
    labels: Tensor  # (B, S, S), the number of classes for background
    masks: Tensor  # (B, S*S, h, w) uint8
    positive: Tensor  # (B, S*S) bool


def dense_targets(
    level: GridLevel, stride: int, num_classes: int, objects: Sequence[Objects], canvas: tuple[int, int], min_area: int
) -> DenseTargets:
    """Targets of one level by loops over images, objects and cells (method.md section 5)."""
    size = level.grid
    device = objects[0].labels.device
    labels = torch.full((len(objects), size, size), num_classes, device=device)
    height, width = canvas[0] // stride, canvas[1] // stride
    masks = torch.zeros(len(objects), size**2, height, width, dtype=torch.uint8, device=device)
    positive = torch.zeros(len(objects), size**2, dtype=torch.bool, device=device)
    for image, found in enumerate(objects):
        bitmaps = _bitmaps(found, stride)
        for number in range(len(found.labels)):
            width, height = found.boxes[number, 2:] - found.boxes[number, :2]
            if not level.min_size <= float((width * height).sqrt()) <= level.max_size:
                continue
            if float(found.areas[number]) < min_area:
                continue
            x, y = found.centers[number].tolist()
            for row in _cells_along(y, height, canvas[0], size):
                for column in _cells_along(x, width, canvas[1], size):
                    cell = row * size + column
                    labels[image, row, column] = found.labels[number]
                    masks[image, cell] = bitmaps[number]
                    positive[image, cell] = True
    return DenseTargets(labels, masks, positive)


def _cells_along(center: float, extent: Tensor, canvas: int, grid: int) -> range:
    def cell(coordinate) -> int:
        return int((coordinate / canvas) // (1 / grid))

    middle, single, extent = cell(center), torch.tensor(center, dtype=torch.float32), extent.cpu()
    first = max(0, cell(single - 0.5 * CENTER_FRACTION * extent), middle - 1)
    last = min(grid - 1, cell(single + 0.5 * CENTER_FRACTION * extent), middle + 1)
    return range(first, last + 1)


def _bitmaps(objects: Objects, stride: int) -> Tensor:
    if stride in objects.masks:
        return objects.masks[stride]
    factor = stride // 4
    n, h, w = objects.masks[4].shape
    blocks = objects.masks[4].float().view(n, h // factor, factor, w // factor, factor)
    return (blocks.mean((2, 4)) >= 0.5).to(torch.uint8)


def dense_losses(
    head: Head,
    pyramid: Sequence[Tensor],
    objects: Sequence[Objects],
    canvas: tuple[int, int],
    min_area: int = 10,
    every_cell: bool = True,
) -> dict[str, Tensor]:
    """The two losses of a batch (method.md section 6), S*S targets of every level kept at once."""
    levels = dense_head(head, pyramid)
    targets = [
        dense_targets(
            v.level, canvas[0] // v.representations[0].shape[-2], v.logits.shape[1], objects, canvas, min_area
        )
        for v in levels
    ]
    dice, focal = [], torch.zeros(())
    for found, target in zip(levels, targets, strict=True):
        for image in range(len(objects)):
            positive = target.positive[image]
            truth = target.masks[image][positive].float()
            cells = positive.nonzero()[:, 0].tolist()
            masks = found.masks(image)[positive] if every_cell else found.masks(image, cells)
            p = masks.sigmoid()
            squares = (p * p).sum((1, 2)) + 0.001 + (truth * truth).sum((1, 2)) + 0.001
            dice += (1 - 2 * (p * truth).sum((1, 2)) / squares).unbind()
        classes = torch.arange(found.logits.shape[1], device=found.logits.device)[:, None, None]
        wanted = (target.labels[:, None] == classes).float()
        p = found.logits.sigmoid()
        right = p * wanted + (1 - p) * (1 - wanted)
        entropy = -(F.logsigmoid(found.logits) * wanted + F.logsigmoid(-found.logits) * (1 - wanted))
        focal = focal + ((0.25 * wanted + 0.75 * (1 - wanted)) * (1 - right) ** 2 * entropy).sum()
    mask_loss = 3 * torch.stack(dice).mean() if dice else torch.zeros(())
    return {"loss_mask": mask_loss, "loss_category": focal / (len(dice) + 1)}


@dataclass
class DenseDetection:
    score: float
    label: int
    level: int
    cell: int
    mask: Tensor  # (H/4, W/4) probabilities


@torch.no_grad()
def dense_detections(
    head: Head,
    pyramid: Sequence[Tensor],
    canvas: tuple[int, int],
    score_threshold: float = 0.1,
    nms_pre: int = 500,
    kernel: str = "gaussian",
    sigma: float = 2.0,
    keep_threshold: float = 0.05,
    max_detections: int = 100,
) -> list[list[DenseDetection]]:
    """Detections of each image, best first (method.md section 7): everything is painted, then filtered."""
    levels = dense_head(head, pyramid)
    quarter = (canvas[0] // 4, canvas[1] // 4)
    results = []
    for image in range(len(pyramid[0])):
        found = []
        for number, level in enumerate(levels):
            wanted = _candidates(level.logits[image].sigmoid(), score_threshold)
            if not wanted:
                continue
            cells = [cell for cell, _, _ in wanted]
            masks = level.masks(image)[cells]
            masks = F.interpolate(masks.sigmoid()[None], size=quarter, mode="bilinear")[0]
            for (cell, label, score), mask in zip(wanted, masks, strict=True):
                inside = mask[mask > 0.5]
                if len(inside) > level.level.stride:
                    found.append(DenseDetection(score * float(inside.mean()), label, number, cell, mask))
        found = sorted(found, key=lambda d: -d.score)[:nms_pre]
        decayed = nms_by_loops(
            torch.stack([d.mask > 0.5 for d in found]) if found else torch.zeros(0, *quarter, dtype=torch.bool),
            [d.label for d in found],
            [d.score for d in found],
            kernel,
            sigma,
        )
        for detection, score in zip(found, decayed, strict=True):
            detection.score = score
        kept = [d for d in found if d.score >= keep_threshold]
        results.append(sorted(kept, key=lambda d: -d.score)[:max_detections])
    return results


def _candidates(scores: Tensor, threshold: float) -> list[tuple[int, int, float]]:
    """(classes, S, S) scores -> (cell, class, score) of the peaks above the threshold."""
    wanted = []
    for label, row, column in (scores > threshold).nonzero().tolist():
        window = scores[label, max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1]
        if scores[label, row, column] >= window.max():
            wanted.append((row * scores.shape[-1] + column, label, float(scores[label, row, column])))
    return wanted


def nms_by_loops(
    masks: Tensor, labels: Sequence[int], scores: Sequence[float], kernel: str = "gaussian", sigma: float = 2.0
) -> list[float]:
    """Matrix NMS of candidates sorted by falling score, pair by pair."""
    flat = masks.flatten(1).float()
    shared, n = (flat @ flat.T).tolist(), len(scores)

    def iou(i: int, j: int) -> float:
        if labels[i] != labels[j]:
            return 0.0
        union = shared[i][i] + shared[j][j] - shared[i][j]
        return shared[i][j] / union if union else 0.0

    worst = [max((iou(k, i) for k in range(i)), default=0.0) for i in range(n)]
    decayed = []
    for j in range(n):
        factor = 1.0
        for i in range(j):
            if kernel == "gaussian":
                ratio = math.exp(-sigma * (iou(i, j) ** 2 - worst[i] ** 2))
            else:
                ratio = (1 - iou(i, j)) / max(1 - worst[i], 1e-12)
            factor = min(factor, ratio)
        decayed.append(scores[j] * factor)
    return decayed

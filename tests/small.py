"""Small heads, pyramids and drawn objects for tests: everything about them can be checked by hand or by the oracle."""

from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from aggmask.model.aggregation.deformable import DeformableWindow
from aggmask.model.aggregation.dynamic import DynamicAggregation
from aggmask.model.aggregation.keep import KeepCell
from aggmask.model.aggregation.weights import BranchWeights
from aggmask.model.category import CategoryBranch
from aggmask.model.head import Head
from aggmask.model.representation.constant import ConstantBank
from aggmask.model.representation.predicted import PredictedBank
from aggmask.structures import Cells, GridLevel, Objects

CANVAS = (64, 96)
STRIDES = (8, 8, 16, 32, 32)
GRIDS = (8, 6, 5, 4, 3)
SIZES = ((1, 20), (10, 30), (15, 45), (20, 60), (30, 2048))
PUBLISHED_ROWS = [
    {"stride": stride, "grid": grid, "min_size": low, "max_size": high}
    for stride, grid, (low, high) in zip(
        STRIDES, (40, 36, 24, 16, 12), ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048)), strict=True
    )
]


@contextmanager
def many_threads(count: int = 8):
    """More threads than processors, so that sums of which the order is left to them differ from time to time."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_levels_of(grids=GRIDS, mask_grids=None, sizes=SIZES) -> list[GridLevel]:
    rows = zip(STRIDES, grids, mask_grids or grids, sizes, strict=True)
    return [GridLevel(stride, s, t, low, high) for stride, s, t, (low, high) in rows]


def make_head(
    levels=None, num_classes=3, width=32, depth=1, seed=0, base="constant", deformable=False, **aggregation
) -> Head:
    """A head whose logits vary enough to matter. Plain SOLO or SOLOv2 without aggregation options.

    `base`: "constant" (SOLO), "predicted" (SOLOv2) or "star" (AggMask*, which has a branch for the weights).
    """
    torch.manual_seed(seed)
    size = {"width": width, "depth": depth}
    bank = partial(ConstantBank, **size)
    if base != "constant":
        star = {"kernel": 1, "feature_norm": False} if base == "star" else {}
        bank = partial(PredictedBank, **size, channels=width, feature_width=width, **star)
    if base == "star":
        aggregation["weights"] = partial(BranchWeights, **size)
    if deformable:
        aggregation["neighbors"] = DeformableWindow
    head = Head(
        levels or make_levels_of(),
        width,
        num_classes,
        category=partial(CategoryBranch, **size),
        bank=bank,
        aggregation=partial(DynamicAggregation, **aggregation) if aggregation else KeepCell,
    )
    for name, parameter in head.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=(1.5 / parameter[0].numel()) ** 0.5)
        else:
            torch.nn.init.normal_(parameter, mean=float(name.endswith(("gn.weight", "norm.weight"))), std=0.2)
    return head


def make_pyramid(batch=2, canvas=CANVAS, channels=32, seed=1) -> list[Tensor]:
    """P2..P6 with gradients."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(canvas[0] // s, canvas[1] // s) for s in (4, 8, 16, 32)]
    sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return [torch.randn(batch, channels, *size, generator=generator).requires_grad_() for size in sizes]


def disc(center: tuple[float, float], radius: float, canvas=CANVAS) -> Tensor:
    """(H, W) bool: pixels within `radius` of (x, y)."""
    y, x = torch.meshgrid(torch.arange(canvas[0]), torch.arange(canvas[1]), indexing="ij")
    return (x - center[0]) ** 2 + (y - center[1]) ** 2 <= radius**2


def make_objects(bitmaps: list[Tensor], labels: list[int], canvas=CANVAS) -> Objects:
    """Full-resolution bitmaps -> objects with masks at stride 4."""
    full = torch.stack(bitmaps).double() if bitmaps else torch.zeros(0, *canvas, dtype=torch.double)
    boxes, centers = torch.zeros(len(full), 4), torch.zeros(len(full), 2, dtype=torch.double)
    for box, center, mask in zip(boxes, centers, full, strict=True):
        y, x = mask.nonzero(as_tuple=True)
        box[:] = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
        center[:] = torch.stack([x.double().mean(), y.double().mean()])
    quarter = full.view(len(full), canvas[0] // 4, 4, canvas[1] // 4, 4).mean((2, 4)) >= 0.5
    masks = {4: quarter.to(torch.uint8)}
    return Objects(torch.tensor(labels, dtype=torch.long), boxes, centers, full.sum((1, 2)).float(), masks)


def random_objects(count: int, num_classes=3, canvas=CANVAS, seed=0) -> Objects:
    """Discs of all sizes anywhere on the canvas, some of them cut by its border."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(count, 3, generator=generator).tolist()
    labels = torch.randint(num_classes, (count,), generator=generator).tolist()
    largest = min(canvas) / 2
    bitmaps = [disc((x * canvas[1], y * canvas[0]), 1 + r**2 * largest, canvas) for x, y, r in shares]
    return make_objects(bitmaps, labels, canvas)


def every_cell(level: GridLevel, batch: int) -> Cells:
    cells = torch.arange(level.grid**2)
    return Cells(torch.arange(batch).repeat_interleave(len(cells)), cells.repeat(batch))


def close(actual: Tensor, expected: Tensor, relative: float = 1e-5, least: float = 1e-6) -> None:
    """Equal up to rounding, relative to the largest value (to `least`, where that is larger)."""
    scale = float(expected.detach().abs().max()) if expected.numel() else 1.0
    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=0, atol=relative * max(scale, least))

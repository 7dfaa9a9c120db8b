"""Instances over their image: half transparent masks, crisp contours, readable labels.

Source: ours. Colors go to objects and not to categories, because the picture must show where one object ends and the
next of its kind begins; the label names the category. Objects whose boxes touch never share a color while there are
colors left. The choice follows from the order of the scores alone, so that a picture is always drawn the same way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from aggmask.depth import UnknownScale, shallow
from aggmask.drawing.labels import extent, label
from aggmask.geometry.cropped import Box, Crop, cropped, dilated, overlap, shared
from aggmask.structures import Instances

# Saturated, far apart in hue and lightness, neighbors in the list most of all.
PALETTE = (
    (255, 59, 48), (0, 122, 255), (255, 215, 0), (52, 199, 89), (191, 64, 255), (0, 199, 190), (250, 115, 0),
    (255, 64, 160), (150, 225, 20), (88, 86, 214), (120, 200, 255), (165, 95, 45), (255, 160, 190), (0, 130, 90),
)  # fmt: skip
OPACITY = 0.45
READABLE = 480  # pixels: pictures with a shorter long side are enlarged


def draw(
    image: str | Path | Image.Image | np.ndarray | Tensor,
    instances: Instances,
    score_threshold: float = 0.3,
    max_objects: int | None = None,
    like: Instances | None = None,
) -> Image.Image:
    """The image with its objects; a score of exactly 1 (ground truth) is not written into the label.

    Args:
        image: path, PIL image, (H, W, 3) uint8 array or (3, H, W) uint8 tensor, original frame. Files and PIL images
            of more than 8 bits are shown as the network sees them without `data.value_range`.
        instances: n objects of that frame, masks cropped or not; those with a lower score than the threshold are left
            out.
        max_objects: draw only so many, best first; None for all.
        like: objects of another picture of this image (ground truth): whatever is the same has its color there.

    Returns:
        RGB picture of the image's size. A picture too small for letters (long side below 480) is enlarged by the
        smallest whole factor that helps, without smoothing.

    Raises:
        ValueError: the image is of another kind, or its size is not that of the masks.
    """
    picture = _picture(image)
    if instances.size != (picture.height, picture.width):
        raise ValueError(f"masks of {instances.size} on an image of {(picture.height, picture.width)} (height, width)")
    order = instances.scores.argsort(descending=True, stable=True).cpu()
    order = order[instances.scores.cpu()[order] >= score_threshold][:max_objects]
    shown = instances[order.to(instances.scores.device)]
    factor = math.ceil(READABLE / max(picture.size))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    masks = cropped(shown.masks).crops
    windows = [_enlarged(crop, factor) for crop in masks]
    given = _colors_like(masks, cropped(like.masks).crops, factor) if like is not None else {}
    colors = _colors([window for window, _ in windows], given)
    canvas = np.array(picture)
    painted = list(zip(windows, colors, strict=True))[::-1]  # the best object lies on top
    for (window, mask), color in painted:
        _fill(canvas, window, mask, color)
    stroke = max(1, round(extent(picture) / 320))
    for (window, mask), color in painted:  # after all fills: what is covered keeps its contour
        _outline(canvas, window, mask, color, stroke)
    picture = Image.fromarray(canvas)
    texts = [
        name if score == 1 else f"{name} {score:.2f}"
        for name, score in zip(shown.names, shown.scores.tolist(), strict=True)
    ]
    label(picture, [window for window, _ in windows], texts, colors)
    return picture


def _picture(image: str | Path | Image.Image | np.ndarray | Tensor) -> Image.Image:
    if isinstance(image, str | Path):
        image = Image.open(Path(image).expanduser())
    if isinstance(image, Image.Image):
        try:
            picture = shallow(ImageOps.exif_transpose(image))  # the original frame is what a viewer shows
        except UnknownScale as error:
            raise ValueError(f"cannot draw on a picture of mode {image.mode}, give it in RGB: {error}") from error
        return picture.convert("RGB")
    pixels = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) and image.ndim == 3 else image
    if getattr(pixels, "ndim", 0) != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(
            f"cannot draw on {type(image).__name__} of shape {tuple(image.shape)} and type {image.dtype}: "
            "give a PIL image, an (H, W, 3) uint8 array or a (3, H, W) uint8 tensor"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def _enlarged(crop: Crop, factor: int) -> Crop:
    box, inside = crop
    return _scaled(box, factor), inside.repeat(factor, 0).repeat(factor, 1) if factor > 1 else inside


def _scaled(box: Box, factor: int) -> Box:
    return tuple(side * factor for side in box)


def _colors(boxes: list[Box], given: Mapping[int, int] | None = None) -> list[tuple[int, int, int]]:
    """A color per object: one that no touching box has yet, if there is any left; of those the least used.

    Args:
        given: object -> place in PALETTE, where that is settled.
    """
    chosen = dict(given or {})
    for i, box in enumerate(boxes):
        if i not in chosen:
            touching = {color for other, color in chosen.items() if overlap(box, boxes[other], margin=1)}
            used = list(chosen.values())
            costs = [(color in touching, used.count(color)) for color in range(len(PALETTE))]
            chosen[i] = costs.index(min(costs))
    return [PALETTE[chosen[i]] for i in range(len(boxes))]


def _colors_like(shown: Sequence[Crop], like: Sequence[Crop], factor: int) -> dict[int, int]:
    """Object -> the color that `draw` gives its partner in `like`, an IoU of more than a half."""
    colors = [PALETTE.index(color) for color in _colors([_scaled(box, factor) for box, _ in like])]
    areas = [[int(np.count_nonzero(mask)) for _, mask in crops] for crops in (shown, like)]
    found = {}
    for i, j in itertools.product(range(len(shown)), range(len(like))):
        ours, theirs = areas[0][i], areas[1][j]
        # What is shared is at most what the boxes share: few pairs need to be looked at.
        if 2 * overlap(shown[i][0], like[j][0]) > max(ours, theirs):
            both = shared(shown[i], like[j])
            if both > (ours + theirs - both) / 2:
                found[i] = colors[j]
    return found


def _fill(canvas: np.ndarray, box: Box, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = box
    part = canvas[y1:y2, x1:x2]
    part[mask] = (part[mask] * (1 - OPACITY) + np.array(color) * OPACITY + 0.5).astype(np.uint8)


def _outline(canvas: np.ndarray, box: Box, mask: np.ndarray, color: tuple[int, int, int], stroke: int) -> None:
    """A line of the object's color along the inner edge, and a thinner, darker one outside of it."""
    if not mask.size:
        return
    x1, y1, x2, y2 = box
    padded = np.pad(mask, stroke)
    inner = padded & dilated(~padded, stroke)
    outer = ~padded & dilated(padded, max(1, stroke // 2))
    # The padded window may reach over the picture's border: what lies outside is cut off.
    left, top = max(0, x1 - stroke), max(0, y1 - stroke)
    part = canvas[top : y2 + stroke, left : x2 + stroke]
    row, column = top - y1 + stroke, left - x1 + stroke
    visible = np.s_[row : row + part.shape[0], column : column + part.shape[1]]
    part[outer[visible]] = np.array(color) // 4
    part[inner[visible]] = color

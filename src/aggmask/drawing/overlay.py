"""Instances over their image: half transparent masks, crisp contours, readable labels; pairs and contact sheets.

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
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from aggmask.depth import UnknownScale, shallow
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
    stroke = max(1, round(_extent(picture) / 320))
    for (window, mask), color in painted:  # after all fills: what is covered keeps its contour
        _outline(canvas, window, mask, color, stroke)
    picture = Image.fromarray(canvas)
    texts = [
        name if score == 1 else f"{name} {score:.2f}"
        for name, score in zip(shown.names, shown.scores.tolist(), strict=True)
    ]
    _label(picture, [window for window, _ in windows], texts, colors)
    return picture


def beside(
    truth: Image.Image, prediction: Image.Image, titles: tuple[str, str] = ("ground truth", "prediction")
) -> Image.Image:
    """Two pictures next to each other on white, each under its title; the second is brought to the first's height."""
    if prediction.height != truth.height:
        width = max(1, round(prediction.width * truth.height / prediction.height))
        prediction = prediction.resize((width, truth.height))
    size = max(12, round(_extent(truth) / 24))
    gap, strip = max(4, size // 2), round(size * 1.6)
    sheet = Image.new("RGB", (truth.width + gap + prediction.width, strip + truth.height), "white")
    pen = ImageDraw.Draw(sheet)
    for picture, title, left in ((truth, titles[0], 0), (prediction, titles[1], truth.width + gap)):
        sheet.paste(picture, (left, strip))
        text, font = _fitted(title, size, picture.width)
        pen.text((left + picture.width / 2, strip / 2), text, fill="black", font=font, anchor="mm")
    return sheet


def contact_sheet(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures in rows of `columns` on white, each in the middle of a cell of the largest width and height.

    Raises:
        ValueError: no pictures, or no columns.
    """
    if not pictures or columns < 1:
        raise ValueError(f"a contact sheet of {len(pictures)} pictures in {columns} columns")
    columns = min(columns, len(pictures))
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    gap = max(4, round(math.sqrt(width * height) / 60))
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for i, picture in enumerate(pictures):
        left = gap + i % columns * (width + gap) + (width - picture.width) // 2
        top = gap + i // columns * (height + gap) + (height - picture.height) // 2
        sheet.paste(picture, (left, top))
    return sheet


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


def _extent(picture: Image.Image) -> float:
    """The measure that strokes and letters follow: the side of a square of that area, less for very long pictures."""
    short, long = sorted(picture.size)
    return math.sqrt(short * min(long, 4 * short))


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


def _label(picture: Image.Image, boxes: list[Box], texts: list[str], colors: list[tuple[int, int, int]]) -> None:
    """Write each text on its color near its box: where it hides the least, never off the picture."""
    pen = ImageDraw.Draw(picture)
    size = max(11, round(_extent(picture) / 36))
    placed: list[Box] = []
    for box, text, color in zip(boxes, texts, colors, strict=True):
        if box[2] == 0:
            continue  # an empty mask
        margin = max(1, size // 5)
        text, font = _fitted(text, size, picture.width - 2 * margin)
        ascent, descent = font.getmetrics()
        width, height = math.ceil(pen.textlength(text, font)) + 2 * margin, ascent + descent + margin
        if not text or height > picture.height:
            continue
        others = [other for other in boxes if other != box]
        place = min(_places(box, width, height, picture.size), key=lambda p: _hidden(p, placed, others))
        placed.append(place)
        pen.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=color)
        dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 140
        pen.text((place[0] + margin, place[1] + margin // 2), text, fill="white" if dark else "black", font=font)


def _hidden(place: Box, labels: list[Box], objects: list[Box]) -> tuple[float, float]:
    """How much a label here would cover: of other labels first, then of objects, each relative to its size."""
    covered = sum(overlap(place, label, margin=1) for label in labels)
    return covered, sum(overlap(place, box) / max(1, overlap(box, box)) for box in objects)


def _places(box: Box, width: int, height: int, size: tuple[int, int]) -> list[Box]:
    """Where the label of a box may stand, best first, all moved inside of the picture."""
    x1, y1, x2, y2 = box
    middle = (x1 + x2 - width) // 2, (y1 + y2 - height) // 2
    corners = [(x1, y1 - height), (x1, y1), (x1, y2), (x2 - width, y1 - height), (x2 - width, y2)]
    corners += [middle, (x1, y2 - height), (x2, y1), (x1 - width, y1), (x2, y2 - height), (middle[0], y1 - 2 * height)]
    inside = [(min(max(0, x), size[0] - width), min(max(0, y), size[1] - height)) for x, y in corners]
    return [(x, y, x + width, y + height) for x, y in inside]


def _fitted(text: str, size: int, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text in one line and a font in which it is at most `width` wide: smaller letters first, then fewer."""
    text = " ".join(text.split())  # a name from a file may have line breaks
    while size > 9 and ImageFont.load_default(size).getlength(text) > width:
        size -= 1
    font = ImageFont.load_default(size)
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text, font

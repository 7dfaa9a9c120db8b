"""The names of objects on their picture: readable, near their boxes, not over each other."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont

from aggmask.geometry.cropped import Box, overlap


def extent(picture: Image.Image) -> float:
    """The measure that strokes and letters follow: the side of a square of that area, less for very long pictures."""
    short, long = sorted(picture.size)
    return math.sqrt(short * min(long, 4 * short))


def label(picture: Image.Image, boxes: list[Box], texts: list[str], colors: list[tuple[int, int, int]]) -> None:
    """Write each text on its color near its box: where it hides the least, never off the picture."""
    pen = ImageDraw.Draw(picture)
    size = max(11, round(extent(picture) / 36))
    placed: list[Box] = []
    for box, text, color in zip(boxes, texts, colors, strict=True):
        if box[2] == 0:
            continue  # an empty mask
        margin = max(1, size // 5)
        text, font = fitted(text, size, picture.width - 2 * margin)
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


def fitted(text: str, size: int, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text in one line and a font in which it is at most `width` wide: smaller letters first, then fewer."""
    text = " ".join(text.split())  # a name from a file may have line breaks
    while size > 9 and ImageFont.load_default(size).getlength(text) > width:
        size -= 1
    font = ImageFont.load_default(size)
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text, font

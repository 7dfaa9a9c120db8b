"""Several pictures on one: pairs under their titles, and rows of many."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from aggmask.drawing.labels import extent, fitted


def beside(
    truth: Image.Image, prediction: Image.Image, titles: tuple[str, str] = ("ground truth", "prediction")
) -> Image.Image:
    """Two pictures next to each other on white, each under its title; the second is brought to the first's height."""
    if prediction.height != truth.height:
        width = max(1, round(prediction.width * truth.height / prediction.height))
        prediction = prediction.resize((width, truth.height))
    size = max(12, round(extent(truth) / 24))
    gap, strip = max(4, size // 2), round(size * 1.6)
    sheet = Image.new("RGB", (truth.width + gap + prediction.width, strip + truth.height), "white")
    pen = ImageDraw.Draw(sheet)
    for picture, title, left in ((truth, titles[0], 0), (prediction, titles[1], truth.width + gap)):
        sheet.paste(picture, (left, strip))
        text, font = fitted(title, size, picture.width)
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

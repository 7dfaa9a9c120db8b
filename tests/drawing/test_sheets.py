"""Pairs under their titles and rows of pictures: everything is where it should be."""

import numpy as np
import pytest
from PIL import Image

from aggmask.drawing.sheets import beside, contact_sheet


def test_beside():
    left, right = Image.new("RGB", (300, 200), "red"), Image.new("RGB", (150, 100), "blue")
    pair = np.array(beside(left, right))
    strip = pair.shape[0] - 200
    assert strip > 0
    assert (pair[strip:, :300] == (255, 0, 0)).all()
    assert (pair[strip:, -300:] == (0, 0, 255)).all()  # brought to the same height
    assert pair.shape[1] > 600
    assert (pair[:strip, :300] < 100).any()  # both titles are written
    assert (pair[:strip, -300:] < 100).any()


def test_contact_sheet():
    pictures = [Image.new("RGB", (30, 20), color) for color in ("red", "lime", "blue")] + [Image.new("RGB", (10, 10))]
    sheet = np.array(contact_sheet(pictures, 3))
    gap = sheet.shape[0] - 2 * 20
    assert gap % 3 == 0
    gap //= 3
    assert sheet.shape == (2 * 20 + 3 * gap, 3 * 30 + 4 * gap, 3)
    assert (sheet[gap : gap + 20, gap : gap + 30] == (255, 0, 0)).all()
    assert (sheet[gap : gap + 20, -gap - 30 : -gap] == (0, 0, 255)).all()
    last = sheet[2 * gap + 20 : -gap, gap : gap + 30]
    assert np.argwhere((last == 0).all(2))[[0, -1]].tolist() == [[5, 10], [14, 19]]  # in the middle of its cell
    assert contact_sheet(pictures[:2], 5).width < contact_sheet(pictures[:3], 5).width
    with pytest.raises(ValueError, match="0 pictures in 3 columns"):
        contact_sheet([], 3)
    with pytest.raises(ValueError, match="in 0 columns"):
        contact_sheet(pictures, 0)

"""Labels stay inside of the picture and off each other."""

import itertools

import pytest
from PIL import Image

from aggmask.drawing import labels
from aggmask.drawing.labels import fitted, label
from aggmask.geometry.cropped import overlap

RED = (255, 0, 0)


@pytest.fixture
def looked_at(monkeypatch):
    """(place, labels so far) of each place that is considered; the list itself, which fills up."""
    seen, kept = [], labels._hidden

    def noted(place, placed, others):
        seen.append((place, placed))
        return kept(place, placed, others)

    monkeypatch.setattr(labels, "_hidden", noted)
    return seen


@pytest.mark.parametrize("size", [(640, 480), (120, 900), (900, 60), (2000, 1500), (3, 500), (500, 3)])
def test_labels_never_leave_the_picture(size, looked_at):
    w, h = size
    corners = [(0, 0), (w - 1, 0), (0, h - 1), (w - 1, h - 1), (w // 2, h // 2)]
    texts = ["a rather long category name", "cat"]
    label(Image.new("RGB", size), [(x, y, x + 1, y + 1) for x, y in corners], [*texts, *texts, "dog"], [RED] * 5)
    assert looked_at or min(size) < 20
    for (x1, y1, x2, y2), _ in looked_at:
        assert 0 <= x1 < x2 <= w
        assert 0 <= y1 < y2 <= h


def test_labels_of_a_crowd_keep_off_each_other(looked_at):
    label(Image.new("RGB", (800, 600)), [(250, 250, 400, 350)] * 6, ["cat"] * 6, [RED] * 6)
    placed = looked_at[-1][1]
    assert len(placed) == 6
    assert not any(overlap(a, b) for a, b in itertools.combinations(placed, 2))


def test_a_text_too_wide_gets_smaller_letters_and_then_fewer():
    text, font = fitted("category", 20, 1000)
    assert (text, font.size) == ("category", 20)
    text, font = fitted("category", 20, 60)
    assert text == "category"
    assert 9 <= font.size < 20
    text, font = fitted("category", 20, 15)
    assert font.size == 9
    assert "category".startswith(text)
    assert 0 < len(text) < 8

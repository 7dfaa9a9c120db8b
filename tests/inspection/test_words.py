from dataclasses import replace

import pytest

from aggmask.inspection.trace import inspect
from aggmask.inspection.words import gathered, number_of, place_of, story_of
from tests.inspection.made import VARIANTS, picture, predictor


@pytest.fixture(scope="module")
def trace():
    return inspect(predictor(**VARIANTS["window 5"]), picture()).trace(0)


def test_the_story_of_a_score(trace):
    alone = replace(trace, category_score=0.8, score_before=0.6, score=0.6, by=None)
    assert story_of(alone) == ("category score 0.80 x certainty of the mask 0.75 = 0.60; Matrix NMS leaves it as it is")
    lowered = replace(alone, by=2, iou=0.9, decay=0.5, score=0.3)
    assert story_of(lowered).endswith("= 0.60; Matrix NMS x 0.50 because of #3 (IoU 0.90) = 0.30")
    assert number_of(trace) == "#1"


def test_places(trace):
    neighbor = replace(trace.neighbors[0], place=(3, 4), start=(3, 4))
    assert place_of(neighbor) == "(3, 4)"
    assert place_of(replace(neighbor, place=(3.25, 2.5))) == "(3.2, 2.5), moved by (+0.2, -1.5)"


def test_what_is_gathered(trace):
    text = gathered(replace(trace, iou_without_any=0.25))
    assert text.startswith("5 representations around the cell, and the context enter")
    assert "nearest representation is also added" in text
    assert "learned offsets" not in text
    assert "learned offsets" in gathered(inspect(predictor(**VARIANTS["deformable"]), picture()).trace(0))
    assert text.endswith("an IoU of 0.25.")
    assert gathered(inspect(predictor(), picture()).trace(0)).startswith("No aggregation")

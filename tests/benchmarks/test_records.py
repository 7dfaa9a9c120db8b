"""The arithmetic of ratios, and the machine."""

import pytest

from benchmarks.records import Figure, machine


def figure(unit, sense, target=None):
    return Figure("part", "name", unit, [1.0, 2.0, 4.0], "baseline", [4.0, 4.0, 4.0], sense, target)


def test_fewer_seconds_are_faster():
    assert figure("s", "speed").ratios == [4.0, 2.0, 1.0]
    assert figure("s", "speed").ratio == 2.0


def test_more_images_a_second_are_faster():
    assert figure("images/s", "speed").ratios == [0.25, 0.5, 1.0]


def test_a_share_is_of_the_baseline_whatever_the_unit():
    assert figure("MB", "share").ratio == figure("s", "share").ratio == figure("images/s", "share").ratio == 0.5


def test_ratios_are_taken_repetition_by_repetition():
    found = Figure("part", "name", "s", [1.0, 10.0], "baseline", [2.0, 20.0])
    assert found.ratios == [2.0, 2.0]  # though the machine was ten times slower in the second


@pytest.mark.parametrize(
    ("sense", "target", "reached"),
    [("speed", 2.0, True), ("speed", 2.1, False), ("share", 0.5, True), ("share", 0.4, False), ("share", None, None)],
)
def test_speeds_reach_a_target_from_above_and_shares_from_below(sense, target, reached):
    assert figure("s", sense, target).reached is reached


def test_a_baseline_that_took_nothing_gives_no_ratio():
    found = Figure("part", "name", "MB", [1.0], "baseline", [0.0], "share", 1.0)
    assert str(found.ratio) == "nan"
    assert not found.reached


def test_the_machine_is_described():
    here = machine(2)
    assert here["threads"] == 2
    assert here["cores"] >= 1
    assert here["processor"]

"""The arithmetic of ratios, and what is really measured in other processes."""

import pytest

from benchmarks.harness import Case, Figure, interleaved, machine

HERE = "tests.benchmarks.cases"


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


def test_sides_take_turns_and_warm_ups_do_not_count():
    said = []
    cases = {name: Case(f"{HERE}:counts") for name in ("a", "b")}
    found = interleaved(cases, repeats=2, threads=1, tell=said.append, warmups=2, separate=False)
    assert found["a"]["seconds"] == found["b"]["seconds"] == [30.0, 40.0]
    assert said[:2] == ["a, warm-up", "b, warm-up"]
    assert said[-2:] == ["a, 2 of 2", "b, 2 of 2"]


def test_sides_that_computed_something_else_are_not_compared():
    cases = {name: Case(f"{HERE}:holds", {"megabytes": 0, "check": check}) for name, check in (("a", 1.0), ("b", 1.1))}
    with pytest.raises(ValueError, match=r"did not compute the same.*'a': 1.0, 'b': 1.1"):
        interleaved(cases, 1, 1, separate=False)
    assert "check" not in interleaved(cases, 1, 1, separate=False, same=False)["a"]


@pytest.mark.parametrize("other", [[1.0, float("nan")], [1.0, 1.1], [float("inf"), float("inf")]])
def test_no_number_is_like_no_other_and_every_repetition_counts(other):
    cases = {name: Case(f"{HERE}:differs", {"checks": c}) for name, c in (("a", [1.0, 1.0]), ("b", other))}
    with pytest.raises(ValueError, match="did not compute the same"):
        interleaved(cases, 2, 1, warmups=0, separate=False)


def test_a_process_that_is_killed_between_its_turns_is_named():
    cases = {"b": Case(f"{HERE}:is_killed", {"turn": 1}), "a": Case(f"{HERE}:waits", {"seconds": 0.7})}
    with pytest.raises(RuntimeError, match=r"b \(.*cases:is_killed\) was killed, most likely for want of mem"):
        interleaved(cases, 2, 1, warmups=0)


def test_each_side_has_a_process_with_its_own_memory():
    cases = {
        "large": Case(f"{HERE}:holds", {"megabytes": 120}),
        "small": Case(f"{HERE}:holds", {"megabytes": 40}),
        "ranks": Case(f"{HERE}:counts", ranks=2),
    }
    found = interleaved(cases, repeats=2, threads=1)
    assert all(110 < mb < 135 for mb in found["large"]["MB"])
    assert all(35 < mb < 55 for mb in found["small"]["MB"])  # not what the other side, or its own past, took
    assert found["small"]["half"] == [20.0, 20.0]
    assert found["ranks"]["seconds"] == [21.0, 31.0]  # of the slower rank, which is the second
    assert found["ranks"]["told"] == [1.0, 1.0]


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"a \(tests.*cases:fails\) failed with status 1(.|\n)*LookupError: nothing"):
        interleaved({"a": Case(f"{HERE}:fails")}, 1, 1)


def test_the_machine_is_described():
    here = machine(2)
    assert here["threads"] == 2
    assert here["cores"] >= 1
    assert here["processor"]

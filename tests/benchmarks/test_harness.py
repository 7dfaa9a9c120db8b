"""What is really measured in other processes, turn by turn."""

import pytest

from benchmarks.harness import Case, interleaved

HERE = "tests.benchmarks.cases"


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

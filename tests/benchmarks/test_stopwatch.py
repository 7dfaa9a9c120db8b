import pytest

from benchmarks.stopwatch import UNCOUNTED, Stopwatch


@pytest.fixture
def watch():
    """A stopwatch on which an hour passes whenever it looks at the clock."""
    hours = iter(range(100))
    return Stopwatch(clock=lambda: 3600.0 * next(hours))


def test_what_lies_inside_a_stage_is_not_counted_for_it(watch):
    with watch.stage("outer"), watch.stage("inner"):
        pass
    assert watch.read() == {"outer": 2 * 3600.0, "inner": 3600.0, "seconds": 3 * 3600.0}


def test_the_same_stage_adds_up_until_it_is_read(watch):
    for _ in range(2):
        with watch.stage("a"):
            pass
    assert watch.read() == {"a": 7200.0, "seconds": 7200.0}
    assert watch.read() == {"seconds": 0}


def test_time_between_stages_and_uncounted_time_is_left_out(watch):
    with watch.stage("a"):
        pass
    with watch.stage(UNCOUNTED), watch.stage("b"):
        pass
    assert watch.read() == {"a": 3600.0, "b": 3600.0, "seconds": 7200.0}


def test_a_timed_function_is_the_same_function(watch):
    assert watch.timed("a", max)(1, 2) == 2
    assert watch.read()["a"] == 3600.0


def test_a_stage_ends_when_it_fails(watch):
    with pytest.raises(ZeroDivisionError), watch.stage("a"):
        _ = 1 / 0
    with watch.stage("b"):
        pass
    assert watch.read() == {"a": 3600.0, "b": 3600.0, "seconds": 7200.0}

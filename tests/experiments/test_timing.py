"""Timing with a clock of the test's own: nothing here depends on how fast the machine is."""

import numpy as np
import pytest

from rai_utils.experiments.timing import clocked, interleaved, steady, summarise


class Clock:
    """Time that passes only where the test lets it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


def test_work_takes_turns_and_warm_up_does_not_count():
    clock, order = Clock(), []

    def work(name, first, later):
        def call():
            clock.spend(first if order.count(name) < 2 else later)
            order.append(name)

        return call

    pieces = {"a": work("a", 100.0, 1.0), "b": work("b", 100.0, 3.0)}
    timed = {name: clocked(call, clock=clock) for name, call in pieces.items()}
    seconds = interleaved(timed, 3, warm_up=2)
    assert order == ["a", "b"] * 5
    np.testing.assert_allclose(seconds["a"], [1, 1, 1])
    np.testing.assert_allclose(seconds["b"], [3, 3, 3])


def test_repeats_share_one_timing():
    clock, calls = Clock(), []
    timed = clocked(lambda: (calls.append(0), clock.spend(2.0)), repeats=4, clock=clock)
    assert timed() == 2.0
    assert len(calls) == 4


def test_a_steady_step_is_the_median_after_the_first_steps():
    asked = []

    def run(steps):
        asked.append(steps)
        return [99.0, 98.0, 5.0, 3.0, 4.0][:steps]

    assert steady(run, 3)() == 4.0
    assert steady(run, 2, warm_up=3)() == 3.5
    assert asked == [5, 5]


def test_summary_is_median_and_quartiles():
    assert summarise(np.array([5.0, 1.0, 2.0, 3.0, 4.0])) == [3.0, 2.0, 4.0]
    with pytest.raises(ValueError, match="above 0"):
        summarise(np.array([0.0]))


def test_what_cannot_be_timed_is_refused():
    with pytest.raises(ValueError, match="there must be work"):
        interleaved({}, 1)
    with pytest.raises(ValueError, match="rounds"):
        interleaved({"a": float}, 0)
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        clocked(int, repeats=0)

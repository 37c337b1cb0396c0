"""How long things take, as ratios from one interleaved run; ``make bench`` publishes them.

A ratio is taken within a round, where the two things compared ran right after each other, and
its median over the rounds is what counts: a machine that is slow for a while is slow for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Clock = Callable[[], float]
Timed = Callable[[], float]
Steps = Callable[[int], Sequence[float] | NDArray[np.float64]]


def interleaved(
    timed: Mapping[str, Timed], rounds: int, *, warm_up: int = 2
) -> dict[str, NDArray[np.float64]]:
    """Time each piece of work once a round, in the order given.

    Args:
        timed: name to a function that does a piece of work and returns how long it took, in
            seconds: ``clocked`` or ``steady``.
        rounds: how many rounds count, at least 1.
        warm_up: rounds before that do not count, at least 0.

    Returns:
        Seconds, (rounds,) each.

    Raises:
        ValueError: there is no work, or a count is out of range.
    """
    if not timed or rounds < 1 or warm_up < 0:
        raise ValueError(
            "there must be work, rounds of at least 1 and a warm-up of at least 0, got "
            f"{len(timed)} pieces of work, {rounds} and {warm_up}"
        )
    turns = [{name: work() for name, work in timed.items()} for _ in range(warm_up + rounds)]
    return {name: np.array([turn[name] for turn in turns[warm_up:]]) for name in timed}


def clocked(
    call: Callable[[], object], *, repeats: int = 1, clock: Clock = time.perf_counter
) -> Timed:
    """Make a function that runs ``call`` so many times and returns the mean seconds of a run.

    Raises:
        ValueError: ``repeats`` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")

    def timed() -> float:
        start = clock()
        for _ in range(repeats):
            call()
        return (clock() - start) / repeats

    return timed


def steady(run: Steps, steps: int, warm_up: int = 2) -> Timed:
    """Make a function that returns the median seconds of a step in a row of steps.

    ``run`` makes so many in a row and returns the seconds of each; the first ``warm_up`` of them
    do not count, and the ``steps`` after these do, 1 or more.
    """
    return lambda: float(np.median(run(warm_up + steps)[warm_up:]))


def summarise(values: NDArray[np.float64]) -> list[float]:
    """Return the median and the first and third quartile of durations or ratios.

    Raises:
        ValueError: there is none, or one is not above 0.
    """
    if values.size == 0 or not (values > 0).all():
        raise ValueError(f"durations or ratios must be above 0, got {values}")
    return np.quantile(values, (0.5, 0.25, 0.75)).tolist()

"""Numbers with their 95 % intervals: means over networks, shares, and other statistics.

Samples are finite and have one axis, of two or more values for an interval; all else is refused
with a ValueError.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # loads scipy.stats when it is first used: reading what is published needs none

Number = int | float | bool | None
Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A number that is made from several.

    Attributes:
        value: the number; None where it does not exist.
        interval: its interval, (low, high).
        seeds: how many networks, or draws of the data, it is made from.
    """

    value: Number
    interval: Interval | None = None
    seeds: int | None = None


def estimate(measured: Any, name: str = "number") -> Estimate:
    """Return what was measured as an :class:`Estimate`.

    One is returned as it is. Of an array or a list over networks, shape ``(n,)``, the mean, its
    interval (where ``n ≥ 2``) and ``n`` are taken; one number has neither interval nor seeds.
    ``name`` is what it is, for the messages.
    """
    if isinstance(measured, Estimate):
        return measured
    if not isinstance(measured, list | tuple) and not getattr(measured, "ndim", 0):
        return Estimate(measured)
    sample = _sample(measured, name, least=1)
    interval = mean_interval(sample) if len(sample) > 1 else None
    return Estimate(float(sample.mean()), interval, len(sample))


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Return Student's t interval for the mean of ``values``, shape ``(n,)`` with ``n ≥ 2``."""
    sample = _sample(values, "values", least=2)
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    with warnings.catch_warnings():
        # Equal values have no t statistic, but they have an interval.
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = scipy.stats.ttest_1samp(sample, 0).confidence_interval(level)
    return float(low), float(high)


def geometric_mean(ratios: Sequence[float] | np.ndarray) -> Estimate:
    """Return the geometric mean of ratios above 0, ``(n,)``, with the interval of their logs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.asarray(ratios, dtype=float))
    low, high = np.exp(mean_interval(logs))
    return Estimate(float(np.exp(logs.mean())), (float(low), float(high)), len(logs))


def corrected_interval(values: Sequence[float] | np.ndarray, test_share: float) -> Interval:
    """Return the interval of a mean over K overlapping random splits of one data set.

    mean ± t_{K−1} · s · √(1/K + ρ/(1 − ρ)), where ρ is the share of the data that a split tests on:
    splits share training data, so their mean varies more than s/√K says (Nadeau and Bengio 2003,
    doi 10.1023/A:1024068626366).

    Args:
        values: one a split, (K,) with K ≥ 2.
        test_share: ρ, in (0, 1).
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must be between 0 and 1, got {test_share}")
    low, high = mean_interval(values)
    middle, splits = (low + high) / 2, len(values)
    wider = (1 + splits * test_share / (1 - test_share)) ** 0.5
    return middle + (low - middle) * wider, middle + (high - middle) * wider


def share(successes: int, trials: int) -> Estimate:
    """Return the share of ``successes`` in ``trials``, with Wilson's interval inside [0, 1]."""
    low, high = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return Estimate(successes / trials, (float(low), float(high)), trials)


def bootstrap(
    values: Sequence[float] | np.ndarray, statistic: Callable[[np.ndarray], Any]
) -> Estimate:
    """Return ``statistic`` of ``values``, shape ``(n,)``, with its percentile bootstrap interval.

    Each of 2000 resamples draws ``n`` values with replacement, by a generator of its own.
    """
    sample = _sample(values, "values", least=2)
    low, high = scipy.stats.bootstrap(
        (sample,),
        statistic,
        n_resamples=2000,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(float(statistic(sample)), (float(low), float(high)), len(sample))


def _sample(values: Sequence[float] | np.ndarray, name: str, *, least: int) -> np.ndarray:
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or len(sample) < least:
        raise ValueError(f"{name} must be one axis of {least} or more, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError(f"{name} must be finite, got {sample[~np.isfinite(sample)][0]}")
    return sample

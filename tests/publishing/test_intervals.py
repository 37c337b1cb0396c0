"""Intervals, against their formulas written out, and what counts as a number."""

import math

import numpy as np
import pytest
import torch
from scipy import special

from rai_utils.publishing.intervals import (
    Estimate,
    bootstrap,
    corrected_interval,
    estimate,
    geometric_mean,
    mean_interval,
    share,
)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_mean_interval_is_students(level):
    values = np.random.default_rng(0).normal(3, 2, size=7)
    half = special.stdtrit(6, (1 + level) / 2) * values.std(ddof=1) / math.sqrt(7)
    expected = (values.mean() - half, values.mean() + half)
    assert mean_interval(values, level) == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("error")
def test_equal_values_have_an_interval():
    assert mean_interval([0.7] * 5) == pytest.approx((0.7, 0.7))
    assert mean_interval([0.0] * 5) == (0, 0)


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (3, 10), (1, 1), (99, 100)])
def test_a_share_has_wilsons_interval(successes, trials):
    z, p = special.ndtri(0.975), successes / trials
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    found = share(successes, trials)
    assert (found.value, found.seeds) == (p, trials)
    assert found.interval == pytest.approx((centre - half, centre + half), abs=1e-12)
    assert 0 <= found.interval[0] <= found.interval[1] <= 1


@pytest.mark.parametrize("statistic", [np.median, lambda drawn: np.ptp(drawn)])
def test_bootstrap_is_the_percentile_bootstrap(statistic):
    values = np.random.default_rng(1).exponential(size=30)
    found = bootstrap(values, statistic)
    drawn = values[np.random.default_rng(0).integers(30, size=(2000, 30))]
    ordered = sorted(float(statistic(row)) for row in drawn)
    expected = np.interp([0.025 * 1999, 0.975 * 1999], range(2000), ordered)
    assert found.interval == pytest.approx(expected)
    assert (found.value, found.seeds) == (statistic(values), 30)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mean_interval([1.0]), r"one axis of 2 or more, got shape \(1,\)"),
        (lambda: mean_interval([[1.0, 2.0]]), "one axis"),
        (lambda: mean_interval([1.0, math.nan]), "must be finite, got nan"),
        (lambda: mean_interval([1.0, 2.0], 95), "level must be between 0 and 1, got 95"),
        (lambda: share(3, 2), r"\(3\) must not be greater than n \(2\)"),
        (lambda: share(0, 0), "must be an integer not less than 1"),
        (lambda: bootstrap([1], np.mean), "one axis of 2 or more"),
        (lambda: bootstrap([1, math.inf], np.mean), "must be finite, got inf"),
        (lambda: estimate([], "loss"), r"loss must be one axis of 1 or more, got shape \(0,\)"),
        (lambda: estimate(np.ones((2, 3)), "loss"), r"loss must be one axis .* \(2, 3\)"),
        (lambda: estimate([1.0, math.nan], "loss"), "loss must be finite, got nan"),
    ],
)
def test_what_has_no_interval_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [np.array, list, tuple, torch.tensor])
def test_an_array_over_networks_gives_mean_interval_and_count(kind):
    values = [0.25, 0.5, 1.0]
    expected = Estimate(pytest.approx(7 / 12), pytest.approx(mean_interval(values)), 3)
    assert estimate(kind(values)) == expected
    assert estimate(kind([0.5])) == Estimate(0.5, None, 1)


@pytest.mark.parametrize("value", [0.5, 3, None, True, math.nan, np.float64(0.5), torch.tensor(2)])
def test_one_number_has_no_interval(value):
    assert estimate(value) == Estimate(value)


def test_an_estimate_is_taken_as_it_is():
    given = Estimate(0.5, (0.4, 0.7), 3)
    assert estimate(given) is given


def test_overlapping_splits_get_the_corrected_interval():
    values = np.array([0.1, 0.3, 0.2, 0.4, 0.25])
    t = special.stdtrit(4, 0.975)
    half = t * np.sqrt((1 / 5 + 0.2 / 0.8) * values.var(ddof=1))
    expected = values.mean() - half, values.mean() + half
    assert corrected_interval(values, 0.2) == pytest.approx(expected)
    assert corrected_interval(values, 1e-9) == pytest.approx(mean_interval(values))
    for test_share in (0.0, 1.0):
        with pytest.raises(ValueError, match="test_share must be between 0 and 1"):
            corrected_interval(values, test_share)


def test_the_geometric_mean_has_the_interval_of_the_logarithms():
    found = geometric_mean([0.5, 2.0, 4.0])
    assert found.value == pytest.approx(4 ** (1 / 3))
    ends = mean_interval([math.log(0.5), math.log(2), math.log(4)])
    assert found.interval == pytest.approx([math.exp(end) for end in ends])
    assert found.seeds == 3
    for ratios in ([1.0, 0.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="must be finite"):
            geometric_mean(ratios)

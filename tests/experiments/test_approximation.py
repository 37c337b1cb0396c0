"""Approximation errors against closed forms, and the counter-example that must not converge."""

import numpy as np
import pytest

from rai_utils.experiments.network_basics.approximation import (
    HIDDEN,
    TARGETS,
    approximation_errors,
    log_log_slope,
    polynomial_limits,
)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_more_units_approximate_better(activation):
    errors = approximation_errors("wave", activation, [4, 32, 128], range(5))
    medians = np.median(errors.greatest, axis=1)
    assert medians[2] < 0.25 * medians[0]
    assert medians[2] < medians[1] < medians[0]
    assert (errors.root_mean_square <= errors.greatest).all()


def test_a_polynomial_activation_stays_at_the_best_cubic():
    errors = approximation_errors("wave", "cube", [8, 64], range(3))
    root_mean_square, greatest = polynomial_limits("wave", 3)
    np.testing.assert_allclose(errors.root_mean_square, root_mean_square, rtol=0.01)
    assert (errors.greatest >= 0.999 * greatest).all()


def test_a_polynomial_activation_reaches_a_cubic(monkeypatch):
    monkeypatch.setitem(TARGETS, "cubic", lambda x: x**3 - x + 0.5)
    assert approximation_errors("cubic", "cube", [16], [0]).greatest.max() < 1e-9
    assert max(polynomial_limits("cubic", 3)) < 1e-9


def test_polynomial_limits_of_the_absolute_value():
    # Best uniform quadratic of |x| is x² + 1/8; best L2 quadratic is 15/16 x² + 3/16.
    root_mean_square, greatest = polynomial_limits("kink", 3)
    assert greatest == pytest.approx(1 / 8, abs=1e-4)
    x = np.linspace(-1, 1, 100_001)
    expected = np.sqrt(np.mean((15 / 16 * x**2 + 3 / 16 - np.abs(x)) ** 2))
    assert root_mean_square == pytest.approx(expected, rel=0.01)


def test_targets_are_as_documented():
    x = np.array([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0])
    np.testing.assert_allclose(TARGETS["kink"](x), np.abs(x))
    # Takagi's function: 0 at whole numbers, 1/2 at a half and at a quarter.
    np.testing.assert_allclose(TARGETS["blancmange"](x), [0, 0.5, 0, 0.5, 0.5, 0])
    assert HIDDEN["sigmoid"](np.array([0.0]))[0] == 0.5


def test_slope_of_a_power_law():
    widths = [2, 4, 8]
    errors = np.array([[w**-1.5, 3 * w**-0.5] for w in widths])
    np.testing.assert_allclose(log_log_slope(widths, errors), [-1.5, -0.5])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="target"):
        approximation_errors("line", "relu", [1], [0])
    with pytest.raises(ValueError, match="activation"):
        approximation_errors("wave", "cos", [1], [0])
    for widths, seeds, message in (
        ([0], [0], "widths must be at least 1, got 0"),
        ([1.5], [0], "widths must be a whole number, got 1.5"),
        ([2], [-1], "seeds must lie in 0"),
        ([2], [], "must hold one each at least"),
        ([], [0], "must hold one each at least"),
    ):
        with pytest.raises(ValueError, match=message):
            approximation_errors("wave", "relu", widths, seeds)
    found = approximation_errors("wave", "relu", np.array([4, 8]), np.arange(2))
    expected = approximation_errors("wave", "relu", [4, 8], [0, 1])
    np.testing.assert_array_equal(found.greatest, expected.greatest)
    with pytest.raises(ValueError, match="degree"):
        polynomial_limits("wave", -1)
    with pytest.raises(ValueError, match="target"):
        polynomial_limits("line", 1)
    with pytest.raises(ValueError, match="above 0"):
        log_log_slope([1, 2], np.zeros((2, 1)))
    with pytest.raises(ValueError, match="widths must be two or more"):
        log_log_slope([1], np.ones((1, 1)))

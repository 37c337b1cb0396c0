"""How well a network with one hidden layer can approximate a function of one variable.

The hidden layer is drawn at random and the output weights are the best there are (least squares),
so no optimiser stands between the question and the answer. The error is an upper bound on what
the best network of that width reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lstsq
from scipy.optimize import linprog
from scipy.special import expit

from rai_utils.checks import LAST_SEED, one_of, whole_number, whole_numbers

Array = NDArray[np.float64]


def _blancmange(x: Array) -> Array:
    """Takagi's function, continuous and nowhere differentiable; 12 terms, period 1."""
    return sum((np.abs(2**n * x - np.round(2**n * x)) / 2**n for n in range(12)), np.zeros_like(x))


TARGETS: dict[str, Callable[[Array], Array]] = {
    "wave": lambda x: np.sin(2 * np.pi * x) + 0.5 * np.cos(5 * np.pi * x),
    "kink": lambda x: np.abs(x),
    "blancmange": _blancmange,
}
"""Continuous functions on [−1, 1]: smooth, with one kink, and nowhere differentiable."""

HIDDEN: dict[str, Callable[[Array], Array]] = {
    "sigmoid": expit,
    "relu": lambda z: np.maximum(z, 0),
    "cube": lambda z: z**3,
}
"""A bounded activation, an unbounded one, and a polynomial one."""

# Many more points than units, so that nothing happens between them.
_FIT_POINTS, _TEST_POINTS = 4097, 10_007


@dataclass(frozen=True)
class Errors:
    """Approximation errors, all of shape (widths, seeds).

    Attributes:
        root_mean_square: L2 error on [−1, 1].
        greatest: sup-norm error on a finer grid than the one that was fitted.
    """

    root_mean_square: Array
    greatest: Array


def approximation_errors(
    target: str, activation: str, widths: Sequence[int], seeds: Sequence[int]
) -> Errors:
    """Errors of f(x) ≈ c₀ + Σ_i c_i φ(s_i (x − t_i)), the c by least squares, in float64.

    Thresholds t are uniform on [−1.1, 1.1]; steepnesses |s| are log-uniform from 1 to 3 × width
    with either sign, because a bounded activation needs steep units for fine detail. For ReLU the
    steepness is a factor that c absorbs. ``target`` is a key of ``TARGETS``, ``activation`` of
    ``HIDDEN``; there is one draw of the hidden layer for each of the widths (at least 1) and seeds.
    All else is refused with a ValueError.
    """
    one_of(target, TARGETS, "target")
    one_of(activation, HIDDEN, "activation")
    widths = whole_numbers(widths, "widths", least=1)
    seeds = whole_numbers(seeds, "seeds", most=LAST_SEED)
    if not widths or not seeds:
        raise ValueError(f"widths and seeds must hold one each at least, got {widths} and {seeds}")
    test = np.linspace(-1, 1, _TEST_POINTS)
    truth = TARGETS[target](test)
    shape = (len(widths), len(seeds))
    errors = Errors(np.empty(shape), np.empty(shape))
    for row, width in enumerate(widths):
        for column, seed in enumerate(seeds):
            deviation = np.abs(best_fit(target, activation, width, seed)(test) - truth)
            errors.root_mean_square[row, column] = np.sqrt(np.mean(deviation**2))
            errors.greatest[row, column] = deviation.max()
    return errors


def best_fit(target: str, activation: str, width: int, seed: int) -> Callable[[Array], Array]:
    """Return the network of :func:`approximation_errors` for one width and seed, as a function."""
    generator = np.random.default_rng((seed, width))
    threshold = generator.uniform(-1.1, 1.1, width)
    steepness = np.exp(generator.uniform(0, np.log(3 * width), width))
    steepness *= generator.choice((-1, 1), width)

    def features(x: Array) -> Array:
        hidden = HIDDEN[activation](steepness * (x[:, None] - threshold))  # (points, width)
        return np.concatenate([np.ones((len(x), 1)), hidden], 1)

    x = np.linspace(-1, 1, _FIT_POINTS)
    fitted = features(x)
    size = np.linalg.norm(fitted, axis=0)
    size[size == 0] = 1  # a unit that is off everywhere
    weights = lstsq(fitted / size, TARGETS[target](x), cond=1e-12, lapack_driver="gelsy")[0]
    return lambda x: features(x) @ (weights / size)


def polynomial_limits(target: str, degree: int) -> tuple[float, float]:
    """Least errors that any polynomial of a degree can have: root mean square and greatest.

    The first is least squares; the second is the minimax polynomial, by linear programming.
    ``target`` is a key of ``TARGETS``.
    """
    one_of(target, TARGETS, "target")
    degree = whole_number(degree, "degree")
    x = np.linspace(-1, 1, _FIT_POINTS)
    wanted = TARGETS[target](x)
    powers = np.polynomial.chebyshev.chebvander(x, degree)  # (points, degree + 1)
    residual = powers @ np.linalg.lstsq(powers, wanted, rcond=None)[0] - wanted
    ones = np.ones((len(x), 1))
    found = linprog(
        [0] * (degree + 1) + [1],  # the least bound e with −e ≤ p(x) − f(x) ≤ e
        np.block([[powers, -ones], [-powers, -ones]]),
        np.concatenate([wanted, -wanted]),
        bounds=[(None, None)] * (degree + 1) + [(0, None)],
    )
    return float(np.sqrt(np.mean(residual**2))), float(found.fun)


def log_log_slope(widths: Sequence[int], errors: Array) -> Array:
    """Least-squares slope of log error against log width, one a seed: −1 means error ~ 1/width.

    Two different widths at least, (widths,), and errors above 0, (widths, seeds).
    """
    if len(set(widths)) < 2 or errors.ndim != 2 or len(errors) != len(widths):
        raise ValueError(
            f"widths must be two or more and errors (widths, seeds), got {len(widths)} widths "
            f"and errors {errors.shape}"
        )
    if not (errors > 0).all():
        raise ValueError(f"errors must be above 0, got {errors.min()}")
    return np.polyfit(np.log(widths), np.log(errors), 1)[0]

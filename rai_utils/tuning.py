"""Choosing a learning rate with the same effort for every method, and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rai_utils.checks import numbers
from rai_utils.data import Dataset, Task
from rai_utils.models import DEVELOPMENT, StackedMLP, development_seeds, stack
from rai_utils.training import Fit, Phase, Watch, evaluate, fit_backprop


@dataclass(frozen=True)
class Search:
    """What a search over learning rates found.

    Attributes:
        rate: the rate that is taken.
        learning_rates: the grid, with the rates by which it was widened.
        losses: mean over the tuning networks of the last held-out loss at each rate, (rates,);
            infinite where the loss of one of them was not finite.
        accuracies: mean of their last held-out accuracies, (rates,); a network whose forward pass
            was not finite counts as 0. NaN for regression.
        at_limit: whether the best rate is the outermost one that the limits allow, so that a better
            one may lie beyond; False if it lies inside the grid or as good a one beside it, None
            if nothing was to be widened.
    """

    rate: float
    learning_rates: tuple[float, ...]
    losses: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    at_limit: bool | None


@dataclass(frozen=True)
class Tuning(Search):
    """What ``tune`` found, with the phase that it tuned for: its rate is the one taken."""

    phase: Phase


def tune(
    fit: Callable[..., Fit],
    model: StackedMLP,
    dataset: Dataset,
    steps: int,
    learning_rates: Sequence[float],
    *,
    optimizer: str = "rprop",
    smallest_step: float = 1e-6,
    tie_margin: float | None = None,
    limits: tuple[float, float] | None = None,
    **options: Any,
) -> Tuning:
    """Choose the learning rate whose last held-out loss is lowest, mean over the networks.

    The loss is that of the plain forward pass, whatever the fit minimises. Every rate gets the
    same networks, data and steps: the whole grid is one stacked fit. Of equal rates the first in
    the grid wins. For the second phase of a hand-over give the networks that its first phase left.

    With ``tie_margin``, rates that are as good as the best are ties, and the one nearest to the
    middle of the grid is taken: a choice that is left to noise hangs on how a processor rounds.
    A rate is a tie if its mean exceeds the best one's by no more than the margin; or if Student's
    95 % interval of that excess, paired by network, reaches down to the margin, and the mean is at
    most twice the best one: where a rate trains some networks and leaves the others at chance, no
    test on a few of them tells it from a good one.

    With ``limits``, the grid is widened as long as its lowest or its highest rate has the lowest
    mean, by more than the margin below the rate beside it: by one rate at that end, in the ratio of
    the two outermost, until the best lies inside or the next rate would pass the limit.

    Args:
        fit: ``fit_backprop`` or ``fit_relaxed``.
        model: the tuning networks, of ``development_seeds``; left as they are.
        dataset: the tuning data; its held-out part is the validation data, used for nothing else.
        steps: updates of each network.
        learning_rates: the grid, at least one rate; ascending or descending and two or more where
            it may be widened.
        tie_margin: loss that makes no difference, at least 0, for two networks or more; None: the
            lowest mean wins, by however little.
        limits: lowest and highest rate that may be tried; None: the grid is all.
        options: further arguments of ``fit``, the same for every rate; not ``targets``, which
            belong to networks, and not ``watch``. ``optimizer`` and ``smallest_step`` are as in
            ``Phase``.
    """

    def try_rates(rates: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        each = tuple(rate for rate in rates for _ in range(model.seeds))
        phase = Phase(steps, each, optimizer, smallest_step=smallest_step)
        watch = Watch(evaluate_at=(steps,))
        history = fit(stack([model] * len(rates)), dataset, phase, watch=watch, **options).history
        shape = len(rates), model.seeds
        if not len(history.evaluated_at):  # every network failed before the end
            return np.full(shape, np.inf), np.full(shape, np.nan if regression else 0.0)
        losses = np.nan_to_num(history.held_out_loss[-1], nan=np.inf, posinf=np.inf)
        accuracies = history.held_out_accuracy[-1]
        accuracies = accuracies if regression else np.nan_to_num(accuracies)
        return losses.reshape(shape), accuracies.reshape(shape)

    regression = dataset.task == "regression"
    seeds = model.drawn_from or development_seeds(model.seeds)
    found = search(try_rates, learning_rates, seeds, tie_margin, limits)
    chosen = Phase(steps, found.rate, optimizer, smallest_step=smallest_step)
    return Tuning(**vars(found), phase=chosen)


def search(
    try_rates: Callable[[Sequence[float]], tuple[NDArray[np.float64], NDArray[np.float64]]],
    learning_rates: Sequence[float],
    seeds: Sequence[int],
    tie_margin: float | None = None,
    limits: tuple[float, float] | None = None,
) -> Search:
    """Choose a rate for whatever is trained, by the rules of ``tune``.

    ``try_rates`` returns held-out losses, infinite where one is no number, and accuracies of some
    rates, (rates, networks) each; ``seeds`` are those of the networks, of ``development_seeds``.
    All else as in ``tune``.
    """
    if confirming := [seed for seed in seeds if seed < DEVELOPMENT]:
        raise ValueError(
            f"networks that tune must be of seeds from {DEVELOPMENT} up, got {confirming[0]}"
        )
    networks = len(seeds)
    grid = [*numbers(learning_rates, "learning rates", above=0)]
    if not grid:
        raise ValueError("learning_rates must hold at least one rate, got none")
    if tie_margin is not None and not (0 <= tie_margin < np.inf and networks > 1):
        raise ValueError(
            "tie_margin must be at least 0 and needs 2 networks or more, "
            f"got {tie_margin} and {networks}"
        )
    if limits is not None and (
        len(grid) < 2
        or (grid != sorted(set(grid)) and grid != sorted(set(grid), reverse=True))
        or not limits[0] <= min(grid) <= max(grid) <= limits[1]
    ):
        raise ValueError(
            f"learning rates must be in order, two or more and within {limits}, got {grid}"
        )
    losses, accuracies = try_rates(grid)  # (rates, networks)
    at_limit = None
    while limits is not None:
        means = losses.mean(1)
        edge = int(means.argmin())
        at, beside = (0, 1) if edge == 0 else (len(grid), -2)
        better = means[beside] - means[edge] > (tie_margin or 0)
        at_limit = bool(better and edge in (0, len(grid) - 1))
        beyond = float(f"{grid[edge] ** 2 / grid[beside]:.6g}")
        if not at_limit or not limits[0] <= beyond <= limits[1]:
            break
        loss, accuracy = try_rates([beyond])
        grid.insert(at, beyond)
        losses = np.insert(losses, at, loss[0], 0)
        accuracies = np.insert(accuracies, at, accuracy[0], 0)
    best = int(losses.mean(1).argmin())
    taken = [best] if tie_margin is None else _ties(losses, best, tie_margin)
    rate = grid[min(taken, key=lambda row: abs(2 * row - len(grid) + 1))]
    return Search(rate, tuple(grid), losses.mean(1), accuracies.mean(1), at_limit)


def _ties(losses: NDArray[np.float64], best: int, margin: float) -> list[int]:
    """Return the rows of ``losses``, (rates, networks), that are as good as row ``best``."""
    from scipy import special

    networks = losses.shape[1]
    tied = [best]
    for row in np.flatnonzero(np.isfinite(losses).all(1)):
        excess = losses[row] - losses[best]
        half_width = special.stdtrit(networks - 1, 0.975) * excess.std(ddof=1) / networks**0.5
        noise = excess.mean() - half_width <= margin and excess.mean() <= losses[best].mean()
        if excess.mean() <= margin or noise:
            tied.append(int(row))
    return sorted(set(tied))


@dataclass(frozen=True)
class TunedFit:
    """A fit with the learning rate that did best on other networks and other data."""

    fit: Fit
    tuning: Tuning

    @property
    def learning_rate(self) -> float:
        """The rate chosen."""
        return self.tuning.rate


def fit_tuned(
    model: StackedMLP,
    dataset: Dataset,
    tuning_model: StackedMLP,
    tuning_dataset: Dataset,
    steps: int,
    learning_rates: Sequence[float],
    *,
    fit: Callable[..., Fit] = fit_backprop,
    optimizer: str = "rprop",
    watch: Watch | None = None,
    **options: Any,
) -> TunedFit:
    """``tune`` on one set of networks and data, then fit another with the rate it chose.

    Args:
        model, dataset: the networks to report, and their data.
        tuning_model, tuning_dataset: networks of development seeds, of the same architecture, and
            other data, whose held-out part is the validation data.
        steps: updates of each fit.
        learning_rates, fit, optimizer, options: as in ``tune``.
        watch: when the reported fit records.
    """
    if model.architecture != tuning_model.architecture:
        raise ValueError(
            f"both models must have the architecture {model.architecture}, "
            f"got {tuning_model.architecture}"
        )
    tuning = tune(
        fit, tuning_model, tuning_dataset, steps, learning_rates, optimizer=optimizer, **options
    )
    return TunedFit(fit(model, dataset, tuning.phase, watch=watch, **options), tuning)


@dataclass(frozen=True)
class EarlyStopping:
    """Where a run is best ended, judged on data that it has not seen; all (seeds,).

    Attributes:
        stopped_at: step with the lowest validation loss among the snapshots.
        stopped_loss: test loss there.
        stopped_accuracy: test accuracy there.
    """

    stopped_at: NDArray[np.int64]
    stopped_loss: NDArray[np.float64]
    stopped_accuracy: NDArray[np.float64]


def stop_early(fit: Fit, x: Tensor, y: Tensor, task: Task) -> EarlyStopping:
    """Judge the snapshot of lowest validation loss of each network on test data ``x``, ``y``.

    The held-out part of the data that the fit was given is the validation set: it chooses, so it
    may not judge. Its losses must be numbers, and snapshots must have been taken at steps where the
    fit was evaluated too, or a ValueError says so.
    """
    steps = np.array(sorted(fit.snapshots), dtype=np.int64)
    evaluated = fit.history.evaluated_at
    if not steps.size or not np.isin(steps, evaluated).all():
        raise ValueError(
            f"snapshots must be at evaluated steps, got {steps.tolist()} and {evaluated.tolist()}"
        )
    validation = fit.history.held_out_loss[np.isin(evaluated, steps)]  # (snapshots, seeds)
    if np.isnan(validation).any():
        raise ValueError("validation losses must be numbers, got NaN: the fit failed for a seed")
    judged = np.array([evaluate(fit.snapshots[step], x, y, task) for step in steps])
    chosen = validation.argmin(0)  # (seeds,)
    loss, accuracy = judged[chosen, :, np.arange(len(chosen))].T
    return EarlyStopping(steps[chosen], loss, accuracy)

"""Choosing a learning rate with the same effort for every method, and when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rai_utils.data import Dataset, Task
from rai_utils.models import StackedMLP
from rai_utils.training import Fit, Phase, Watch, evaluate, fit_backprop


def tune_learning_rate(
    model: StackedMLP,
    dataset: Dataset,
    steps: int,
    grid: Sequence[float],
    optimizer: str = "adam",
) -> tuple[float, NDArray[np.float64]]:
    """Take the learning rate whose run comes to the lowest held-out loss, median over seeds.

    The lowest along a run counts, not the last, so that a rate which overfits early does not lose
    for that. Use seeds and data that no reported number uses.

    Args:
        model: the networks to start from; left as they are.
        dataset: the examples; its held-out part is the validation set.
        steps: updates of each run.
        grid: learning rates, at least one.
        optimizer: as in ``Phase``.

    Returns:
        The learning rate, and the median of the lowest losses, (rates,); infinite where the
        loss was finite for fewer than half of the seeds.

    Raises:
        ValueError: the grid is empty, or as ``fit_backprop``.
    """
    if not grid:
        raise ValueError("grid must hold at least one learning rate, got none")
    watch = Watch(evaluate_at=sorted({*range(0, steps, max(1, steps // 20)), steps}))
    medians = []
    for rate in grid:
        fit = fit_backprop(model, dataset, Phase(steps, rate, optimizer), watch=watch, device="cpu")
        losses = np.where(np.isfinite(fit.history.held_out_loss), fit.history.held_out_loss, np.inf)
        medians.append(np.median(losses.min(0)))
    return float(grid[int(np.argmin(medians))]), np.array(medians)


@dataclass(frozen=True)
class EarlyStopping:
    """Two ways to end one run, judged on data that neither has seen; all (seeds,).

    Attributes:
        stopped_at: step with the lowest validation loss among the snapshots.
        stopped_loss: test loss there.
        final_loss: test loss after the last snapshot.
        stopped_accuracy: test accuracy there.
        final_accuracy: test accuracy after the last snapshot.
    """

    stopped_at: NDArray[np.int64]
    stopped_loss: NDArray[np.float64]
    final_loss: NDArray[np.float64]
    stopped_accuracy: NDArray[np.float64]
    final_accuracy: NDArray[np.float64]


def stop_early(fit: Fit, x: Tensor, y: Tensor, task: Task) -> EarlyStopping:
    """Compare the snapshot of lowest validation loss with the last one, on test data.

    The held-out part of the data that the fit was given is the validation set: it chooses, so it
    may not judge.

    Args:
        fit: a fit whose snapshots were taken at steps where it was evaluated too.
        x: test inputs, (examples, features).
        y: test labels, (examples,).
        task: what the labels mean.

    Raises:
        ValueError: there is no snapshot, one has no evaluation, or a validation loss is NaN.
    """
    steps = np.array(sorted(fit.snapshots), dtype=np.int64)
    evaluated = fit.history.evaluated_at
    if not steps.size or not np.isin(steps, evaluated).all():
        raise ValueError(
            f"expected snapshots at evaluated steps, got {steps.tolist()} and {evaluated.tolist()}"
        )
    validation = fit.history.held_out_loss[np.isin(evaluated, steps)]  # (snapshots, seeds)
    if np.isnan(validation).any():
        raise ValueError("expected validation losses, got NaN: the fit failed for a seed")
    judged = np.array([evaluate(fit.snapshots[step], x, y, task) for step in steps])
    chosen = validation.argmin(0)  # (seeds,)
    seeds = np.arange(len(chosen))
    return EarlyStopping(
        steps[chosen],
        judged[chosen, 0, seeds],
        judged[-1, 0],
        judged[chosen, 1, seeds],
        judged[-1, 1],
    )

"""Learned against random features over the number of units, and overfitting over the width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rai_utils import data, tuning
from rai_utils.checks import one_of, whole_number
from rai_utils.data import Dataset
from rai_utils.experiments.network_basics.representation import logistic_regression_on_features
from rai_utils.experiments.sweep import Sweep, grid
from rai_utils.models import (
    Architecture,
    StackedMLP,
    build_mlp,
    confirmation_seeds,
    development_seeds,
    forward,
    stack,
)
from rai_utils.relaxation import output_loss
from rai_utils.training import Fit, Phase, Watch, evaluate, fit_backprop, module_steps

PROBLEMS = {"circles": data.circles, "XOR": data.exclusive_or}
UNITS = (2, 4, 8, 32)
GAINS = tuple(2.0**power for power in range(-2, 5))  # ¼ … 16
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
TIE = 0.005  # of accuracy: of starts within it of the best the one nearest to the grid's middle
# Networks and draws 0 to 9 showed that one side had been tuned with less effort: others judge.
FIRST = 100
WIDTHS = (2, 4, 16, 64)
LOOK_EVERY = 10


def _draw(problem: str, number: int) -> Dataset:
    return PROBLEMS[problem](seed=number, held_out_seed=10_000 + number)


def feature_accuracies(
    problem: str,
    shape: Architecture,
    starts: Sequence[tuple[float, float | None]],
    number: int,
    steps: int,
) -> np.ndarray:
    """Held-out accuracy of logistic regression on a hidden layer, for each start, (starts,).

    Args:
        problem: a key of ``PROBLEMS``.
        shape: of the networks.
        starts: (factor on the weights, learning rate of Adam); all rates are None for layers that
            stay as they were drawn, or none is.
        number: of the network and of its draw of the data.
        steps: of Adam.
    """
    drawn = _draw(problem, number)
    model = stack([build_mlp(shape, [number], "torch_default", gain) for gain, _ in starts])
    rates = tuple(rate for _, rate in starts if rate is not None)
    if rates:
        phase = Phase(steps, rates, "adam")
        model = fit_backprop(model, drawn, phase, watch=Watch((steps,)), device="cpu").model
    return logistic_regression_on_features(model, drawn)


def features_cell(
    problem: str, activation: str, units: int, networks: int, steps: int
) -> dict[str, Any]:
    """Held-out accuracy of logistic regression on one hidden layer, learned and random.

    Each network (2, units, 1) has a draw of the data of its own. Weights and biases start uniform,
    as ``torch.nn.Linear`` draws them, so no symmetry is in them. The random layer is that start
    times a factor of ``GAINS``; the learned one is trained by Adam from such a start, at a rate of
    ``RATES``. Both take what has the best mean accuracy on the same development networks and draws.

    Args:
        problem: a key of ``PROBLEMS``.
        activation: a key of ``ACTIVATIONS``.
        units: of the hidden layer.
        networks: as many to report, of seeds from ``FIRST``.
        steps: of Adam.

    Returns:
        For ``learned`` and ``random``: accuracies, (networks,); ``…_gain``, and ``learning_rate``;
        ``…_inside``, whether none of them is the lowest or highest of its grid.
    """
    one_of(problem, PROBLEMS, "problem")
    shape = Architecture((2, units, 1), activation)
    found: dict[str, Any] = {}
    for kind, rates in (("learned", RATES), ("random", (None,))):
        grids = GAINS, rates
        starts = [*product(*grids)]
        tried = [
            feature_accuracies(problem, shape, starts, number, steps)
            for number in development_seeds(6)
        ]
        means = np.mean(tried, axis=0).reshape(len(GAINS), len(rates))
        middle = [(len(grid) - 1) / 2 for grid in grids]
        tied = np.argwhere(means >= means.max() - TIE)  # (ties, 2)
        place = min(tied.tolist(), key=lambda at: abs(np.subtract(at, middle)).sum())
        gain, rate = (grid[at] for grid, at in zip(grids, place, strict=True))
        found[kind] = [
            float(feature_accuracies(problem, shape, [(gain, rate)], number, steps)[0])
            for number in range(FIRST, FIRST + networks)
        ]
        found[f"{kind}_gain"] = gain
        if rate is not None:
            found["learning_rate"] = rate
        found[f"{kind}_inside"] = all(
            0 < at < len(grid) - 1 for grid, at in zip(grids, place, strict=True) if len(grid) > 1
        )
    return found


def train_on_draws(
    problem: str,
    shape: Architecture,
    networks: int,
    steps: int,
    rates: Sequence[float],
    tuning_networks: int,
) -> tuple[StackedMLP, np.ndarray, list[Dataset]]:
    """Train by Adam from Xavier's start, each network on a draw of the data of its own.

    Args:
        problem: a key of ``PROBLEMS``.
        shape: of the networks.
        networks: as many to report, of seeds and draws from 0.
        steps: of Adam.
        rates: of which the one is taken with the lowest mean held-out loss on development
            networks and draws.
        tuning_networks: how many of these.

    Returns:
        The networks, their accuracies on the training part, (networks,), and their draws.
    """
    one_of(problem, PROBLEMS, "problem")

    def fit(numbers: Sequence[int], rate: float) -> tuple[StackedMLP, list[Dataset]]:
        model, drawn = build_mlp(shape, numbers, "xavier"), [_draw(problem, n) for n in numbers]
        parts = shape, [*model.weights], [*model.biases]
        x, y = torch.stack([each.x for each in drawn]), torch.stack([each.y for each in drawn])
        # Adam goes number by number, so the sum of all losses trains each network by itself.
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)

        def loss() -> Tensor:
            return output_loss(forward(*parts, x), y, shape.output_activation).sum()

        for _ in module_steps(optimizer, loss, steps):
            pass
        return model, drawn

    def try_rates(tried: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        rows = []
        for rate in tried:
            model, drawn = fit(development_seeds(tuning_networks), rate)
            judged = [
                evaluate(model.select([place]), each.held_out_x, each.held_out_y, each.task)
                for place, each in enumerate(drawn)
            ]
            rows.append(np.array(judged)[..., 0])  # (networks, loss and accuracy)
        losses, accuracies = np.moveaxis(np.array(rows), 2, 0)  # (rates, networks) each
        return np.nan_to_num(losses, nan=np.inf), accuracies

    chosen = tuning.search(try_rates, rates, development_seeds(tuning_networks)).rate
    model, drawn = fit(confirmation_seeds(networks), chosen)
    accuracies = [
        float(evaluate(model.select([place]), each.x, each.y, each.task)[1][0])
        for place, each in enumerate(drawn)
    ]
    return model, np.array(accuracies), drawn


def overfitted(width: int, number: int, steps: int) -> tuple[Fit, Dataset, Dataset]:
    """Train (2, width, width, 1) ReLU on 40 noisy points of Moons, by Adam with rate 0.01.

    Returns the fit, looked at and kept every tenth step; the data, whose held-out part is a
    validation set of 200; and the test data, 1000 held-out points of another draw. All are drawn
    by the number.
    """
    whole_number(steps, "steps", LOOK_EVERY)
    drawn = data.moons(40, 0.3, seed=number, held_out=200, held_out_seed=10_000 + number)
    test = data.moons(2, 0.3, seed=number, held_out=1000, held_out_seed=20_000 + number)
    start = build_mlp(Architecture((2, width, width, 1), "relu"), [number], "he")
    looks = tuple(range(0, steps + 1, LOOK_EVERY))
    watch = Watch(evaluate_at=looks, snapshot_at=looks)
    fit = fit_backprop(start, drawn, Phase(steps, 0.01, "adam"), watch=watch, device="cpu")
    return fit, drawn, test


def by_accuracy(fit: Fit) -> Fit:
    """Return a fit that ``stop_early`` stops at the first highest validation accuracy."""
    error = 1 - fit.history.held_out_accuracy
    return replace(fit, history=replace(fit.history, held_out_loss=error))


def overfitting_cell(width: int, number: int, steps: int) -> dict[str, Any]:
    """How a network of a width ends, and how it does where it is stopped early.

    Arguments as ``overfitted``. Stopped at the highest validation accuracy, as the lecture does,
    and at the lowest validation loss; all are judged on the test data.

    Returns:
        ``training_accuracy``, ``accuracy`` and ``loss`` at the end; ``stopped_at``, ``accuracy``
        and ``loss`` for ``by_accuracy`` and ``by_loss``.
    """
    fit, _, test = overfitted(width, number, steps)
    judged = test.held_out_x, test.held_out_y, "binary"
    loss, accuracy = (float(v[0]) for v in evaluate(fit.model, *judged))
    ends = {"accuracy": accuracy, "loss": loss}
    for name, each in (("by_accuracy", by_accuracy(fit)), ("by_loss", fit)):
        found = tuning.stop_early(each, *judged)
        ends |= {
            f"{name}_stopped_at": int(found.stopped_at[0]),
            f"{name}_accuracy": float(found.stopped_accuracy[0]),
            f"{name}_loss": float(found.stopped_loss[0]),
        }
    return {"training_accuracy": float(fit.history.accuracy[-1, 0]), **ends}


def loss_plane(
    path: list[StackedMLP], dataset: Dataset, resolution: int = 41, margin: float = 0.4
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Training loss on the plane in which the path of a network's weights varies most.

    The plane goes through the last network along the first two principal directions of the path
    (Li et al. 2018, section 7.2).

    Args:
        path: one network at so many steps, three or more.
        dataset: its data.
        resolution: points along an axis, at least 2.
        margin: of the plane around the path, as a share of its extent.

    Returns:
        Both axes, (resolution,) each; the loss, (resolution, resolution), second direction first;
        the path in the plane, (steps, 2); and the share of its squared length that lies there.
    """
    resolution = whole_number(resolution, "resolution", 2)
    if len(path) < 3:
        raise ValueError(f"path must have 3 networks or more, got {len(path)}")
    flat = [nn.utils.parameters_to_vector(model.parameters()) for model in path]
    rows = torch.stack(flat).detach().double().numpy()
    centred = rows - rows[-1]
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    way = centred @ directions[:2].T  # (steps, 2)
    spread = np.ptp(way, axis=0) * margin + 1e-9
    first, second = np.linspace(way.min(0) - spread, way.max(0) + spread, resolution).T
    weights = np.stack([g.ravel() for g in np.meshgrid(first, second)], 1) @ directions[:2]
    at: list[StackedMLP] = []
    for row in torch.from_numpy(rows[-1] + weights).to(flat[-1].dtype):
        at.append(path[-1].select([0]))
        nn.utils.vector_to_parameters(row, at[-1].parameters())
    loss, _ = evaluate(stack(at), dataset.x, dataset.y, dataset.task)
    share = float((sizes[:2] ** 2).sum() / (sizes**2).sum())
    return first, second, np.reshape(loss, (resolution, resolution)), way, share


SWEEPS = (
    Sweep(
        "learned-features",
        grid(
            problem=PROBLEMS, activation=["tanh", "relu"], units=UNITS, networks=[10], steps=[300]
        ),
        features_cell,
    ),
    Sweep(
        "overfitting",
        grid(width=WIDTHS, number=confirmation_seeds(10), steps=[400]),
        overfitting_cell,
    ),
)

"""What to look at in trained and untrained networks: maps, gradients, spread, references."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from rai_utils.data import Dataset
from rai_utils.models import StackedMLP, layer_norms, pre_activations
from rai_utils.relaxation import OutputLoss, output_loss
from rai_utils.training import default_loss

Array = NDArray[np.float64]


def decision_map(
    model: StackedMLP, limits: tuple[float, float] = (-3.0, 3.0), resolution: int = 100
) -> tuple[Array, Array]:
    """Output of networks with two inputs and one output on a square grid, in one evaluation.

    Args:
        model: the networks.
        limits: ends of both axes.
        resolution: grid points along an axis, at least 2.

    Returns:
        The grid along either axis, (resolution,), and the output, (seeds, resolution,
        resolution): first the second input (rows, upwards), then the first (columns).

    Raises:
        ValueError: the networks have other inputs or outputs, or the grid is empty.
    """
    widths = model.architecture.widths
    if (widths[0], widths[-1]) != (2, 1):
        raise ValueError(
            f"a decision map needs 2 inputs and 1 output, got {widths[0]} and {widths[-1]}"
        )
    if resolution < 2 or not limits[0] < limits[1]:
        raise ValueError(
            f"a grid needs at least 2 points between two ascending limits, got {resolution} "
            f"between {limits[0]} and {limits[1]}"
        )
    axis = np.linspace(*limits, resolution)
    first, second = np.meshgrid(axis, axis)
    points = torch.from_numpy(np.stack([first.ravel(), second.ravel()], 1)).to(
        model.weights[0].device, model.weights[0].dtype
    )  # (resolution², 2)
    output = model.predict(points)[..., 0]  # (seeds, resolution²)
    return axis, output.double().cpu().numpy().reshape(-1, resolution, resolution)


def disagreement(maps: Array, others: Array) -> Array:
    """Share of the grid on which two sets of networks decide differently.

    Args:
        maps: probabilities, (networks, rows, columns).
        others: probabilities, (other networks, rows, columns).

    Returns:
        Shares in 0 … 1, (networks, other networks).

    Raises:
        ValueError: the grids differ.
    """
    if maps.ndim != 3 or maps.shape[1:] != others.shape[1:]:
        raise ValueError(
            "decision maps must have shape (networks, rows, columns) on one grid, "
            f"got {maps.shape} and {others.shape}"
        )
    first = (maps > 0.5).reshape(len(maps), -1).astype(float)
    second = (others > 0.5).reshape(len(others), -1).astype(float)
    return (first @ (1 - second).T + (1 - first) @ second.T) / first.shape[1]


def mean_pairwise(shares: Array, level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Mean over pairs of runs, with an interval that knows that pairs share runs.

    The mean over the n(n − 1)/2 pairs is a U-statistic; its standard error is the jackknife's,
    one run left out at a time, and the interval is Student's with n − 1 degrees of freedom.

    Args:
        shares: a symmetric quantity of pairs, (runs, runs); the diagonal is not read.
        level: coverage, between 0 and 1.

    Returns:
        The mean and its interval.

    Raises:
        ValueError: the array is not square with at least 3 runs.
    """
    if shares.ndim != 2 or shares.shape[0] != shares.shape[1] or len(shares) < 3:
        raise ValueError(f"shares must be (runs, runs) with 3 runs or more, got {shares.shape}")
    runs = len(shares)
    off_diagonal = shares * (1 - np.eye(runs))
    total, by_run = off_diagonal.sum(), off_diagonal.sum(1)
    mean = total / (runs * (runs - 1))
    left_out = (total - 2 * by_run) / ((runs - 1) * (runs - 2))
    error = np.sqrt((runs - 1) / runs * ((left_out - left_out.mean()) ** 2).sum())
    reach = stats.t.ppf((1 + level) / 2, runs - 1) * error
    return float(mean), (float(mean - reach), float(mean + reach))


def gradient_norms(model: StackedMLP, dataset: Dataset, loss: OutputLoss | None = None) -> Array:
    """Backpropagation's gradient norm per layer, weights and bias together.

    Args:
        model: the networks.
        dataset: gradients are of the loss on its training part.
        loss: the output error; None for the task's default.

    Returns:
        Euclidean norms, (T, seeds).
    """
    parameters = [*model.weights, *model.biases]
    z = model(dataset.x)
    total = output_loss(
        z, dataset.y, model.architecture.output_activation, loss or default_loss(dataset.task)
    )
    gradients = torch.autograd.grad(total.sum(), parameters)
    runs = len(model.architecture.runs)
    return layer_norms(gradients[:runs], gradients[runs:]).cpu().numpy()


def spread_across_examples(model: StackedMLP, x: Tensor) -> Array:
    """How far the examples lie apart in each layer of the plain forward pass.

    Standard deviation of z_t across examples, root mean square over units, computed in float64
    from the values that the network's own precision gives: 0 means that the layer no longer
    tells any two examples apart.

    Args:
        model: the networks.
        x: inputs, (examples, features).

    Returns:
        (T, seeds).
    """
    spreads = [
        z.double().var(1, correction=0).mean(1).sqrt() for z in pre_activations(model, x)
    ]  # each (seeds,)
    return torch.stack(spreads).cpu().numpy()


def first_nonzero(steps: NDArray[np.int64], values: Array) -> Array:
    """Step at which each layer's value is first above 0.

    Args:
        steps: ascending, (records,).
        values: (records, layers, seeds).

    Returns:
        Steps, (layers, seeds); infinite where it never is.

    Raises:
        ValueError: the number of steps and records differ.
    """
    if len(steps) != len(values):
        raise ValueError(f"there must be one step a record, got {len(steps)} and {len(values)}")
    nonzero = values > 0
    first = np.asarray(steps, dtype=float)[nonzero.argmax(0)]
    return np.where(nonzero.any(0), first, np.inf)


def logistic_regression(dataset: Dataset) -> tuple[float, float]:
    """Accuracy of scikit-learn's logistic regression, the best that a linear solution does here.

    Args:
        dataset: a classification problem.

    Returns:
        Training and held-out accuracy.

    Raises:
        ValueError: the problem is a regression.
    """
    if dataset.task == "regression":
        raise ValueError("logistic regression needs a classification problem, got a regression")
    x, y = dataset.x.cpu().numpy(), dataset.y.cpu().numpy()
    fitted = LogisticRegression(C=np.inf, max_iter=10_000).fit(x, y)
    held_out = fitted.score(dataset.held_out_x.cpu().numpy(), dataset.held_out_y.cpu().numpy())
    return float(fitted.score(x, y)), float(held_out)


def best_linear_accuracy(x: Array, y: Array) -> float:
    """Greatest share of points with two features that any straight line classifies right.

    Exact: the order in which a line meets the points as it sweeps over them changes only at the
    directions perpendicular to the line through two points, so one direction between every two
    neighbouring ones, with every threshold and both sides, covers all lines.

    Args:
        x: points, (n, 2).
        y: labels 0 or 1, (n,).

    Raises:
        ValueError: the shapes do not fit, or a label is neither 0 nor 1.
    """
    if x.ndim != 2 or x.shape[1] != 2 or y.shape != x.shape[:1] or not len(x):
        raise ValueError(f"expected points (n, 2) and labels (n,), got {x.shape} and {y.shape}")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {np.unique(y).tolist()}")
    first, second = np.triu_indices(len(x), 1)
    between = x[second] - x[first]
    critical = np.unique(np.mod(np.arctan2(between[:, 1], between[:, 0]) + np.pi / 2, np.pi))
    critical = np.append(critical, critical[0] + np.pi if critical.size else np.pi)
    angles = (critical[1:] + critical[:-1]) / 2 if critical.size > 1 else np.zeros(1)
    best = max(np.mean(y == 0), np.mean(y == 1))
    for chunk in np.array_split(angles, max(1, len(angles) // 4096)):
        along = np.stack([np.cos(chunk), np.sin(chunk)]).T @ x.T  # (directions, n)
        ordered = y[np.argsort(along, axis=1)]
        right = np.cumsum(1 - 2 * ordered, axis=1) + y.sum()  # class 0 below, class 1 above
        best = max(best, right.max() / len(x), 1 - right.min() / len(x))
    return float(best)


def last_hidden_layer(model: StackedMLP, x: Tensor) -> Array:
    """Activations of the last hidden layer, the features that the output layer reads.

    Args:
        model: networks with one hidden layer or more, without skip connections.
        x: inputs, (examples, features).

    Returns:
        (seeds, examples, units).

    Raises:
        ValueError: there is no hidden layer, or there are skip connections.
    """
    if model.architecture.depth < 2 or model.architecture.skip_connections:
        raise ValueError(f"expected a plain network with a hidden layer, got {model.architecture}")
    z = pre_activations(model, x)[-2]
    return model.architecture.activation.function(z).double().cpu().numpy()


def logistic_regression_on_features(model: StackedMLP, dataset: Dataset) -> Array:
    """Held-out accuracy of logistic regression on each network's last hidden layer.

    Args:
        model: the networks, trained or not.
        dataset: a classification problem.

    Returns:
        (seeds,).

    Raises:
        ValueError: the problem is a regression, or as ``last_hidden_layer``.
    """
    if dataset.task == "regression":
        raise ValueError("logistic regression needs a classification problem, got a regression")
    y, held_out_y = dataset.y.cpu().numpy(), dataset.held_out_y.cpu().numpy()
    accuracies = []
    for features, held_out in zip(
        last_hidden_layer(model, dataset.x),
        last_hidden_layer(model, dataset.held_out_x),
        strict=True,
    ):
        # A weak penalty (C = 1000): learned features are often separable, and without one the
        # coefficients would grow without end.
        fitted = LogisticRegression(C=1000.0, max_iter=10_000).fit(features, y)
        accuracies.append(fitted.score(held_out, held_out_y))
    return np.array(accuracies)


def composed_weights(model: StackedMLP) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one linear layer that a stack of linear layers equals.

    Args:
        model: networks with the activation ``"identity"``, without skip connections.

    Returns:
        W_T … W_1, (seeds, outputs, inputs), and the bias, (seeds, 1, outputs).

    Raises:
        ValueError: the networks have another activation or skip connections.
    """
    architecture = model.architecture
    if architecture.hidden_activation != "identity" or architecture.skip_connections:
        raise ValueError(f"expected a plain network of linear layers, got {architecture}")
    layers = [
        (weight[offset].detach(), bias[offset].detach())
        for run, weight, bias in zip(architecture.runs, model.weights, model.biases, strict=True)
        for offset in range(run.layers)
    ]
    product, shift = layers[0]
    for weight, bias in layers[1:]:
        product, shift = weight @ product, shift @ weight.mT + bias
    return product, shift

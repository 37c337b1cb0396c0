"""What to look at in trained and untrained networks: maps, gradients, spread, references.

``model`` are stacked networks, ``dataset`` as in ``training``. What does not fit is refused with a
ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rai_utils.checks import number, whole_number
from rai_utils.data import Dataset
from rai_utils.models import StackedMLP, forward, layer_norms
from rai_utils.relaxation import OutputLoss, output_loss
from rai_utils.training import loss_for

Array = NDArray[np.float64]


def decision_map(
    model: StackedMLP, limits: tuple[float, float] = (-3.0, 3.0), resolution: int = 100
) -> tuple[Array, Array]:
    """Output of networks with two inputs and one output on a square grid, in one evaluation.

    Args:
        model: the networks.
        limits: ends of both axes, ascending.
        resolution: grid points along an axis, at least 2.

    Returns:
        The grid along either axis, (resolution,), and the output, (seeds, resolution, resolution):
            first the second input (rows, upwards), then the first (columns).
    """
    widths = model.architecture.widths
    if (widths[0], widths[-1]) != (2, 1):
        raise ValueError(
            f"a decision map needs 2 inputs and 1 output, got {widths[0]} and {widths[-1]}"
        )
    resolution = whole_number(resolution, "resolution", 2)
    low, high = (number(limit, "a limit of the map") for limit in limits)
    if not low < high:
        raise ValueError(f"a map needs two ascending limits, got {low:g} and {high:g}")
    axis = np.linspace(low, high, resolution)
    first, second = np.meshgrid(axis, axis)
    points = torch.from_numpy(np.stack([first.ravel(), second.ravel()], 1)).to(
        model.weights[0].device, model.weights[0].dtype
    )  # (resolution², 2)
    output = model.predict(points)[..., 0]  # (seeds, resolution²)
    return axis, output.double().cpu().numpy().reshape(-1, resolution, resolution)


def disagreement(maps: Array, others: Array) -> Array:
    """Share of the grid, 0 … 1, on which two sets of networks decide differently.

    The two are probabilities, (networks, rows, columns) each, on one grid; the shares are
    (networks, other networks).
    """
    if maps.ndim != 3 or maps.shape[1:] != others.shape[1:]:
        raise ValueError(
            "decision maps must have shape (networks, rows, columns) on one grid, "
            f"got {maps.shape} and {others.shape}"
        )
    first = (maps > 0.5).reshape(len(maps), -1).astype(float)
    second = (others > 0.5).reshape(len(others), -1).astype(float)
    return (first @ (1 - second).T + (1 - first) @ second.T) / first.shape[1]


def mean_of_pairs(distances: Array, rows: Sequence[int]) -> float | None:
    """Mean over all pairs of different ``rows`` of a matrix; None for fewer than two."""
    chosen = distances[np.ix_(rows, rows)]
    return float(chosen[np.triu_indices(len(rows), 1)].mean()) if len(rows) > 1 else None


def loss_gradients(model: StackedMLP, dataset: Dataset) -> tuple[Tensor, ...]:
    """Backpropagation's gradient: of the network's own loss on the training part.

    Returns the gradients of ``model.weights``, then of ``model.biases``.
    """
    z = model(dataset.x)
    total = output_loss(z, dataset.y, model.architecture.output_activation, loss_for(dataset.task))
    return torch.autograd.grad(total.sum(), [*model.weights, *model.biases])


def gradient_norms(model: StackedMLP, dataset: Dataset) -> Array:
    """Euclidean norm of ``loss_gradients`` per layer, weights and bias together, (T, seeds)."""
    gradients = loss_gradients(model, dataset)
    runs = len(model.architecture.runs)
    return layer_norms(gradients[:runs], gradients[runs:]).cpu().numpy()


def gradients_of(trained: Sequence[Collection[int]]) -> Callable[..., tuple[Tensor, ...]]:
    """Return backpropagation's gradients with 0 for all but some layers, which Rprop leaves alone.

    ``trained`` are the layers of each network that keep theirs. As ``fit_backprop`` takes them:
    those of ``model.weights``, then of ``model.biases``.
    """

    def find(model: StackedMLP, x: Tensor, y: Tensor, *, loss: OutputLoss) -> tuple[Tensor, ...]:
        architecture, runs = model.architecture, len(model.weights)
        leaves = [part.detach().requires_grad_() for part in (*model.weights, *model.biases)]
        z = forward(architecture, leaves[:runs], leaves[runs:], x)
        total = output_loss(z, y, architecture.output_activation, loss).sum()
        gradients = torch.autograd.grad(total, leaves)
        for gradient, run in zip(gradients, architecture.runs * 2, strict=True):
            for network, layers in enumerate(trained):
                others = [i for i in range(run.layers) if run.first + i not in layers]
                gradient[others, network] = 0.0
        return gradients

    return find


def backward_gains(model: StackedMLP, dataset: Dataset) -> Array:
    """‖∂L/∂z_t‖ / ‖∂L/∂z_{t+1}‖ of the first network, t = 1 … T − 1: what a layer hands down.

    L is the network's own loss on the training data, of one output with a sigmoid. In double
    precision: in single, the gradients of a deep network at its start round to 0.
    """
    h, values = dataset.x.double(), []
    for part in model.as_module(0).double():
        h = part(h)
        if isinstance(part, nn.Linear):
            values.append(h)
    loss = nn.functional.binary_cross_entropy_with_logits(h[:, 0], dataset.y.double())
    norms = [gradient.norm() for gradient in torch.autograd.grad(loss, values)]
    return np.array([float(below / above) for below, above in pairwise(norms)])


def logistic_regression(dataset: Dataset) -> tuple[float, float]:
    """Accuracy of scikit-learn's logistic regression, the best that a linear solution does here.

    Returns training and held-out accuracy; a regression problem is refused with a ValueError.
    """
    from sklearn.linear_model import LogisticRegression

    if dataset.task == "regression":
        raise ValueError("logistic regression needs a classification problem, got a regression")
    x, y = dataset.x.cpu().numpy(), dataset.y.cpu().numpy()
    fitted = LogisticRegression(C=np.inf, max_iter=10_000).fit(x, y)
    held_out = fitted.score(dataset.held_out_x.cpu().numpy(), dataset.held_out_y.cpu().numpy())
    return float(fitted.score(x, y)), float(held_out)

"""What hidden layers make of their inputs, and what a line can do without them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from rai_utils.data import Dataset
from rai_utils.models import StackedMLP, pre_activations

Array = NDArray[np.float64]


def best_linear_accuracy(x: Array, y: Array) -> float:
    """Greatest share of points with two features that any straight line classifies right.

    Exact: the order in which a line meets the points as it sweeps over them changes only at the
    directions perpendicular to the line through two points, so one direction between every two
    neighbouring ones, with every threshold and both sides, covers all lines. Points are (n, 2),
    labels 0 or 1, (n,).
    """
    if x.ndim != 2 or x.shape[1] != 2 or y.shape != x.shape[:1] or not len(x):
        raise ValueError(f"points must be (n, 2) and labels (n,), got {x.shape} and {y.shape}")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {np.unique(y).tolist()}")
    y = y.astype(np.int64)
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

    Shape (seeds, examples, units). Networks without a hidden layer, or with skip connections, are
    refused with a ValueError.
    """
    if model.architecture.depth < 2 or model.architecture.skip_connections:
        raise ValueError(f"the network must be plain with a hidden layer, got {model.architecture}")
    z = pre_activations(model, x)[-2]
    return model.architecture.activation.function(z).double().cpu().numpy()


def logistic_regression_on_features(model: StackedMLP, dataset: Dataset) -> Array:
    """Held-out accuracy of logistic regression on each network's last hidden layer, (seeds,).

    A regression problem is refused with a ValueError, networks as by ``last_hidden_layer``.
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

    W_T … W_1, (seeds, outputs, inputs), and the bias, (seeds, 1, outputs). Networks with another
    activation than ``"identity"``, or with skip connections, are refused with a ValueError.
    """
    architecture = model.architecture
    if architecture.hidden_activation != "identity" or architecture.skip_connections:
        raise ValueError(f"the network must be plain and of linear layers, got {architecture}")
    (product, shift), *rest = model.layers()
    for weight, bias in rest:
        product, shift = weight @ product, shift @ weight.mT + bias
    return product.detach(), shift.detach()

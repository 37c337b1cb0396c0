"""Features and lines against slow loops and closed forms."""

import numpy as np
import pytest
import torch

from rai_utils.data import exclusive_or, moons
from rai_utils.experiments.network_basics.representation import (
    best_linear_accuracy,
    composed_weights,
    last_hidden_layer,
    logistic_regression_on_features,
)
from rai_utils.models import Architecture, build_mlp

DATA = moons(30, held_out=40)


def network(activation="tanh", widths=(2, 6, 5, 1)):
    return build_mlp(Architecture(widths, activation), range(2), "xavier", dtype=torch.float64)


def test_best_line_is_that_of_a_loop_over_directions():
    generator = np.random.default_rng(0)
    for _ in range(5):
        x, y = generator.normal(size=(25, 2)), generator.integers(0, 2, 25)
        best = 0.0
        for angle in np.linspace(0, np.pi, 4000, endpoint=False):
            along = x @ (np.cos(angle), np.sin(angle))
            thresholds = np.array([-np.inf, *along])[:, None]
            shares = ((along > thresholds) == y).mean(axis=1)
            best = max(best, shares.max(), 1 - shares.min())
        assert best_linear_accuracy(x, y) == pytest.approx(best)


def test_best_line_of_known_cases():
    corners = np.array([[0, 0], [1, 1], [0, 1], [1, 0]], dtype=float)
    assert best_linear_accuracy(corners, np.array([0, 0, 1, 1])) == 0.75
    assert best_linear_accuracy(corners, np.array([0, 1, 0, 1])) == 1.0
    assert best_linear_accuracy(corners, np.ones(4)) == 1.0
    with pytest.raises(ValueError, match="0 or 1"):
        best_linear_accuracy(corners, np.arange(4))
    with pytest.raises(ValueError, match="points"):
        best_linear_accuracy(corners[:, :1], np.ones(4))


def test_last_hidden_layer_is_what_the_output_layer_reads():
    model = network()
    x = DATA.x.double()
    features = torch.from_numpy(last_hidden_layer(model, x))
    z = features @ model.weights[-1][0].mT + model.biases[-1][0]
    torch.testing.assert_close(z, model(x))
    with pytest.raises(ValueError, match="hidden layer"):
        last_hidden_layer(network(widths=(2, 1)), x)


def test_features_without_information_do_not_help():
    data = exclusive_or(100, held_out=200)
    linear = build_mlp(Architecture((2, 4, 1), "identity"), range(3))
    assert (logistic_regression_on_features(linear, data) < 0.65).all()


def test_composed_weights_are_the_whole_linear_network():
    model = network("identity", (2, 5, 5, 3, 1))
    weight, bias = composed_weights(model)
    x = DATA.x.double()
    torch.testing.assert_close(x @ weight.mT + bias, model(x))
    with pytest.raises(ValueError, match="linear layers"):
        composed_weights(network("tanh"))

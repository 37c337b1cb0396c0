"""Diagnostics against closed forms, autograd and slow loops."""

import numpy as np
import pytest
import torch
from torch import nn

from rai_utils.data import Dataset, moons
from rai_utils.diagnostics import (
    backward_gains,
    decision_map,
    disagreement,
    gradient_norms,
    gradients_of,
    logistic_regression,
    mean_of_pairs,
)
from rai_utils.models import Architecture, build_mlp, pre_activations
from rai_utils.training import Phase, Watch, fit_backprop


def test_decision_map_rows_are_the_second_input():
    model = build_mlp(Architecture((2, 1)), [0], dtype=torch.float64)
    with torch.no_grad():
        model.weights[0].copy_(torch.tensor([[[[2.0, -1.0]]]]))
        model.biases[0].fill_(0.5)
    axis, maps = decision_map(model, limits=(-3, 3), resolution=7)
    assert axis.tolist() == [-3, -2, -1, 0, 1, 2, 3]
    expected = 1 / (1 + np.exp(-(2 * axis[None, :] - axis[:, None] + 0.5)))
    np.testing.assert_allclose(maps[0], expected)


def test_disagreement_counts_cells_decided_differently():
    first = np.array([[[0.9, 0.1], [0.6, 0.4]]])
    second = np.array([[[0.9, 0.9], [0.6, 0.4]], [[0.1, 0.9], [0.4, 0.6]]])
    np.testing.assert_allclose(disagreement(first, second), [[0.25, 1.0]])
    with pytest.raises(ValueError, match="on one grid"):
        disagreement(first, second[:, :1])


def test_mean_of_pairs_equals_the_loop():
    shares = np.random.default_rng(0).random((9, 9))
    shares = (shares + shares.T) / 2
    pairs = [shares[i, j] for i in (0, 3, 7, 8) for j in (0, 3, 7, 8) if i < j]
    assert mean_of_pairs(shares, [0, 3, 7, 8]) == pytest.approx(np.mean(pairs))
    assert mean_of_pairs(shares, [2]) is None


def test_gradient_norms_equal_autograd_on_an_ordinary_network():
    data = moons(examples=20, held_out=4).to("cpu", torch.float64)
    model = build_mlp(Architecture((2, 5, 5, 5, 1)), [0, 1], dtype=torch.float64)
    norms = gradient_norms(model, data)
    for position in range(2):
        module = model.as_module(position)
        nn.functional.binary_cross_entropy_with_logits(module(data.x)[:, 0], data.y).backward()
        linears = [m for m in module if isinstance(m, nn.Linear)]
        expected = [
            torch.cat([m.weight.grad.flatten(), m.bias.grad]).norm().item() for m in linears
        ]
        np.testing.assert_allclose(norms[:, position], expected)


def test_logistic_regression_solves_a_line_and_not_the_moons():
    x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
    y = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert logistic_regression(Dataset("line", "binary", x, y, x, y)) == (1.0, 1.0)
    train, held_out = logistic_regression(moons())
    assert 0.8 < train < 0.95 and 0.8 < held_out < 0.95
    with pytest.raises(ValueError, match="got a regression"):
        logistic_regression(Dataset("line", "regression", x, y, x, y))


def test_a_map_needs_two_inputs_and_one_output():
    with pytest.raises(ValueError, match="2 inputs and 1 output, got 3 and 1"):
        decision_map(build_mlp(Architecture((3, 1)), [0]))
    with pytest.raises(ValueError, match="resolution must be at least 2, got 1"):
        decision_map(build_mlp(Architecture((2, 1)), [0]), resolution=1)
    for limits, message in (((-1, np.nan), "must be finite"), ((1, 1), "ascending")):
        with pytest.raises(ValueError, match=message):
            decision_map(build_mlp(Architecture((2, 1)), [0]), limits)


def test_a_backward_gain_is_the_ratio_of_two_gradients_of_the_loss():
    data = moons(20)
    model = build_mlp(Architecture((2, 5, 4, 6, 1), "tanh"), [1, 2])
    gains = backward_gains(model, data)
    module = model.as_module(0).double()
    x, y = data.x.double(), data.y.double()
    z = [value[0] for value in pre_activations(model.double(), x)]
    delta = (torch.sigmoid(z[-1][:, 0]) - y)[:, None] / 20  # of cross-entropy and a sigmoid
    for t in (3, 2, 1):
        weight = module.get_submodule(f"linear{t + 1}").weight
        below = delta @ weight * (1 - z[t - 1].tanh() ** 2)
        assert gains[t - 1] == pytest.approx((below.norm() / delta.norm()).item(), rel=1e-9)
        delta = below


def test_each_network_has_chosen_layers_of_its_own_trained():
    start, data, phase = build_mlp(Architecture((2, *[5] * 4, 1)), [0, 0]), moons(), Phase(2, 0.01)
    watch, chosen = Watch((2,)), gradients_of([range(1, 6), (2, 4)])
    trained = fit_backprop(start, data, phase, watch=watch, find=chosen).model
    whole = fit_backprop(start, data, phase, watch=watch).model
    for after, expected in zip(
        (*trained.weights, *trained.biases), (*whole.weights, *whole.biases), strict=True
    ):
        torch.testing.assert_close(after[:, 0], expected[:, 0])
    hidden = trained.weights[1][:, 1], start.weights[1][:, 1]  # layers 2 … 4
    moved = [not torch.equal(a, b) for a, b in zip(*hidden, strict=True)]
    assert moved == [True, False, True]
    assert torch.equal(trained.weights[0][:, 1], start.weights[0][:, 1])
    assert torch.equal(trained.biases[2][:, 1], start.biases[2][:, 1])

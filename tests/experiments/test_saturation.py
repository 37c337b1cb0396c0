"""Signals of units and gradients against autograd, closed forms and slow loops."""

import numpy as np
import pytest
import torch
from torch import nn

from rai_utils.data import digits, moons
from rai_utils.experiments.activation_saturation.saturation import (
    backward_gains,
    backward_signals,
    hidden_slopes,
    off_centre,
    outer_over_inner,
    predicted_gains,
    saturated_share,
    sign_coherence,
    silent,
    two_weight_descent,
    weights_moved,
)
from rai_utils.models import ACTIVATIONS, Architecture, build_mlp

DATA = moons(30, held_out=40)


def network(activation="tanh", widths=(2, 6, 5, 1), seeds=range(2), gain=1.0):
    return build_mlp(Architecture(widths, activation), seeds, "xavier", gain, dtype=torch.float64)


@pytest.mark.parametrize("name", ["elu", "centred_sigmoid"])
def test_a_unit_far_in_the_tail_has_a_small_slope_and_not_none(name):
    z = torch.tensor([-20.0, -60.0])
    expected = torch.exp(z.double())  # ELU exactly; the sigmoid but for a factor 1 + e^z
    torch.testing.assert_close(ACTIVATIONS[name].slope(z).double(), expected, rtol=1e-5, atol=0)
    model = build_mlp(Architecture((2, 4, 4, 1), name), [0])
    with torch.no_grad():
        for bias in model.biases[:-1]:
            bias -= 20
    assert all((slopes != 0).any() for slopes in hidden_slopes(model, DATA.x))
    _, deltas = backward_signals(model, DATA)
    _, exact = backward_signals(model.double(), DATA)
    for found, right in zip(deltas[:-1], exact[:-1], strict=True):
        assert right.all()
        torch.testing.assert_close(found.double(), right, rtol=1e-3, atol=0)


def test_saturated_share_equals_a_loop_over_modules():
    model = network("sigmoid", gain=8.0)
    shares = saturated_share(model, DATA.x.double())
    for seed in range(2):
        h = DATA.x.double()
        for layer in range(2):
            z = model.as_module(seed)[2 * layer](h)
            h = torch.sigmoid(z)
            count = sum(1 for row in h for value in row if value * (1 - value) < 0.05 * 0.25)
            assert shares[layer, seed] == pytest.approx(count / h.numel())
    assert shares.min() > 0 and shares.max() < 1


def test_a_dead_unit_gets_no_gradient():
    equal = build_mlp(Architecture((2, 4, 4, 1), "relu"), range(3), dtype=torch.float64)
    with torch.no_grad():
        equal.biases[0][0, 1, 0, 2] = -100.0
    dead = silent(equal, DATA.x.double())
    assert dead.shape == (2, 3, 4) and dead[0, 1, 2]
    z = equal(DATA.x.double())
    weight = equal.weights[0]
    (gradient,) = torch.autograd.grad(z.square().sum(), weight)
    assert (gradient[0, 1, 2] == 0).all()


def test_far_over_near_equals_a_loop_over_sorted_pairs():
    data = DATA.to("cpu", torch.float64)
    model = network("sigmoid", gain=6.0)
    found = outer_over_inner(model, data, 0.25)
    _, deltas = backward_signals(model, data)
    for seed in range(2):
        logs, h = [], data.x
        for layer in range(2):
            z = model.as_module(seed)[2 * layer](h)
            h = torch.sigmoid(z)
            delta = deltas[layer][seed].flatten().tolist()
            pairs = sorted(zip(z.abs().flatten().tolist(), delta, strict=True))
            quarter = len(pairs) // 4
            near, far = ([d**2 for _, d in part] for part in (pairs[:quarter], pairs[-quarter:]))
            logs.append(np.log(np.mean(far) / np.mean(near)) / 2)
        assert found[seed] == pytest.approx(np.exp(np.mean(logs)))
    assert (found < 0.5).all()
    line = build_mlp(Architecture((2, 64, 64, 1), "identity"), range(5), dtype=torch.float64)
    np.testing.assert_allclose(outer_over_inner(line, data), 1, atol=0.5)
    with pytest.raises(ValueError, match="share must be above 0"):
        outer_over_inner(model, data, 0.6)


def test_weights_moved_compares_the_far_driven_units():
    before = build_mlp(Architecture((2, 5, 5, 1), "tanh"), range(2), dtype=torch.float64)
    after = before.select([0, 1])
    z = [(torch.cat([DATA.x.double()]) @ w[0].mT).abs().mean(1) for w in before.weights[:1]]
    order = z[0].argsort(1)
    with torch.no_grad():
        for weight in after.weights[:-1]:
            weight += 1.0
        for seed in range(2):  # the far-driven unit of the first layer goes three times as far
            after.weights[0][0, seed, order[seed, -1]] += 2.0
    bias_free = [torch.zeros_like(b) for b in before.biases]
    for bias, zero in zip(before.biases, bias_free, strict=True):
        bias.data = zero
    found = weights_moved(before, after, DATA.x.double())
    np.testing.assert_allclose(found, 3**0.5, rtol=1e-12)  # the mean of the two layers' logs
    with pytest.raises(ValueError, match="of one kind"):
        weights_moved(before, network(), DATA.x.double())


def test_off_centre_of_relu_is_its_closed_form():
    model = build_mlp(Architecture((64, 4000, 1), "relu"), [0], "he", dtype=torch.float64)
    x = torch.randn(200, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for scale in (1, 3):  # of whatever size, and the size does not matter
        assert off_centre(model, scale * x)[0, 0] == pytest.approx(np.pi**-0.5, abs=0.02)
    tanh = build_mlp(Architecture((64, 4000, 1), "tanh"), [0], "xavier", dtype=torch.float64)
    assert abs(off_centre(tanh, x)[0, 0]) < 0.02


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "elu", "leaky_relu_0.1"])
def test_backward_signals_give_each_examples_gradient(activation):
    model = network(activation)
    inputs, deltas = backward_signals(model, DATA)
    for seed in range(2):
        module = model.as_module(seed)
        linear = [m for m in module if isinstance(m, nn.Linear)]
        for example in range(3):
            x, y = DATA.x[example].double(), DATA.y[example].double()
            loss = nn.functional.binary_cross_entropy_with_logits(module(x)[0], y)
            gradients = torch.autograd.grad(loss, [m.weight for m in linear])
            for layer, expected in enumerate(gradients):
                found = torch.outer(deltas[layer][seed, example], inputs[layer][seed, example])
                torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="skips"):
        skip = Architecture((2, 3, 3, 1), skip_connections=True)
        backward_signals(build_mlp(skip, [0]), DATA)


def test_sign_coherence_equals_a_loop():
    model = network("tanh", (2, 6, 5, 4, 1))
    inputs, deltas = backward_signals(model, DATA)
    each, batch = sign_coherence(inputs[2], deltas[2])
    for seed in range(2):
        one, together = [], []
        for unit in range(4):
            gradient = deltas[2][seed, :, unit, None] * inputs[2][seed]  # (examples, inputs)
            one += gradient.sign().mean(1).abs().tolist()
            together.append(gradient.sum(0).sign().mean().abs().item())
        assert each[seed] == pytest.approx(np.mean(one))
        assert batch[seed] == pytest.approx(np.mean(together))


def test_gradients_that_are_0_everywhere_are_left_out_of_the_coherence():
    # Gradients by example: unit 0 (1, 2), unit 1 none; none, for inputs of 0; unit 0 (6, 2) and
    # unit 1 (−6, −2) from inputs of one sign, unit 0 (4, −4) and unit 1 (2, −2) from mixed ones.
    inputs = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [3.0, 1.0], [2.0, -2.0]]])
    deltas = torch.tensor([[[1.0, 0.0, 0.0], [5.0, 7.0, 0.0], [2.0, -2.0, 0.0], [2.0, 1.0, 0.0]]])
    each, batch = sign_coherence(inputs, deltas)
    assert each[0] == pytest.approx((1 + 1 + 1 + 0 + 0) / 5)
    # Together: unit 0 (11, 0), unit 1 (−4, −4), unit 2 nothing.
    assert batch[0] == pytest.approx((0.5 + 1) / 2)


def test_positive_inputs_give_one_sign_and_centred_ones_do_not():
    for activation, low, high in (("sigmoid", 1.0, 1.0), ("centred_sigmoid", 0.0, 0.5)):
        inputs, deltas = backward_signals(network(activation, (2, 20, 20, 1)), DATA)
        each, _ = sign_coherence(inputs[1], deltas[1])
        assert (low - 1e-12 <= each).all() and (each <= high + 1e-12).all()


@pytest.mark.parametrize(
    ("activation", "gain"), [("sigmoid", 1.0), ("tanh", 2.0), ("sigmoid", 8.0)]
)
def test_predicted_gain_is_what_wide_networks_show(activation, gain):
    shape = Architecture((64, *[400] * 5, 10), activation, "softmax")
    data = digits(50, 50)
    model = build_mlp(shape, range(4), "xavier", gain, dtype=torch.float64)
    _, deltas = backward_signals(model, data)
    first = gain**2 * 2 * 64 / (64 + 400) * float(data.x.square().mean())
    expected = predicted_gains(activation, gain**2, 0.0, first, 5)
    np.testing.assert_allclose(backward_gains(deltas).mean(1), expected, rtol=0.08)


@pytest.mark.parametrize(
    ("activation", "function", "derivative"),
    [
        ("tanh", np.tanh, lambda z: 1 / np.cosh(z) ** 2),
        ("sigmoid", lambda z: 1 / (1 + np.exp(-z)), lambda z: 1 / (2 + 2 * np.cosh(z))),
    ],
)
def test_predicted_gains_follow_the_recursion_by_another_quadrature(
    activation, function, derivative
):
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    weight_variance, bias_variance, q, expected = 1.7, 0.6, 0.2, []
    for _ in range(4):
        z = np.sqrt(q) * points
        expected.append(np.sqrt(weight_variance * weights @ derivative(z) ** 2))
        q = weight_variance * weights @ function(z) ** 2 + bias_variance
    found = predicted_gains(activation, weight_variance, bias_variance, 0.2, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_predicted_gain_of_relu_is_exact():
    np.testing.assert_allclose(predicted_gains("relu", 2.0, 0.0, 1.0, 4), np.ones(3), rtol=1e-3)
    for arguments, message in (
        ((-1.0, 0.0, 1.0, 4), "variance of the weights must be at least 0"),
        ((1.0, np.nan, 1.0, 4), "variance of the biases must be finite"),
        ((1.0, 0.0, np.inf, 4), "variance of the first layer must be finite"),
        ((1.0, 0.0, 1.0, 1), "layers must be at least 2, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            predicted_gains("relu", *arguments)


def test_two_weights_end_at_the_solution_and_step_along_the_input():
    inputs = np.random.default_rng(0).uniform(0, 1, (10, 2))
    path = two_weight_descent(inputs, inputs @ [1.0, -1.0], (0.0, 0.0), 1.0, 2000)
    np.testing.assert_allclose(path[-1], [1, -1], atol=1e-6)
    steps = np.diff(path[:50], axis=0)
    assert (steps[:, 0] * steps[:, 1] >= 0).all()  # both up or both down
    with pytest.raises(ValueError, match="rate"):
        two_weight_descent(inputs, inputs[:, 0], (0, 0), 0.0, 1)
    with pytest.raises(ValueError, match="inputs"):
        two_weight_descent(inputs[:, :1], inputs[:, 0], (0, 0), 1.0, 1)


def test_hidden_slopes_have_one_tensor_a_hidden_layer():
    shapes = [tuple(values.shape) for values in hidden_slopes(network(), DATA.x.double())]
    assert shapes == [(2, 30, 6), (2, 30, 5)]

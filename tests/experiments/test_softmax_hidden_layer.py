"""Softmax layers against closed forms, autograd and slow loops."""

import numpy as np
import pytest
import torch

from rai_utils.experiments import softmax_hidden_layer
from rai_utils.experiments.softmax_hidden_layer import (
    GAIN_LIMITS,
    backward_norms,
    confidence,
    curve_cell,
    depth_cell,
    draw,
    expected_calibration_error,
    jacobian_deviations,
    output_gradient,
    placed_network,
    reliability,
    small_signal_gain,
    softmax_jacobian,
    tune_start,
)
from rai_utils.models import Architecture, build_mlp
from rai_utils.relaxation import output_loss
from rai_utils.training import Phase
from rai_utils.tuning import Tuning


def test_softmax_jacobian_equals_autograd():
    z = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.functional.jacobian(lambda row: torch.softmax(row, -1), z)
    torch.testing.assert_close(softmax_jacobian(torch.softmax(z, -1)), expected)
    with pytest.raises(ValueError, match=r"shape \(…, k\), got \(\)"):
        softmax_jacobian(torch.tensor(1.0))


@pytest.mark.parametrize("width", [2, 5])
def test_jacobian_deviations_are_rounding(width):
    deviations = jacobian_deviations(width, 50, torch.Generator().manual_seed(0))
    assert max(deviations.values()) < 1e-12
    with pytest.raises(ValueError, match="width must be at least 2"):
        jacobian_deviations(1, 50, torch.Generator())


def test_jacobian_deviations_find_a_wrong_formula(monkeypatch):
    # A sigmoid's derivative on the diagonal, and nothing beside it.
    monkeypatch.setattr(
        softmax_hidden_layer, "softmax_jacobian", lambda s: torch.diag_embed(s * (1 - s))
    )
    deviations = jacobian_deviations(5, 50, torch.Generator().manual_seed(0))
    wrong = {name for name, value in deviations.items() if value > 1e-3}
    assert {"formula", "row_sums", "rank", "halves", "uniform"} <= wrong


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu", "softmax"])
def test_small_signal_gain_is_what_random_matrices_do_to_a_random_gradient(name):
    width, variance = 40, 0.03
    generator = torch.Generator().manual_seed(0)
    # Pre-activations near 0; their sign is all that ReLU sees.
    z = (1e-6 * torch.randn(3000, width, dtype=torch.float64, generator=generator)).requires_grad_()
    g = torch.randn(3000, width, dtype=torch.float64, generator=generator)
    h = getattr(torch, name)(z, -1) if name == "softmax" else getattr(torch, name)(z)
    (delta,) = torch.autograd.grad(h, z, g)
    weight = torch.randn(3000, width, width, dtype=torch.float64, generator=generator)
    passed = (variance**0.5 * weight.mT @ delta[:, :, None]).square().sum() / g.square().sum()
    assert small_signal_gain(name, width, variance) == pytest.approx(passed.sqrt().item(), rel=0.02)
    with pytest.raises(ValueError, match="activation must be one of"):
        small_signal_gain("swish", width, variance)
    with pytest.raises(ValueError, match="variance must be above 0"):
        small_signal_gain(name, width, 0.0)


@pytest.mark.parametrize("skip", [False, True])
def test_backward_norms_equal_finite_differences(skip):
    architecture = Architecture((2, 4, 4, 1), "softmax", "identity", skip_connections=skip)
    model = build_mlp(architecture, [0, 1], dtype=torch.float64)
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    norms = backward_norms(model, x, torch.Generator().manual_seed(5))
    u = torch.randn(2, 3, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    w = [part[:, 1] for part in (p.detach() for p in model.weights)]
    b = [part[:, 1, 0] for part in (p.detach() for p in model.biases)]
    first = torch.softmax(x @ w[0][0].T + b[0][0], -1)

    def above(h):
        second = torch.softmax(h @ w[1][0].T + b[1][0], -1) + (h if skip else 0)
        return (u[1] * (second @ w[2][0].T + b[2][0])).sum()

    step, slopes = 1e-6, torch.zeros_like(first)
    for index in np.ndindex(*first.shape):
        nudge = torch.zeros_like(first)
        nudge[index] = step
        slopes[index] = (above(first + nudge) - above(first - nudge)) / (2 * step)
    assert norms.shape == (2, 2)
    assert norms[0, 1] == pytest.approx(slopes.norm().item(), rel=1e-6)
    with pytest.raises(ValueError, match="need a hidden layer"):
        backward_norms(build_mlp(Architecture((2, 1)), [0]), x.float(), torch.Generator())


def test_confidence_follows_the_stated_decision_rule():
    y = torch.tensor([1.0, 0.0, 1.0])
    sure, right = confidence(torch.tensor([[[1.4], [0.2], [0.3]]]), y, "identity")
    torch.testing.assert_close(sure, torch.tensor([[1.0, 0.8, 0.7]]))
    assert right.tolist() == [[True, True, False]]
    sure, right = confidence(torch.tensor([[[0.0], [-2.0], [2.0]]]), y, "sigmoid")
    torch.testing.assert_close(sure[0, 1:], torch.sigmoid(torch.tensor([2.0, 2.0])))
    assert right.tolist() == [[False, True, True]]
    labels = torch.tensor([2, 0, 1])
    z = torch.tensor([[[-1.0, 0.5, 1.5], [0.2, 0.1, 0.1], [-1.0, -2.0, -3.0]]])
    sure, right = confidence(z, labels, "identity")
    torch.testing.assert_close(sure, torch.tensor([[1 / 1.5, 0.5, 1 / 3]]))
    assert right.tolist() == [[True, True, False]]
    sure, _ = confidence(z, labels, "softmax")
    torch.testing.assert_close(sure, torch.softmax(z, -1).amax(-1))


def test_reliability_equals_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    sure = torch.rand(500, generator=generator, dtype=torch.float64)
    sure[0] = 1.0
    right = torch.rand(500, generator=generator, dtype=torch.float64) < sure**2
    mean, share, counts = reliability(sure, right, bins=5)
    error = 0.0
    for bin in range(5):
        low, high = bin / 5, (bin + 1) / 5
        inside = [i for i in range(500) if low <= sure[i] < high or (bin == 4 and sure[i] == 1)]
        assert counts[bin] == len(inside)
        assert mean[bin] == pytest.approx(np.mean([sure[i].item() for i in inside]))
        assert share[bin] == pytest.approx(np.mean([right[i].item() for i in inside]))
        error += len(inside) / 500 * abs(mean[bin] - share[bin])
    assert expected_calibration_error(sure, right, bins=5) == pytest.approx(error)


def test_a_perfectly_calibrated_prediction_has_no_calibration_error():
    sure = torch.tensor([0.75] * 4 + [1.0] * 2)
    right = torch.tensor([True, True, True, False, True, True])
    assert expected_calibration_error(sure, right) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(3), torch.ones(2).bool()), r"got \(3,\) and \(2,\)"),
        ((torch.ones(3), torch.ones(3).bool(), 0), "bins must be at least 1"),
        ((torch.full((3,), 1.5), torch.ones(3).bool()), r"must lie in \[0, 1\]"),
    ],
)
def test_reliability_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        reliability(*arguments)


@pytest.mark.parametrize(
    "pairing",
    [("sigmoid", "cross_entropy"), ("sigmoid", "squared_error"), ("identity", "squared_error")],
)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_output_gradient_equals_autograd(pairing, label):
    z = torch.linspace(-9, 9, 19, dtype=torch.float64)[:, None, None].requires_grad_()
    y = torch.tensor([label], dtype=torch.float64)
    (expected,) = torch.autograd.grad(output_loss(z, y, *pairing).sum(), z)
    found = output_gradient(z.detach(), torch.full_like(z, label), *pairing)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_output_gradient_of_a_sure_and_wrong_prediction_is_not_lost_to_rounding():
    z = torch.tensor([20.0, 60.0])
    found = output_gradient(z, torch.zeros(2), "sigmoid", "squared_error")
    expected = 2 * torch.sigmoid(-z.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def test_output_gradient_refuses_a_pairing_that_does_not_exist():
    with pytest.raises(ValueError, match="'identity' with 'cross_entropy'"):
        output_gradient(torch.zeros(1), torch.zeros(1), "identity", "cross_entropy")


def test_a_placed_softmax_layer_is_a_normalised_gaussian_bump_a_unit():
    x = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    y = torch.sin(6 * x[:, 0])
    model = placed_network("softmax", 9, x, y)
    centres = np.linspace(0, 1, 9)
    bumps = np.exp(-((x.numpy() - centres) ** 2) / (2 * (1 / 8) ** 2))
    bumps /= bumps.sum(1, keepdims=True)
    hidden = torch.softmax(
        x * model.weights[0][0, 0, :, 0].detach() + model.biases[0][0, 0, 0].detach(), -1
    )
    np.testing.assert_allclose(hidden.numpy(), bumps, atol=1e-12)
    output = model.predict(x)[0, :, 0].numpy()
    # Least squares: what is left over is orthogonal to every bump.
    np.testing.assert_allclose((output - y.numpy()) @ bumps, 0, atol=1e-9)
    assert np.abs(output - y.numpy()).max() < 0.02


def test_placed_networks_refuse():
    x = torch.zeros(3, 1)
    with pytest.raises(ValueError, match="softmax or sigmoid, got 'relu'"):
        placed_network("relu", 4, x, x[:, 0])
    with pytest.raises(ValueError, match="width must be at least 2, got 1"):
        placed_network("softmax", 1, x, x[:, 0])


# --- start and rate, and what is trained from them ---


@pytest.fixture
def tried(monkeypatch):
    """Replace the search over rates by a loss that the gain of the start decides; return it."""
    losses, found = {}, []

    def tune(fit, model, data, steps, rates, **options):
        size = model.weights[0].detach().abs().max()
        gain = 2.0 ** round(float(torch.log2(size / unit.weights[0].detach().abs().max())))
        found.append(gain)
        phase, own = Phase(steps, 0.1, "adam"), np.array([losses[gain]])
        return Tuning(0.1, (0.1,), own, np.zeros(1), None, phase)

    unit = build_mlp(Architecture((1, 3, 1), "softmax", "identity"), range(1000, 1010))
    monkeypatch.setattr(softmax_hidden_layer, "tune", tune)
    return losses, found


def chosen(**options):
    shape = Architecture((1, 3, 1), "softmax", "identity")
    return tune_start(shape, "Three doses", "adam", 5, **options)[0]


def test_gains_are_widened_until_the_best_lies_inside(tried):
    losses, found = tried
    losses |= {1: 0.5, 2: 0.4, 4: 0.3, 8: 0.2, 16: 0.1, 32: 0.15}
    assert chosen() == 16
    assert found == [1, 2, 4, 8, 16, 32]


def test_of_gains_that_tie_the_nearest_to_one_is_taken(tried):
    losses, found = tried
    losses |= {0.5: 0.3, 1: 0.10005, 2: 0.1, 4: 0.2}
    assert chosen() == 1
    assert found == [1, 2, 4]


def test_gains_end_at_their_limits_and_one_alone_stands(tried):
    losses, found = tried
    losses |= {2.0**n: -n for n in range(-5, 12)}
    assert chosen() == max(found) == GAIN_LIMITS[1]
    losses |= {2.0**n: n for n in range(-5, 12)}
    assert chosen() == min(found) == GAIN_LIMITS[0]
    found.clear()
    assert chosen(gains=(4.0,)) == 4
    assert found == [4]


@pytest.mark.parametrize("task", ["Dose curve", "Dose curve, scaled", "Moons", "Spirals"])
def test_the_draw_that_tunes_is_none_that_confirms(task):
    first, tuning = draw(task, 0), draw(task, 1000)
    for one, other in ((first.x, tuning.x), (first.held_out_x, tuning.held_out_x)):
        # Doses lie on a grid; what is drawn is their noise.
        assert not torch.equal(one, other) or not torch.equal(first.y, tuning.y)


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="task must be one of Three doses"):
        draw("Suns", 0)


def test_the_network_shown_has_the_median_error(tried):
    losses, _ = tried
    losses |= {0.5: 0.2, 1: 0.1, 2: 0.2, 4: 0.3}
    found = curve_cell("Three doses", "softmax", [3], 3, 1, 5, 40)["fits"]["3"]
    net = {name: np.array(value) for name, value in found["shown"].items()}
    z = np.array([[0.0], [0.5], [1.0]]) * net["slopes"] + net["offsets"]
    h = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    error = h @ net["weights"] + net["offset"] - [0, 1, 0]
    assert np.sqrt((error**2).mean()) == pytest.approx(np.median(found["errors"]), rel=1e-4)
    assert np.abs(error).max() in [pytest.approx(each, rel=1e-4) for each in found["largest"][0]]


def test_a_usual_start_has_no_gain_and_a_failed_network_is_at_chance(monkeypatch):
    def tuned(architecture, task, optimizer, steps, *, initialisation, gains):
        assert (initialisation, gains) == ("he", (1.0,))
        phase = Phase(steps, 1e30, "sgd")
        return 1.0, Tuning(1e30, (1e30,), np.zeros(1), np.zeros(1), None, phase)

    monkeypatch.setattr(softmax_hidden_layer, "tune_start", tuned)
    found = depth_cell("sgd", "relu", 4, 2, "usual", 2, 3, 5)
    assert found["accuracy"] == [[1 / 3] * 3] * 2
    with pytest.raises(ValueError, match="start must be one of usual, tuned"):
        depth_cell("sgd", "relu", 4, 2, "best", 2, 3, 5)

"""The lecture's rules fail where the effect is taken away: each test removes the cause.

The limits are those of the notebooks' rules; what is measured is measured as there.
"""

import numpy as np
import pytest
import torch

from rai_utils import diagnostics
from rai_utils.data import circles, digits, moons
from rai_utils.experiments.activation_saturation.costs import PLACES, cost_cell
from rai_utils.experiments.activation_saturation.descent import descend, set_intercepts
from rai_utils.experiments.activation_saturation.saturation import (
    backward_signals,
    hidden_slopes,
    off_centre,
    outer_over_inner,
    saturated_share,
    sign_coherence,
    silent,
    weights_moved,
)
from rai_utils.experiments.network_basics.approximation import approximation_errors, log_log_slope
from rai_utils.experiments.network_basics.representation import logistic_regression_on_features
from rai_utils.models import ACTIVATIONS, Architecture, build_mlp, stack
from rai_utils.publishing.intervals import mean_interval
from rai_utils.publishing.rules import all_of, compare
from rai_utils.training import Phase, Watch, evaluate, fit_backprop
from rai_utils.tuning import stop_early


def fails(*conditions):
    return all_of(*conditions).decide(None, None) == "not reproduced"


def test_l2_without_learning_there_is_no_gain():
    data = circles(100, held_out=500)
    untrained = build_mlp(Architecture((2, 16, 2, 1), "tanh"), range(10), "xavier")
    gain = (
        logistic_regression_on_features(untrained, data) - diagnostics.logistic_regression(data)[1]
    )
    assert fails(compare("gain, lower end", mean_interval(gain)[0], ">=", 0.2))


def test_l4_without_a_nonpolynomial_activation_the_error_does_not_fall():
    widths = [8, 32, 128]
    slopes = log_log_slope(widths, approximation_errors("wave", "cube", widths, range(4)).greatest)
    assert fails(compare("slope, upper end", mean_interval(slopes)[1], "<=", -0.25))


def test_l5_without_surplus_weights_stopping_early_gains_nothing():
    ratios, gains = [], []
    for draw in range(5):
        data = moons(40, 0.3, seed=draw, held_out=200, held_out_seed=1000 + draw)
        test = moons(2, 0.3, seed=draw, held_out=1000, held_out_seed=2000 + draw)
        line = build_mlp(Architecture((2, 1)), [draw])
        steps = tuple(range(0, 301, 10))
        fit = fit_backprop(
            line, data, Phase(300, 0.01, "adam"), watch=Watch(steps, (), steps), device="cpu"
        )
        found = stop_early(fit, test.held_out_x, test.held_out_y, "binary")
        last_loss, last_accuracy = evaluate(fit.model, test.held_out_x, test.held_out_y, "binary")
        ratios.append((last_loss / found.stopped_loss).mean())
        gains.append((found.stopped_accuracy - last_accuracy).mean())
    assert fails(compare("ratio, lower end", mean_interval(ratios)[0], ">=", 1.2))
    assert fails(compare("gain, lower end", mean_interval(gains)[0], ">", 0))


def test_l11_relu_passes_as_much_gradient_far_from_zero_and_its_weights_move_as_far():
    data = digits(60, 50)
    start = build_mlp(Architecture((64, 32, 32, 32, 10), "relu", "softmax"), range(6), "he")
    far = mean_interval(outer_over_inner(start, data))[1]
    assert fails(compare("gradient far over near, upper end", far, "<=", 0.3))
    run = descend(start, data, [0.3] * 6, 40)
    moved = mean_interval(weights_moved(start, run.model, data.x))[1]
    assert fails(compare("weights moved, far over near, upper end", moved, "<=", 0.5))


def test_l12_centring_takes_the_single_sign_away():
    data = digits(60, 50)
    coherence = {}
    for activation in ("sigmoid", "centred_sigmoid"):
        shape = Architecture((64, 32, 32, 10), activation, "softmax")
        model = build_mlp(shape, range(10), "orthogonal_centred", 4.0)
        inputs, deltas = backward_signals(model, data)
        coherence[activation] = sign_coherence(inputs[1], deltas[1])[0]
    assert coherence["sigmoid"].min() >= 0.999
    assert fails(compare("coherence", coherence["centred_sigmoid"].min(), ">=", 0.999))


def test_l12_the_control_starts_as_the_same_function():
    data = digits(60, 50)
    outputs = [
        build_mlp(
            Architecture((64, 32, 32, 32, 10), activation, "softmax"),
            range(3),
            "orthogonal_centred",
            4.0,
            dtype=torch.float64,
        )(data.x.double())
        for activation in ("sigmoid", "centred_sigmoid")
    ]
    # The output layer's bias is centred too, so nothing is left between the two.
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


def test_l15_a_network_is_no_faster_than_itself():
    data = moons(100)
    start = build_mlp(Architecture((2, 16, 16, 1), "relu"), range(10), "he")
    steps = descend(start, data, [1.0] * 10, 300, goal=0.1).reached_at
    assert fails(compare("ratio", float(np.median(steps / steps)), ">", 1))


def test_l16_a_centred_activation_is_not_off_centre():
    model = build_mlp(Architecture((64, 32, 32, 10), "tanh", "softmax"), range(10), "xavier")
    offset = np.abs(off_centre(model, digits(60, 50).x)).mean(0)
    assert fails(compare("off centre, lower end", mean_interval(offset)[0], ">=", 0.1))


@pytest.mark.parametrize(("activation", "dies"), [("relu", True), ("leaky_relu", False)])
def test_l17_units_die_only_where_the_slope_can_be_zero(activation, dies):
    data = moons(100)
    start = build_mlp(Architecture((2, 32, 32, 32, 1), activation), range(5), "he")
    models = stack([set_intercepts(start, value) for value in (0.0, 0.1)])
    run = descend(models, data, [1.0] * 10, 30)
    slopes = hidden_slopes(run.model, data.x)
    assert any(bool((each == 0).all(1).any()) for each in slopes) == dies


def test_l13_functions_that_take_as_long_as_each_other_are_not_expensive():
    ticks = iter(range(1_000_000))
    for place in PLACES[:3]:
        found = cost_cell(place, 2, ("relu", "sigmoid"), lambda: float(next(ticks)))["ratios"]
        for ratios in found.values():
            assert ratios["sigmoid"] == [1, 1, 1]
            assert fails(compare("over ReLU, first quartile", ratios["sigmoid"][1], ">=", 1.05))


def test_l14_the_sigmoid_is_not_centred_and_a_line_does_not_saturate():
    data = digits(60, 50)
    shape = Architecture((64, 32, 32, 10), "sigmoid", "softmax")
    offset = np.abs(off_centre(build_mlp(shape, range(5), "xavier"), data.x)).mean(0)
    assert fails(compare("off-centre, upper end", mean_interval(offset)[1], "<=", 0.1))
    line = build_mlp(Architecture((64, 32, 10), "identity", "softmax"), range(3), "xavier", 4.0)
    assert fails(compare("saturated share", saturated_share(line, data.x).min(), ">=", 0.25))


def test_l18_relu_itself_dies_where_leaky_relu_may_not():
    shape = Architecture((64, 32, 10), "relu", "softmax")
    model = set_intercepts(build_mlp(shape, range(3), "he"), -100.0)
    dead = float(silent(model, digits(60, 50).x).mean())
    assert fails(compare("dead share, greatest of all runs", dead, "==", 0))


def test_l19_relu_is_no_nearer_to_zero_mean_than_itself():
    data = digits(60, 50)
    model = build_mlp(Architecture((64, 32, 32, 10), "relu", "softmax"), range(5), "he")
    offset = np.abs(off_centre(model, data.x)).mean(0)
    assert fails(compare("nearer, lower end", mean_interval(offset - offset)[0], ">", 0))
    assert fails(
        compare(
            "slope at −5",
            float(ACTIVATIONS["leaky_relu_0.1"].slope(torch.tensor(-5.0))),
            "<=",
            0.05,
        )
    )

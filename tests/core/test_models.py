"""The stacked networks against ordinary torch.nn networks and float64 autograd."""

import numpy as np
import pytest
import torch
from torch import nn

from rai_utils import models
from rai_utils.models import (
    ACTIVATIONS,
    INITIALISATIONS,
    Activation,
    Architecture,
    DeadLayers,
    StackedMLP,
    build_mlp,
    compared_activations,
    forward,
    pre_activations,
    stack,
)

RULED = [name for name, activation in ACTIVATIONS.items() if activation.backward is not None]


@pytest.mark.parametrize("name", RULED)
def test_backward_rule_equals_autograd(name):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    gradient = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator)
    module = ACTIVATIONS[name].module()
    (expected,) = torch.autograd.grad(module(z), z, gradient)
    rule = ACTIVATIONS[name]
    h = rule.function(z)
    torch.testing.assert_close(h, module(z))
    torch.testing.assert_close(rule.backward(gradient, rule.kept(z, h).detach()), expected)


@pytest.mark.parametrize("name", [name for name in RULED if name != "centred_sigmoid"])
def test_slopes_are_those_of_torch_wherever_rounding_has_made_the_output_a_constant(name):
    rule = ACTIVATIONS[name]
    steps = torch.linspace(-80, 80, 3201)
    z = torch.stack([steps, -steps.flip(0) / 2, torch.zeros_like(steps)], 1).requires_grad_()
    gradient = torch.tensor([1.0, -0.5, 2.0]).expand_as(z)
    (expected,) = torch.autograd.grad(rule.module()(z), z, gradient)
    ours = rule.backward(gradient, rule.kept(z, rule.function(z)).detach())
    # A softmax's gradient is a difference, and where it is 0 the rest is rounding.
    tolerance = 1e-6 if name.startswith("softmax") else 0
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("elu", lambda z: torch.where(z > 0, 1, z.exp())),
        # torch's own is 0 above 17, where σ(z) rounds to 1.
        ("centred_sigmoid", lambda z: torch.sigmoid(z) * torch.sigmoid(-z)),
    ],
)
def test_no_slope_is_lost_to_rounding(name, slope):
    rule = ACTIVATIONS[name]
    z = torch.linspace(-80, 80, 3201)
    ours = rule.backward(torch.ones_like(z), rule.kept(z, rule.function(z)))
    torch.testing.assert_close(ours.double(), slope(z.double()), rtol=2e-5, atol=0)


@pytest.mark.parametrize("name", ["elu", "centred_sigmoid"])
def test_layers_far_in_the_tail_still_pass_a_gradient_on(name):
    model = build_mlp(Architecture((2, 4, 4, 4, 1), name), [0, 1])
    with torch.no_grad():
        for bias in model.biases[:-1]:
            bias -= 25.0
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(2))
    z = model(x)
    z.sum().backward()
    for position in range(2):
        module = model.as_module(position).double()
        module(x.double()).sum().backward()
        expected = module.linear1.weight.grad
        assert expected.abs().max() > 1e-37
        torch.testing.assert_close(
            model.weights[0].grad[0, position].double(), expected, rtol=1e-4, atol=0
        )


BY_UNIT = [name for name, known in ACTIVATIONS.items() if known.greatest_slope is not None]


@pytest.mark.parametrize("name", BY_UNIT)
def test_slope_is_autograds_and_its_greatest_is_right(name):
    known = ACTIVATIONS[name]
    z = torch.linspace(-8, 8, 1000, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(known.module()(z).sum(), z)
    torch.testing.assert_close(known.slope(z.detach()), expected)
    fine = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    assert float(known.slope(fine).max()) == pytest.approx(known.greatest_slope, abs=1e-6)


def test_every_activation_that_works_unit_by_unit_has_a_greatest_slope():
    # The others work on a whole layer, or take their slope from its width.
    unit_by_unit = {name for name in ACTIVATIONS if not name.startswith("softmax")}
    assert unit_by_unit - {"sigmoid_flat"} == set(BY_UNIT)
    with pytest.raises(ValueError, match="activation must work unit by unit, got softmax"):
        ACTIVATIONS["softmax"].slope(torch.zeros(1))


def test_the_compared_activations_have_names_and_starts_of_their_own():
    compared = compared_activations()
    assert {"sigmoid", "tanh", "relu", "elu", "softplus", "gelu", "silu"} <= set(compared)
    assert not {"identity", "softmax", "centred_sigmoid", "sigmoid_flat"} & set(compared)
    labels = [known.label for known in ACTIVATIONS.values()]
    assert all(labels) and len(set(labels)) == len(labels)
    assert {known.initialisation for known in ACTIVATIONS.values()} <= set(INITIALISATIONS)


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("graph", [False, True])
def test_each_network_may_have_inputs_of_its_own(skips, graph):
    shape = Architecture((2, 6, 6, 6, 3), "tanh", skip_connections=skips)
    model = build_mlp(shape, range(2), dtype=torch.float64)
    x = torch.randn(2, 5, 2, dtype=torch.float64)
    with torch.set_grad_enabled(graph):
        both = forward(shape, [*model.weights], [*model.biases], x)
    for place in range(2):
        torch.testing.assert_close(both[place], model.select([place])(x[place])[0])


@pytest.mark.parametrize("name", compared_activations())
def test_the_orthogonal_gain_makes_up_for_the_slope(name):
    known = ACTIVATIONS[name]
    points = torch.linspace(-10, 10, 20_001, dtype=torch.float64)
    density = torch.exp(-points.square() / 2)
    mean_square = (density * known.slope(points).square()).sum() / density.sum()
    at_zero = known.slope(torch.zeros(1, dtype=torch.float64))
    bounded = known.function(torch.tensor([-1e3, 1e3])).abs().max() <= 1
    expected = 1 / float(at_zero) if bounded else float(mean_square**-0.5)
    assert known.orthogonal_gain == pytest.approx(expected, rel=0.005)


def test_controls_of_the_softmax_are_what_they_say():
    z = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    s = torch.softmax(z, -1)
    functions = {name: ACTIVATIONS[name].function for name in ACTIVATIONS}
    torch.testing.assert_close(functions["softmax_times_width"](z), 5 * s)
    torch.testing.assert_close(functions["softmax_cold"](z / 5), s)
    normed = functions["softmax_layer_norm"](z)
    centred = s - s.mean(-1, keepdim=True)
    deviation = s.var(-1, correction=0, keepdim=True).sqrt()
    torch.testing.assert_close(normed, centred / deviation)
    start = torch.zeros(5, dtype=torch.float64)
    for name, slope in (("softmax_times_width", 1.0), ("softmax_cold", 1.0), ("softmax", 0.2)):
        jacobian = torch.autograd.functional.jacobian(functions[name], start)
        assert torch.linalg.matrix_norm(jacobian, 2).item() == pytest.approx(slope)
    flat = torch.autograd.functional.jacobian(functions["sigmoid_flat"], start)
    torch.testing.assert_close(flat, torch.eye(5, dtype=torch.float64) / 5)


def test_equal_hidden_layers_share_a_run_and_the_output_stands_alone():
    runs = Architecture((2, 5, 5, 5, 5)).runs
    assert [(run.first, run.layers) for run in runs] == [(1, 1), (2, 2), (4, 1)]


def test_architecture_names_itself_like_the_proposal():
    assert str(Architecture((2, 42, 100, 100, 42, 1), "relu")) == "(2, 42, 100, 100, 42, 1) relu"
    assert str(Architecture((2, *[100] * 100, 1))) == "(2, 100 × 100, 1) sigmoid"


def test_a_seed_gives_the_network_that_torch_would_draw():
    model = build_mlp(Architecture((3, 7, 7, 7, 2)), [5, 11])
    for position, seed in enumerate([5, 11]):
        torch.manual_seed(seed)
        layers = [nn.Linear(3, 7), nn.Linear(7, 7), nn.Linear(7, 7), nn.Linear(7, 2)]
        linears = [m for m in model.as_module(position) if isinstance(m, nn.Linear)]
        for expected, drawn in zip(layers, linears, strict=True):
            assert torch.equal(drawn.weight, expected.weight)
            assert torch.equal(drawn.bias, expected.bias)


@pytest.mark.parametrize(
    "seeds", [(5, 11), range(5, 12, 6), np.array([5, 11]), torch.tensor([5, 11])]
)
def test_seeds_and_widths_may_be_in_any_sequence_or_array(seeds):
    architecture = Architecture(np.array([3, 7, 2]), output_activation="identity")
    assert architecture == Architecture((3, 7, 2), output_activation="identity")
    model, expected = build_mlp(architecture, seeds), build_mlp(architecture, [5, 11])
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_forward_and_gradients_equal_the_ordinary_network(name):
    architecture = Architecture((2, 6, 6, 6, 4, 1), name)
    model = build_mlp(architecture, [0, 1], dtype=torch.float64)
    x = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    z = model(x)
    z.square().sum().backward()
    for position in range(2):
        module = model.as_module(position)
        expected = module(x)
        torch.testing.assert_close(z[position], expected)
        expected.square().sum().backward()
        linears = [m for m in module if isinstance(m, nn.Linear)]
        for run, weight, bias in zip(architecture.runs, model.weights, model.biases, strict=True):
            for offset in range(run.layers):
                linear = linears[run.first + offset - 1]
                torch.testing.assert_close(weight.grad[offset, position], linear.weight.grad)
                torch.testing.assert_close(bias.grad[offset, position, 0], linear.bias.grad)


def gradients_of(model, x, factor=1.0):
    z = model(x)  # (seeds, examples, 1)
    return torch.autograd.grad(factor * z.sum(), [*model.weights, *model.biases])


@pytest.fixture
def rule_calls(monkeypatch):
    """Counts the layers that the backward sweep goes through."""
    calls = []
    sigmoid = ACTIVATIONS["sigmoid"]

    def counted(gradient, h):
        calls.append(h)
        return sigmoid.backward(gradient, h)

    monkeypatch.setitem(
        ACTIVATIONS, "sigmoid", Activation(sigmoid.function, counted, sigmoid.module)
    )
    return calls


@pytest.mark.parametrize(
    ("skip", "factor", "infinite", "stops"),
    [
        (False, 1.0, False, True),  # underflows by itself
        (True, 1.0, False, False),
        (True, 0.0, False, True),
        (False, 0.0, True, False),  # 0 times infinity is NaN
    ],
)
def test_a_sweep_that_stops_where_no_gradient_is_left_equals_the_full_sweep(
    monkeypatch, rule_calls, skip, factor, infinite, stops
):
    model = build_mlp(Architecture((2, *[20] * 81, 1), skip_connections=skip), [0, 1])
    if infinite:
        with torch.no_grad():
            model.weights[1][3, 1, 0, 0] = torch.inf
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    stopped = gradients_of(model, x, factor)
    assert (len(rule_calls) < 81) == stops
    monkeypatch.setattr(models, "LOOK_EVERY", 1000)
    for short, full in zip(stopped, gradients_of(model, x, factor), strict=True):
        assert torch.equal(short.isnan(), full.isnan())
        assert torch.equal(short.nan_to_num(), full.nan_to_num())
    assert bool(stopped[1].isnan().any()) == infinite
    assert not stopped[0].nan_to_num().any() or (skip and factor)


def test_a_graph_may_be_gone_through_twice():
    model = build_mlp(Architecture((2, *[20] * 81, 1)), [0, 1])
    parameters = [*model.weights, *model.biases]
    z = model(torch.randn(9, 2, generator=torch.Generator().manual_seed(0)))
    once = torch.autograd.grad(z.sum(), parameters, retain_graph=True)
    waste = [torch.full_like(part, torch.nan) for part in once]  # memory that comes back unclean
    del waste
    for first, second in zip(once, torch.autograd.grad(z.sum(), parameters), strict=True):
        assert torch.equal(first, second)


def test_a_gradient_of_one_seed_keeps_the_sweep_going(rule_calls):
    shape = Architecture((2, *[20] * 81, 1))
    both = stack([build_mlp(shape, [0]), build_mlp(shape, [0], "orthogonal_centred", 4.0)])
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    weight_gradient = gradients_of(both, x)[1]  # (layers, seeds, 20, 20)
    assert len(rule_calls) == 81
    assert weight_gradient[0, 1].any() and not weight_gradient[0, 0].any()


@pytest.mark.parametrize("skip", [False, True])
def test_gradients_can_be_written_to_given_memory(skip):
    model = build_mlp(Architecture((2, 6, 6, 6, 1), skip_connections=skip), [0, 1])
    parameters = [*model.weights, *model.biases]
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    memory = [torch.full_like(p, torch.nan) for p in parameters]
    z = forward(model.architecture, [*model.weights], [*model.biases], x, memory)
    written = torch.autograd.grad(z.sum(), parameters)
    for given, gradient, expected in zip(memory, written, gradients_of(model, x), strict=True):
        assert torch.equal(gradient, expected)
        assert given.data_ptr() == gradient.data_ptr() or given.isnan().all()
    assert written[1].data_ptr() == memory[1].data_ptr()


def test_skip_connections_add_the_input_of_every_layer_that_keeps_the_width():
    architecture = Architecture((2, 4, 4, 4, 1), "tanh", skip_connections=True)
    model = build_mlp(architecture, [3], dtype=torch.float64)
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameters = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in parameters.values():
        p.requires_grad_()
    h = torch.tanh(x @ parameters["weights.0"][0, 0].T + parameters["biases.0"][0, 0])
    for layer in range(2):
        z = h @ parameters["weights.1"][layer, 0].T + parameters["biases.1"][layer, 0]
        h = torch.tanh(z) + h
    expected = h @ parameters["weights.2"][0, 0].T + parameters["biases.2"][0, 0]
    z = model(x)[0]
    torch.testing.assert_close(z, expected)
    z.sum().backward()
    expected.sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, parameters[name].grad)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[0], expected.detach())
    torch.testing.assert_close(pre_activations(model, x)[-1][0], expected.detach())


def test_orthogonal_centred_puts_a_sigmoid_layer_at_zero_when_the_layer_below_is_at_half():
    model = build_mlp(Architecture((2, 8, 8, 1)), [0], "orthogonal_centred", gain=4.0)
    weight, bias = model.weights[1][0, 0].detach(), model.biases[1][0, 0, 0].detach()
    torch.testing.assert_close(weight @ weight.T, 16 * torch.eye(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(weight @ torch.full((8,), 0.5) + bias, torch.zeros(8))
    assert not model.biases[0].any()


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("torch_default", 1 / 300),
        ("xavier", 2 / 300),
        ("he", 2 / 100),
        ("orthogonal_centred", None),
    ],
)
def test_initialisations_have_the_spread_they_state_and_scale_with_the_gain(name, variance):
    assert name in INITIALISATIONS
    architecture = Architecture((2, 100, 200, 1))
    weight = build_mlp(architecture, [0], name).weights[1].detach()
    doubled = build_mlp(architecture, [0], name, gain=2.0).weights[1].detach()
    torch.testing.assert_close(doubled, 2 * weight)
    if variance is not None:
        assert weight.var().item() == pytest.approx(variance, rel=0.05)


def test_seeds_do_not_mix_and_can_be_taken_apart_and_stacked_again():
    architecture = Architecture((2, 5, 5, 1))
    both, second = build_mlp(architecture, [1, 2]), build_mlp(architecture, [2])
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(both(x)[1], second(x)[0])
    again = stack([both.select([0]), both.select([1])])
    assert torch.equal(again(x), both(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Architecture((2,)), "at least the input and the output width, got 1"),
        (lambda: Architecture((2, 0, 1)), "at least 1, got 0"),
        (lambda: Architecture((2, 1), "swish"), "hidden activation must be one of .*'swish'"),
        (lambda: Architecture((2, 1), "relu", "step"), "output activation must be .*'step'"),
        (lambda: build_mlp(Architecture((2, 1)), []), "got none"),
        (lambda: build_mlp(Architecture((2, 1)), [0], "zeros"), "initialisation must be .*'zeros'"),
        (lambda: build_mlp(Architecture((2, 1)), [0], gain=0.0), "gain must be above 0, got 0"),
        (
            lambda: build_mlp(Architecture((2, 1)), [0])(torch.zeros(4, 3)),
            r"shape \(examples, 2\), got \(4, 3\)",
        ),
        (
            lambda: StackedMLP(Architecture((2, 1)), [torch.zeros(1, 1, 1, 3)], [torch.zeros(1)]),
            r"weight of layer 1 must have shape \(1, 1, 1, 2\), got \(1, 1, 1, 3\)",
        ),
        (lambda: stack([]), "at least one model, got none"),
        (lambda: Architecture((2, 1.5, 1)), "widths must be a whole number, got 1.5"),
        (lambda: Architecture((2, 4, 1), "relu", "softmax"), "2 units or more, got 1"),
        (lambda: build_mlp(Architecture((2, 1)), [1.9]), "seeds must be a whole number, got 1.9"),
        (lambda: build_mlp(Architecture((2, 1)), [-1]), "seeds must lie in 0 .* got -1"),
        (lambda: build_mlp(Architecture((2, 1)), [2**32]), "seeds must lie in 0 .* 4294967296"),
        (lambda: build_mlp(Architecture((2, 1)), [0], gain=torch.inf), "gain must be finite"),
    ],
)
def test_wrong_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("skip", [False, True])
def test_layers_that_rest_give_the_gradients_of_a_whole_pass_when_they_wake(skip):
    architecture = Architecture((2, *[5] * 20, 1), "tanh", skip_connections=skip)
    model = build_mlp(architecture, [0, 1], dtype=torch.float64)
    leaves = [*model.weights, *model.biases]
    split = model.weights[:3], model.biases[:3]
    x = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    memory, dead = (
        [torch.full_like(leaf, torch.nan) for leaf in leaves],
        [DeadLayers(), DeadLayers()],
    )
    for scale in (1.0, 0.0, 0.0, 1.0, 0.0, 1.0):
        z = forward(architecture, *split, x, memory, dead)
        found = torch.autograd.grad(scale * z.square().sum(), leaves)
        whole = forward(architecture, *split, x)
        expected = torch.autograd.grad(scale * whole.square().sum(), leaves)
        assert [layers.count for layers in dead] == ([0, 0] if scale else [1, 19])
        assert torch.equal(z, whole)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        if scale:  # as an optimiser does: only what has a gradient moves
            with torch.no_grad():
                for leaf, gradient in zip(leaves, expected, strict=True):
                    leaf -= 0.01 * gradient


def test_a_run_rests_only_where_all_below_it_rests():
    architecture = Architecture((2, *[5] * 3, 1), "tanh")
    model = build_mlp(architecture, [0], dtype=torch.float64)
    x = torch.ones(4, 2, dtype=torch.float64)
    leaves = [*model.weights, *model.biases]
    dead = [DeadLayers(), DeadLayers()]
    memory = [torch.zeros_like(leaf) for leaf in leaves]
    forward(architecture, model.weights, model.biases, x, memory, dead)
    dead[1].count = 2
    with torch.no_grad():
        model.weights[0] += 1
    z = forward(architecture, model.weights, model.biases, x, memory, dead)
    assert torch.equal(z, model(x))

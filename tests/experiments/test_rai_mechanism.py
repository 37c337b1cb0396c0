"""What rai-mechanism measures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from rai_utils.data import moons
from rai_utils.experiments import rai_mechanism as mechanism
from rai_utils.experiments.activation_saturation import saturation
from rai_utils.models import Architecture, build_mlp, pre_activations, stack
from rai_utils.relaxation import forward_targets, relaxation_plan, relaxed_loss
from rai_utils.training import Phase, Watch, fit_relaxed

DEEP = Architecture((2, *[30] * 16, 1))  # its examples are one point from about layer 10 on


def shallow(seeds=(0,), hidden_layers=3, width=5):
    return build_mlp(Architecture((2, *[width] * hidden_layers, 1)), seeds)


@pytest.mark.parametrize("left_out", [0, 1, 30])
def test_a_draw_leaves_out_examples_of_class_0_alone(left_out):
    whole, data = moons(seed=45, held_out_seed=1045), mechanism.draw(3, left_out)
    assert [int((data.y == label).sum()) for label in (0, 1)] == [50 - left_out, 50]
    rows = {tuple(x) for x in whole.x.tolist()}
    assert {tuple(x) for x in data.x.tolist()} <= rows
    assert torch.equal(data.x[data.y == 1], whole.x[whole.y == 1])
    assert torch.equal(data.held_out_x, whole.held_out_x)
    with pytest.raises(ValueError, match="left_out must lie in 0"):
        mechanism.draw(0, 50)


def test_centred_coordinates_are_the_same_function():
    model, x = shallow([4, 5]), moons().x
    other = mechanism.centred(model)
    assert other.architecture.hidden_activation == "centred_sigmoid"
    for z, same in zip(pre_activations(model, x), pre_activations(other, x), strict=True):
        torch.testing.assert_close(z, same, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="sigmoids, got relu"):
        mechanism.centred(build_mlp(Architecture((2, 3, 1), "relu"), [0]))


def one_step(threshold):
    """Return how far each weight and bias moves in a step of gradient descent."""
    objective = {"objective": mechanism.with_dead_zone(threshold)} if threshold else {}
    start, data = shallow(), mechanism.draw(0, 5)
    settled = forward_targets(start, data.x, relaxation_plan(start.architecture))
    moved = tuple(value + torch.linspace(-1, 1, len(data.x))[:, None] for value in settled.values)
    targets = replace(settled, values=moved)
    fit = fit_relaxed(start, data, Phase(1, 1.0, "sgd"), targets=targets, **objective)
    pairs = zip(
        [*fit.model.weights, *fit.model.biases], [*start.weights, *start.biases], strict=True
    )
    return torch.cat([(after - before).detach().flatten() for after, before in pairs])


def test_a_gradient_below_the_threshold_counts_as_0():
    plain = one_step(0)
    threshold = float(plain[plain != 0].abs().median())
    clear = (plain.abs() < 0.9 * threshold) | (plain.abs() > 1.1 * threshold)
    expected = torch.where(plain.abs() >= threshold, plain, 0.0)
    assert 0 < int((expected[clear] == 0).sum()) < int(clear.sum())
    torch.testing.assert_close(one_step(threshold)[clear], expected[clear], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("is_centred", [False, True])
def test_the_sizes_of_terms_are_those_of_every_term_alone(is_centred):
    model = build_mlp(Architecture((2, 4, 4, 3, 1)), [0], dtype=torch.float64)
    model = mechanism.centred(model) if is_centred else model
    data = mechanism.draw(0, 44).to("cpu", torch.float64)
    plan = relaxation_plan(model.architecture)
    values = [v + torch.randn_like(v) for v in forward_targets(model, data.x, plan).values]
    shapes = [*model.weights, *model.biases, *values]
    shapes = [leaf.detach() for leaf in shapes]
    runs, n = len(model.weights), len(data.x)

    def terms(*leaves):
        """Every square and every output error, one number each, layer by layer."""
        weights, biases, targets = leaves[:runs], leaves[runs : 2 * runs], leaves[2 * runs :]
        layers = [
            (w[row, 0], b[row, 0, 0])
            for w, b in zip(weights, biases, strict=True)
            for row in range(len(w))
        ]
        z = [group[place, 0] for group in targets for place in range(len(group))]
        h, found = data.x, []
        for (weight, bias), target in zip(layers, z, strict=True):
            found.append((h @ weight.mT + bias - target).square().flatten() / target.numel())
            h = target.sigmoid() - (0.5 if is_centred else 0)
        errors = torch.nn.functional.binary_cross_entropy_with_logits(
            z[-1][:, 0], data.y, reduction="none"
        )
        return torch.cat([*found, errors / n])

    jacobians = torch.autograd.functional.jacobian(terms, tuple(shapes))
    expected = [each.abs().sum(0) for each in jacobians]
    parts = shapes[:runs], shapes[runs : 2 * runs], shapes[2 * runs :]
    found = mechanism.term_sizes(plan, *parts, data.x, data.y)
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, reference)
    with pytest.raises(ValueError, match="every layer must be relaxed"):
        some = relaxation_plan(model.architecture, [1, 2])
        mechanism.term_sizes(some, *parts, data.x, data.y)


def test_a_relative_threshold_leaves_out_what_its_terms_cancel():
    start, data = shallow(), mechanism.draw(0, 5)
    settled = forward_targets(start, data.x, relaxation_plan(start.architecture))
    moved = [v + torch.linspace(-1, 1, len(data.x))[:, None] ** 3 for v in settled.values]
    targets = replace(settled, values=tuple(moved))
    parts = start.weights, start.biases, targets.values
    sizes = mechanism.term_sizes(targets.plan, *parts, data.x, data.y)

    def steps(objective):
        phase = Phase(1, 1.0, "sgd")
        fit = fit_relaxed(start, data, phase, targets=targets, objective=objective)
        ends = *fit.model.weights, *fit.model.biases, *fit.relaxed_targets.values
        begins = (leaf for leaves in parts for leaf in leaves)
        return [(end - begin).detach() for end, begin in zip(ends, begins, strict=True)]

    kept = steps(mechanism.with_dead_zone(0.1, is_relative=True))
    left_out = 0
    for ours, whole, size in zip(kept, steps(relaxed_loss), sizes, strict=True):
        expected = torch.where(whole.abs() >= 0.1 * size, whole, 0.0)
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)
        left_out += int((expected != whole).sum())
    assert left_out > 10


def test_looking_sees_each_step_before_its_update_and_changes_nothing():
    seen = []

    def look(step, plan, weights, biases, values, x):
        seen.append((step, values[0].detach().clone()))

    start, data, phase = shallow(), mechanism.draw(0), Phase(3, 0.01)
    fit = fit_relaxed(start, data, phase, objective=mechanism.looking(look))
    plain = fit_relaxed(start, data, phase)
    assert [step for step, _ in seen] == [0, 1, 2]
    expected = forward_targets(start, data.x, relaxation_plan(start.architecture)).values[0]
    torch.testing.assert_close(seen[0][1], expected)
    torch.testing.assert_close(fit.model.weights[1], plain.model.weights[1])


def test_the_first_direction_is_that_of_the_greatest_variance():
    generator = np.random.default_rng(0)
    z = generator.normal(size=(40, 6)) * [5, 1, 1, 1, 1, 1] + 100
    values, vectors = np.linalg.eigh(np.cov(z.T))
    along = (z - z.mean(0)) @ vectors[:, -1]
    reference = generator.normal(size=40) + along
    share, itself, other = mechanism.first_direction(torch.tensor(z), [along, reference])
    assert share == pytest.approx(values[-1] / values.sum())
    assert itself == pytest.approx(1)
    assert other == pytest.approx(abs(np.corrcoef(along, reference)[0, 1]))
    assert np.isnan(mechanism.first_direction(torch.ones(9, 4), [np.arange(9.0)])).all()


def test_targets_above_the_front_are_the_label_along_one_direction():
    model, data, depth = build_mlp(DEEP, [1]), mechanism.draw(1), DEEP.depth
    layers = range(1, depth + 1)
    fit, targets, forward = mechanism.trace(model, data, Phase(5, 0.2), [0, 5], layers)
    assert targets.shape == forward.shape == (2, depth, 3)
    assert targets[1, depth - 5 :, [0, 2]] == pytest.approx(1, abs=1e-3)
    np.testing.assert_array_equal(targets[0, : depth - 5], targets[1, : depth - 5])
    assert sorted(fit.snapshots) == [0, 5]
    score, label = mechanism.references(data)
    assert set(label) == {-1, 1} and np.mean((score > 0) == (label > 0)) > 0.8
    z = pre_activations(model, data.x)[1][0]
    assert forward[0, 1].tolist() == pytest.approx(
        mechanism.first_direction(z, [score, label]), rel=1e-6
    )


def test_the_line_is_where_the_score_is_0():
    grid = np.linspace(-2, 2, 9)
    shown = mechanism.line_map(mechanism.draw(0), grid)
    logits = np.log(shown / (1 - shown))
    for differences in (np.diff(logits, axis=0), np.diff(logits, axis=1)):  # a plane
        np.testing.assert_allclose(differences, differences[0, 0], rtol=1e-6)
    assert logits[-1, 0] < 0 < logits[0, -1]  # class 0 is the upper moon


def test_the_mean_field_gain_solves_its_equations():
    def expectation(function, q):
        return quad(lambda z: norm.pdf(z) * function(q**0.5 * z) ** 2, -10, 10)[0]

    q = 0.1
    for _ in range(30):
        q = expectation(expit, q) / 3 + 1 / 60
    slopes = expectation(lambda z: expit(z) * expit(-z), q)
    assert mechanism.mean_field_gain(20) == pytest.approx((slopes / 3) ** 0.5, rel=1e-6)


def test_one_example_less_moves_all_weights_of_a_row_together():
    model, layer, rate = build_mlp(DEEP, [0]), 14, 0.1
    arrival = DEEP.depth - layer + 1  # the step before which the layer's target has moved
    data = mechanism.draw(0, 1)
    found = mechanism.common_jump(model, data, layer, arrival + 2, rate)
    below = pre_activations(model, data.x)[layer - 2].sigmoid().mean(1).sum()
    assert found[arrival - 1, :2].max() < 1e-6
    assert found[arrival, 1] == pytest.approx(rate, rel=0.01)
    assert found[arrival + 1, 0] == pytest.approx(rate * (float(below) + 1), rel=0.05)
    assert found[arrival + 1, 2] > 0.99  # along the label's own direction
    centred = mechanism.common_jump(mechanism.centred(model), data, layer, arrival + 2, rate)
    assert centred[arrival + 1, 0] < found[arrival + 1, 0] / 3


def test_the_subsets_are_of_the_layers():
    chosen = {name: list(subset(31)) for name, subset in mechanism.SUBSETS.items()}
    assert chosen["all"] == list(range(1, 32))
    assert sorted(chosen["first half"] + chosen["last half"]) == chosen["all"]
    assert chosen["every 10th"] == [10, 20, 30]
    parts = {name: list(part(9)) for name, part in mechanism.SECOND_PHASES.items()}
    assert parts["1 and 2"] + parts["3 to T"] == parts["all"]
    assert parts["4 to T"] == parts["3 to T"][1:]


@pytest.fixture
def asked(monkeypatch):
    """What ``relay_cell`` asks of a fit of few steps."""
    asked = {}

    def fit(model, data, phase, **options):
        asked.update(model=model, data=data, phase=phase, **options)
        return fit_relaxed(model, data, phase, **options)

    monkeypatch.setattr(mechanism, "fit_relaxed", fit)
    monkeypatch.setattr(mechanism, "AFTER_FRONT", 4)
    monkeypatch.setattr(mechanism, "compile_rprop", lambda: None)
    return asked


def test_a_relay_cell_trains_its_network_at_each_rate(asked):
    found = mechanism.relay_cell(2, 3, 6, [0.1, 0.3], left_out=2, relaxed="every 2nd")
    start = shallow([2], 3, 6)
    assert asked["phase"] == Phase(7, (0.1, 0.3))
    assert asked["targets"].plan.layers == (2, 4)
    for position, rate in enumerate((0.1, 0.3)):
        alone = fit_relaxed(
            start,
            mechanism.draw(2, 2),
            Phase(7, rate),
            layers=(2, 4),
            watch=Watch(evaluate_at=(7,)),
        ).history
        for name, values in (("train", alone.accuracy), ("held_out", alone.held_out_accuracy)):
            assert found[name][position] == pytest.approx(values[-1, 0], abs=0.03)


def test_a_relay_cell_moves_its_targets_off_the_forward_pass(asked):
    mechanism.relay_cell(1, 3, 40, [0.1, 0.2], residual=1e-3, is_centred=True, precision="float64")
    targets, model = asked["targets"], asked["model"]
    assert model.architecture.hidden_activation == "centred_sigmoid"
    assert targets.values[0].dtype == torch.float64
    settled = forward_targets(model, targets.x, targets.plan).values
    for moved, value in zip(targets.values, settled, strict=True):
        assert (moved - value).std().item() == pytest.approx(1e-3, rel=0.25)
        torch.testing.assert_close(moved[:, 0], moved[:, 1])
    mechanism.relay_cell(1, 3, 6, [0.1])
    assert torch.equal(
        asked["targets"].values[0],
        forward_targets(asked["model"], asked["data"].x, asked["targets"].plan).values[0],
    )


@pytest.mark.parametrize(("change", "message"), [({"relaxed": "some"}, "relaxed must be")])
def test_a_relay_cell_refuses_what_it_does_not_know(change, message):
    with pytest.raises(ValueError, match=message):
        mechanism.relay_cell(0, 2, 3, [0.1], **change)


def test_a_network_cell_reports_all_that_it_looks_at(monkeypatch):
    monkeypatch.setattr(mechanism, "AFTER_FRONT", 56)
    monkeypatch.setattr(mechanism, "compile_rprop", lambda: None)
    found = mechanism.network_cell(3, 5, 6, 0.1, 2)
    data, start = mechanism.draw(3), shallow([3], 5, 6)
    assert found["steps"] == [0, 60, 61] and found["layers"] == [1, 2, 3, 4]
    assert np.shape(found["targets"]) == np.shape(found["forward"]) == (3, 4, 3)
    deltas = saturation.backward_signals(start.select([0]).double(), data)[1]
    gains = saturation.backward_gains(deltas)[:, 0]  # by an independent sweep
    assert found["gains_at_start"] == pytest.approx(gains, rel=1e-3)
    assert found["gains_after"] != found["gains_at_start"]
    assert found["second_train"].keys() == found["second_held_out"].keys()
    assert set(found["second_train"]) == set(mechanism.SECOND_PHASES)
    assert 0.8 < found["line_held_out"] < 0.95
    z = pre_activations(stack([start]), data.x)[0][0]
    expected = mechanism.first_direction(z, mechanism.references(data))
    assert found["forward"][0][0] == pytest.approx(expected, abs=1e-4)

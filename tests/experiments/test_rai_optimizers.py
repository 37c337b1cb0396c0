"""What rai-optimizers measures."""

import numpy as np
import pytest
import torch
from torch import nn

from rai_utils.data import moons, moons_draw
from rai_utils.experiments import rai_optimizers
from rai_utils.experiments.rai_optimizers import (
    METHODS,
    OBJECTIVES,
    changed,
    curvature_cell,
    depth_cell,
    extreme_curvatures,
    fit_by_rule,
    fit_lbfgs,
    greatest_curvature,
    hessian,
    layer_sizes,
    starting_targets,
    trainable_depth,
    written_loss,
    written_vector,
)
from rai_utils.models import Architecture, build_mlp, forward
from rai_utils.modules import relax
from rai_utils.relaxation import guided_targets, output_loss, relaxed_loss, resting
from rai_utils.training import UPDATE_RULES, Phase, Watch, fit_backprop, fit_relaxed


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    monkeypatch.setattr(rai_optimizers, "compile_rprop", lambda: None)


@pytest.fixture
def data():
    return moons(examples=12, held_out=30).to("cpu", torch.float64)


@pytest.fixture
def model():
    return build_mlp(Architecture((2, 4, 4, 4, 1)), [3], dtype=torch.float64)


def test_every_rule_of_the_table_is_compared_and_its_grid_lies_within_its_limits():
    rules = [method.rule for method in METHODS.values() if method.rule]
    assert sorted(rules) == sorted(UPDATE_RULES)
    for method in METHODS.values():
        assert len(method.rates) == 5
        low, high = method.limits
        assert low < method.rates[-1] < method.rates[0] < high


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_fit_is_that_of_its_objective_from_its_start(data, model, objective, monkeypatch):
    monkeypatch.setattr(rai_optimizers, "REST", 3)
    phase, watch = Phase(6, 0.1, "adam"), Watch([6])
    found = fit_by_rule(model, data, phase, objective=objective, watch=watch)
    options = {"watch": watch, "device": "cpu"}
    if objective == "guided":
        options["targets"] = guided_targets(model, data, [500_003])
        options["objective"] = resting(3)
    fit = fit_backprop if objective == "plain" else fit_relaxed
    reference = fit(model, data, phase, **options)
    for ours, theirs in zip(found.model.parameters(), reference.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert found.history.held_out_loss == reference.history.held_out_loss


def test_targets_start_off_the_forward_pass_by_the_residual_asked_for(data, model):
    exact, off = (starting_targets("relaxed", model, data, size) for size in (0.0, 0.5))
    apart = torch.cat([(a - b).flatten() for a, b in zip(off.values, exact.values, strict=True)])
    assert apart.std().item() == pytest.approx(0.5, rel=0.2)
    assert starting_targets("plain", model, data) is None
    with pytest.raises(ValueError, match="objective must be one of plain, relaxed, guided"):
        starting_targets("magic", model, data)


def written_steps(model, targets, data, phase, move):
    """Relaxed descent written out, a gradient at a time; ``move`` takes gradient and position."""
    parts = [*model.weights, *model.biases, *targets.values]
    leaves = [part.detach().clone().requires_grad_() for part in parts]
    runs = len(model.weights)
    for step in range(phase.steps):
        loss = relaxed_loss(
            targets.plan, leaves[:runs], leaves[runs : 2 * runs], leaves[2 * runs :], data.x, data.y
        )
        gradients = torch.autograd.grad(loss.total.sum(), leaves)
        for place, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
            leaf.data -= phase.learning_rate * move(gradient, place >= 2 * runs, step, place)
    return leaves


def test_signs_under_adagrad_are_sign_steps_over_the_root_of_the_moves(data, model):
    targets, phase = starting_targets("relaxed", model, data, 0.3), Phase(5, 0.05, "adagrad")
    moves = {}

    def move(gradient, is_target, step, place):
        moves[place] = moves.get(place, 0) + (gradient != 0)
        return gradient.sign() / moves[place].clamp(min=1).sqrt()

    expected = written_steps(model, targets, data, phase, move)
    fit = fit_by_rule(model, data, phase, objective="relaxed", residual=0.3, reads_signs=True)
    found = [*fit.model.weights, *fit.model.biases, *fit.relaxed_targets.values]
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, reference)


def test_targets_move_at_a_rate_of_their_own(data, model):
    targets, phase = starting_targets("relaxed", model, data, 0.3), Phase(4, 0.1, "sgd")
    expected = written_steps(
        model, targets, data, phase, lambda g, is_target, *_: 7 * g if is_target else g
    )
    fit = fit_by_rule(model, data, phase, objective="relaxed", residual=0.3, target_ratio=7.0)
    found = [*fit.model.weights, *fit.model.biases, *fit.relaxed_targets.values]
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, reference)
    one = fit_relaxed(model, data, phase, targets=targets, objective=changed(relaxed_loss))
    plain = fit_by_rule(model, data, phase, objective="relaxed", residual=0.3)
    assert torch.equal(one.model.weights[0], plain.model.weights[0])


def torchs_lbfgs(parameters, find_loss, rate, evaluations):
    """Minimise over parameters of ordinary modules by torch's L-BFGS."""
    optimizer = torch.optim.LBFGS(
        parameters,
        lr=rate,
        max_iter=evaluations,
        max_eval=evaluations,
        history_size=10,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = find_loss()
        loss.backward()
        return loss

    optimizer.step(closure)


@pytest.mark.parametrize("objective", ["plain", "relaxed"])
def test_lbfgs_is_torchs_on_an_ordinary_module_with_a_rate_a_network(data, objective):
    model = build_mlp(Architecture((2, 4, 4, 1)), [3, 4], dtype=torch.float64)
    rates = (1.0, 0.3)
    fit = fit_lbfgs(model, data, Phase(12, rates, "sgd"), objective=objective)
    for position, rate in enumerate(rates):
        module = model.as_module(position)

        def own_loss(module=module):
            return nn.functional.binary_cross_entropy_with_logits(module(data.x)[:, 0], data.y)

        if objective == "plain":
            torchs_lbfgs(list(module.parameters()), own_loss, rate, 12)
        else:
            with relax(module, data.x) as relaxed:
                trained = [*module.parameters(), *relaxed.targets.values()]
                torchs_lbfgs(trained, lambda: own_loss() + relaxed.hidden_loss(), rate, 12)
        module.eval()
        torch.testing.assert_close(
            fit.model(data.x)[position], module(data.x), rtol=1e-5, atol=1e-7
        )
        reference = own_loss(module).item()
        assert fit.history.loss[-1, position] == pytest.approx(reference, rel=1e-5)


def test_lbfgs_keeps_to_its_evaluations_and_lets_guided_targets_rest(data, model, monkeypatch):
    monkeypatch.setattr(rai_optimizers, "REST", 5)
    begin, seen = starting_targets("guided", model, data), []

    def spy(plan, weights, biases, values, *rest):
        seen.append([torch.equal(v, b) for v, b in zip(values, begin.values, strict=True)])
        return relaxed_loss(plan, weights, biases, values, *rest)

    monkeypatch.setattr(rai_optimizers, "relaxed_loss", spy)
    fit = fit_lbfgs(model, data, Phase(20, 1.0, "sgd"), objective="guided")
    assert all(all(row) for row in seen[:5]) and not any(seen[-1])
    assert 20 <= len(seen) <= 20 + 2 * 25
    assert np.isfinite(fit.history.held_out_loss).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_written_loss_is_the_one_that_is_trained(data, model, objective):
    targets = starting_targets(objective, model, data, 0.3 if objective == "relaxed" else 0.0)
    vector = written_vector(model, targets)
    sizes = layer_sizes(model.architecture, len(data.x))
    assert len(vector) == sum(sizes if targets else sizes[:4])
    found = written_loss(model.architecture, data)(vector)
    weights, biases = [*model.weights], [*model.biases]
    if targets is None:
        z = forward(model.architecture, weights, biases, data.x)
        expected = output_loss(z, data.y, "sigmoid")[0]
    else:
        expected = relaxed_loss(targets.plan, weights, biases, targets.values, data.x, data.y)
        expected = expected.total[0]
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_curvatures_by_lanczos_are_those_of_the_dense_hessian(data, model, objective):
    targets = starting_targets(objective, model, data, 0.3 if objective == "relaxed" else 0.0)
    loss, at = written_loss(model.architecture, data), written_vector(model, targets)
    dense = torch.autograd.functional.hessian(loss, at).numpy()
    gradient, operator = hessian(loss, at)
    torch.testing.assert_close(gradient, torch.autograd.functional.jacobian(loss, at))
    vector = np.random.default_rng(1).normal(size=len(at))
    np.testing.assert_allclose(operator.matvec(vector), dense @ vector, atol=1e-12)
    values = np.linalg.eigvalsh(dense)
    size = np.abs(values).max()
    assert extreme_curvatures(operator) == pytest.approx((values[0], values[-1]), abs=1e-4 * size)
    part = slice(12, 32)  # weights and bias of layer 2
    block = np.linalg.eigvalsh(dense[part, part])
    expected = block[np.abs(block).argmax()]
    assert greatest_curvature(operator, part) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "objective"),
    [("Adam", "plain"), ("Rprop", "relaxed"), ("Muon", "guided"), ("L-BFGS", "relaxed")],
)
def test_a_cell_fits_other_networks_at_the_rate_that_it_found(optimizer, objective):
    cell = depth_cell(optimizer, objective, 2, 4, 3, 2, 2, residual=0.1)
    assert cell["learning_rate"] in cell["learning_rates"]
    assert len(cell["losses"]) == len(cell["learning_rates"]) >= 5
    fit, rule = fit_by_rule, METHODS[optimizer].rule
    if rule is None:
        fit, rule = fit_lbfgs, "sgd"
    phase = Phase(3, cell["learning_rate"], rule, smallest_step=1e-12)
    for name, residual in (("held_out", 0.0), ("disturbed_held_out", 0.1)):
        for network in range(2):
            start = build_mlp(Architecture((2, 4, 4, 1)), [network])
            options = {"objective": objective, "residual": residual, "watch": Watch([3])}
            history = fit(start, moons_draw(network), phase, **options).history
            assert cell[name][network] == pytest.approx(history.held_out_accuracy[-1, 0], abs=1e-4)


def test_the_trainable_depth_is_the_greatest_that_four_of_five_networks_reach():
    found = {3: [0.9] * 5, 10: [0.9, 0.9, 0.9, 0.8, None], 30: [0.8, 0.9, 0.9, 0.9, 0.9]}
    assert trainable_depth(found, 0.9) == 30
    assert trainable_depth({**found, 30: [0.9, 0.9, 0.9, None, 0.8]}, 0.9) == 3
    assert trainable_depth(found, 0.95) == 0


def test_a_cell_of_curvatures_sees_each_objective_where_it_stands():
    cells = {name: curvature_cell(name, 2, 3, 0, 0.1, [0, 5]) for name in OBJECTIVES}
    for name, cell in cells.items():
        assert np.shape(cell["weights"]) == (2, 3)
        assert np.shape(cell["targets"]) == ((2, 0) if name == "plain" else (2, 3))
        assert all(np.array(cell["least"]) <= np.array(cell["greatest"]))
    np.testing.assert_allclose(cells["plain"]["cosines"], 1)
    assert cells["relaxed"]["cosines"][0] == [None] * 3  # residuals of 0 pull no weight
    assert None not in cells["relaxed"]["cosines"][1] + cells["guided"]["cosines"][0]

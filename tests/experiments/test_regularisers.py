"""Regularisers against ordinary torch layers, ordinary autograd and ordinary loops, in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rai_utils.data import moons
from rai_utils.diagnostics import decision_map
from rai_utils.experiments.rai_questions_generalisation import regularisers
from rai_utils.experiments.rai_questions_generalisation.regularisers import (
    REGULARISERS,
    change,
    chosen_strengths,
    fit_growing,
    fit_renewed,
    fit_stopped,
    fit_with_multipliers,
    measure,
    residuals,
    with_multipliers,
    with_target_decay,
    with_target_noise,
)
from rai_utils.models import Architecture, build_mlp
from rai_utils.relaxation import Targets, forward_targets, relaxation_plan, relaxed_loss
from rai_utils.training import Phase, Watch, evaluate, fit_relaxed

ARCHITECTURE = Architecture((2, 5, 5, 5, 1), "tanh")


@pytest.fixture
def data():
    return moons(examples=12, held_out=40).to("cpu", torch.float64)


@pytest.fixture
def model():
    return build_mlp(ARCHITECTURE, [0, 1], dtype=torch.float64)


def offset(layer, like):
    """How far the targets of a layer start from the forward pass, the same for all networks."""
    generator = torch.Generator().manual_seed(layer)
    return torch.randn(like.shape[-2:], generator=generator, dtype=like.dtype)


@pytest.fixture
def disturbed(monkeypatch):
    """Let every fit start from disturbed targets.

    Adam divides by the size of a gradient. From the forward pass on, many are a difference of
    nothing, and another processor's rounding moves a number as far as a gradient of 1 would.
    """

    def fit(model, data, phase, *, targets=None, **options):
        if targets is None:
            settled = forward_targets(model, data.x, relaxation_plan(model.architecture))
            values = [value.clone() for value in settled.values]
            targets = Targets(settled.plan, tuple(values), data.x)
            for layer in settled.plan.layers:
                targets.at(layer).add_(offset(layer, targets.at(layer)))
        return fit_relaxed(model, data, phase, targets=targets, **options)

    monkeypatch.setattr(regularisers, "fit_relaxed", fit)
    return fit


class Twin:
    """One relaxed network, one layer after the other, with a target for each linear layer."""

    def __init__(self, module, data):
        self.data = data
        self.linear = [layer for layer in module if isinstance(layer, nn.Linear)]
        self.renew()

    def renew(self):
        h, self.targets = self.data.x, []
        for number, layer in enumerate(self.linear, start=1):
            z = layer(h).detach()
            self.targets.append((z + offset(number, z)).requires_grad_())
            h = z.tanh()

    def residuals(self):
        below = [self.data.x, *(z.tanh() for z in self.targets[:-1])]
        pairs = zip(self.linear, below, self.targets, strict=True)
        return [layer(h) - z for layer, h, z in pairs]

    def loss(self, hidden_weight=1.0, multipliers=None, target_decay=0.0, weight_decay=0.0):
        owed = self.residuals()
        if multipliers is not None:
            owed = [r + u for r, u in zip(owed, multipliers, strict=True)]
        output = nn.functional.binary_cross_entropy_with_logits(self.targets[-1][:, 0], self.data.y)
        return (
            output
            + hidden_weight * sum((r**2).mean() for r in owed)
            + target_decay * sum((z**2).mean() for z in self.targets)
            + weight_decay / 2 * sum((layer.weight**2).sum() for layer in self.linear)
        )

    def train(self, steps, rate, **options):
        weights = [p for layer in self.linear for p in layer.parameters()]
        optimizer = torch.optim.Adam([*weights, *self.targets], lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss(**options).backward()
            optimizer.step()

    def assert_same(self, model, position):
        for layer, other in zip(
            self.linear,
            [part for part in model.as_module(position) if isinstance(part, nn.Linear)],
            strict=True,
        ):
            torch.testing.assert_close(other.weight, layer.weight, rtol=1e-8, atol=1e-10)
            torch.testing.assert_close(other.bias, layer.bias, rtol=1e-8, atol=1e-10)


def pushed(model, data):
    """Targets off the forward pass, as leaves, and a twin of each network with the same ones."""
    plan = relaxation_plan(ARCHITECTURE)
    generator = torch.Generator().manual_seed(3)
    values = [
        (v + torch.randn(v.shape, generator=generator, dtype=v.dtype)).requires_grad_()
        for v in forward_targets(model, data.x, plan).values
    ]
    twins = []
    for position in range(model.seeds):
        twin = Twin(model.as_module(position), data)
        for layer, target in enumerate(twin.targets, start=1):
            group, place = plan.locate(layer)
            target.data.copy_(values[group][place, position])
        twins.append(twin)
    return plan, values, twins


def assert_same_gradients(model, plan, values, total, twins, losses):
    np.testing.assert_allclose(total.detach(), [loss.item() for loss in losses], rtol=1e-12)
    total.sum().backward()
    for position, (twin, loss) in enumerate(zip(twins, losses, strict=True)):
        loss.backward()
        for layer, target in enumerate(twin.targets, start=1):
            group, place = plan.locate(layer)
            torch.testing.assert_close(values[group].grad[place, position], target.grad)
            run, offset = ARCHITECTURE.locate(layer)
            torch.testing.assert_close(
                model.weights[run].grad[offset, position], twin.linear[layer - 1].weight.grad
            )


def test_residuals_are_those_of_ordinary_layers(model, data):
    plan, values, twins = pushed(model, data)
    ours = residuals(plan, [*model.weights], [*model.biases], values, data.x)
    for position, twin in enumerate(twins):
        for r, expected in zip(ours, twin.residuals(), strict=True):
            torch.testing.assert_close(r[position], expected)
    with pytest.raises(ValueError, match=r"all 4 layers must be relaxed, got layers \(1, 3\)"):
        residuals(relaxation_plan(ARCHITECTURE, (1, 3)), [], [], values, data.x)


def test_the_augmented_lagrangian_has_the_gradient_of_autograd(model, data):
    plan, values, twins = pushed(model, data)
    generator = torch.Generator().manual_seed(5)
    multipliers = [
        torch.randn(2, 12, width, generator=generator, dtype=torch.float64)
        for width in ARCHITECTURE.widths[1:]
    ]
    parts = with_multipliers(multipliers)(
        plan, [*model.weights], [*model.biases], values, data.x, data.y, hidden_weight=0.7
    )
    losses = [
        twin.loss(0.7, [u[position] for u in multipliers]) for position, twin in enumerate(twins)
    ]
    expected = [[(r**2).mean().item() for r in twin.residuals()] for twin in twins]
    np.testing.assert_allclose(parts.hidden.T, expected, rtol=1e-12)
    assert_same_gradients(model, plan, values, parts.total, twins, losses)


def test_without_multipliers_it_is_the_relaxed_loss(model, data):
    plan, values, _ = pushed(model, data)
    arguments = (plan, [*model.weights], [*model.biases], values, data.x, data.y)
    none = [torch.zeros(()) for _ in plan.layers]
    ours = with_multipliers(none)(*arguments, hidden_weight=0.3)
    reference = relaxed_loss(*arguments, hidden_weight=0.3)
    torch.testing.assert_close(ours.total, reference.total)
    torch.testing.assert_close(ours.output, reference.output)
    torch.testing.assert_close(ours.hidden, reference.hidden)


def test_target_decay_has_the_gradient_of_autograd(model, data):
    plan, values, twins = pushed(model, data)
    parts = with_target_decay(0.2)(
        plan, [*model.weights], [*model.biases], values, data.x, data.y, hidden_weight=0.7
    )
    losses = [twin.loss(0.7, target_decay=0.2) for twin in twins]
    assert_same_gradients(model, plan, values, parts.total, twins, losses)


def test_target_noise_is_drawn_anew_and_read_on_both_sides(model, data):
    plan, values, twins = pushed(model, data)
    arguments = (plan, [*model.weights], [*model.biases], values, data.x, data.y)
    objective = with_target_noise(0.4, torch.Generator().manual_seed(8))
    parts = objective(*arguments)
    generator = torch.Generator().manual_seed(8)
    noise = [torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in values]
    losses = []
    for position, twin in enumerate(twins):
        leaves, noisy = twin.targets, []
        for layer, target in enumerate(leaves, start=1):
            group, place = plan.locate(layer)
            noisy.append(target + 0.4 * noise[group][place, position])
        twin.targets = noisy
        losses.append(twin.loss())
        twin.targets = leaves
    assert_same_gradients(model, plan, values, parts.total, twins, losses)
    assert not torch.equal(objective(*arguments).total, parts.total)


def test_a_fit_with_target_decay_equals_the_slow_twin(model, data, disturbed):
    phase = Phase(20, 0.02, "adam", weight_decay=0.1)
    fit = disturbed(model, data, phase, objective=with_target_decay(0.3))
    for position in range(2):
        twin = Twin(model.as_module(position), data)
        twin.train(20, 0.02, target_decay=0.3, weight_decay=0.1)
        twin.assert_same(fit.model, position)


def test_a_growing_weight_equals_the_slow_twin(model, data, disturbed):
    phase = Phase(25, 0.02, "adam")
    trained, targets = fit_growing(model, data, phase, [0.5, 4.0])
    for position in range(2):
        twin = Twin(model.as_module(position), data)
        twin.train(12, 0.02, hidden_weight=0.5)
        twin.train(13, 0.02, hidden_weight=4.0)
        twin.assert_same(trained, position)
        torch.testing.assert_close(targets.at(2)[position], twin.targets[1].detach())


def test_multipliers_equal_the_slow_twin(model, data, disturbed):
    trained, _, multipliers = fit_with_multipliers(
        model, data, Phase(30, 0.02, "adam"), 3, hidden_weight=0.5
    )
    for position in range(2):
        twin = Twin(model.as_module(position), data)
        owed = None
        for last in (False, False, True):
            twin.train(10, 0.02, hidden_weight=0.5, multipliers=owed)
            if not last:
                now = [r.detach() for r in twin.residuals()]
                owed = now if owed is None else [u + r for u, r in zip(owed, now, strict=True)]
        twin.assert_same(trained, position)
        for u, expected in zip(multipliers, owed, strict=True):
            torch.testing.assert_close(u[position], expected, rtol=1e-7, atol=1e-9)


def test_renewed_targets_equal_the_slow_twin(model, data, disturbed):
    trained = fit_renewed(model, data, Phase(25, 0.02, "adam"), 2)
    for position in range(2):
        twin = Twin(model.as_module(position), data)
        twin.train(12, 0.02)
        twin.renew()
        twin.train(13, 0.02)
        twin.assert_same(trained, position)


def test_each_network_stops_where_its_own_held_out_loss_is_lowest(model, data):
    misleading = replace(data, held_out_y=1 - data.held_out_y)  # the better it fits, the worse
    phase = Phase(60, 0.1, "adam")
    stopped = fit_stopped(model, misleading, phase, 8)
    loss, _ = evaluate(stopped, data.held_out_x, misleading.held_out_y, data.task)
    history = fit_relaxed(model, misleading, phase, watch=Watch(evaluate_at=range(61))).history
    compared = [0, *np.unique(np.geomspace(1, 60, 8).round().astype(int))]
    np.testing.assert_allclose(loss, history.held_out_loss[compared].min(0))
    assert (loss < history.held_out_loss[-1]).all(), "nothing to stop early for"


@pytest.mark.parametrize("rounds", [0, 26])
def test_impossible_rounds_are_refused(model, data, rounds):
    with pytest.raises(ValueError, match=rf"rounds must lie in 1 … 25, got {rounds}"):
        fit_renewed(model, data, Phase(25, 0.02, "adam"), rounds)


def cell(**changes):
    arguments = {
        "problem": "noisy moons",
        "regulariser": "none",
        "strength": 0.01,
        "draws": 2,
        "seeds": 3,
        "hidden_layers": 2,
        "width": 4,
        "steps": 20,
        "learning_rate": 0.01,
    }
    return measure(**{**arguments, **changes})


def test_a_cell_scores_what_its_fits_score():
    result = cell()
    data, test = moons(100, 0.3, 1, 500, 1_000_001), moons(100, 0.3, 1, 2000, 2_000_001)
    model = build_mlp(Architecture((2, 4, 4, 1), "relu"), range(3))
    fit = fit_relaxed(model, data, Phase(20, 0.01, "adam"))
    assert result["training"][1] == pytest.approx(fit.history.accuracy[-1].mean())
    assert result["validation"][1] == pytest.approx(fit.history.held_out_accuracy[-1].mean())
    assert result["validation_loss"][1] == pytest.approx(fit.history.held_out_loss[-1].mean())
    right = (fit.model.predict(test.held_out_x)[..., 0] > 0.5) == (test.held_out_y > 0.5)
    assert result["test"][1] == pytest.approx(right.double().mean().item())
    _, maps = decision_map(fit.model, resolution=61)
    votes = maps > 0.5
    pairs = [(votes[i] != votes[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert result["disagreement"][1] == pytest.approx(np.mean(pairs))


def test_every_regulariser_changes_the_result_and_repeats_it():
    plain = cell(steps=40)  # a step a round at the most rounds
    for name, regulariser in REGULARISERS.items():
        own = {"regulariser": name, "strength": regulariser.strengths[-1], "draws": 1, "steps": 40}
        result = cell(**own)
        assert result == cell(**own), name
        if name != "early stopping":  # of so short a run the last step is the best
            assert result["validation_loss"] != plain["validation_loss"][:1], name
        assert len(result["test"]) == 1


def test_the_strength_is_chosen_by_validation_and_changes_are_paired_by_draw():
    def result(regulariser, strength, validation, loss, test):
        return {
            "problem": "moons",
            "regulariser": regulariser,
            "strength": strength,
            "validation": validation,
            "validation_loss": loss,
            "training": [1.0, 0.75],
            "test": test,
        }

    cells = [
        result("none", 1, [0.5, 0.5], [1, 1], [0.5, 0.5]),
        result("noise", 1, [0.5, 0.5], [2, 2], [1.0, 1.0]),
        result("noise", 2, [0.25, 0.75], [2, 1], [0.75, 0.25]),
        result("noise", 3, [0.5, 0.25], [0, 0], [1.0, 1.0]),
    ]
    best = chosen_strengths(cells)["moons"]
    assert [best[name]["strength"] for name in ("none", "noise")] == [1, 2]
    assert change(best["noise"], best["none"], "test").tolist() == [0.25, -0.25]
    assert change(best["noise"], best["none"], "gap").tolist() == [-0.25, 0.25]

"""Fits against the slow twin: ordinary networks, ordinary hooks, torch's own optimiser loop."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import repeat

import numpy as np
import pytest
import torch
from torch import nn

from rai_utils import training
from rai_utils.data import Dataset, moons, three_clusters
from rai_utils.models import Architecture, build_mlp, stack
from rai_utils.modules import relax
from rai_utils.relaxation import Targets, forward_targets, relaxation_plan
from rai_utils.training import (
    Phase,
    Watch,
    evaluate,
    fit_backprop,
    fit_handover,
    fit_relaxed,
    load_fit,
    save_fit,
    schedule,
    score,
)


class SignSGD(torch.optim.SGD):
    """Gradient descent on signs (Bernstein et al. 2018), which torch has not."""

    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = parameter.grad.sign()
        super().step()


TORCHS = {
    "rprop": torch.optim.Rprop,
    "sgd": torch.optim.SGD,
    "sign_sgd": SignSGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "nesterov": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "nadam": torch.optim.NAdam,
    "muon": torch.optim.Adam,  # of all but weights
}


@pytest.fixture
def data():
    return moons(examples=20, held_out=40).to("cpu", torch.float64)


def disturbed_targets(model, x):
    """Targets anywhere: from there no gradient is 0 but for rounding.

    Rprop reads signs and Adam divides by the size of a gradient. From the forward pass on, many
    gradients are 0 or a difference of nothing, and another processor's rounding moves a number as
    far as a gradient of 1 would.
    """
    generator = torch.Generator().manual_seed(7)
    targets = forward_targets(model, x, relaxation_plan(model.architecture))
    values = [v + torch.randn(v.shape, dtype=v.dtype, generator=generator) for v in targets.values]
    return Targets(targets.plan, tuple(values), x)


def of_network(targets, position):
    values = tuple(value[:, [position]] for value in targets.values)
    return Targets(targets.plan, values, targets.x)


# Rounding of two ways to compute a gradient lies far below this.
SURE_SIGN = 1e-11


def slow_twin(module, data, phase, relaxed=None, hidden_weight=1.0):
    """One ordinary network, torch's optimiser, and a loop; its total loss before each step."""
    targets = list(relaxed.targets.values()) if relaxed else []
    weights = [p for name, p in module.named_parameters() if name.endswith("weight")]
    others = [p for name, p in module.named_parameters() if not name.endswith("weight")]
    if phase.optimizer == "rprop":  # torch's Rprop knows no weight decay: it is in the loss below
        options = own = {"step_sizes": (phase.smallest_step, 50.0)}
    else:
        options, own = {"weight_decay": phase.weight_decay}, {}
    optimizer = TORCHS[phase.optimizer](
        [{"params": weights, **options}, {"params": [*others, *targets], **own}],
        lr=phase.learning_rate,
    )
    losses = []
    for _ in range(phase.steps):
        loss = nn.functional.binary_cross_entropy_with_logits(module(data.x)[:, 0], data.y)
        if relaxed:
            loss = loss + hidden_weight * relaxed.hidden_loss()
        losses.append(loss.item())
        if phase.optimizer == "rprop":
            loss = loss + phase.weight_decay / 2 * sum(w.square().sum() for w in weights)
        optimizer.zero_grad()
        loss.backward()
        if phase.optimizer != "sgd":
            gradients = torch.cat([p.grad.flatten() for p in (*module.parameters(), *targets)])
            assert gradients.abs().min() > SURE_SIGN, "the comparison hangs on rounding"
        optimizer.step()
    return losses


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(
    ("optimizer", "start"),
    [("sgd", "forward pass"), ("sgd", "anywhere"), ("rprop", "anywhere"), ("adam", "anywhere")],
)
def test_relaxed_trajectory_equals_the_slow_twin(data, optimizer, start, weight_decay):
    phase = Phase(15, 0.05, optimizer, weight_decay)
    model = build_mlp(Architecture((2, 6, 6, 6, 6, 1)), [0, 1], dtype=torch.float64)
    targets = disturbed_targets(model, data.x) if start == "anywhere" else None
    watch = Watch(inspect_at=range(15), evaluate_at=[])
    fit = fit_relaxed(model, data, phase, hidden_weight=0.5, targets=targets, watch=watch)
    for position in range(2):
        module = model.as_module(position)
        with relax(module, data.x) as relaxed:
            if targets is not None:
                with torch.no_grad():
                    for layer in range(1, 6):
                        relaxed.targets[f"linear{layer}"].copy_(targets.at(layer)[position])
            losses = slow_twin(module, data, phase, relaxed, 0.5)
            last = relaxed.targets["linear3"].detach()
        np.testing.assert_allclose(fit.history.relaxed_loss[:, position], losses, rtol=1e-9)
        torch.testing.assert_close(fit.targets.at(3)[position], last)
        torch.testing.assert_close(
            fit.model.as_module(position).linear2.weight, module.linear2.weight
        )


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", ["rprop", "sgd", "adam"])
def test_backprop_trajectory_equals_the_slow_twin(data, optimizer, weight_decay):
    phase = Phase(15, 0.05, optimizer, weight_decay)
    model = build_mlp(Architecture((2, 6, 6, 6, 1), "tanh"), [3, 4], dtype=torch.float64)
    fit = fit_backprop(model, data, phase, watch=Watch(evaluate_at=range(15)))
    for position in range(2):
        module = model.as_module(position)
        losses = slow_twin(module, data, phase)
        np.testing.assert_allclose(fit.history.loss[:, position], losses, rtol=1e-9)
        torch.testing.assert_close(
            fit.model.as_module(position).linear2.weight, module.linear2.weight
        )


@pytest.mark.parametrize("smallest_step", [1e-12, 0.01])
def test_no_step_of_rprop_shrinks_below_the_smallest(data, smallest_step):
    phase = Phase(40, 0.05, smallest_step=smallest_step)
    model = build_mlp(Architecture((2, 6, 6, 1), "tanh"), [3], dtype=torch.float64)
    fit = fit_backprop(model, data, phase, watch=Watch(evaluate_at=range(40)))
    module = model.as_module(0)
    losses = slow_twin(module, data, phase)
    np.testing.assert_allclose(fit.history.loss[:, 0], losses, rtol=1e-7)
    other = fit_backprop(model, data, Phase(40, 0.05), watch=Watch(evaluate_at=range(40)))
    assert np.isclose(other.history.loss[-1, 0], losses[-1], rtol=1e-7) == (smallest_step < 1e-6)


@pytest.mark.parametrize("rate", [1e-6, 50.0])
def test_rprop_takes_its_first_step_as_it_is_given_up_to_both_limits(data, rate):
    model = build_mlp(Architecture((2, 6, 1), "tanh"), [3], dtype=torch.float64)
    fit = fit_backprop(model, data, Phase(1, rate))
    moved = (fit.model.weights[0] - model.weights[0]).abs().detach()
    torch.testing.assert_close(moved, torch.full_like(moved, rate))


def test_recorded_gradient_norms_and_parts_are_those_of_autograd(data):
    model = build_mlp(Architecture((2, 5, 5, 1)), [0], dtype=torch.float64)
    watch = Watch(inspect_at=[0, 4], evaluate_at=[0, 4])
    fit = fit_relaxed(model, data, Phase(4, 0.1), watch=watch, hidden_weight=2.0)
    history = fit.history
    assert history.inspected_at.tolist() == [0, 4]
    assert not history.hidden_terms[0].any()
    assert history.gradient_norms[0].tolist() == [[0.0], [0.0], [0.0]]
    module = fit.model.as_module(0)
    with relax(module, data.x) as relaxed:
        for layer in (1, 2, 3):
            with torch.no_grad():
                relaxed.targets[f"linear{layer}"].copy_(fit.targets.at(layer)[0])
        output = nn.functional.binary_cross_entropy_with_logits(module(data.x)[:, 0], data.y)
        (output + 2 * relaxed.hidden_loss()).backward()
        terms = torch.stack(list(relaxed.hidden_terms().values()))
    np.testing.assert_allclose(history.output_term[1, 0], output.item())
    np.testing.assert_allclose(history.hidden_terms[1, :, 0], terms.detach())
    np.testing.assert_allclose(history.relaxed_loss[1, 0], output.item() + 2 * terms.sum().item())
    for row, layer in enumerate((module.linear1, module.linear2, module.linear3)):
        norm = torch.cat([layer.weight.grad.flatten(), layer.bias.grad]).norm().item()
        np.testing.assert_allclose(history.gradient_norms[1, row, 0], norm)
    values = fit.targets.at(2)[0]
    np.testing.assert_allclose(history.target_mean_square[1, 1, 0], (values**2).mean())
    np.testing.assert_allclose(history.target_variance[1, 1, 0], values.var(0, False).mean())


def test_accuracy_and_loss_are_those_of_the_plain_forward_pass(data):
    model = build_mlp(Architecture((2, 5, 5, 1)), [0, 1], dtype=torch.float64)
    fit = fit_relaxed(model, data, Phase(30, 0.1), watch=Watch(evaluate_at=[30]))
    for position in range(2):
        z = fit.model.as_module(position)(data.held_out_x)[:, 0].detach()
        right = ((z > 0) == (data.held_out_y == 1)).double().mean().item()
        assert fit.history.held_out_accuracy[0, position] == pytest.approx(right)
        loss = nn.functional.binary_cross_entropy_with_logits(z, data.held_out_y).item()
        np.testing.assert_allclose(fit.history.held_out_loss[0, position], loss)


def test_the_frame_holds_every_evaluation_of_every_seed(data):
    model = build_mlp(Architecture((2, 3, 1)), [0, 1, 2])
    history = fit_backprop(model, data, Phase(4, 0.1), watch=Watch(evaluate_at=(0, 4))).history
    frame = history.frame()
    names = ["loss", "accuracy", "held_out_loss", "held_out_accuracy"]
    assert list(frame.columns) == ["step", "seed", *names]
    assert len(frame) == 2 * 3
    for name in names:
        table = frame.pivot(index="step", columns="seed", values=name)
        assert (table.index.tolist(), table.columns.tolist()) == ([0, 4], [0, 1, 2])
        np.testing.assert_array_equal(table, getattr(history, name))


def test_handover_is_a_relaxed_fit_followed_by_backprop_on_its_weights(data):
    model = build_mlp(Architecture((2, 5, 5, 1)), [0], dtype=torch.float64)
    both = fit_handover(model, data, Phase(5, 0.1), Phase(7, 0.01))
    relaxed = fit_relaxed(model, data, Phase(5, 0.1))
    backprop = fit_backprop(relaxed.model, data, Phase(7, 0.01))
    for ours, expected in zip(
        both.backprop.model.parameters(), backprop.model.parameters(), strict=True
    ):
        assert torch.equal(ours, expected)


def test_a_fit_changes_nothing_it_is_given(data):
    model = build_mlp(Architecture((2, 5, 5, 1)), [0], dtype=torch.float64)
    before = [p.detach().clone() for p in model.parameters()]
    targets = forward_targets(model, data.x, relaxation_plan(model.architecture))
    values = [value.clone() for value in targets.values]
    fit_relaxed(model, data, Phase(3, 0.1), targets=targets)
    fit_backprop(model, data, Phase(3, 0.1))
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert all(torch.equal(v, b) for v, b in zip(targets.values, values, strict=True))
    assert all(p.grad is None for p in model.parameters())


def assert_same_fit(one, other):
    assert (one.state.optimizer, one.state.updates) == (other.state.optimizer, other.state.updates)
    parts = (
        [*fit.model.parameters(), *(fit.targets.values if fit.targets else ()), *fit.state.vectors]
        for fit in (one, other)
    )
    for ours, theirs in zip(*parts, strict=True):
        np.testing.assert_array_equal(ours.detach(), theirs.detach())


@pytest.mark.parametrize("fit", [fit_backprop, fit_relaxed])
@pytest.mark.parametrize("optimizer", training.UPDATE_RULES)
def test_steps_and_more_steps_from_a_file_are_all_of_them(data, tmp_path, fit, optimizer):
    model, file = build_mlp(Architecture((2, 6, 6, 6, 5, 1)), [0, 1]), tmp_path / "fit.pt"
    phases = [Phase(steps, (0.05, 0.01), optimizer, (0.0, 0.1)) for steps in (20, 7, 13)]
    whole, part = fit(model, data, phases[0]), fit(model, data, phases[1])
    save_fit(part, file)
    rest = fit(load_fit(file), data, phases[2])
    assert rest.state.updates == 20
    assert_same_fit(rest, whole)
    assert not torch.equal(part.model.weights[1], whole.model.weights[1])


def test_a_fit_goes_on_where_gradients_are_0_and_through_several_phases(data):
    model = build_mlp(Architecture((2, *[8] * 80, 1)), [0, 1])
    whole = fit_backprop(model, data, Phase(20, 0.1), watch=Watch((), (0, 20)))
    assert (whole.history.gradient_norms == 0).any()
    part = fit_backprop(model, data, Phase(9, 0.1))
    assert_same_fit(fit_backprop(part, data, Phase(11, 0.1)), whole)
    first = fit_relaxed(model, data, Phase(8, 0.1), layers=(3, 20, 81))
    whole, part = (
        fit_relaxed(first.model, data, Phase(steps, 0.01, "adam"), targets=first.targets)
        for steps in (12, 5)
    )
    assert_same_fit(fit_relaxed(part, data, Phase(7, 0.01, "adam")), whole)
    assert whole.targets.plan.layers == (3, 20, 81)


def test_a_file_has_all_of_a_fit(data, tmp_path):
    model = build_mlp(Architecture((2, 5, 5, 1), "relu"), [4, 2], dtype=torch.float64)
    with torch.no_grad():
        model.weights[0][0, 0] *= 1e200
        model.weights[1][0, 0] *= 1e200
    watch = Watch((0, 3), (1, 2), (0, 3))
    for fit in (
        fit_backprop(model, data, Phase(3, 0.1, "sgd"), watch=watch),
        fit_relaxed(model, data, Phase(3, 0.1), watch=watch, layers=(1, 3)),
    ):
        save_fit(fit, tmp_path / "fit.pt")
        loaded = load_fit(str(tmp_path / "fit.pt"))
        assert loaded.model.architecture == model.architecture
        assert loaded.model.drawn_from == (4, 2)
        assert list(loaded.snapshots) == [0, 3]
        for step, snapshot in fit.snapshots.items():
            pairs = zip(snapshot.parameters(), loaded.snapshots[step].parameters(), strict=True)
            assert all(torch.equal(one[:, 1], other[:, 1]) for one, other in pairs)
        assert_same_fit(loaded, fit)
        assert loaded.history.failures == fit.history.failures
        for name, column in vars(fit.history).items():
            np.testing.assert_array_equal(getattr(loaded.history, name), column)
        np.testing.assert_array_equal(loaded.step_seconds, fit.step_seconds)
        assert (loaded.targets is None) == (fit.targets is None)
        assert fit.history.failures
    assert loaded.targets.plan == fit.targets.plan
    assert torch.equal(loaded.targets.x, data.x)


def test_a_file_of_another_kind_is_no_fit(data, tmp_path):
    fit = fit_backprop(build_mlp(Architecture((2, 3, 1)), [0]), data, Phase(1, 0.1))
    file = tmp_path / "fit.pt"
    save_fit(fit, file)
    half = file.read_bytes()[: file.stat().st_size // 2]
    for content in (b"", b"abc", b"{}", half):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"must be one that save_fit wrote, got {file}"):
            load_fit(file)
    for kept in (fit, torch.zeros(3), {"kind": "another"}, fit.model.state_dict()):
        torch.save(kept, file)
        with pytest.raises(ValueError, match="must be one that save_fit wrote"):
            load_fit(file)
    with pytest.raises(FileNotFoundError):
        load_fit(tmp_path / "none")


def test_a_fit_goes_on_as_what_it_was(data):
    model = build_mlp(Architecture((2, 5, 1)), [0, 1])
    backprop, relaxed = (fit(model, data, Phase(2, 0.1)) for fit in (fit_backprop, fit_relaxed))
    phase = Phase(2, 0.1)
    for wrong, message in (
        (lambda: fit_relaxed(backprop, data, phase), "must be one by RAI, got one without"),
        (lambda: fit_backprop(relaxed, data, phase), "a fit by backpropagation, got one by RAI"),
        (lambda: fit_relaxed(relaxed, data, Phase(2, 0.1, "sgd")), "goes on, rprop, got sgd"),
        (lambda: fit_backprop(replace(backprop, state=None), data, phase), "None, got rprop"),
        (
            lambda: fit_relaxed(relaxed, data, phase, targets=relaxed.targets),
            "must be those of the fit that goes on",
        ),
        (lambda: fit_relaxed(relaxed, data, phase, layers=[1]), r"are of layers \(1, 2\), got"),
        (
            lambda: fit_relaxed(relaxed, moons(examples=20, seed=1), phase),
            "examples they were made for",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


def test_snapshots_are_the_weights_at_their_steps(data):
    model = build_mlp(Architecture((2, 5, 5, 1)), [0], dtype=torch.float64)
    fit = fit_relaxed(model, data, Phase(8, 0.1), watch=Watch(snapshot_at=[0, 5]))
    assert torch.equal(fit.snapshots[0].weights[1], model.weights[1])
    shorter = fit_relaxed(model, data, Phase(5, 0.1))
    assert torch.equal(fit.snapshots[5].weights[1], shorter.model.weights[1])


def test_the_signal_moves_one_layer_a_step_from_the_output(data):
    model = build_mlp(Architecture((2, *[6] * 8, 1)), [0], dtype=torch.float64)
    fit = fit_relaxed(model, data, Phase(12, 0.1), watch=Watch(inspect_at=range(13)))
    reached = (fit.history.gradient_norms[:, :, 0] > 0).sum(1)
    assert reached.tolist() == [0, *range(1, 10), 9, 9, 9]


def test_a_fit_starts_from_residuals_of_0_wherever_its_numbers_lie(data, monkeypatch):
    def rounded_otherwise(model, x, plan):
        targets = forward_targets(model, x, plan)
        return Targets(plan, tuple(value * (1 + 1e-15) for value in targets.values), x)

    monkeypatch.setattr(training, "forward_targets", rounded_otherwise)
    model = build_mlp(Architecture((2, 6, 6, 6, 1)), [0, 1], dtype=torch.float64)
    history = fit_relaxed(model, data, Phase(1, 0.1), watch=Watch((), (0,))).history
    assert not history.hidden_terms.any()
    assert not history.gradient_norms.any()


def test_regression_uses_the_squared_error_and_has_no_accuracy():
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(30, 3, generator=generator), torch.randn(30, generator=generator)
    y = x[:, 0] + 0.1 * noise
    data = Dataset("line", "regression", x, y, x, y)
    model = build_mlp(Architecture((3, 8, 1), "tanh", "identity"), [0])
    history = fit_backprop(model, data, Phase(200, 0.01)).history
    assert history.loss[-1, 0] < 0.02 < history.loss[0, 0]
    assert np.isnan(history.accuracy).all()


@pytest.mark.parametrize("fit", [fit_backprop, fit_relaxed])
def test_a_regression_may_have_several_outputs(fit):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    y = torch.stack([x[:, 0], x[:, 1] * x[:, 2]], 1)
    data = Dataset("two", "regression", x, y, x, y)
    start = build_mlp(Architecture((3, 16, 2), "tanh", "identity"), [0, 1])
    run = fit(start, data, Phase(300, 0.02, "adam"), watch=Watch(evaluate_at=(0, 300)))
    for step, model in ((0, start), (-1, run.model)):
        for seed in (0, 1):
            expected = nn.functional.mse_loss(model.as_module(seed)(x), y).item()
            assert run.history.loss[step, seed] == pytest.approx(expected, rel=1e-4)
    with torch.no_grad():
        left = (run.model(x) - y).square().mean(1)  # (seeds, outputs)
    assert (left < 0.5 * y.var(0)).all()


@pytest.mark.parametrize("fit", [fit_backprop, fit_relaxed])
def test_a_regression_by_cross_entropy_is_refused(fit):
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    data = Dataset("line", "regression", x, x[:, 0], x, x[:, 0])
    for output in ("sigmoid", "identity"):
        model = build_mlp(Architecture((3, 8, 1), "tanh", output), [0])
        with pytest.raises(ValueError, match="regression must have the loss 'squared_error'"):
            fit(model, data, Phase(5, 0.01), loss="cross_entropy")


def test_labels_beyond_the_networks_classes_are_refused():
    model = build_mlp(Architecture((2, 3), "tanh", "softmax"), [0])
    for labels in ([0, 3], [-1, 2]):
        with pytest.raises(ValueError, match=r"labels must lie in 0 … 2, .* got"):
            evaluate(model, torch.zeros(2, 2), torch.tensor(labels), "multiclass")


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_classes_may_be_integers_of_any_kind(kind, loss):
    data = three_clusters(12, held_out=6)
    other = Dataset(
        data.name, data.task, data.x, data.y.to(kind), data.held_out_x, data.held_out_y.to(kind)
    )
    model = build_mlp(Architecture((2, 5, 3), "tanh", "softmax"), [0])
    expected = fit_backprop(model, data, Phase(5, 0.1, "sgd"), loss=loss).history
    found = fit_backprop(model, other, Phase(5, 0.1, "sgd"), loss=loss).history
    np.testing.assert_array_equal(found.loss, expected.loss)
    np.testing.assert_array_equal(found.held_out_accuracy, expected.held_out_accuracy)
    of_kind = evaluate(model, data.x, data.y.to(kind), data.task, loss)
    np.testing.assert_array_equal(of_kind, evaluate(model, data.x, data.y, data.task, loss))


def test_arrays_and_ranges_are_sequences_too(data):
    models = build_mlp(Architecture((2, 5, 5, 1)), np.arange(2), dtype=torch.float64)
    steps = np.array([0, 3])
    watch = Watch(evaluate_at=steps, inspect_at=torch.tensor([1, 2]), snapshot_at=range(0, 4, 3))
    phase = Phase(np.int64(3), np.array([0.1, 0.2]), "sgd", [0.0, 0.1], np.float32(1e-3))
    assert phase == Phase(3, (0.1, 0.2), "sgd", (0.0, 0.1), float(np.float32(1e-3)))
    fit = fit_relaxed(models, data, phase, layers=np.array([1, 3]), watch=watch)
    assert fit.targets.plan.layers == (1, 3)
    assert fit.history.evaluated_at.tolist() == list(fit.snapshots) == [0, 3]
    assert fit.history.inspected_at.tolist() == [1, 2]
    expected = fit_relaxed(
        models, data, Phase(3, (0.1, 0.2), "sgd", (0.0, 0.1)), layers=(1, 3), watch=Watch((0, 3))
    )
    np.testing.assert_array_equal(fit.history.loss, expected.history.loss)


@pytest.mark.parametrize("layers", ["all", (1, 3), [1, 3], np.array([1, 3]), range(1, 4, 2)])
def test_layers_may_be_named_again_beside_their_targets(data, layers):
    model = build_mlp(Architecture((2, 5, 5, 1)), [0], dtype=torch.float64)
    targets = forward_targets(model, data.x, relaxation_plan(model.architecture, (1, 3)))
    fit = fit_relaxed(model, data, Phase(2, 0.1), layers=layers, targets=targets)
    assert fit.targets.plan == targets.plan


def accuracy_of_one(z, labels, output):
    (accuracy,) = score(z, torch.tensor(labels), "binary", output, "squared_error")[1]
    return accuracy


def test_classes_take_the_greatest_output():
    z = torch.tensor([[[0.1, 0.9, 0.3], [2.0, 1.0, 0.0]]])
    assert score(z, torch.tensor([1, 2]), "multiclass", "softmax")[1] == [0.5]
    assert accuracy_of_one(z[..., :1], [0.0, 1.0], "identity") == 1
    assert accuracy_of_one(z[..., :1], [0.0, 1.0], "sigmoid") == 0.5
    even = torch.tensor([[[0.0], [0.5]]])  # a probability of ½ is not above ½
    assert accuracy_of_one(even, [0.0, 1.0], "sigmoid") == 1
    assert accuracy_of_one(even, [0.0, 0.0], "identity") == 1


def test_a_step_takes_what_it_computes_and_not_what_its_reader_does(monkeypatch):
    now = 0.0

    def takes(seconds):
        def work(*_):
            nonlocal now
            now += seconds

        return work

    monkeypatch.setattr(training, "perf_counter", lambda: now)
    seconds = []
    for step in training.steps(takes(1), takes(2), takes(4), range(3), seconds):
        if step.updates == 1:
            _ = step.gradients
        takes(100)()
    assert seconds == [7, 7, 7]


CONFIGURED = """
import torch
from rai_utils import configure
{before}
configure(2)
assert torch.get_num_threads() == 2
assert not (torch.full((1_000_000,), 1e-30) * 1e-10).any()
"""


@pytest.mark.parametrize("before", ["", "torch.full((1_000_000,), 1e-30) * 1e-10"])
def test_denormals_are_read_as_0_in_every_thread_or_the_process_is_refused(before):
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", CONFIGURED.format(before=before)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode == 0) == (not before), done.stderr
    assert ("RuntimeError: configure must come before" in done.stderr) == bool(before)


def test_a_loss_that_is_not_finite_sets_its_seed_aside_and_keeps_the_record(data):
    model = build_mlp(Architecture((2, 6, 6, 1), "relu"), [0, 1], dtype=torch.float64)
    with torch.no_grad():
        model.weights[1][0, 0] *= 1e200
        model.weights[0][0, 0] *= 1e200
    phase = Phase(10, 0.01, "sgd")
    fit = fit_backprop(model, data, phase, watch=Watch(evaluate_at=[0, 10]))
    (failure,) = fit.history.failures
    assert (failure.position, failure.step, failure.layer) == (0, 0, 2)
    assert "after 0 steps, first in layer 2" in str(failure)
    assert np.isnan(fit.history.accuracy[:, 0]).all()
    alone = fit_backprop(model.select([1]), data, phase, watch=Watch(evaluate_at=[10]))
    np.testing.assert_allclose(fit.history.loss[1, 1], alone.history.loss[0, 0], rtol=1e-10)


def test_a_relaxed_loss_that_blows_up_names_its_step_and_layer(data):
    model = build_mlp(Architecture((2, 6, 6, 6, 1), "relu"), [0])
    fit = fit_relaxed(model, data, Phase(400, 100.0, "sgd"), watch=Watch(evaluate_at=[0]))
    (failure,) = fit.history.failures
    assert 0 < failure.step < 400
    assert 1 <= failure.layer <= 4
    assert fit.history.evaluated_at.tolist() == [0]


@pytest.mark.parametrize(("run", "layer"), [(1, 3), (2, 4)])
def test_the_first_layer_of_a_relaxed_loss_that_is_not_finite_is_named(run, layer, data):
    model = build_mlp(Architecture((2, 5, 5, 5, 1)), [0, 1], dtype=torch.float64)
    targets = forward_targets(model, data.x, relaxation_plan(model.architecture, (1, 3)))
    with torch.no_grad():
        model.weights[run][-1, 1] = torch.nan
    fit = fit_relaxed(model, data, Phase(3, 0.1), targets=targets)
    (failure,) = fit.history.failures
    assert (failure.position, failure.step, failure.layer) == (1, 0, layer)


@pytest.mark.parametrize("name", training.UPDATE_RULES)
def test_a_rule_says_whether_its_steps_hang_on_their_number(name):
    rule, rates = training.update_rule(name), torch.full((3, 4), 0.1)
    gradient = torch.linspace(-1, 2, 12).view(3, 4)
    moved = []
    for update in (1, 7):
        numbers, state = torch.zeros(3, 4), rule.start(rates)
        rule.step(numbers, gradient, state, rates, update)
        moved.append(numbers)
    assert torch.equal(*moved) == (not rule.counts)


@pytest.mark.parametrize("counted", [int, lambda update: torch.full((1, 2, 4, 1), update).double()])
@pytest.mark.parametrize("name", training.UPDATE_RULES)
def test_a_rule_is_torchs_optimiser_with_a_rate_a_network(name, counted):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=generator)
    rates = torch.tensor([0.01, 0.2], dtype=torch.float64)
    own = rates[None, :, None, None]
    ours, rule = start.clone(), training.update_rule(name)
    state = rule.start(own.expand_as(ours))
    assert len(state) == len(rule.first)
    theirs = [nn.Parameter(start[:, position].clone()) for position in range(2)]
    optimizers = [
        TORCHS[name]([parameter], lr=float(rate))
        for parameter, rate in zip(theirs, rates, strict=True)
    ]
    for update in range(1, 9):
        gradient = torch.randn(start.shape, dtype=torch.float64, generator=generator)
        rule.step(ours, gradient, state, own, counted(update))
        for position, optimizer in enumerate(optimizers):
            theirs[position].grad = gradient[:, position].clone()
            optimizer.step()
    torch.testing.assert_close(ours, torch.stack([p.detach() for p in theirs], 1))


def polar_by_svd(matrix):
    """Five steps of Newton and Schulz on each singular value, in another way: (outputs, inputs)."""
    u, values, v = np.linalg.svd(matrix, full_matrices=False)
    values = values / max(np.linalg.norm(values), 1e-7)
    for _ in range(5):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    return u * values @ v


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (1, 4)])
def test_orthogonalised_matrices_have_singular_values_near_1(shape):
    matrices = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0)).double()
    matrices[0, 1], matrices[0, 2] = 0, 1e-25  # the square of the second is 0 in float32
    found = training.orthogonalised(matrices)
    assert not found[0, 1].any()
    assert training.orthogonalised(matrices.float())[0, 2].abs().max() < 1e-14
    for place in np.ndindex(2, 3):
        if place[0] or not place[1]:
            np.testing.assert_allclose(found[place], polar_by_svd(matrices[place].numpy()))
            assert (torch.linalg.svdvals(found[place]) - 1).abs().max() < 0.35


def test_muon_moves_weights_by_whole_matrices_and_all_else_as_adam(data):
    rates = (0.01, 0.2)
    model = build_mlp(Architecture((2, 6, 6, 6, 1)), [3, 4], dtype=torch.float64)
    fit = fit_backprop(model, data, Phase(9, rates, "muon"), device="cpu")
    for position, rate in enumerate(rates):
        module = model.as_module(position)
        named = dict(module.named_parameters())
        weights = {name: p for name, p in named.items() if name.endswith("weight")}
        adam = torch.optim.Adam([p for name, p in named.items() if name not in weights], lr=rate)
        velocity = {name: np.zeros(p.shape) for name, p in weights.items()}
        for _ in range(9):
            loss = nn.functional.binary_cross_entropy_with_logits(module(data.x)[:, 0], data.y)
            module.zero_grad()
            loss.backward()
            adam.step()
            for name, weight in weights.items():
                slope = weight.grad.numpy()
                velocity[name] = 0.95 * velocity[name] + slope
                moved = polar_by_svd(slope + 0.95 * velocity[name])
                weight.data -= rate * 0.2 * max(weight.shape) ** 0.5 * torch.from_numpy(moved)
        for name, value in fit.model.as_module(position).named_parameters():
            torch.testing.assert_close(value, named[name], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "nadam", "muon"])
def test_numbers_visited_block_by_block_move_to_the_same_bits(data, monkeypatch, optimizer):
    model = build_mlp(Architecture((2, 6, 6, 6, 1)), [3, 4])
    fits = []
    for block in (16, 2**20):
        monkeypatch.setattr(training, "BLOCK", block)
        fits.append(fit_relaxed(model, data, Phase(9, 0.1, optimizer), device="cpu"))
    blocks, whole = ([*fit.model.parameters(), *fit.targets.values] for fit in fits)
    for ours, theirs in zip(blocks, whole, strict=True):
        assert torch.equal(ours, theirs)


def run_of_steps(count, looked_at=()):
    """Train θ ← θ − ½θ from 8; return θ at each step and what was computed in which order."""
    theta, computed, seen = [8.0], [], []

    def find_loss(rows):
        computed.append(("loss", rows))
        return theta[0]

    def find_gradients(loss):
        computed.append("gradients")
        return loss / 2

    def update(gradients):
        computed.append("update")
        theta[0] -= gradients

    seconds = []
    for step in training.steps(find_loss, find_gradients, update, repeat(None), seconds):
        seen.append((step.updates, theta[0]))
        if step.updates == count:
            break
        if step.updates in looked_at:
            assert (step.loss, step.gradients, step.loss) == (theta[0], theta[0] / 2, theta[0])
    assert len(seconds) == count
    return seen, computed


@pytest.mark.parametrize("looked_at", [(), (0, 2)])
def test_a_step_is_seen_before_its_update_and_computed_once(looked_at):
    seen, computed = run_of_steps(3, looked_at)
    assert seen == [(0, 8.0), (1, 4.0), (2, 2.0), (3, 1.0)]
    assert computed == [("loss", None), "gradients", "update"] * 3


def test_every_pass_over_the_data_takes_each_example_once_in_an_order_of_its_own():
    rows = training.batches(7, 3, seed=4)
    passes = [[next(rows).tolist() for _ in range(3)] for _ in range(3)]
    orders = [[row for batch in each for row in batch] for each in passes]
    assert [len(batch) for batch in passes[0]] == [3, 3, 1]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] == torch.randperm(7, generator=torch.Generator().manual_seed(4)).tolist()
    assert next(training.batches(7, 3, seed=5)).tolist() != passes[0][0]
    for size in (0, 8):
        with pytest.raises(ValueError, match="batch must lie in 1 … 7"):
            training.batches(7, size)


def rprop_updates(step, dtype, updates=60):
    """Numbers after updates with gradients of all sizes, zeros and underflowing products too."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(1003, dtype=dtype, generator=generator)
    state = numbers, torch.zeros_like(numbers), torch.full_like(numbers, 0.1)
    for _ in range(updates):
        size = 10.0 ** torch.randint(-25, 3, (1003,), generator=generator)
        gradient = torch.randn(1003, dtype=dtype, generator=generator) * size
        gradient[::7] = 0
        step(state[0], gradient, *state[1:], 1e-3)
    return state


class TorchsRprop:
    """torch's optimiser behind the arguments of the step written out."""

    optimizer = None

    def __call__(self, numbers, gradient, previous, step_size, smallest_step):
        if self.optimizer is None:
            self.parameter = nn.Parameter(numbers.clone())
            self.optimizer = torch.optim.Rprop(
                [self.parameter], lr=0.1, step_sizes=(smallest_step, 50.0)
            )
        self.parameter.grad = gradient.clone()
        self.optimizer.step()
        numbers.copy_(self.parameter.detach())
        previous.copy_(self.optimizer.state[self.parameter]["prev"])
        step_size.copy_(self.optimizer.state[self.parameter]["step_size"])


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_leaving_out_dead_layers_changes_no_bit(decay, monkeypatch):
    model = build_mlp(Architecture((2, *[10] * 70, 1)), [0, 1])
    data = moons(examples=20, held_out=20)
    phase, watch = (
        Phase(30, 0.1, weight_decay=decay),
        Watch(evaluate_at=(15, 30), inspect_at=range(31)),
    )
    ours = fit_backprop(model, data, phase, watch=watch, device="cpu")
    in_full = training.forward
    monkeypatch.setattr(training, "forward", lambda *arguments: in_full(*arguments[:5]))
    expected = fit_backprop(model, data, phase, watch=watch, device="cpu")
    dead = (expected.history.gradient_norms == 0).sum(1)
    assert (dead[0] > 8).all()
    assert len(np.unique(dead)) > 1
    np.testing.assert_array_equal(ours.history.gradient_norms, expected.history.gradient_norms)
    np.testing.assert_array_equal(ours.history.loss, expected.history.loss)
    for one, other in zip(ours.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_therprop_step_is_bit_for_bit_torchs_own(dtype):
    ours, theirs = rprop_updates(training.rprop_step, dtype), rprop_updates(TorchsRprop(), dtype)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_compiledrprop_step_is_bit_for_bit_the_eager_one(dtype):
    compiled = rprop_updates(training.compile_rprop(), dtype)
    eager = rprop_updates(training.rprop_step, dtype)
    training._compiled.clear()
    assert all(torch.equal(one, other) for one, other in zip(compiled, eager, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("fit", [fit_relaxed, fit_backprop])
@pytest.mark.parametrize("optimizer", ["sgd", "rprop"])
def test_a_compiled_fit_equals_the_other_to_rounding(data, fit, optimizer):
    model = build_mlp(Architecture((2, 5, 6, 6, 5, 1), "relu"), range(2), dtype=torch.float64)
    options = {"watch": Watch(evaluate_at=(0, 4), inspect_at=(0, 1, 4)), "device": "cpu"}
    if fit is fit_relaxed:  # away from residuals of 0, whose signs are rounding
        plan = relaxation_plan(model.architecture)
        start = forward_targets(model, data.x.double(), plan)
        generator = torch.Generator().manual_seed(0)
        values = tuple(
            value + 0.1 * torch.randn(value.shape, generator=generator) for value in start.values
        )
        options |= {"targets": Targets(plan, values, start.x), "hidden_weight": 0.7}
    phase = Phase(4, 0.01, optimizer, weight_decay=0.01)
    expected, compiled = (fit(model, data, phase, **options, compiled=c) for c in (False, True))
    training._compiled.clear()
    for name in ("loss", "gradient_norms", "relaxed_loss", "output_term", "hidden_terms"):
        one, other = (getattr(each.history, name) for each in (compiled, expected))
        np.testing.assert_allclose(one, other, rtol=1e-9)
    for one, other in zip(compiled.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_another_objective_is_not_compiled(data):
    model = build_mlp(Architecture((2, 5, 1)), [0])
    with pytest.raises(ValueError, match="what is compiled must be relaxed_loss"):
        fit_relaxed(model, data, Phase(2, 0.1), objective=lambda *parts: None, compiled=True)


def test_without_a_compiler_the_eager_step_is_used_with_a_notice(data, monkeypatch):
    def broken(*arguments, **options):
        def fail(*tensors):
            raise RuntimeError("backend raised:\nno compiler found\n\nlong trace")

        return fail

    model = build_mlp(Architecture((2, 5, 1)), [0])
    expected = fit_relaxed(model, data, Phase(5, 0.1))
    training._compiled.clear()
    monkeypatch.setitem(training.COMPILE_ABOVE, "cpu", 0)
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(UserWarning, match=r"here \(backend raised: no compiler found\)"):
        fit = fit_relaxed(model, data, Phase(5, 0.1))
    training._compiled.clear()
    assert torch.equal(fit.model.weights[0], expected.model.weights[0])


def test_schedule_starts_at_zero_and_ends_at_the_last_step():
    steps = schedule(1000, 10)
    assert steps[0] == 0 and steps[-1] == 1000
    assert list(steps) == sorted(set(steps))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        schedule(0)


def test_evaluate_marks_a_forward_pass_that_is_not_finite(data):
    model = build_mlp(Architecture((2, 4, 1), "relu"), [0, 1], dtype=torch.float64)
    with torch.no_grad():
        model.biases[1][0, 0] = torch.inf
    _, accuracy = evaluate(model, data.x, data.y, "binary")
    assert np.isnan(accuracy[0]) and not np.isnan(accuracy[1])


def test_the_time_of_every_step_is_taken(data):
    fit = fit_backprop(
        build_mlp(Architecture((2, 3, 1)), [0], dtype=torch.float64), data, Phase(4, 0.1)
    )
    assert fit.step_seconds.shape == (4,)
    assert (fit.step_seconds > 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model, data: Phase(0, 0.1), "steps must be .* got 0"),
        (lambda model, data: Phase(5, 0.0), "learning rate must be above 0, got 0"),
        (lambda model, data: Phase(5, 0.1, "lion"), "optimizer must be one of .* got 'lion'"),
        (lambda model, data: fit_relaxed(model, data, Phase(5, 0.1), hidden_weight=-1), "got -1"),
        (lambda model, data: fit_relaxed(model, data, Phase(5, 0.1), layers=(9,)), "1 … 2, got 9"),
        (
            lambda model, data: fit_backprop(model, data, Phase(5, 0.1), watch=Watch((6,))),
            "evaluate_at must lie in 0 … 5, got 6",
        ),
        (
            lambda model, data: fit_backprop(model, data, Phase(5, 0.1), device="cuda"),
            "needs a CUDA GPU",
        ),
        (
            lambda model, data: fit_backprop(
                build_mlp(Architecture((3, 1)), [0]), data, Phase(5, 0.1)
            ),
            r"\(examples, 3\), got \(20, 2\)",
        ),
        (
            lambda model, data: fit_backprop(
                build_mlp(Architecture((2, 3), "relu", "softmax"), [0]), data, Phase(5, 0.1)
            ),
            "Moons needs 1 output units, got a network with 3",
        ),
        (
            lambda model, data: fit_backprop(
                stack([model, model]), data, Phase(5, (0.1, 0.2, 0.3), "adam")
            ),
            "one learning rate for each of the 2 networks, got 3",
        ),
        (lambda model, data: Phase(5, (0.1, 0.0), "sgd"), "rate must be above 0, got 0.0"),
        (lambda model, data: Phase(5, (), "sgd"), "one network or more, got none"),
        (lambda model, data: Phase(1.5, 0.1), "steps must be a whole number, got 1.5"),
        (lambda model, data: Phase(True, 0.1), "steps must be a whole number, got True"),
        (lambda model, data: Phase(5, np.nan), "rate must be finite, got nan"),
        (lambda model, data: Phase(5, np.inf, "sgd"), "rate must be finite, got inf"),
        (lambda model, data: Phase(5, [0.1, np.inf], "adam"), "rate must be finite, got inf"),
        (lambda model, data: Phase(5, 0.1, weight_decay=np.inf), "decay must be finite, got inf"),
        (lambda model, data: Phase(5, 0.1, smallest_step=np.nan), "step must be finite, got nan"),
        (lambda model, data: Phase(5, 1e-7), r"lie in \[1e-06, 50\], .*, got 1e-07"),
        (lambda model, data: Phase(5, 1e4), r"lie in \[1e-06, 50\], .*, got 10000"),
        (lambda model, data: Phase(5, 50.1), r"lie in \[1e-06, 50\], .*, got 50.1"),
        (lambda model, data: Phase(5, (0.1, 1e-7)), r"lie in \[1e-06, 50\], .*, got 1e-07"),
        (
            lambda model, data: Phase(1, 1e-3, smallest_step=0.1),
            r"lie in \[0.1, 50\], .*, got 0.001",
        ),
        (lambda model, data: Phase(1, 60, smallest_step=60), r"lie in \[60, 50\]"),
        (lambda model, data: Watch(inspect_at=[1.5]), "inspect_at must be a whole number, got 1.5"),
        (lambda model, data: Watch(evaluate_at=(-1,)), "evaluate_at must be at least 0, got -1"),
        (lambda model, data: Watch(snapshot_at=[np.nan]), "snapshot_at must be a whole number"),
        (lambda model, data: schedule(10, 2.5), "points must be a whole number, got 2.5"),
        (
            lambda model, data: fit_relaxed(model, data, Phase(5, 0.1), hidden_weight=np.inf),
            "hidden weight must be finite",
        ),
        (
            lambda model, data: fit_relaxed(
                model,
                data,
                Phase(5, 0.1),
                layers=[1],
                targets=forward_targets(model, data.x, relaxation_plan(model.architecture)),
            ),
            r"targets are of layers \(1, 2\), got \(1,\)",
        ),
        (
            lambda model, data: fit_relaxed(
                build_mlp(Architecture(model.architecture.widths, "relu"), [0]),
                data,
                Phase(5, 0.1),
                targets=forward_targets(model, data.x, relaxation_plan(model.architecture)),
            ),
            "targets must be of the architecture .*relu.*, got .*sigmoid",
        ),
        (
            lambda model, data: fit_relaxed(model, data, Phase(5, 0.1), layers=[1, 1.5]),
            "relaxed layers must be a whole number, got 1.5",
        ),
        (
            lambda model, data: evaluate(model, data.x, data.y, "regression", "cross_entropy"),
            "regression must have the loss 'squared_error', got 'cross_entropy'",
        ),
        (lambda model, data: Phase(5, 0.1, smallest_step=0.0), "smallest step must be above 0"),
        (lambda model, data: Phase(5, 0.1, weight_decay=-1.0), "at least 0, got -1.0"),
        (lambda model, data: Phase(5, 0.1, weight_decay=(0.1, -1.0)), "at least 0, got -1.0"),
        (
            lambda model, data: fit_backprop(model, data, Phase(5, 0.1, weight_decay=(0.0, 0.1))),
            "one weight decay for each of the 1 networks, got 2",
        ),
        (
            lambda model, data: fit_relaxed(
                stack([model, model]),
                data,
                Phase(5, 0.1),
                targets=forward_targets(model, data.x, relaxation_plan(model.architecture)),
            ),
            "targets must be of 2 networks, got those of 1",
        ),
        (
            lambda model, data: fit_relaxed(
                model,
                moons(examples=20, held_out=40, seed=1).to("cpu", torch.float64),
                Phase(5, 0.1),
                targets=forward_targets(model, data.x, relaxation_plan(model.architecture)),
            ),
            "20 of 20 examples that differ",
        ),
    ],
)
def test_wrong_input_is_refused_before_any_work(data, make, message):
    if "CUDA" in message and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    model = build_mlp(Architecture((2, 5, 1)), [0], dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        make(model, data)


@pytest.mark.parametrize("fit", [fit_backprop, fit_relaxed])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_settings_for_each_network_give_what_separate_fits_give(data, optimizer, fit):
    models = [build_mlp(Architecture((2, 6, 6, 1)), [s], dtype=torch.float64) for s in (0, 1)]
    rates, decays = (0.02, 0.3), (0.1, 0.0)
    stacked_models, targets = stack(models), {}
    if fit is fit_relaxed:
        targets["targets"] = disturbed_targets(stacked_models, data.x)
    both = fit(stacked_models, data, Phase(40, rates, optimizer, decays), **targets)
    for position, (model, rate, decay) in enumerate(zip(models, rates, decays, strict=True)):
        own = {name: of_network(value, position) for name, value in targets.items()}
        alone = fit(model, data, Phase(40, rate, optimizer, decay), **own)
        np.testing.assert_allclose(
            both.history.loss[:, position], alone.history.loss[:, 0], rtol=1e-9
        )
        for stacked, single in zip(both.model.weights, alone.model.weights, strict=True):
            torch.testing.assert_close(stacked[:, position], single[:, 0], rtol=1e-8, atol=1e-10)

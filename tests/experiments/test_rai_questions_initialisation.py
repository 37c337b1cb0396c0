"""The cells of the sweeps on small networks, against the fits they are made of."""

import inspect
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from rai_utils.data import moons, moons_draw
from rai_utils.diagnostics import gradients_of
from rai_utils.experiments import rai_questions_initialisation as limits
from rai_utils.experiments import study
from rai_utils.experiments.rai_questions_initialisation import (
    Round,
    alternative_cell,
    backprop_phase,
    fit_module,
    fresh_handover_cell,
    handover_cell,
    handover_parts_cell,
    layer_sequential,
    relaxed_phase,
    residual_cell,
    schedule_cell,
    sequential_cell,
    sequential_deviation,
    sequential_gradients,
    shape,
    smallest_step_cell,
    start_cell,
    with_batch_norm,
)
from rai_utils.models import Architecture, build_mlp, pre_activations
from rai_utils.relaxation import forward_targets, relaxation_plan, relaxed_loss
from rai_utils.training import Phase, Watch, fit_backprop, fit_relaxed
from rai_utils.tuning import tune

SMALL = {"hidden_layers": 4, "width": 8}
SMALL_FIRST_STEP = backprop_phase(1000, 10)


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """No compilation for networks this small."""
    monkeypatch.setattr(limits, "compile_rprop", lambda: None)


def test_every_cell_of_every_sweep_is_a_call_that_its_work_takes():
    for sweep in limits.SWEEPS:
        for cell in sweep.cells:
            inspect.signature(sweep.work).bind(**cell)


def test_the_schedule_of_a_hand_over_follows_the_depth():
    assert relaxed_phase(100, "sigmoid") == Phase(220, 0.1)
    assert relaxed_phase(30, "relu") == Phase(150, 0.01)
    for depth, rate in ((10, 1e-3), (100, 1e-4), (1000, 1e-8)):
        assert backprop_phase(depth, 500) == Phase(500, rate, smallest_step=1e-12)


def test_a_hand_over_cell_is_rai_and_then_backpropagation_on_the_same_weights():
    cell = handover_cell(4, "sigmoid", 8, "moons", 3, 40)
    data = moons()
    start = build_mlp(Architecture((2, 8, 8, 8, 8, 1)), [3])
    relaxed = fit_relaxed(start, data, Phase(124, 0.1), watch=Watch(evaluate_at=range(0, 121, 10)))
    second = Phase(40, 1e-3, smallest_step=1e-12)
    backprop = fit_backprop(relaxed.model, data, second, watch=Watch(evaluate_at=range(0, 41, 10)))
    assert cell["relaxed_train"] == relaxed.history.accuracy[-1, 0]
    best = backprop.history.loss[:, 0].argmin()
    assert cell["train"] == backprop.history.accuracy[best, 0]
    assert cell["held_out"] == backprop.history.held_out_accuracy[best, 0]
    steps, accuracy = relaxed.history.evaluated_at, relaxed.history.accuracy[:, 0]
    assert cell["reached_at"] == next((s for s, a in zip(steps, accuracy, strict=True) if a >= 0.8))


def test_second_phases_that_differ_in_the_smallest_step_share_the_first():
    cell = smallest_step_cell(4, 8, 3, [1e-3, 1e-12], 60)
    alone = handover_cell(4, "sigmoid", 8, "moons", 3, 60)
    assert (cell["train"][1], cell["held_out"][1]) == (alone["train"], alone["held_out"])
    coarse, fine = cell["losses"]
    assert coarse[0] == fine[0] and len(coarse) == len(fine) == 7
    start = build_mlp(Architecture((2, 8, 8, 8, 8, 1)), [3])
    relaxed = fit_relaxed(start, moons(), relaxed_phase(4, "sigmoid"), watch=Watch(())).model
    phase, watch = Phase(60, 1e-3, smallest_step=1e-3), Watch(range(0, 61, 10))
    history = fit_backprop(relaxed, moons(), phase, watch=watch).history
    np.testing.assert_allclose(coarse, history.loss[:, 0], atol=1e-6)
    assert coarse != fine
    assert cell["gradient_sum"] > 0


def test_a_second_phase_begins_with_the_smallest_step_where_its_own_first_is_below(monkeypatch):
    monkeypatch.setattr(limits, "backprop_phase", lambda depth, steps: SMALL_FIRST_STEP)
    seen = []

    def spy(model, data, phase, **options):
        seen.append(phase)
        return fit_backprop(model, data, phase, **options)

    monkeypatch.setattr(limits, "fit_backprop", spy)
    smallest_step_cell(4, 8, 3, [1e-6, 1e-12], 10)
    assert seen == [Phase(10, 1e-6), SMALL_FIRST_STEP]


def test_a_sequential_cell_goes_on_from_rai_as_backpropagation_does():
    cell = sequential_cell(10, 8, 3, 40)
    start = build_mlp(Architecture((2, *[8] * 10, 1)), [3])
    relaxed = fit_relaxed(start, moons(), relaxed_phase(10, "sigmoid"), watch=Watch((130,)))
    assert cell["train"][0] == relaxed.history.accuracy[0, 0]
    assert cell["held_out"][0] == relaxed.history.held_out_accuracy[0, 0]
    second = backprop_phase(10, 40)
    history = fit_backprop(
        relaxed.model, moons(), second, find=sequential_gradients, watch=Watch((40,))
    ).history
    assert cell["train"][1] == history.accuracy[0, 0]
    assert cell["held_out"][1] == history.held_out_accuracy[0, 0]
    assert cell["deviation"] < 1e-12


def test_the_deviation_of_another_gradient_is_seen(monkeypatch):
    model = build_mlp(Architecture((2, 8, 8, 1)), [0])
    assert sequential_deviation(model, moons()) < 1e-12
    true = limits.sequential_gradients

    def scaled(*arguments, **options):
        return [1.01 * part for part in true(*arguments, **options)]

    monkeypatch.setattr(limits, "sequential_gradients", scaled)
    assert sequential_deviation(model, moons()) == pytest.approx(0.01)


@pytest.fixture
def data():
    return moons(examples=12, held_out=4).to("cpu", torch.float64)


@pytest.mark.parametrize("hidden_weight", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("activation", ["sigmoid", "relu", "softmax"])
def test_targets_that_move_one_at_a_time_give_the_gradient_of_backpropagation(
    data, activation, hidden_weight
):
    model = build_mlp(
        Architecture((2, 5, 5, 5, 5, 4, 4, 1), activation), [0, 1], "xavier", dtype=torch.float64
    )
    found = sequential_gradients(model, data.x, data.y, hidden_weight=hidden_weight)
    leaves = [*model.weights, *model.biases]
    loss = nn.functional.binary_cross_entropy_with_logits(
        model(data.x)[..., 0], data.y.expand(2, -1), reduction="none"
    )
    expected = torch.autograd.grad(loss.mean(1).sum(), leaves)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)


def test_one_at_a_time_is_a_sequence_of_gradient_steps_on_the_relaxed_loss(data):
    architecture = Architecture((2, 5, 5, 5, 1))
    model = build_mlp(architecture, [0], dtype=torch.float64)
    plan = relaxation_plan(architecture, (1, 2, 3))
    values = [value.clone() for value in forward_targets(model, data.x, plan).values]
    weights, biases = [*model.weights], [*model.biases]
    found = sequential_gradients(model, data.x, data.y, hidden_weight=3.0)
    for layer in (3, 2, 1):
        group, position = plan.locate(layer)
        leaves = [value.requires_grad_() for value in values]
        total = relaxed_loss(plan, weights, biases, leaves, data.x, data.y, hidden_weight=3.0).total
        gradient = torch.autograd.grad(total.sum(), leaves)[group][position]
        values = [value.detach().clone() for value in leaves]
        values[group][position] -= len(data.x) * 5 / (2 * 3.0) * gradient
        total = relaxed_loss(plan, weights, biases, values, data.x, data.y, hidden_weight=3.0).total
        now = torch.autograd.grad(total.sum(), weights)
        run, place = (0, 0) if layer == 1 else (1, layer - 2)
        torch.testing.assert_close(found[run][place], now[run][place])


def test_one_at_a_time_refuses_what_it_cannot_do(data):
    model = build_mlp(Architecture((2, 5, 1)), [0], dtype=torch.float64)
    with pytest.raises(ValueError, match="hidden weight must be above 0, got 0"):
        sequential_gradients(model, data.x, data.y, hidden_weight=0)
    with pytest.raises(ValueError, match="hidden weight must be finite, got inf"):
        sequential_gradients(model, data.x, data.y, hidden_weight=np.inf)
    skips = build_mlp(Architecture((2, 5, 5, 1), skip_connections=True), [0], dtype=torch.float64)
    with pytest.raises(ValueError, match="plain chain, got skip connections"):
        sequential_gradients(skips, data.x, data.y)
    with pytest.raises(ValueError, match=r"got \(12, 1\)"):
        sequential_gradients(model, data.x[:, :1], data.y)


@pytest.mark.parametrize("hidden_weight", [0.1, 1.0])
def test_training_by_targets_that_move_one_at_a_time_is_backpropagation(data, hidden_weight):
    model = build_mlp(Architecture((2, 6, 6, 6, 1), "tanh"), [3, 4], dtype=torch.float64)
    phase, watch = Phase(15, 0.5, "sgd"), Watch(evaluate_at=range(16), inspect_at=range(15))
    find = partial(sequential_gradients, hidden_weight=hidden_weight)
    fit = fit_backprop(model, data, phase, find=find, watch=watch)
    expected = fit_backprop(model, data, phase, watch=watch)
    np.testing.assert_allclose(fit.history.loss, expected.history.loss, rtol=1e-9)
    np.testing.assert_allclose(
        fit.history.gradient_norms, expected.history.gradient_norms, rtol=1e-9
    )


def test_several_classes_get_a_softmax_output():
    data = limits.DATASETS["spirals"]()
    assert shape(2, 5, "tanh", data) == Architecture((2, 5, 5, 2), "tanh", "softmax")


def test_layer_sequential_scaling_gives_every_layer_variance_1():
    data = moons()
    model = build_mlp(Architecture((2, *[9] * 5, 1), "tanh"), [0, 1], "orthogonal_centred")
    scaled = layer_sequential(model, data.x)
    for z in pre_activations(scaled, data.x):
        np.testing.assert_allclose(z.std((1, 2)).numpy(), 1, rtol=1e-4)
    assert not torch.equal(model.weights[0], scaled.weights[0])


def test_batch_normalisation_stands_before_every_hidden_activation():
    data = moons()
    model = build_mlp(Architecture((2, 6, 6, 6, 1)), [0, 1])
    module = with_batch_norm(model, 1)
    kinds = [type(part).__name__ for part in module]
    assert kinds == ["Linear", "BatchNorm1d", "Sigmoid"] * 3 + ["Linear"]
    seen = []
    for part in module:
        if isinstance(part, torch.nn.BatchNorm1d):
            part.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    module(data.x)
    for z in seen:
        np.testing.assert_allclose(z.mean(0).numpy(), 0, atol=1e-5)
        assert z.std(0).max() < 1.01
    fresh = with_batch_norm(model, 1).eval()  # running statistics 0 and 1: nothing is changed
    torch.testing.assert_close(fresh(data.x), model(data.x)[1], atol=1e-4, rtol=1e-4)


def test_a_module_is_trained_as_a_stacked_network_is():
    data = moons().to("cpu", torch.float64)
    model = build_mlp(Architecture((2, 6, 1)), [0], dtype=torch.float64)
    module = model.as_module(0)
    fit_module(module, data, 20, 0.01)
    fit = fit_backprop(model, data, Phase(20, 0.01, smallest_step=1e-12))
    torch.testing.assert_close(module(data.x), fit.model(data.x)[0])
    assert not module.training


@pytest.mark.parametrize("way", ["default", "orthogonal", "layer_sequential", "skip", "batch_norm"])
def test_every_alternative_is_trained_with_the_rate_that_did_best(way):
    cell = alternative_cell(way, 3, "sigmoid", 8, [0, 1], [1e-9, 0.01], 60, 60)
    assert cell["learning_rate"] == 0.01
    assert len(cell["train"]) == len(cell["held_out"]) == 2
    assert min(cell["train"]) > 0.7


def test_a_start_cell_tunes_both_methods_alike_on_other_networks_and_data(monkeypatch):
    seen = []

    def spy(fit, model, dataset, *arguments, **options):
        seen.append((model.weights[0].clone(), dataset.x, arguments, options))
        return tune(fit, model, dataset, *arguments, **options)

    monkeypatch.setattr(limits, "tune", spy)
    seeds, rates = [3, 4], [1e-3, 0.01, 0.03]
    cell = start_cell(
        "orthogonal_centred", 4.0, **SMALL, seeds=seeds, steps=60, learning_rates=rates
    )
    (weights, x, *same), other = seen
    assert torch.equal(weights, other[0]) and torch.equal(x, other[1]) and same == list(other[2:])
    for name, fit in (("rai", fit_relaxed), ("backprop", fit_backprop)):
        phase = Phase(60, cell[f"{name}_rate"], smallest_step=1e-12)
        for place, seed in enumerate(seeds):
            data = moons_draw(seed)
            assert not torch.equal(x, data.x)
            start = build_mlp(Architecture((2, 8, 8, 8, 8, 1)), [seed], "orthogonal_centred", 4.0)
            assert not torch.equal(weights[:, :1], start.weights[0])
            history = fit(start, data, phase, watch=Watch((60,))).history
            assert cell[f"{name}_held_out"][place] == history.held_out_accuracy[-1, 0]
        assert len(cell[f"{name}_losses"]) == len(cell[f"{name}_rates"]) >= 3
        assert cell[f"{name}_at_limit"] is False
    assert min(cell["backprop_held_out"]) > 0.8


def test_fresh_hand_overs_share_one_rai_phase_on_a_draw_of_their_own():
    cell = fresh_handover_cell(4, 3, [[1e-3, 1e-12], [1e-3, 1e-3]], 60)
    data = moons(seed=3, held_out=500, held_out_seed=1003)
    start = build_mlp(Architecture((2, *[100] * 4, 1)), [3])
    relaxed = fit_relaxed(start, data, relaxed_phase(4, "sigmoid"), watch=Watch((124,)))
    assert cell["relaxed_train"] == relaxed.history.accuracy[-1, 0]
    assert cell["reached_at"] in range(4, 125, 10)
    for position, smallest_step in enumerate((1e-12, 1e-3)):
        phase = Phase(60, 1e-3, smallest_step=smallest_step)
        watch = Watch(range(0, 61, 10))
        history = fit_backprop(relaxed.model, data, phase, watch=watch).history
        best = history.loss[:, 0].argmin()
        assert cell["train"][position] == history.accuracy[best, 0]
        assert cell["held_out"][position] == history.held_out_accuracy[best, 0]
        assert cell["loss"][position] == history.loss[-1, 0]


def test_a_second_phase_of_some_layers_leaves_the_others_as_they_were():
    cell = handover_parts_cell(4, 3, [[1, 2], [4, 5]], 60)
    data = moons(seed=3, held_out=500, held_out_seed=1003)
    start = build_mlp(Architecture((2, *[100] * 4, 1)), [3])
    relaxed = fit_relaxed(start, data, relaxed_phase(4, "sigmoid"), watch=Watch((124,))).model
    phase = replace(backprop_phase(4, 60), steps=60)
    for position, layers in enumerate(((1, 2), (4, 5))):
        watch = Watch(range(0, 61, 10))
        found = fit_backprop(relaxed, data, phase, watch=watch, find=gradients_of([layers]))
        before, after = ([*model.layers()] for model in (relaxed, found.model))
        moved = [
            layer
            for layer, (old, new) in enumerate(zip(before, after, strict=True), start=1)
            if not all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
        ]
        assert moved == [*layers]
        best = found.history.loss[:, 0].argmin()
        # Two networks at once may round in another way than one.
        assert cell["train"][position] == pytest.approx(found.history.accuracy[best, 0], abs=0.02)
        held_out = found.history.held_out_accuracy[best, 0]
        assert cell["held_out"][position] == pytest.approx(held_out, abs=0.02)


def test_the_two_sides_of_a_comparison_of_smallest_steps_begin_alike():
    for cell in limits.SWEEPS[1].cells:
        finer, *coarser = cell["second_phases"][-2:]
        assert all(finer[0] == other[0] for other in coarser)
        assert cell["seed"] not in range(10), "a seed that the rules were judged on before"


def test_residuals_of_0_are_the_exact_start_and_others_are_not():
    arguments = {"optimizer": "rprop", "learning_rate": 0.1, **SMALL, "seeds": [0], "steps": 30}
    exact = residual_cell(residual=0.0, **arguments)
    start = build_mlp(Architecture((2, 8, 8, 8, 8, 1)), [0])
    history = fit_relaxed(start, moons(), Phase(30, 0.1), watch=Watch(evaluate_at=(30,))).history
    assert exact["train"] == history.accuracy[-1].tolist()
    assert exact["best"][0] >= exact["train"][0]


def test_a_schedule_keeps_or_renews_its_targets(monkeypatch):
    kept = Round(5, 0.01)
    schedules = {"kept": (kept, kept), "renewed": (kept, replace(kept, renewed=True))}
    monkeypatch.setattr(limits, "SCHEDULES", schedules)
    seen = []

    def spy(model, data, phase, *, targets, **options):
        seen.append(targets)
        return fit_relaxed(model, data, phase, targets=targets, **options)

    monkeypatch.setattr(limits, "fit_relaxed", spy)
    assert len(schedule_cell("kept", **SMALL, seed=0)["train"]) == 2
    schedule_cell("renewed", **SMALL, seed=0)
    assert [targets is None for targets in seen] == [True, False, True, True]


def test_a_schedule_relaxes_the_layers_it_says(monkeypatch):
    monkeypatch.setattr(limits, "SCHEDULES", {"second": (Round(3, 0.01, every=2),)})
    seen = []

    def spy(model, data, phase, *, layers, **options):
        seen.append(layers)
        return fit_relaxed(model, data, phase, layers=layers, **options)

    monkeypatch.setattr(limits, "fit_relaxed", spy)
    schedule_cell("second", **SMALL, seed=0)
    assert seen == [(2, 4)]


@pytest.mark.parametrize("arguments", [["unknown"], ["--jobs", "0"]])
def test_study_refuses_what_it_cannot_run(arguments, capsys):
    with pytest.raises(SystemExit):
        study.main(arguments)
    assert "must be" in capsys.readouterr().err

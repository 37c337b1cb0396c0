"""The sweeps of the two lecture notebooks against plain runs of one network at a time."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as entropy

from rai_utils import tuning
from rai_utils.data import exclusive_or, moons, moons_draw
from rai_utils.experiments.activation_saturation import convergence, rates
from rai_utils.experiments.network_basics import training
from rai_utils.models import Architecture, build_mlp
from rai_utils.training import Phase, Watch, evaluate, fit_backprop


def test_steps_are_raced_from_the_start_and_rate_that_won_on_other_draws(monkeypatch):
    few = {"KINDS": ("xavier",), "GAINS": (1.0, 2.0, 4.0), "RATES": (0.03, 0.3, 1.0)}
    for name, value in (few | {"TUNING_NETWORKS": 2}).items():
        monkeypatch.setattr(convergence, name, value)
    found = convergence.convergence_cell("Moons", 2, "ELU, α = 2", 2, 150)
    kind, gain = found["start"]
    rate = found["learning_rate"]
    assert found["inside"] == (gain == 2.0 and rate == 0.3)
    for number in range(2):
        data = moons_draw(number)
        start = convergence.small("elu", 2, data, kind, gain, [number]).as_module(0)
        module = nn.Sequential(*(nn.ELU(2.0) if isinstance(m, nn.ELU) else m for m in start))
        optimiser, steps = torch.optim.SGD(module.parameters(), lr=rate), 0
        while (loss := entropy(module(data.x)[:, 0], data.y)) > convergence.GOAL and steps < 150:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            steps += 1
        assert abs(found["steps"][number] - steps) <= 1 and 0 < steps < 150
    tuned_on = [moons_draw(convergence.FIRST_TUNING + k) for k in range(2)]
    models = [
        convergence.small("elu", 2, tuned_on[0], "xavier", g, [1100, 1101]) for g in few["GAINS"]
    ]
    won = convergence.race(
        models, tuned_on, few["RATES"], 150, 0.1, bend=convergence.RECIPES["ELU, α = 2"].bend
    )
    assert (few["GAINS"][won.start], won.rate, won.steps) == (gain, rate, found["tuning_steps"])


def test_the_zig_zag_is_measured_up_to_the_goal():
    found = rates.zigzag_cell("centred_sigmoid", 3, 40)
    place = next(i for i, steps in enumerate(found["steps"]) if steps)
    data = rates.digits(200, 200, 3)
    model = rates.small("centred_sigmoid", 3, data, "orthogonal_centred", 4.0, [3])
    run = rates.descend(model, data, [rates.ZIGZAG_RATES[place]], found["steps"][place])
    assert run.loss[-2, 0] > rates.GOAL >= run.loss[-1, 0]
    winding = run.path[-1, 0] / run.displacement[-1, 0]
    assert found["winding"][place] == pytest.approx(winding, rel=1e-3)
    assert winding >= 1


def test_units_that_die_are_those_silent_from_then_on():
    found = rates.dying_cell("relu", 2, 60)
    data = moons_draw(2)
    start = rates.small("relu", 3, data, "he", 1.0, [2])
    rate = rates.DYING_RATES[-2]
    late = [look for look in found["looks"] if look >= 30]
    run = rates.descend(start, data, [rate], 60, snapshot_at=found["looks"])
    off = {look: rates.silent(run.snapshots[look], data.x) for look in found["looks"]}
    died = ~off[0] & np.logical_and.reduce([off[look] for look in late])
    assert found["died"][0][-2] == pytest.approx(died.sum() / (~off[0]).sum())
    assert found["at_end"][0][-2] == pytest.approx(off[60].mean())
    assert np.shape(found["curve"]) == (len(found["looks"]), len(rates.DYING_RATES))
    assert found["died"][0][-2] > 0


def test_random_features_are_the_untrained_ones_and_learning_beats_them(monkeypatch):
    monkeypatch.setattr(training, "GAINS", training.GAINS[::3])
    monkeypatch.setattr(training, "RATES", training.RATES[::3])
    found = training.features_cell("circles", "tanh", 4, 2, 200)
    assert found["random_gain"] in training.GAINS
    assert np.mean(found["learned"]) > np.mean(found["random"]) + 0.05
    shape = Architecture((2, 4, 1), "tanh")
    number = training.FIRST + 1
    data = training.PROBLEMS["circles"](seed=number, held_out_seed=10_000 + number)
    model = build_mlp(shape, [number], "torch_default", found["random_gain"])
    (accuracy,) = training.logistic_regression_on_features(model, data)
    assert found["random"][1] == accuracy


def test_networks_on_draws_of_their_own_are_each_trained_by_itself():
    shape, rates = Architecture((2, 4, 2, 1), "tanh"), (1e-5, 0.05)
    models, accuracies, drawn = training.train_on_draws("XOR", shape, 3, 60, rates, 2)
    for number in range(3):
        data = exclusive_or(seed=number, held_out_seed=10_000 + number)
        assert torch.equal(drawn[number].x, data.x)
        start = build_mlp(shape, [number], "xavier")
        fit = fit_backprop(start, data, Phase(60, 0.05, "adam"), device="cpu")
        assert accuracies[number] == pytest.approx(fit.history.accuracy[-1, 0], abs=0.011)
        own = models.select([number])
        for ours, theirs in zip(own.parameters(), fit.model.parameters(), strict=True):
            torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="problem must be one of circles, XOR"):
        training.train_on_draws("suns", shape, 1, 1, rates, 2)


def test_stopping_on_accuracy_takes_the_first_highest():
    fit, _, test = training.overfitted(8, 1, 60)
    found = training.overfitting_cell(8, 1, 60)
    accuracy = fit.history.held_out_accuracy[:, 0]
    step = int(fit.history.evaluated_at[accuracy.argmax()])
    assert found["by_accuracy_stopped_at"] == step
    loss, judged = evaluate(fit.snapshots[step], test.held_out_x, test.held_out_y, "binary")
    assert (found["by_accuracy_loss"], found["by_accuracy_accuracy"]) == (loss[0], judged[0])
    by_loss = tuning.stop_early(fit, test.held_out_x, test.held_out_y, "binary")
    assert found["by_loss_stopped_at"] == by_loss.stopped_at[0]


def test_the_loss_plane_holds_the_path_and_its_losses():
    data = moons(30, held_out=10)
    start = build_mlp(Architecture((2, 3, 1), "tanh"), [0], dtype=torch.float64)
    data = data.to("cpu", torch.float64)
    watch = Watch(evaluate_at=range(21), snapshot_at=range(21))
    fit = fit_backprop(start, data, Phase(20, 0.3, "sgd"), watch=watch, device="cpu")
    path = [fit.snapshots[step] for step in range(21)]
    first, second, loss, way, share = training.loss_plane(path, data, 61)
    assert 0.9 < share <= 1
    np.testing.assert_allclose(way[-1], 0, atol=1e-12)
    column, row = (int(np.abs(axis - at).argmin()) for axis, at in ((first, 0), (second, 0)))
    assert loss[row, column] == pytest.approx(fit.history.loss[-1, 0], rel=0.02)
    with pytest.raises(ValueError, match="3 networks or more, got 2"):
        training.loss_plane(path[:2], data)

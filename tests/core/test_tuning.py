"""Tuning and early stopping against slow loops."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rai_utils.data import moons
from rai_utils.models import (
    Architecture,
    build_mlp,
    confirmation_seeds,
    development_seeds,
    stack,
)
from rai_utils.training import Phase, Watch, evaluate, fit_backprop, fit_relaxed
from rai_utils.tuning import fit_tuned, search, stop_early, tune

GRID = (1e-4, 0.03, 50.0)


@pytest.fixture
def data():
    return moons(examples=20, held_out=40).to("cpu", torch.float64)


# From residuals of 0 Rprop and Adam make much of rounding, so RAI is tuned for descent here.
@pytest.mark.parametrize(
    ("fit", "options", "optimizer"),
    [
        (fit_backprop, {}, "rprop"),
        (fit_backprop, {}, "sgd"),
        (fit_backprop, {}, "adam"),
        (fit_relaxed, {"hidden_weight": 0.5, "layers": (1, 2)}, "sgd"),
    ],
)
def test_the_rate_with_the_lowest_last_held_out_loss_is_chosen(data, fit, options, optimizer):
    model = build_mlp(Architecture((2, 6, 6, 1), "tanh"), [1005, 1006], dtype=torch.float64)
    tuning = tune(fit, model, data, 30, GRID, optimizer=optimizer, **options)
    histories = [fit(model, data, Phase(30, r, optimizer), **options).history for r in GRID]
    losses = [history.held_out_loss[-1].mean() for history in histories]
    accuracies = [history.held_out_accuracy[-1].mean() for history in histories]
    np.testing.assert_allclose(tuning.losses[:2], losses[:2], rtol=1e-7)
    np.testing.assert_allclose(tuning.accuracies[:2], accuracies[:2])
    assert tuning.phase == Phase(30, GRID[int(np.argmin(losses))], optimizer)
    assert tuning.learning_rates == GRID
    again = tune(fit, model, data, 30, np.array(GRID), optimizer=optimizer, **options)
    assert again.phase == tuning.phase and again.learning_rates == GRID


def test_the_smallest_step_is_that_of_every_trial_and_of_the_phase(data):
    model = build_mlp(Architecture((2, 6, 6, 1), "tanh"), [1005], dtype=torch.float64)
    tuning = tune(fit_backprop, model, data, 30, (0.03,), smallest_step=0.02)
    assert tuning.phase == Phase(30, 0.03, smallest_step=0.02)
    history = fit_backprop(model, data, tuning.phase).history
    np.testing.assert_allclose(tuning.losses, history.held_out_loss[-1], rtol=1e-7)


def test_the_last_loss_decides_and_not_the_accuracy_or_the_lowest_loss():
    overfitting = moons(20, 0.4, held_out=100)
    model = build_mlp(Architecture((2, 32, 1), "relu"), development_seeds(3), "he")
    slow, fast = 3e-4, 0.003
    watch = Watch(evaluate_at=range(0, 401, 20))
    fits = {
        rate: fit_backprop(model, overfitting, Phase(400, rate, "adam"), watch=watch).history
        for rate in (slow, fast)
    }
    losses = {rate: history.held_out_loss.mean(1) for rate, history in fits.items()}
    accuracies = {rate: history.held_out_accuracy[-1].mean() for rate, history in fits.items()}
    assert accuracies[fast] > accuracies[slow]
    assert losses[fast].min() < losses[slow].min()
    assert losses[fast][-1] > losses[slow][-1]
    tuning = tune(fit_backprop, model, overfitting, 400, (fast, slow), optimizer="adam")
    assert tuning.phase.learning_rate == slow


def test_a_rate_at_which_a_tuning_network_fails_is_not_chosen(data):
    model = build_mlp(Architecture((2, 6, 6, 1), "relu"), [1000, 1001], dtype=torch.float64)
    tuning = tune(fit_backprop, model, data, 30, (1e200, 0.05), optimizer="sgd")
    assert tuning.losses[0] == np.inf
    assert tuning.accuracies[0] == 0
    assert tuning.phase.learning_rate == 0.05
    alone = tune(fit_backprop, model, data, 30, (1e200,), optimizer="sgd")
    assert (alone.losses, alone.accuracies) == (np.inf, 0)


def test_a_tuned_fit_is_the_fit_with_the_rate_found_on_the_other_networks_and_data(data):
    architecture = Architecture((2, 6, 6, 1))
    tried = build_mlp(architecture, [1005, 1006], dtype=torch.float64)
    reported = build_mlp(architecture, [0], dtype=torch.float64)
    other = moons(examples=20, held_out=40, seed=3).to("cpu", torch.float64)
    watch, options = Watch((7,)), {"hidden_weight": 2.0}
    tuned = fit_tuned(
        reported, data, tried, other, 30, GRID, fit=fit_relaxed, watch=watch, **options
    )
    tuning = tune(fit_relaxed, tried, other, 30, GRID, **options)
    np.testing.assert_array_equal(tuned.tuning.losses, tuning.losses)
    assert tuned.learning_rate == tuning.phase.learning_rate
    alone = fit_relaxed(reported, data, tuning.phase, watch=watch, **options)
    np.testing.assert_array_equal(tuned.fit.history.loss, alone.history.loss)


class Losses:
    """A fit that has these last held-out losses, one row a rate."""

    def __init__(self, rows):
        self.rows = np.array(rows)

    def __call__(self, model, dataset, phase, **options):
        losses = self.rows.reshape(1, -1)
        history = SimpleNamespace(
            evaluated_at=np.array([phase.steps]),
            held_out_loss=losses,
            held_out_accuracy=np.ones_like(losses),
        )
        return SimpleNamespace(history=history)


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        # The best is the last; the middle one is worse on two networks of four, within noise.
        ([[0.7, 0.7, 0.7, 0.7], [0.13, 0.25, 0.02, 0.0], [0.2, 0.01, 0.0, 0.01]], 0.1),
        # Noise, but one rate trains one network of four and the other three.
        ([[0.7, 0.7, 0.7, 0.7], [0.7, 0.7, 0.0, 0.7], [0.0, 0.0, 0.7, 0.0]], 0.01),
        # Here the middle one is a little worse on every network.
        ([[0.7, 0.7, 0.7, 0.7], [0.22, 0.03, 0.02, 0.03], [0.2, 0.01, 0.0, 0.01]], 0.01),
        # All the same, as where nothing learns: the middle, whatever the last digit says.
        ([[0.6931472] * 4, [0.6931473] * 4, [0.6931472] * 4], 0.1),
        ([[0.69, 0.7, 0.71, 0.68], [0.7, 0.69, 0.7, 0.7], [0.7, 0.7, 0.68, 0.7]], 0.1),
        # A failure is no tie.
        ([[0.3, 0.2, 0.2, 0.2], [np.nan, 0.1, 0.1, 0.1], [0.31, 0.2, 0.2, 0.21]], 1.0),
        ([[np.inf] * 4, [np.inf] * 4, [np.inf] * 4], 1.0),
    ],
)
def test_of_rates_that_the_networks_cannot_tell_apart_the_middle_is_taken(data, rows, chosen):
    networks = build_mlp(Architecture((2, 3, 1)), development_seeds(4))
    tuning = tune(Losses(rows), networks, data, 5, (1.0, 0.1, 0.01), tie_margin=1e-3)
    assert tuning.phase.learning_rate == chosen
    lowest = np.nan_to_num(np.array(rows), nan=np.inf).mean(1).argmin()
    plain = tune(Losses(rows), networks, data, 5, (1.0, 0.1, 0.01))
    assert plain.phase.learning_rate == (1.0, 0.1, 0.01)[lowest]


@pytest.mark.parametrize(("margin", "networks"), [(-0.1, 2), (np.nan, 2), (np.inf, 2), (0.1, 1)])
def test_ties_that_cannot_be_found_are_refused(data, margin, networks):
    model = build_mlp(Architecture((2, 3, 1)), development_seeds(networks))
    with pytest.raises(ValueError, match=f"tie_margin must .* got {margin} and {networks}"):
        tune(fit_backprop, model, data, 5, (0.1,), tie_margin=margin)


class Valley:
    """A fit whose loss is the distance of the rate from the best one, in factors of ten."""

    def __init__(self, best, failing_from=np.inf):
        self.best, self.failing_from, self.tried = best, failing_from, []

    def __call__(self, model, dataset, phase, **options):
        rates = np.array(phase.learning_rate)
        self.tried += [*rates]
        losses = np.where(rates >= self.failing_from, np.nan, abs(np.log10(rates / self.best)))
        return Losses([losses])(model, dataset, phase)


@pytest.mark.parametrize(
    ("grid", "best", "grown", "at_limit"),
    [
        ((0.01, 0.1, 1.0), 0.1, (0.01, 0.1, 1.0), False),
        ((0.01, 0.1, 1.0), 0.001, (0.0001, 0.001, 0.01, 0.1, 1.0), False),
        ((1.0, 0.1, 0.01), 0.001, (1.0, 0.1, 0.01, 0.001, 0.0001), False),
        ((0.1, 0.3), 1.0, (0.1, 0.3, 0.9, 2.7), False),
        ((0.01, 0.1, 1.0), 1e-9, (1e-5, 1e-4, 0.001, 0.01, 0.1, 1.0), True),
        ((0.01, 0.1, 1.0), 1e9, (0.01, 0.1, 1.0, 10.0), True),
    ],
)
def test_a_grid_is_widened_until_its_best_rate_lies_inside_or_at_a_limit(
    data, grid, best, grown, at_limit
):
    networks = build_mlp(Architecture((2, 3, 1)), development_seeds(2))
    fit = Valley(best)
    tuning = tune(fit, networks, data, 5, grid, limits=(1e-5, 50.0))
    assert tuning.learning_rates == pytest.approx(grown)
    assert tuning.at_limit is at_limit
    losses = abs(np.log10(np.array(grown) / best))
    np.testing.assert_allclose(tuning.losses, losses, atol=1e-9)
    assert tuning.phase.learning_rate == pytest.approx(grown[losses.argmin()])
    # No rate is tried twice.
    assert len(fit.tried) == 2 * len(grown)
    assert tune(Valley(best), networks, data, 5, grid).at_limit is None


def test_a_grid_grows_by_what_is_better_and_not_by_ties(data):
    networks = build_mlp(Architecture((2, 3, 1)), development_seeds(2))
    equal = Losses([[0.7, 0.7], [0.7, 0.7], [0.6995, 0.6995]])
    options = {"tie_margin": 1e-3, "limits": (1e-5, 50.0)}
    tuning = tune(equal, networks, data, 5, (0.01, 0.1, 1.0), **options)
    assert tuning.learning_rates == (0.01, 0.1, 1.0)
    assert (tuning.phase.learning_rate, tuning.at_limit) == (0.1, False)


def test_a_rate_that_fails_is_the_inner_side_of_no_valley(data):
    networks = build_mlp(Architecture((2, 3, 1)), development_seeds(2))
    tuning = tune(Valley(10.0, 2.0), networks, data, 5, (0.01, 0.1, 1.0), limits=(1e-5, 50.0))
    assert tuning.learning_rates == (0.01, 0.1, 1.0, 10.0)
    assert (tuning.phase.learning_rate, tuning.at_limit) == (1.0, False)
    assert tuning.losses[-1] == np.inf


@pytest.mark.parametrize("grid", [(0.1,), (0.1, 1.0, 0.01), (0.1, 0.1), (0.1, 100.0), (1e-6, 0.1)])
def test_a_grid_that_cannot_be_widened_is_refused(data, grid):
    networks = build_mlp(Architecture((2, 3, 1)), development_seeds(2))
    with pytest.raises(ValueError, match="must be in order, two or more and within"):
        tune(Valley(0.1), networks, data, 5, grid, limits=(1e-5, 50.0))


def test_seeds_that_confirm_choose_no_rate(data):
    architecture = Architecture((2, 3, 1))
    assert (*confirmation_seeds(3), *development_seeds(2)) == (0, 1, 2, 1000, 1001)
    assert (*confirmation_seeds(2, 998),) == (998, 999)
    with pytest.raises(ValueError, match=r"count must .* got 3"):
        confirmation_seeds(3, 998)
    for count in (0, 1001):
        with pytest.raises(ValueError, match=f"count must .* got {count}"):
            confirmation_seeds(count)
    tried = build_mlp(architecture, [1000, 999], dtype=torch.float64)
    # What was fitted, selected or stacked knows where it came from.
    fitted = fit_backprop(tried, data, Phase(2, 0.1)).model
    for networks in (tried, fitted, stack([tried.select([0]), fitted]), tried.select([1])):
        with pytest.raises(ValueError, match="must be of seeds from 1000 up, got 999"):
            tune(fit_backprop, networks, data, 5, (0.1,))
    assert tune(fit_backprop, tried.select([0]), data, 5, (0.1,)).phase.learning_rate == 0.1
    with pytest.raises(ValueError, match="must be of seeds from 1000 up, got 7"):
        search(lambda rates: pytest.fail("nothing may be trained"), (0.1,), (1000, 7))


def test_a_search_that_cannot_be_is_refused(data):
    model = build_mlp(Architecture((2, 6, 1)), [1000], dtype=torch.float64)
    with pytest.raises(ValueError, match="at least one rate, got none"):
        tune(fit_backprop, model, data, 5, ())
    with pytest.raises(ValueError, match="learning rates must be finite, got nan"):
        tune(fit_backprop, model, data, 5, (0.1, np.nan))
    other = build_mlp(Architecture((2, 4, 1)), [1000])
    with pytest.raises(ValueError, match="both models must have the architecture"):
        fit_tuned(model, data, other, data, 5, (0.1,))


def test_stopping_takes_the_snapshot_of_lowest_validation_loss():
    data = moons(20, 0.4, held_out=60)
    test = moons(2, 0.4, held_out=80, held_out_seed=5)
    model = build_mlp(Architecture((2, 32, 1), "relu"), range(4), "he")
    steps = (0, 10, 50, 200)
    fit = fit_backprop(
        model, data, Phase(200, 0.05, "adam"), watch=Watch(steps, (), steps), device="cpu"
    )
    found = stop_early(fit, test.held_out_x, test.held_out_y, "binary")
    for seed in range(4):
        chosen = min(
            steps,
            key=lambda s: evaluate(fit.snapshots[s], data.held_out_x, data.held_out_y, "binary")[0][
                seed
            ],
        )
        loss, accuracy = evaluate(fit.snapshots[chosen], test.held_out_x, test.held_out_y, "binary")
        assert found.stopped_at[seed] == chosen
        assert found.stopped_loss[seed] == loss[seed]
        assert found.stopped_accuracy[seed] == accuracy[seed]


def test_stopping_needs_snapshots_that_were_evaluated():
    data = moons(20, held_out=20)
    model = build_mlp(Architecture((2, 1)), [0])
    for watch in (Watch((0, 2)), Watch((0, 2), (), (1,))):
        fit = fit_backprop(model, data, Phase(2, 0.1, "adam"), watch=watch, device="cpu")
        with pytest.raises(ValueError, match="evaluated steps"):
            stop_early(fit, torch.zeros(1, 2), torch.zeros(1), "binary")

"""Tuning and early stopping against slow loops."""

import numpy as np
import pytest
import torch

from rai_utils.data import moons
from rai_utils.models import Architecture, build_mlp
from rai_utils.training import Phase, Watch, evaluate, fit_backprop
from rai_utils.tuning import stop_early, tune_learning_rate


def test_the_rate_with_the_lowest_held_out_loss_wins():
    data = moons(40, held_out=50)
    model = build_mlp(Architecture((2, 8, 1), "tanh"), range(3))
    rate, medians = tune_learning_rate(model, data, 40, (1e-5, 0.03, 1e-4))
    watch = Watch(evaluate_at=range(0, 41, 2))
    loop = [
        np.median(
            fit_backprop(
                model, data, Phase(40, r, "adam"), watch=watch, device="cpu"
            ).history.held_out_loss.min(0)
        )
        for r in (1e-5, 0.03, 1e-4)
    ]
    assert rate == 0.03
    np.testing.assert_array_equal(medians, loop)
    with pytest.raises(ValueError, match="grid"):
        tune_learning_rate(model, data, 10, ())


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
    last = evaluate(fit.model, test.held_out_x, test.held_out_y, "binary")
    np.testing.assert_array_equal(found.final_loss, last[0])
    np.testing.assert_array_equal(found.final_accuracy, last[1])


def test_stopping_needs_snapshots_that_were_evaluated():
    data = moons(20, held_out=20)
    model = build_mlp(Architecture((2, 1)), [0])
    for watch in (Watch((0, 2)), Watch((0, 2), (), (1,))):
        fit = fit_backprop(model, data, Phase(2, 0.1, "adam"), watch=watch, device="cpu")
        with pytest.raises(ValueError, match="evaluated steps"):
            stop_early(fit, torch.zeros(1, 2), torch.zeros(1), "binary")

"""What rai-grads measures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rai_utils.data import moons
from rai_utils.diagnostics import gradient_norms
from rai_utils.experiments import rai_grads
from rai_utils.experiments.rai_grads import first_nonzero, spread_across_examples
from rai_utils.models import Architecture, build_mlp, development_seeds
from rai_utils.training import Phase, Watch, fit_backprop, fit_relaxed
from rai_utils.tuning import tune


def test_spread_is_the_deviation_across_examples_and_0_where_they_fall_together():
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = build_mlp(Architecture((2, 3, 3, 1)), [0], dtype=torch.float64)
    z = x @ model.weights[0][0, 0].detach().T
    spread = spread_across_examples(model, x)
    assert spread.shape == (3, 1)
    assert spread[0, 0] == pytest.approx(z.var(0, correction=0).mean().sqrt().item())
    with torch.no_grad():
        model.weights[1].zero_()
    assert spread_across_examples(model, x)[1:].tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(("method", "fit"), [("RAI", fit_relaxed), ("backprop", fit_backprop)])
@pytest.mark.parametrize("network", [0, 2])
def test_a_long_run_is_the_fit_of_its_own_network_on_its_own_draw(
    method, fit, network, monkeypatch
):
    monkeypatch.setattr(rai_grads, "DEEP", Architecture((2, 5, 5, 1)))
    found = rai_grads.long_cell(method, network, "float64", 12)
    start = build_mlp(Architecture((2, 5, 5, 1)), [network], dtype=torch.float64)
    data = moons(seed=42 + network, held_out_seed=1042 + network)
    watch = Watch(evaluate_at=found["evaluated_at"], inspect_at=[12])
    history = fit(start, data, Phase(12, 0.1), watch=watch, device="cpu").history
    assert (found["evaluated_at"][0], found["evaluated_at"][-1]) == (0, 12)
    assert found["train"] == history.accuracy[:, 0].tolist()
    assert found["held_out"] == history.held_out_accuracy[:, 0].tolist()
    assert found["loss_at_end"] == history.loss[-1, 0]
    np.testing.assert_allclose(found["gradient_norms"], history.gradient_norms[-1, :, 0], rtol=1e-3)
    assert 0 < found["map_range"] <= 1 and found["map"] is None and found["failures"] == 0
    shown = rai_grads.long_cell(method, 0, "float32", 1)["map"]
    assert np.shape(shown) == (rai_grads.RESOLUTION, rai_grads.RESOLUTION)


@pytest.fixture
def small(monkeypatch):
    """A shape and an effort that take no time."""
    monkeypatch.setattr(rai_grads, "DEEP", Architecture((2, 4, 4, 1), "tanh"))
    monkeypatch.setattr(rai_grads, "SCALED_RATES", (1.0, 0.1))
    monkeypatch.setattr(rai_grads, "TUNING_NETWORKS", 2)


@pytest.mark.parametrize("method", rai_grads.METHODS)
def test_a_method_is_tuned_on_other_networks_and_fits_its_own_on_their_draws(method, small):
    steps, first_steps = 6, 2
    found = rai_grads.tuned_cell(method, steps, first_steps, 2, tuning_steps=4)
    relaxed = method in ("RAI", "as written")
    shape = Architecture((2, 4, 4, 1), "tanh", skip_connections=method == "skips")
    start = ("orthogonal_centred", 4.0) if method == "orthogonal" else ()
    options = {"layers": (1, 2) if method == "as written" else (1, 2, 3)} if relaxed else {}
    fit = fit_relaxed if relaxed else fit_backprop
    tuning_data = moons(seed=7, held_out=500, held_out_seed=2042)
    search = {"smallest_step": 1e-12, "tie_margin": 1e-3, "limits": (1e-8, 50.0)}
    rates = [rate / rai_grads.WIDTH**0.5 for rate in (1.0, 0.1)]
    tried = build_mlp(shape, development_seeds(2), *start)
    first = None
    if method == "hand-over":
        chosen = tune(fit_relaxed, tried, tuning_data, 4, rates, **search).phase.learning_rate
        first = Phase(first_steps, chosen, smallest_step=1e-12)
        tried = fit_relaxed(tried, tuning_data, first).model
    tuning = tune(fit, tried, tuning_data, 4, rates, **search)  # as written: RAI's own rate
    assert found["learning_rate"] == tuning.phase.learning_rate
    assert found["learning_rates"] == tuning.learning_rates
    own = steps - first_steps if method in ("hand-over", "orthogonal", "skips") else steps
    begin = first_steps if method == "hand-over" else 0
    assert found["evaluated_at"] == [begin, begin + own]
    phase = Phase(own, found["learning_rate"], smallest_step=1e-12)
    for network in range(2):
        data = moons(seed=42 + network, held_out_seed=1042 + network)
        model = build_mlp(shape, [network], *start)
        if first is not None:
            model = fit_relaxed(model, data, first).model
        watch = Watch([own], snapshot_at=(first_steps,))
        result = fit(model, data, phase, watch=watch, **options)
        assert found["held_out"][network][-1] == pytest.approx(
            result.history.held_out_accuracy[-1, 0], rel=1e-3
        )
        shown = result.snapshots[first_steps] if relaxed else result.model
        for name, values in (
            ("gradient_norms", gradient_norms(shown, data)),
            ("spreads", spread_across_examples(shown, data.x)),
        ):
            np.testing.assert_allclose(found[name][network], values[:, 0], rtol=2e-3)
    # Two steps reach two layers of three; backpropagation reaches all at once.
    assert found["front_errors"] == ([0, 0] if method == "RAI" else found["front_errors"])


def test_a_hand_over_after_some_steps_is_that_of_each_network_at_each_rate(small):
    found = rai_grads.early_cell(3, 5, 2)
    for network in range(2):
        data = moons(seed=42 + network, held_out_seed=1042 + network)
        first = Phase(3, 0.1, smallest_step=1e-12)
        model = fit_relaxed(build_mlp(rai_grads.DEEP, [network]), data, first).model
        for rate, accuracy in zip(found["learning_rates"], found["held_out"][network], strict=True):
            phase = Phase(5, rate, smallest_step=1e-12)
            history = fit_backprop(model, data, phase, watch=Watch([5])).history
            assert accuracy == pytest.approx(history.held_out_accuracy[-1, 0], rel=1e-3)


def test_a_network_whose_forward_pass_overflows_is_lost(small, monkeypatch):
    found = rai_grads.activation_cell("relu", 0.01, 5, 2)
    assert all(0 <= accuracy <= 1 for values in found.values() for accuracy in values)
    ends = [np.full((1, 1), np.nan), np.zeros((0, 1))]
    for accuracy in ends:  # not finite at the end, or given up before it
        history = SimpleNamespace(accuracy=accuracy, held_out_accuracy=accuracy)
        failed = SimpleNamespace(history=history)
        monkeypatch.setattr(rai_grads, "fit_relaxed", lambda *_, failed=failed, **__: failed)
        found = rai_grads.activation_cell("relu", 0.1, 5, 2)
        assert found == {"train": [None, None], "held_out": [None, None]}


def test_first_nonzero_finds_each_layers_first_step():
    values = np.zeros((3, 2, 1))
    values[1:, 0], values[2, 1] = 5.0, 0.0
    assert first_nonzero(np.array([0, 10, 20]), values).tolist() == [[10.0], [np.inf]]
    with pytest.raises(ValueError, match="got 2 and 3"):
        first_nonzero(np.array([0, 1]), values)

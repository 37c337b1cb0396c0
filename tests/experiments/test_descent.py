"""Gradient descent on a stack against torch's own optimiser and modules, one network at a time."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from rai_utils.data import moons, moons_draw, three_clusters
from rai_utils.experiments.activation_saturation.descent import descend, race, set_intercepts
from rai_utils.models import Architecture, build_mlp

DATA = moons(40, held_out=10)
RATES = (0.1, 0.5, 1.0)


def stacked(activation="tanh", seeds=range(3), dtype=torch.float64, depth=2):
    shape = Architecture((2, *[5] * depth, 1), activation)
    return build_mlp(shape, seeds, "xavier", dtype=dtype)


def sgd(module, rate, steps, data=DATA):
    """Train one network with torch's own optimiser; return its losses and the way it went."""
    optimiser = torch.optim.SGD(module.parameters(), lr=rate)
    x, y = data.x.double(), data.y.double()
    losses, path = [], 0.0
    for step in range(steps + 1):
        loss = nn.functional.binary_cross_entropy_with_logits(module(x)[:, 0], y)
        losses.append(loss.item())
        if step < steps:
            optimiser.zero_grad()
            loss.backward()
            before = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
            optimiser.step()
            now = nn.utils.parameters_to_vector(module.parameters()).detach()
            path += (now - before).norm().item()
    return losses, path


def test_each_network_descends_as_torch_does_with_its_own_rate():
    model = stacked()
    start = [p.detach().clone() for p in model.parameters()]
    run = descend(model, DATA, RATES, 30)
    for position, rate in enumerate(RATES):
        module = model.as_module(position)
        first = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
        losses, path = sgd(module, rate, 30)
        np.testing.assert_allclose(run.loss[:, position], losses, rtol=1e-10)
        assert run.path[-1, position] == pytest.approx(path)
        last = nn.utils.parameters_to_vector(module.parameters()).detach()
        assert run.displacement[-1, position] == pytest.approx((last - first).norm().item())
        torch.testing.assert_close(
            run.model.as_module(position).state_dict(), dict(module.state_dict())
        )
    for before, now in zip(start, model.parameters(), strict=True):
        assert torch.equal(before, now)
    assert run.slopes is None and np.isinf(run.reached_at).all()


def test_a_trained_slope_is_torchs_prelu():
    model = stacked("leaky_relu", seeds=[0, 1])
    run = descend(model, DATA, [0.2, 0.4], 25, initial_slope=0.25)
    for position, rate in enumerate((0.2, 0.4)):
        parts = [
            nn.PReLU(init=0.25, dtype=torch.float64) if isinstance(m, nn.LeakyReLU) else m
            for m in model.as_module(position)
        ]
        module = nn.Sequential(*parts)
        losses, _ = sgd(module, rate, 25)
        np.testing.assert_allclose(run.loss[:, position], losses, rtol=1e-10)
        slopes = [m.weight.item() for m in module if isinstance(m, nn.PReLU)]
        np.testing.assert_allclose(run.slopes[:, position], slopes, rtol=1e-10)
    assert np.abs(run.slopes - 0.25).min() > 1e-4


def test_a_run_ends_when_all_have_arrived_and_says_when():
    model = stacked()
    free = descend(model, DATA, RATES, 60)
    goal = 0.4
    run = descend(model, DATA, RATES, 60, goal=goal)
    expected = [np.flatnonzero(column <= goal) for column in free.loss.T]
    expected = [rows[0] if rows.size else np.inf for rows in expected]
    np.testing.assert_array_equal(run.reached_at, expected)
    assert np.isfinite(expected).any()
    if np.isfinite(expected).all():
        assert len(run.loss) == max(expected) + 1


def test_snapshots_hold_the_weights_of_their_step():
    model = stacked()
    run = descend(model, DATA, RATES, 5, snapshot_at=(0, 3, 5))
    assert sorted(run.snapshots) == [0, 3, 5]
    shorter = descend(model, DATA, RATES, 3)
    for a, b in zip(run.snapshots[3].parameters(), shorter.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_race_is_won_by_the_start_and_the_rate_that_a_loop_finds():
    grid, gains = (0.01, 0.3, 1.0, 1e8), (0.1, 1.0, 2.0)
    shape = Architecture((2, 5, 5, 1), "tanh")
    starts = [build_mlp(shape, range(5), "xavier", gain) for gain in gains]
    drawn = [moons_draw(number) for number in range(5)]
    won = race(starts, drawn, grid, 150, 0.35)
    last = {
        (start, rate): np.sort(descend(model, drawn, [rate] * 5, 150, goal=0.35).reached_at)[4]
        for start, model in enumerate(starts)
        for rate in grid
    }  # 90 % of five are all five
    assert won.steps == min(last.values()) == last[won.start, won.rate]
    # Of equal ones the rate nearest to the middle, then the earlier start.
    again = race([starts[1]] * 2, drawn, (0.9999, 1.0, 1.0001, 1e-4), 150, 0.35)
    assert (again.start, again.rate) in [(0, 1.0), (0, 1.0001)]


def test_each_network_descends_on_its_own_draw_and_along_its_own_bend():
    shape = Architecture((2, 5, 5, 1), "elu")
    model = build_mlp(shape, range(3), "he", dtype=torch.float64)
    drawn = [moons(40, seed=number, held_out=10) for number in range(3)]
    bend = partial(nn.functional.elu, alpha=0.5)
    for named, activation in (({}, nn.ELU()), ({"bend": bend}, nn.ELU(0.5))):
        run = descend(model, drawn, RATES, 10, **named)
        for place, (rate, data) in enumerate(zip(RATES, drawn, strict=True)):
            parts = [activation if isinstance(m, nn.ELU) else m for m in model.as_module(place)]
            losses, _ = sgd(nn.Sequential(*parts), rate, 10, data=data)
            np.testing.assert_allclose(run.loss[:, place], losses, rtol=1e-10)
    one = descend(model, drawn[0], RATES, 10, bend=bend)
    assert one.loss[0, 0] == pytest.approx(run.loss[0, 0])


def test_arrays_and_ranges_are_sequences_too():
    model = stacked()
    run = descend(model, DATA, np.array(RATES), 5, snapshot_at=np.arange(0, 6, 5))
    expected = descend(model, DATA, RATES, 5, snapshot_at=[0, 5])
    np.testing.assert_array_equal(run.loss, expected.loss)
    assert list(run.snapshots) == [0, 5]
    assert race([model], DATA, np.array([1e-4, 0.3]), 5, 1e-6).rate == 0.3


def test_a_race_that_nobody_finishes_goes_to_the_lowest_loss():
    model = stacked(seeds=range(3))
    winner = race([model], DATA, (1e-4, 0.3), 5, 1e-6)
    assert winner.rate == 0.3 and np.isinf(winner.steps)


def test_intercepts_are_set_in_hidden_layers_alone():
    model = build_mlp(Architecture((2, 4, 4, 1), "relu"), range(2))
    moved = set_intercepts(model, 0.1)
    assert all((bias == 0.1).all() for bias in moved.biases[:-1])
    assert torch.equal(moved.biases[-1], model.biases[-1])
    assert not (model.biases[0] == 0.1).any()


def test_what_does_not_fit_is_refused():
    model = stacked()
    for arguments, message in (
        ({"learning_rates": (0.1,)}, "one learning rate for each of the 3 networks, got 1"),
        ({"learning_rates": (0.1, 0.1, np.inf)}, "learning rate must be finite, got inf"),
        ({"steps": 1.5}, "steps must be a whole number, got 1.5"),
        ({"goal": np.nan}, "goal must be finite, got nan"),
        ({"snapshot_at": (2,)}, "snapshot_at must lie in 0 … 1, got 2"),
        ({"snapshot_at": (0.5,)}, "snapshot_at must be a whole number, got 0.5"),
        ({"initial_slope": np.inf}, "initial slope must be finite"),
        ({"learning_rates": (0.1, 0.1, 0.0)}, "above 0"),
        ({"steps": 0}, "steps"),
        ({"goal": 0.0}, "goal"),
        ({"initial_slope": 0.1}, "leaky_relu"),
        ({"dataset": three_clusters()}, "3 output units"),
    ):
        given = {"dataset": DATA, "learning_rates": RATES, "steps": 1, **arguments}
        with pytest.raises(ValueError, match=message):
            descend(model, **given)
    with pytest.raises(ValueError, match="grid"):
        race([model], DATA, (), 5, 0.1)
    with pytest.raises(ValueError, match=r"rates must be above 0, got 0\.0"):
        race([model], DATA, (0.1, 0.0), 5, 0.1)
    with pytest.raises(ValueError, match="starts must hold at least one"):
        race([], DATA, (0.1,), 5, 0.1)
    with pytest.raises(ValueError, match="one data set, or 3, got 2"):
        descend(model, [DATA] * 2, RATES, 1)
    with pytest.raises(ValueError, match="of classes and of one size"):
        descend(model, [DATA, DATA, moons(30, held_out=10)], RATES, 1)
    skips = build_mlp(Architecture((2, 5, 5, 1), "tanh", skip_connections=True), range(3))
    with pytest.raises(ValueError, match="must be without skips"):
        descend(skips, DATA, RATES, 1, bend=torch.tanh)
    flat = build_mlp(Architecture((2, 1), "leaky_relu"), [0])
    with pytest.raises(ValueError, match="hidden layer"):
        descend(flat, DATA, [0.1], 1, initial_slope=0.1)

"""What rai-guided-starts measures."""

import contextlib
import io
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from rai_utils import training
from rai_utils.data import moons
from rai_utils.experiments import rai_guided_starts
from rai_utils.experiments.rai_guided_starts import (
    NEVER,
    arithmetic_cell,
    backprop_cell,
    guided_cell,
    marks,
    network_of,
    noisy_moons,
    read_at_layers,
    resting,
    spliced,
    spliced_cell,
)
from rai_utils.models import Architecture, build_mlp
from rai_utils.relaxation import guided_targets
from rai_utils.training import Phase, Watch, fit_backprop, fit_relaxed


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    monkeypatch.setattr(rai_guided_starts, "compile_rprop", lambda: None)


@pytest.fixture
def data():
    return moons(examples=12, held_out=30).to("cpu", torch.float64)


def written_out(model, targets, x, y, steps, rate, rest, layers):
    """RAI by gradient descent on one ordinary network, layer by layer, from given targets."""
    linears = [part for part in model.as_module(0) if isinstance(part, nn.Linear)]
    z = [targets.at(layer)[0].clone().requires_grad_() for layer in targets.plan.layers]
    for step in range(steps):
        below, loss = x, torch.zeros(())
        for target, linear in zip(z, linears, strict=True):
            loss = loss + ((linear(below) - target) ** 2).mean()
            below = torch.sigmoid(target)
        probability = torch.sigmoid(z[-1][:, 0])
        loss = loss - (y * probability.log() + (1 - y) * (1 - probability).log()).mean()
        moved = [p for i, each in enumerate(linears, 1) if i in layers for p in each.parameters()]
        moved += z if step >= rest else []
        for each, gradient in zip(moved, torch.autograd.grad(loss, moved), strict=True):
            each.data -= rate * gradient
    return linears, z


@pytest.mark.parametrize(
    ("rest", "layers"), [(0, None), (3, None), (NEVER, None), (3, (1, 3)), (0, (2, 3, 4, 5))]
)
def test_what_rests_stays_and_all_else_moves_as_written_out(data, rest, layers):
    model = build_mlp(Architecture((2, 5, 5, 5, 5, 1)), [3], dtype=torch.float64)
    targets = guided_targets(model, data, [8], path=2)
    fit = fit_relaxed(
        model,
        data,
        Phase(6, 0.3, "sgd"),
        targets=targets,
        objective=resting(rest, layers),
        device="cpu",
    )
    trained = range(1, 6) if layers is None else layers
    linears, z = written_out(model, targets, data.x, data.y, 6, 0.3, rest, trained)
    found = [part for part in fit.model.as_module(0) if isinstance(part, nn.Linear)]
    for ours, reference in zip(found, linears, strict=True):
        torch.testing.assert_close(ours.weight, reference.weight)
        torch.testing.assert_close(ours.bias, reference.bias)
    for layer, reference in enumerate(z, 1):
        torch.testing.assert_close(fit.relaxed_targets.at(layer)[0], reference.detach())
        moved = not torch.equal(reference, targets.at(layer)[0])
        assert moved == (rest != NEVER)


def test_a_guided_cell_is_the_fit_of_its_network_on_its_draw():
    found = guided_cell("moons", 3, 1, steps=16, rest=4, path=2, width=6, rate=0.05, resolution=2)
    data = moons(seed=43, held_out=1000, held_out_seed=20_043)
    start = build_mlp(Architecture((2, 6, 6, 6, 1)), [1])
    targets = guided_targets(start, data, [500_001], path=2, scale=6, offset=9, code=5)
    phase, watch = Phase(16, 0.05, smallest_step=1e-12), Watch(evaluate_at=[10, 16])
    fit = fit_relaxed(
        start, data, phase, targets=targets, objective=resting(4), watch=watch, device="cpu"
    )
    assert found["evaluated_at"] == [10, 16]
    assert found["train"] == pytest.approx(fit.history.accuracy[:, 0], abs=1e-4)
    assert found["held_out"] == pytest.approx(fit.history.held_out_accuracy[:, 0], abs=1e-4)
    assert found["seconds_a_step"] >= 0


def test_a_guided_cell_takes_its_options(monkeypatch):
    seen = []

    def spy(model, data, seeds, **options):
        seen.append((options, guided_targets(model, data, seeds, **options)))
        return seen[-1][1]

    monkeypatch.setattr(rai_guided_starts, "guided_targets", spy)
    cell = {"task": "moons", "hidden_layers": 2, "network": 0, "steps": 1, "width": 4}
    plain = guided_cell(**cell, rate=1e-6)
    guided_cell(**cell, path=-1, scale=2, code=3, own_codes=True)
    options = seen[1][0]
    assert options["path"] == np.inf and (options["scale"], options["code"]) == (2, 3)
    assert torch.equal(options["labels"], torch.arange(100))
    guided_cell(**cell, disturbance=0.5)
    before, after = (seen[i][1].at(1) for i in (0, 2))
    assert (after - before).std().item() == pytest.approx(0.5, rel=0.1)
    double = guided_cell(**cell, rate=1e-6, precision="float64")
    assert seen[3][1].at(1).dtype == torch.float64
    assert double["held_out"] == pytest.approx(plain["held_out"], abs=0.01)
    with pytest.raises(ValueError, match="task must be one of"):
        guided_cell("sun", 2, 0)
    with pytest.raises(ValueError, match="precision must be one of"):
        guided_cell("moons", 2, 0, precision="float16")


def test_a_regression_is_scored_by_the_variance_that_it_explains():
    cell = guided_cell("dose curve", 2, 0, steps=60, width=20)
    assert cell["held_out"][0] < 0.5 < cell["held_out"][-1] <= 1


@pytest.mark.parametrize("steps", [1, 7, 60, 400])
def test_marks_end_with_the_last_step(steps):
    assert marks(steps)[-1] == steps and list(marks(steps)) == sorted(set(marks(steps)))
    assert marks(steps)[::-3][0] == steps


def test_the_shallow_reference_is_backpropagation_from_the_default_start():
    found = backprop_cell("moons", 3, 0, 130)
    data = rai_guided_starts.TASKS["moons"](0)
    watch, phase = Watch(evaluate_at=found["evaluated_at"]), Phase(130, 0.01, smallest_step=1e-12)
    history = fit_backprop(network_of(data, 3, 0), data, phase, watch=watch, device="cpu").history
    assert found["evaluated_at"][-1] == 130
    assert found["train"] == history.accuracy[:, 0].round(4).tolist()
    assert found["held_out"] == history.held_out_accuracy[:, 0].round(4).tolist()
    with pytest.raises(ValueError, match="task must be one of"):
        backprop_cell("magic", 3, 0, 1)


def test_labels_are_turned_in_both_classes_alike():
    plain, noisy = moons(seed=3), noisy_moons(0.1, seed=3)
    turned = plain.y != noisy.y
    assert turned.sum() == 10 and plain.y[turned].sum() == 5
    assert torch.equal(plain.x, noisy.x) and torch.equal(plain.held_out_y, noisy.held_out_y)


def test_a_label_is_read_where_the_forward_pass_has_it(data):
    model = build_mlp(Architecture((2, 8, 8, 1)), [0], dtype=torch.float64)
    code = torch.ones(8, dtype=torch.float64)
    with torch.no_grad():
        model.weights[0].zero_()
        model.weights[0][0, 0, :, 0] = 1.0  # every unit of layer 1 carries the first feature
    y = (data.x[:, 0] > data.x[:, 0].mean()).double()
    found = read_at_layers(model, data.x, y, code)
    assert found.shape == (2,) and found[0] == 1.0
    assert read_at_layers(model, data.x, 1 - y, code)[0] == 1.0
    half = (torch.arange(12) % 2).double()
    assert 0.5 <= read_at_layers(model, data.x, half, code)[0] < 1


@pytest.mark.parametrize("layers", [0, 1, 2, 4, 6])
def test_a_spliced_network_computes_first_the_one_and_then_the_other(data, layers):
    architecture = Architecture((2, 4, 4, 4, 3, 3, 1))
    below, above = (build_mlp(architecture, [seed], dtype=torch.float64) for seed in (0, 1))
    originals = [model.as_module(0).state_dict() for model in (below, above)]
    joined = spliced(below, above, layers)
    lower, upper = below.as_module(0), above.as_module(0)
    expected = upper[2 * layers :](lower[: 2 * layers](data.x))
    torch.testing.assert_close(joined(data.x)[0], expected)
    for model, original in zip((below, above), originals, strict=True):
        for name, value in model.as_module(0).state_dict().items():
            assert torch.equal(value, original[name])


def test_a_cell_of_splices_puts_each_upper_part_on_the_lowest_two_layers():
    found = spliced_cell(1, 3, 30)
    parts = []
    for problem in ("moons", "circles"):
        data = rai_guided_starts.TASKS[problem](1)
        start = network_of(data, 3, 1)
        targets = guided_targets(start, data, [500_001])
        phase, rest = Phase(30, 0.1, smallest_step=1e-12), resting(50)
        fit = fit_relaxed(start, data, phase, targets=targets, objective=rest, device="cpu")
        parts.append(fit.model.as_module(0))
    data = rai_guided_starts.TASKS["moons"](1)
    uppers = {"own": parts[0], "circles": parts[1], "untrained": start.as_module(0)}
    for name, upper in uppers.items():
        joined = nn.Sequential(*parts[0][:4], *upper[4:])  # a layer and its activation each
        right = (joined(data.held_out_x)[:, 0] > 0.5) == (data.held_out_y > 0.5)
        assert found[name] == pytest.approx(float(right.float().mean()), abs=2e-3)
    assert found["own"] > 0.9 > found["untrained"]


@pytest.mark.parametrize("task", [t for t in rai_guided_starts.TASKS if t != "MNIST-1D"])
def test_a_network_fits_its_task(task):
    data, other = (rai_guided_starts.TASKS[task](network) for network in (2, 3))
    assert not (torch.equal(data.x, other.x) and torch.equal(data.y, other.y))
    model = network_of(data, 2, 2, width=5)
    assert model(data.x).shape == (1, len(data.x), data.outputs)
    guided_targets(model, data, [0])


@pytest.mark.parametrize(
    ("setting", "variables"),
    [
        ("default", {}),
        ("torch default", {"ATEN_CPU_CAPABILITY": "default"}),
        ("mkl compatible", {"MKL_CBWR": "COMPATIBLE"}),
        ("oldest", {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}),
    ],
)
def test_another_arithmetic_runs_the_same_cells_elsewhere(monkeypatch, setting, variables):
    def run(command, env, **_):
        assert env.items() >= variables.items()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(command[-1], {})
        return SimpleNamespace(stdout=printed.getvalue())

    def cell(*arguments, **options):
        calls.append((arguments, options))
        return {"train": [0.5, 0.75], "held_out": [0.5, 0.25 * arguments[-1]]}

    calls = []
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(training, "configure", lambda: None)
    monkeypatch.setattr(rai_guided_starts, "guided_cell", cell)
    found = arithmetic_cell(setting, [3, 1], 9)
    assert found == {"train": [0.75, 0.75], "held_out": [0.75, 0.25]}
    assert calls == [(("moons", 100, network), {"steps": 9}) for network in (3, 1)]

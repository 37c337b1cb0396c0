"""The same fits on a GPU: equal to the CPU's in float64, the same verdicts in float32.

Run by ``pytest -m cuda`` on a machine with a CUDA GPU; left out elsewhere.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rai_utils import training
from rai_utils.data import moons, three_clusters
from rai_utils.models import Architecture, build_mlp
from rai_utils.modules import relax, relax_dataset
from rai_utils.relaxation import (
    Targets,
    forward_targets,
    guided_targets,
    relaxation_plan,
    resting,
)
from rai_utils.training import Phase, Watch, fit_backprop, fit_handover, fit_relaxed

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU"),
]

DEEP = Architecture((2, *[100] * 100, 1))
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "rprop": torch.optim.Rprop}


@pytest.fixture(params=[True, False], ids=["recorded", "launched"])
def recorded(request, monkeypatch):
    monkeypatch.setattr(training, "CUDA_GRAPHS", request.param)


def disturbed(model, data):
    """Targets away from the forward pass, so that no gradient hangs on rounding."""
    plan = relaxation_plan(model.architecture)
    generator = torch.Generator().manual_seed(5)
    values = [
        value + 0.5 * torch.randn(value.shape, dtype=value.dtype, generator=generator)
        for value in forward_targets(model, data.x, plan).values
    ]
    return Targets(plan, tuple(values), data.x)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rprop"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "elu", "gelu"])
def test_a_fit_in_float64_is_the_cpus(optimizer, activation):
    data = moons(30, held_out=40).to("cpu", torch.float64)
    architecture = Architecture((2, 7, 6, 6, 6, 1), activation)
    model = build_mlp(architecture, [0, 1], "xavier", 2.0, dtype=torch.float64)
    phase = Phase(6, (0.01, 0.02), optimizer, weight_decay=0.001)
    watch = Watch(evaluate_at=range(7), inspect_at=range(7), snapshot_at=(3,))
    for fit, options in ((fit_backprop, {}), (fit_relaxed, {"targets": disturbed(model, data)})):
        ours = fit(model, data, phase, watch=watch, device="cuda", **options)
        theirs = fit(model, data, phase, watch=watch, device="cpu", **options)
        for mine, other in (
            (ours.model.parameters(), theirs.model.parameters()),
            (ours.snapshots[3].parameters(), theirs.snapshots[3].parameters()),
            (ours.targets.values, theirs.targets.values) if ours.targets else ((), ()),
        ):
            for one, two in zip(mine, other, strict=True):
                torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)
        for name in ("loss", "accuracy", "held_out_loss", "gradient_norms", "hidden_terms"):
            np.testing.assert_allclose(
                getattr(ours.history, name), getattr(theirs.history, name), rtol=1e-8, atol=1e-12
            )


@pytest.mark.usefixtures("recorded")
def test_several_classes_and_skips_too():
    data = three_clusters().to("cpu", torch.float64)
    architecture = Architecture(
        (data.x.shape[1], 8, 8, 8, 3), "tanh", "softmax", skip_connections=True
    )
    model = build_mlp(architecture, [0, 1, 2], dtype=torch.float64)
    ours, theirs = (
        fit_backprop(model, data, Phase(5, 0.1, "sgd"), device=device) for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(ours.history.loss, theirs.history.loss, rtol=1e-9)


@pytest.mark.usefixtures("recorded")
def test_targets_of_the_forward_pass_have_residuals_of_exactly_0():
    fit = fit_relaxed(
        build_mlp(DEEP, [0, 1]),
        moons(),
        Phase(1, 0.1),
        watch=Watch(evaluate_at=(), inspect_at=(0,)),
        device="cuda",
    )
    assert (fit.history.hidden_terms[0] == 0).all()


@pytest.mark.usefixtures("recorded")
def test_a_network_whose_loss_is_not_finite_is_named_and_the_others_go_on():
    model = build_mlp(Architecture((2, 5, 5, 1), "relu"), [0, 1])
    with torch.no_grad():
        model.weights[1][0, 1] = torch.inf
    for fit in (fit_backprop, fit_relaxed):
        found = fit(model, moons(30, held_out=20), Phase(4, 0.01), device="cuda")
        assert [failure.position for failure in found.history.failures] == [1]
        assert np.isfinite(found.history.loss[-1, 0])


def test_the_verdicts_on_101_layers_are_the_cpus():
    data, start = moons(), build_mlp(DEEP, range(10))
    first, second = Phase(200, 0.1), Phase(200, 1e-4, smallest_step=1e-12)
    plain = fit_backprop(start, data, Phase(200, 0.1), watch=Watch((200,)), device="cuda")
    assert plain.history.accuracy[-1].max() <= 0.55
    inspected = range(110)
    fits = fit_handover(
        start, data, first, second, relaxed_watch=Watch((200,), inspected), device="cuda"
    )
    held_out = fits.relaxed.history.held_out_accuracy[-1]
    assert held_out.min() > 0.6
    # The front moves one layer a step.
    reached = (fits.relaxed.history.gradient_norms > 0).argmax(0)  # (T, networks)
    assert (reached == np.arange(101, 0, -1)[:, None]).all()
    assert np.median(fits.backprop.history.held_out_accuracy[-1]) > 0.95


def test_a_guided_start_trains_101_layers_as_on_the_cpu():
    data, start = moons(), build_mlp(DEEP, range(5))
    targets = guided_targets(start, data, range(5))
    fit = fit_relaxed(
        start,
        data,
        Phase(60, 0.1, smallest_step=1e-12),
        targets=targets,
        objective=resting(50),
        watch=Watch((60,)),
        device="cuda",
    )
    assert fit.history.accuracy[-1].min() >= 0.98
    assert fit.history.held_out_accuracy[-1].min() > 0.95


def classifier(device):
    torch.manual_seed(0)
    layers = nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 2)
    return nn.Sequential(*layers).double().to(device)


def examples(device="cpu"):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(12, 4, dtype=torch.float64, generator=generator)
    return x.to(device), (torch.arange(12) % 2).to(device)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_relaxed_module_is_the_cpus(optimizer):
    found = []
    for device in ("cuda", "cpu"):
        module, (x, labels) = classifier(device), examples(device)
        with relax(module, x) as relaxed:
            relaxed.guide(labels, 3)
            numbers = [*module.parameters(), *relaxed.parameters()]
            assert {number.device.type for number in numbers} == {device}
            rule = OPTIMIZERS[optimizer](numbers, lr=0.01)
            for _ in range(6):
                loss = nn.functional.cross_entropy(module(x), labels) + relaxed.hidden_loss()
                rule.zero_grad()
                loss.backward()
                rule.step()
            found.append([number.detach().cpu() for number in numbers])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_targets_of_a_table_are_the_cpus(optimizer):
    found = []
    for device in ("cuda", "cpu"):
        module, data = classifier(device), TensorDataset(*examples())
        with relax_dataset(module, data, rate=0.05, optimizer=optimizer) as relaxed:
            relaxed.guide(examples()[1], 3, examples(device)[0])
            rule = torch.optim.Adam(module.parameters(), lr=0.01)
            for _ in range(3):
                for ids, (x, labels) in DataLoader(relaxed.numbered, 5):
                    relaxed.take(ids)
                    output, labels = module(x.to(device)), labels.to(device)
                    loss = nn.functional.cross_entropy(output, labels) + relaxed.hidden_loss()
                    rule.zero_grad()
                    loss.backward()
                    rule.step()
                    relaxed.step()
            relaxed.take(range(12))
            module(examples(device)[0])
            numbers = [*module.parameters(), *relaxed.parameters()]
            found.append([number.detach().cpu() for number in numbers])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)

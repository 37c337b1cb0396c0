"""The C file against torch's operations, which are the reference, and that it is optional."""

import warnings

import numpy as np
import pytest
import torch

from rai_utils import native, training
from rai_utils.data import moons
from rai_utils.models import ACTIVATIONS, Architecture, build_mlp
from rai_utils.relaxation import (
    Targets,
    forward_targets,
    predictions,
    relaxation_plan,
    relaxed_loss,
)
from rai_utils.training import Phase, Watch, fit_relaxed

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    compiles = native.serves("sigmoid", torch.zeros(1))
pytestmark = pytest.mark.skipif(not compiles, reason="there is no C compiler")

# Layers of several widths, two stretches of one width, and an odd width at that.
MIXED = (2, 9, 9, 9, 9, 5, *[16] * 24, 1)


@pytest.fixture(params=[1, 2, 3], ids="threads: {}".format)
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data():
    return moons(30, held_out=10)


def disturbed(model, data, layers="all", size=0.5):
    plan = relaxation_plan(model.architecture, layers)
    generator = torch.Generator().manual_seed(5)
    start = forward_targets(model, data.x, plan)
    values = tuple(
        value + size * torch.randn(value.shape, generator=generator) for value in start.values
    )
    return Targets(plan, values, data.x)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("activation", native.KINDS)
@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("layers", ["all", (1, 2, 3, 4, 6, 7, 8, 12, 13, 14)])
def test_terms_gradients_and_predictions_are_the_slow_ones(data, activation, seeds, layers):
    model = build_mlp(Architecture(MIXED, activation), range(seeds), "xavier", 2.0)
    targets = disturbed(model, data, layers)
    found = []
    for by_c in (False, True):
        leaves = [
            [leaf.detach().clone().requires_grad_() for leaf in leaves]
            for leaves in (model.weights, model.biases, targets.values)
        ]
        tensors = targets.plan, *leaves, data.x, data.y
        loss = relaxed_loss(*tensors, hidden_weight=0.7, by_c=by_c)
        flat = [leaf for each in leaves for leaf in each]
        gradients = torch.autograd.grad((loss.total * torch.arange(1, seeds + 1)).sum(), flat)
        ahead = predictions(*tensors[:-1], by_c=by_c)
        found.append((loss.total, loss.output, loss.hidden, *gradients, *ahead))
    for one, other in zip(*found, strict=True):
        size = float(one.detach().abs().max())
        torch.testing.assert_close(other, one, rtol=1e-5, atol=3e-6 * size)


@pytest.mark.parametrize("activation", native.KINDS)
def test_activations_are_exact_to_rounding_and_keep_what_is_not_finite(activation):
    z = torch.cat([torch.linspace(-100, 100, 100_001), torch.tensor([0.0, 1e-30, -1e-6])])
    z = torch.cat([z, torch.tensor([torch.inf, -torch.inf, torch.nan])])
    targets = torch.stack([z, z])[:, None, :, None]  # (2, 1, numbers, 1)
    weight, bias = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    found = native.predictions(targets, weight, bias, activation).flatten()
    expected = ACTIVATIONS[activation].function(z.double())
    torch.testing.assert_close(found.double(), expected, rtol=3e-7, atol=2e-7, equal_nan=True)


@pytest.mark.usefixtures("threads")
def test_targets_of_the_forward_pass_have_residuals_of_exactly_0(data):
    for architecture in (Architecture((2, *[100] * 30, 1)), Architecture(MIXED, "tanh")):
        fit = fit_relaxed(
            build_mlp(architecture, [0, 1, 2]),
            data,
            Phase(1, 0.1),
            watch=Watch(evaluate_at=(), inspect_at=(0,)),
            device="cpu",
            compiled=True,
        )
        assert (fit.history.hidden_terms[0] == 0).all()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rprop"])
def test_a_compiled_deep_fit_equals_the_other_to_rounding(data, optimizer, monkeypatch):
    model = build_mlp(Architecture(MIXED, "tanh"), range(3))
    options = {
        "targets": disturbed(model, data),
        "watch": Watch(evaluate_at=(0, 4), inspect_at=(0, 4)),
        "device": "cpu",
    }
    used = []
    terms = native.hidden_terms
    monkeypatch.setattr(native, "hidden_terms", lambda *all_of: (used.append(1), terms(*all_of)))
    phase = Phase(4, 0.01, optimizer)
    plain, compiled = (fit_relaxed(model, data, phase, **options, compiled=c) for c in (0, 1))
    assert len(used) == 2 * 5  # two stretches, four steps and a look at the end
    for name in ("loss", "accuracy", "relaxed_loss", "gradient_norms", "hidden_terms"):
        one, other = (getattr(fit.history, name) for fit in (plain, compiled))
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_rai_of_a_deep_network_ends_where_it_does_without():
    data, model = moons(), build_mlp(Architecture((2, *[100] * 30, 1)), range(2))
    accuracy = [
        fit_relaxed(
            model, data, Phase(200, 0.1), watch=Watch((200,)), device="cpu", compiled=compiled
        ).history.held_out_accuracy[-1]
        for compiled in (False, True)
    ]
    np.testing.assert_allclose(*accuracy, atol=0.05)
    assert np.min(accuracy) > 0.8


def test_a_network_whose_loss_is_not_finite_is_named_and_the_others_go_on(data):
    model = build_mlp(Architecture(MIXED), [0, 1])
    with torch.no_grad():
        model.weights[4][3, 1] = torch.inf
    found = fit_relaxed(model, data, Phase(4, 0.01), device="cpu", compiled=True)
    assert [failure.position for failure in found.history.failures] == [1]
    assert np.isfinite(found.history.loss[-1, 0])


def test_without_a_compiler_torch_does_it_with_a_notice(data, monkeypatch):
    model = build_mlp(Architecture(MIXED), [0])
    expected = fit_relaxed(model, data, Phase(3, 0.1), device="cpu")
    monkeypatch.setenv("CC", "no-such-compiler")
    native.library.cache_clear()
    with pytest.warns(UserWarning, match="relaxation.c does not work here.*no-such-compiler"):
        fit = fit_relaxed(model, data, Phase(3, 0.1), device="cpu", compiled=True)
    native.library.cache_clear()
    for one, other in zip(fit.model.weights, expected.model.weights, strict=True):
        assert torch.equal(one, other)


def test_what_it_has_no_code_for_is_left_to_torch(data):
    assert native.serves("relu", torch.zeros(1))
    assert not native.serves("elu", torch.zeros(1))
    assert not native.serves("relu", torch.zeros(1, dtype=torch.float64))
    double = build_mlp(Architecture(MIXED), [0], dtype=torch.float64)
    fits = [
        fit_relaxed(double, data, Phase(3, 0.1), device="cpu", compiled=compiled)
        for compiled in (False, True)
    ]
    assert torch.equal(fits[0].model.weights[0], fits[1].model.weights[0])
    assert training.DEEP <= relaxation_plan(double.architecture).longest_stretch == 23


def test_memory_that_is_not_contiguous_is_refused():
    targets = torch.zeros(3, 1, 4, 5).mT
    with pytest.raises(ValueError, match="memory must be contiguous"):
        native.predictions(targets, torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 1, 4), "sigmoid")

"""The textbook updates against autograd of their own objectives, and RAI against both."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from rai_utils.data import three_clusters
from rai_utils.experiments.rai_questions_minibatches.neighbours import (
    Circuit,
    circuit_of,
    deviations,
    energy,
    implied_precisions,
    incremental_step,
    quadratic_penalty,
)
from rai_utils.models import ACTIVATIONS, Architecture, build_mlp
from rai_utils.relaxation import forward_targets, relaxation_plan

EQUAL = Architecture((2, 3, 3, 3, 3), "tanh", "identity")
UNEQUAL = Architecture((2, 5, 7, 4, 3), "sigmoid", "identity")


@pytest.fixture
def data():
    return three_clusters(12, held_out=3).to("cpu", torch.float64)


def drawn(architecture, examples=12):
    """A circuit whose values are anywhere, not at the forward pass."""
    generator = torch.Generator().manual_seed(4)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    widths = architecture.widths
    return Circuit(
        tuple(normal(above, below) for below, above in pairwise(widths)),
        tuple(normal(above) for above in widths[1:]),
        tuple(normal(examples, width) for width in widths[1:-1]),
        architecture.hidden_activation,
    )


def labels_of(data):
    return nn.functional.one_hot(data.y).double()


@pytest.mark.parametrize("architecture", [EQUAL, UNEQUAL])
def test_the_textbook_step_descends_the_energy(data, architecture):
    precisions = (0.5, 2.0, 1.0, 3.0)
    circuit = drawn(architecture)
    leaves = [
        [tensor.requires_grad_() for tensor in group]
        for group in (circuit.weights, circuit.biases, circuit.values)
    ]
    total = energy(circuit, data.x, labels_of(data), precisions)
    gradients = torch.autograd.grad(total, [leaf for group in leaves for leaf in group])
    with torch.no_grad():
        after = incremental_step(
            circuit,
            data.x,
            labels_of(data),
            value_rate=0.03,
            weight_rate=0.01,
            precisions=precisions,
        )
    before = (*circuit.weights, *circuit.biases, *circuit.values)
    rates = [0.01] * 8 + [0.03] * 3
    for old, new, gradient, rate in zip(
        before, (*after.weights, *after.biases, *after.values), gradients, rates, strict=True
    ):
        torch.testing.assert_close(new, old - rate * gradient)


def test_the_energy_is_the_sum_written_out_number_by_number(data):
    circuit, labels = drawn(UNEQUAL), labels_of(data)
    total = 0.0
    for i in range(len(data.x)):
        values = [data.x[i], *(z[i] for z in circuit.values), labels[i]]
        for t in range(1, 5):
            below = values[t - 1] if t == 1 else torch.sigmoid(values[t - 1])
            for unit in range(len(values[t])):
                mu = circuit.biases[t - 1][unit]
                for j in range(len(below)):
                    mu = mu + circuit.weights[t - 1][unit, j] * below[j]
                total += 0.5 * t * (values[t][unit] - mu) ** 2
    torch.testing.assert_close(energy(circuit, data.x, labels, (1, 2, 3, 4)), total)


def test_the_penalty_is_the_fit_and_the_gaps(data):
    circuit, labels = drawn(EQUAL), labels_of(data)
    fit = energy(circuit, data.x, labels, (0, 0, 0, 1))
    gaps = energy(circuit, data.x, labels, (1, 1, 1, 0))
    for penalty in (0.0, 1.0, 7.5):
        torch.testing.assert_close(
            quadratic_penalty(circuit, data.x, labels, penalty), fit + penalty * gaps
        )


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("widths", [EQUAL.widths, UNEQUAL.widths])
def test_rai_is_incremental_predictive_coding(activation, widths):
    found = deviations(Architecture(widths, activation, "identity"), 40, 0.5, seed=2)
    assert set(found) == {"weights", "values", "energy"} | (
        {"penalty"} if widths == EQUAL.widths else set()
    )
    assert max(found.values()) < 1e-13


def test_the_comparison_sees_a_wrong_precision(monkeypatch):
    from rai_utils.experiments.rai_questions_minibatches import neighbours

    monkeypatch.setattr(
        neighbours,
        "implied_precisions",
        lambda architecture, examples: (*implied_precisions(architecture, examples)[:-1], 0.03),
    )
    assert neighbours.deviations(EQUAL, 40, 0.5)["weights"] > 1e-4


def test_with_equal_widths_the_precisions_are_one_factor_of_the_rates(data):
    precisions = implied_precisions(EQUAL, len(data.x))
    assert precisions == (2 / (12 * 3),) * 4
    labels, circuit = labels_of(data), drawn(EQUAL)
    weighted = incremental_step(
        circuit, data.x, labels, value_rate=0.5, weight_rate=0.5, precisions=precisions
    )
    plain = incremental_step(
        circuit,
        data.x,
        labels,
        value_rate=0.5 * precisions[0],
        weight_rate=0.5 * precisions[0],
        precisions=(1,) * 4,
    )
    for a, b in zip(weighted.values, plain.values, strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(weighted.weights, plain.weights, strict=True):
        torch.testing.assert_close(a, b)


def test_a_circuit_is_one_network_of_the_stack(data):
    model = build_mlp(UNEQUAL, [0, 1], dtype=torch.float64)
    targets = forward_targets(model, data.x, relaxation_plan(UNEQUAL, (1, 2, 3)))
    circuit = circuit_of(model, targets, 1)
    h = data.x
    for t, layer in enumerate(m for m in model.as_module(1) if isinstance(m, nn.Linear)):
        assert torch.equal(circuit.weights[t], layer.weight)
        assert torch.equal(circuit.biases[t], layer.bias)
        if t < 3:
            torch.testing.assert_close(circuit.values[t], layer(h).detach())
            h = ACTIVATIONS["sigmoid"].function(layer(h))
    zero = energy(circuit, data.x, model(data.x)[1].detach(), (1,) * 4)
    assert zero < 1e-25


def test_targets_of_other_layers_are_refused(data):
    model = build_mlp(UNEQUAL, [0], dtype=torch.float64)
    targets = forward_targets(model, data.x, relaxation_plan(UNEQUAL))
    with pytest.raises(ValueError, match=r"layers \(1, 2, 3\), got \(1, 2, 3, 4\)"):
        circuit_of(model, targets)


def test_another_hidden_weight_is_not_the_energys():
    apart = deviations(EQUAL, 5, 0.5, hidden_weight=2.0)
    assert min(apart["weights"], apart["values"]) > 1e-3

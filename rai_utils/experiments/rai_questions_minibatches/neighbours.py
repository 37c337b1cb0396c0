"""Relatives of RAI, written as their own papers write them, to be compared with it.

Notation of one network: layer t = 1 … T predicts μ_t = W_t f(z_{t−1}) + b_t from the values below,
where z_0 = x, (examples, l_0), is read without f; the output z_T = y, (examples, l_T), is given. So
f acts *before* a layer's weights, and z_t is what ``relaxation`` calls a target, a pre-activation.

Predictive coding (Whittington & Bogacz 2017; with weights and values updated together,
*incremental* predictive coding, Salvatori et al. 2024, arXiv 2212.00720) descends the energy

    F = ½ Σ_i Σ_t π_t ‖ε_t‖²,   ε_t = z_t − μ_t

with precisions π_1 … π_T, 1 in these papers, and the method of auxiliary coordinates
(Carreira-Perpiñán & Wang 2014) the quadratic penalty

    E_Q = ½ Σ_i ‖y − μ_T‖² + ½ μ Σ_i Σ_{t<T} ‖z_t − μ_t‖².

RAI's relaxed loss with relaxed layers 1 … T − 1, a squared error and no output activation is F, if
the precisions are those of ``implied_precisions``: its terms are means over n examples and l_t
units where F has sums. The steps below are written out: they use neither autograd nor the code of
``relaxation``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rai_utils.data import three_clusters
from rai_utils.models import ACTIVATIONS, Architecture, StackedMLP, build_mlp
from rai_utils.relaxation import Targets, forward_targets, relaxation_plan, relaxed_loss
from rai_utils.training import Phase, fit_relaxed


@dataclass(frozen=True)
class Circuit:
    """One network with values for its hidden layers, all in plain lists.

    Attributes:
        weights: W_1 … W_T, (l_t, l_{t−1}) each.
        biases: b_1 … b_T, (l_t,) each.
        values: z_1 … z_{T−1}, (examples, l_t) each.
        activation: f, a key of ``models.ACTIVATIONS``.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    activation: str


def circuit_of(model: StackedMLP, targets: Targets, index: int = 0) -> Circuit:
    """Copy one network and its targets, which must be of layers 1 … T − 1, out of their stacks."""
    architecture = model.architecture
    hidden = tuple(range(1, architecture.depth))
    if targets.plan.layers != hidden:
        raise ValueError(f"the targets must be of layers {hidden}, got {targets.plan.layers}")
    return Circuit(
        tuple(weight.detach()[index].clone() for weight, _ in model.layers()),
        tuple(bias.detach()[index, 0].clone() for _, bias in model.layers()),
        tuple(targets.at(layer)[index].detach().clone() for layer in hidden),
        architecture.hidden_activation,
    )


def _predictions(circuit: Circuit, x: Tensor) -> list[Tensor]:
    """μ_1 … μ_T, each from the values below, (examples, l_t)."""
    activation = ACTIVATIONS[circuit.activation].function
    below = [x, *(activation(z) for z in circuit.values)]
    return [
        h @ weight.T + bias
        for h, weight, bias in zip(below, circuit.weights, circuit.biases, strict=True)
    ]


def _errors(circuit: Circuit, x: Tensor, y: Tensor) -> list[Tensor]:
    """ε_1 … ε_T, the last against the given output, (examples, l_t)."""
    return [z - mu for z, mu in zip((*circuit.values, y), _predictions(circuit, x), strict=True)]


def energy(circuit: Circuit, x: Tensor, y: Tensor, precisions: Sequence[float]) -> Tensor:
    """Energy of predictive coding, F = ½ Σ_i Σ_t π_t ‖ε_t‖²."""
    errors = _errors(circuit, x, y)
    energies = [
        0.5 * precision * error.square().sum()
        for precision, error in zip(precisions, errors, strict=True)
    ]
    return torch.stack(energies).sum()


def incremental_step(
    circuit: Circuit,
    x: Tensor,
    y: Tensor,
    *,
    value_rate: float,
    weight_rate: float,
    precisions: Sequence[float],
) -> Circuit:
    """One step of incremental predictive coding: values and weights at once.

        Δz_t = −γ (ε_t − f'(z_t) ⊙ W_{t+1}ᵀ ε_{t+1}),   t = 1 … T − 1
        ΔW_t = α Σ_i ε_t f(z_{t−1})ᵀ,   Δb_t = α Σ_i ε_t,   t = 1 … T

    with π_t ε_t in place of ε_t, γ the ``value_rate`` and α the ``weight_rate``. All errors are
    those before the step; the circuit is left as it is.
    """
    activation = ACTIVATIONS[circuit.activation]
    errors = [
        precision * error
        for precision, error in zip(precisions, _errors(circuit, x, y), strict=True)
    ]
    below = [x, *(activation.function(z) for z in circuit.values)]
    values = [
        z - value_rate * (errors[t] - activation.slope(z) * (errors[t + 1] @ weight_above))
        for t, (z, weight_above) in enumerate(zip(circuit.values, circuit.weights[1:], strict=True))
    ]
    weights = [
        weight + weight_rate * error.T @ h
        for weight, error, h in zip(circuit.weights, errors, below, strict=True)
    ]
    biases = [
        bias + weight_rate * error.sum(0)
        for bias, error in zip(circuit.biases, errors, strict=True)
    ]
    return Circuit(tuple(weights), tuple(biases), tuple(values), circuit.activation)


def quadratic_penalty(circuit: Circuit, x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """Objective E_Q of the method of auxiliary coordinates for a penalty μ, at least 0.

    The coordinates are put at the outputs of linear layers, so a stage of the nested function is
    f_t(z) = W_t f(z) + b_t. The paper raises μ towards infinity and alternates between minimising
    over the weights and over the coordinates.
    """
    *hidden, last = _predictions(circuit, x)
    fit = (y - last).square().sum()
    gaps = sum((z - mu).square().sum() for z, mu in zip(circuit.values, hidden, strict=True))
    return 0.5 * fit + 0.5 * penalty * gaps


def implied_precisions(architecture: Architecture, examples: int) -> tuple[float, ...]:
    """Precisions with which F is RAI's relaxed loss at λ = 1: π_t = 2 / (n l_t), n ``examples``."""
    return tuple(2 / (examples * width) for width in architecture.widths[1:])


def deviations(
    architecture: Architecture,
    steps: int,
    learning_rate: float,
    seed: int = 0,
    hidden_weight: float = 1.0,
) -> dict[str, float]:
    """Compare RAI with its neighbours on three overlapping clusters, in float64.

    RAI: gradient descent by ``training.fit_relaxed`` on layers 1 … T − 1 with a squared error
    against one-hot labels. Incremental predictive coding: ``incremental_step`` from the same
    weights and values, drawn by ``seed``, with the implied precisions and γ = α = the learning
    rate. The architecture has two inputs, three outputs and no output activation. ``hidden_weight``
    is λ of RAI alone: the energy has the precisions that λ = 1 implies.

    Returns:
        Largest relative deviation after the last step, the difference over the largest number of
            the tensor: of the ``weights`` and the ``values``; of the ``energy`` from the relaxed
            loss there; and, where layers 1 … T have one width l, of the ``penalty``, (2 / (n l))
            E_Q with μ = 1, from the relaxed loss.
    """
    data = three_clusters(30, held_out=30).to("cpu", torch.float64)
    labels = torch.nn.functional.one_hot(data.y).to(torch.float64)
    hidden = range(1, architecture.depth)
    model = build_mlp(architecture, [seed], dtype=torch.float64)
    circuit = circuit_of(
        model, forward_targets(model, data.x, relaxation_plan(architecture, hidden))
    )
    precisions = implied_precisions(architecture, len(data.x))
    rates = {"value_rate": learning_rate, "weight_rate": learning_rate}
    for _ in range(steps):
        circuit = incremental_step(circuit, data.x, labels, precisions=precisions, **rates)
    options: dict[str, Any] = {"layers": hidden, "loss": "squared_error", "device": "cpu"}
    options["hidden_weight"] = hidden_weight
    fit = fit_relaxed(model, data, Phase(steps, learning_rate, "sgd"), **options)
    targets = fit.relaxed_targets
    ours = circuit_of(fit.model, targets)
    parts = targets.plan, [*fit.model.weights], [*fit.model.biases], targets.values
    loss = relaxed_loss(*parts, data.x, data.y, loss="squared_error").total[0]
    found = {
        "weights": _deviation((*circuit.weights, *circuit.biases), (*ours.weights, *ours.biases)),
        "values": _deviation(circuit.values, ours.values),
        "energy": _deviation((energy(ours, data.x, labels, precisions),), (loss,)),
    }
    if len(set(architecture.widths[1:])) == 1:
        scaled = precisions[0] * quadratic_penalty(ours, data.x, labels, 1.0)
        found["penalty"] = _deviation((scaled,), (loss,))
    return found


def _deviation(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    return max(
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, expected, strict=True)
    )

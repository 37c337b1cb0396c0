"""Saturated, dead and off-centre units, and what they do to the gradients that pass them.

``model`` are stacked networks whose activation works unit by unit, ``x`` inputs, (examples,
features); all else is refused with a ValueError. Results are by layer, from the input.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rai_utils.checks import number, whole_number
from rai_utils.data import Dataset
from rai_utils.models import ACTIVATIONS, StackedMLP, pre_activations
from rai_utils.relaxation import output_loss
from rai_utils.training import loss_for

Array = NDArray[np.float64]


SATURATED_BELOW = 0.05
"""A unit counts as saturated where its slope is below this share of the greatest slope."""


def saturation_limit(activation: str) -> float:
    """Slope below which a unit counts as saturated: 5 % of the activation's greatest."""
    greatest = ACTIVATIONS[activation].greatest_slope
    if greatest is None:
        raise ValueError(f"activation must work unit by unit, got {activation}")
    return SATURATED_BELOW * greatest


def hidden_slopes(model: StackedMLP, x: Tensor) -> list[Tensor]:
    """φ'(z_t) of every hidden unit on every example, t = 1 … T − 1, each (seeds, examples, units).

    An activation that mixes units is refused with a ValueError.
    """
    slope = model.architecture.activation.slope
    return [slope(z) for z in pre_activations(model, x)[:-1]]


def saturated_share(model: StackedMLP, x: Tensor) -> Array:
    """Share of (example, unit) pairs that are saturated, in 0 … 1, (hidden layers, seeds)."""
    limit = saturation_limit(model.architecture.hidden_activation)
    shares = [(values < limit).double().mean((1, 2)) for values in hidden_slopes(model, x)]
    return torch.stack(shares).cpu().numpy()


def silent(model: StackedMLP, x: Tensor) -> NDArray[np.bool_]:
    """Which hidden units have z ≤ 0 on every example, (hidden layers, seeds, units).

    ReLU passes such a unit no gradient at all. Hidden layers have one width.
    """
    return torch.stack([(z <= 0).all(1) for z in pre_activations(model, x)[:-1]]).numpy()


def outer_over_inner(model: StackedMLP, dataset: Dataset, share: float = 0.1) -> Array:
    """Gradient far from z = 0 over that near it: no word of what counts as saturated, (seeds,).

    Of all (example, unit) pairs of a hidden layer those with the greatest |z|, so large a share,
    are held against those with the least: root mean squares of each example's own δ = ∂L/∂z. The
    geometric mean over hidden layers is returned; ``share`` lies above 0 and at most at ½.
    """
    if not 0 < number(share, "share") <= 0.5:
        raise ValueError(f"share must be above 0 and at most 0.5, got {share}")
    _, deltas = backward_signals(model, dataset)
    ratios = []
    for z, delta in zip(pre_activations(model, dataset.x)[:-1], deltas[:-1], strict=True):
        order = z.abs().flatten(1).argsort(1)  # (seeds, examples · units)
        power = delta.double().square().flatten(1).gather(1, order)
        count = max(1, int(share * power.shape[1]))
        ratios.append((power[:, -count:].mean(1) / power[:, :count].mean(1)).sqrt())
    return torch.stack(ratios).log().mean(0).exp().numpy()


def weights_moved(before: StackedMLP, after: StackedMLP, x: Tensor, share: float = 0.2) -> Array:
    """How far the weights of far-driven units went over those of near-driven ones, (seeds,).

    Units of a hidden layer are ordered by their mean |z| before; the mean distance that the
    incoming weights of the last ``share`` of them went, over that of the first, as a geometric mean
    over hidden layers. Both are one kind of network, ``before`` and ``after`` training.
    """
    if before.architecture != after.architecture or before.seeds != after.seeds:
        raise ValueError(f"networks must be of one kind, got {before.architecture} and others")
    ratios = []
    parts = zip(before.layers(), after.layers(), pre_activations(before, x), strict=True)
    for (old, _), (new, _), z in [*parts][:-1]:
        order = z.abs().mean(1).argsort(1)  # (seeds, units)
        moved = (new - old).detach().double().norm(dim=2).gather(1, order)
        count = max(1, int(share * moved.shape[1]))
        ratios.append(moved[:, -count:].mean(1) / moved[:, :count].mean(1))
    return torch.stack(ratios).log().mean(0).exp().numpy()


def off_centre(model: StackedMLP, x: Tensor) -> Array:
    """Mean activation of each hidden layer over its root mean square, (hidden layers, seeds).

    0 where outputs are balanced around zero or are all 0, ±1 where all are the same number.
    """
    rows = []
    for z in pre_activations(model, x)[:-1]:
        h = model.architecture.activation.function(z).double()
        size = h.square().mean((1, 2)).sqrt()
        rows.append(h.mean((1, 2)) / size.clamp(min=torch.finfo(torch.float64).tiny))
    return torch.stack(rows).cpu().numpy()


def backward_signals(model: StackedMLP, dataset: Dataset) -> tuple[list[Tensor], list[Tensor]]:
    """What each layer reads, and the gradient of each example's own loss at what it computes.

    The gradient of example e on the weight from unit j to unit i of layer t is δ_{t,e,i} h_{e,j}.
    Losses are on the training part. Skip connections are refused with a ValueError.

    Returns:
        h_0 … h_{T−1}, each (seeds, examples, l_{t−1}), and δ_1 … δ_T with δ_t = ∂L_e/∂z_t, each
            (seeds, examples, l_t).
    """
    if model.architecture.skip_connections:
        raise ValueError(f"networks must be without skips, got {model.architecture}")
    activation = model.architecture.activation
    x = dataset.x.to(model.weights[0].dtype)
    z = [values.requires_grad_() for values in pre_activations(model, x)]
    inputs = [x.expand(model.seeds, *x.shape), *(activation.function(v.detach()) for v in z[:-1])]
    loss = output_loss(
        z[-1], dataset.y, model.architecture.output_activation, loss_for(dataset.task)
    )
    # The loss is a mean over examples; times their number it is a sum of each one's own.
    (delta,) = torch.autograd.grad(loss.sum() * len(x), z[-1])
    deltas = [delta]
    weights = [weight.detach() for weight, _ in model.layers()]  # T × (seeds, m, n)
    for layer in range(len(z) - 2, -1, -1):
        upstream = delta @ weights[layer + 1]  # (seeds, examples, units)
        kept = activation.kept(z[layer].detach(), inputs[layer + 1])
        delta = activation.pull_back(upstream, kept)
        deltas.insert(0, delta)
    return inputs, deltas


def sign_coherence(inputs: Tensor, deltas: Tensor) -> tuple[Array, Array]:
    """How much the gradient on one unit's weights has a single sign, |mean of the signs|.

    1 where all its components have one sign, 0 where half of them are positive. With as many random
    signs as inputs n it is about √(2 / πn). A layer reads ``inputs``, (seeds, examples, inputs),
    and has gradients ``deltas`` at its pre-activations, (seeds, examples, units).

    Returns:
        Mean over units and examples, for one example's gradient, and mean over units for that of
            all examples together; (seeds,) each. Gradients that are 0 everywhere are left out.
    """
    h_signs = inputs.sign().double().mean(2).abs()  # (seeds, examples): δ only flips all of them
    alive = (deltas != 0) & (inputs != 0).any(2, keepdim=True)  # (seeds, examples, units)
    each = (h_signs[..., None] * alive).sum((1, 2)) / alive.sum((1, 2)).clamp(min=1)
    together = deltas.mT @ inputs  # (seeds, units, inputs)
    some = (together != 0).any(2)
    batch = (together.sign().double().mean(2).abs() * some).sum(1) / some.sum(1).clamp(min=1)
    return each.cpu().numpy(), batch.cpu().numpy()


def backward_gains(deltas: list[Tensor]) -> Array:
    """Root mean square of δ_t over that of δ_{t+1}, (T − 2, seeds), for t = 1 … T − 2.

    Below 1 the gradient shrinks on its way down. The step below the output layer is left out: it
    depends on the output's width. δ_1 … δ_T are (seeds, examples, l_t) each.
    """
    sizes = torch.stack([d.double().square().mean((1, 2)).sqrt() for d in deltas[:-1]])
    return (sizes[:-1] / sizes[1:]).cpu().numpy()


def predicted_gains(
    activation: str, weight_variance: float, bias_variance: float, first: float, layers: int
) -> Array:
    """Backward gain per layer that mean-field theory predicts for wide random layers.

    With q_t the variance of the pre-activations and Z standard normal (Poole et al. 2016, Eq. 3;
    Schoenholz et al. 2017, Eq. 9):

        q_{t+1} = n Var(W) E[φ(√q_t Z)²] + Var(b),    gain_t² = n Var(W) E[φ'(√q_t Z)²].

    Args:
        activation: a key of ``ACTIVATIONS`` that works unit by unit.
        weight_variance: n Var(W), units of a layer times the variance of a weight, at least 0.
        bias_variance: Var(b), at least 0.
        first: variance of the pre-activations of the first layer, q_1, at least 0.
        layers: hidden layers, at least 2.

    Returns:
        Gain from layer t + 1 to layer t, for t = 1 … layers − 1, (layers − 1,).
    """
    weight_variance = number(weight_variance, "variance of the weights", least=0)
    bias_variance = number(bias_variance, "variance of the biases", least=0)
    q = number(first, "variance of the first layer", least=0)
    layers = whole_number(layers, "layers", 2)
    points = torch.linspace(-10, 10, 20_001, dtype=torch.float64)
    density = torch.exp(-points.square() / 2)
    density /= density.sum()
    gains = []
    for _ in range(layers - 1):
        z = q**0.5 * points
        slopes = ACTIVATIONS[activation].slope(z)
        gains.append((weight_variance * float((density * slopes.square()).sum())) ** 0.5)
        outputs = ACTIVATIONS[activation].function(z)
        q = weight_variance * float((density * outputs.square()).sum()) + bias_variance
    return np.array(gains)


def two_weight_descent(
    inputs: Array, outputs: Array, start: tuple[float, float], rate: float, steps: int
) -> Array:
    """Gradient descent on the two weights of one linear unit, one example a step, in turn.

    Loss of example e: ½ (w · h_e − y_e)². Its gradient is (w · h_e − y_e) h_e, so where both inputs
    are positive both weights move up or both move down. ``inputs`` h are (examples, 2), ``outputs``
    y (examples,). Returns the weights before each step and after the last, (steps + 1, 2).
    """
    if inputs.ndim != 2 or inputs.shape[1] != 2 or outputs.shape != inputs.shape[:1]:
        raise ValueError(
            f"inputs must be (n, 2) and outputs (n,), got {inputs.shape} and {outputs.shape}"
        )
    rate, steps = number(rate, "rate", above=0), whole_number(steps, "steps", 1)
    path = np.empty((steps + 1, 2))
    path[0] = start
    for step in range(steps):
        h, y = inputs[step % len(inputs)], outputs[step % len(inputs)]
        path[step + 1] = path[step] - rate * (path[step] @ h - y) * h
    return path

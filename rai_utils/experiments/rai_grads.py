"""What the notebook rai-grads measures, and the long runs that it reads (``make study``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rai_utils.checks import one_of
from rai_utils.data import moons, moons_draw
from rai_utils.diagnostics import decision_map, gradient_norms
from rai_utils.experiments.sweep import Sweep, ends, finite, grid
from rai_utils.models import (
    Architecture,
    StackedMLP,
    build_mlp,
    confirmation_seeds,
    development_seeds,
    pre_activations,
    stack,
)
from rai_utils.training import Fit, Phase, Watch, fit_backprop, fit_relaxed, schedule
from rai_utils.tuning import Tuning, tune

Array = NDArray[np.float64]

# The proposal's length, step and network; its data is draw 0.
STEPS = 10_000
CONTROL_STEPS = 1_000
LEARNING_RATE = 0.1
HIDDEN_LAYERS, WIDTH = 100, 100
DEEP = Architecture((2, *[WIDTH] * HIDDEN_LAYERS, 1))
NETWORKS = 10
RESOLUTION = 61

# The tuned comparison: rate · √width of the first grid, and between which rates it may grow.
SCALED_RATES = (10**0.5, 1.0, 10**-0.5, 0.1, 10**-1.5)
RATE_LIMITS = (1e-8, 50.0)
SMALLEST_STEP = 1e-12
TIE_MARGIN = 1e-3
TUNING_NETWORKS = 4
METHODS = ("backprop", "RAI", "as written", "hand-over", "orthogonal", "skips")
HANDOVER_RATES = (0.1, 1e-3, 1e-4, 1e-5, 1e-7)


def spread_across_examples(model: StackedMLP, x: Tensor) -> Array:
    """How far the examples lie apart in each layer of the plain forward pass.

    Standard deviation of z_t across examples, root mean square over units, computed in float64
    from the values that the network's own precision gives: 0 means that the layer no longer
    tells any two examples apart.

    Args:
        model: the networks.
        x: inputs, (examples, features).

    Returns:
        (T, seeds).
    """
    spreads = [
        z.double().var(1, correction=0).mean(1).sqrt() for z in pre_activations(model, x)
    ]  # each (seeds,)
    return torch.stack(spreads).cpu().numpy()


def long_cell(method: str, network: int, precision: str, steps: int) -> dict[str, Any]:
    """Train one network of the proposal's shape, on a draw of the data of its own.

    Default initialisation, Rprop with a first step of 0.1 and torch's limits, 100 examples, as in
    the proposal. Network and draw have one number: 0 is the proposal's data.

    Args:
        method: ``"RAI"`` or ``"backprop"``.
        network: seed of the network, at least 0; the data's random states are 42 and 1042 more.
        precision: ``"float32"`` or ``"float64"``.
        steps: updates.

    Returns:
        ``evaluated_at``, and there ``train``, ``held_out``: accuracy of the plain forward pass;
        ``loss_at_end``: the network's own; ``gradient_norms``: of each layer after the last step,
        of the relaxed loss for RAI; ``map_range``: largest less smallest output on a square grid;
        ``map``: the outputs there, rows upwards, of network 0 in float32, else None;
        ``failures``: how many.
    """
    fits = {"RAI": fit_relaxed, "backprop": fit_backprop}
    one_of(method, fits, "method")
    one_of(precision, ("float32", "float64"), "precision")
    data = moons_draw(network)
    start = build_mlp(DEEP, [network], dtype=getattr(torch, precision))
    watch = Watch(evaluate_at=schedule(steps, 40), inspect_at=[steps])
    result = fits[method](start, data, Phase(steps, LEARNING_RATE), watch=watch, device="cpu")
    history = result.history
    _, maps = decision_map(result.model, resolution=RESOLUTION)
    shown = network == 0 and precision == "float32"
    return {
        "evaluated_at": history.evaluated_at.tolist(),
        "train": history.accuracy[:, 0].tolist(),
        "held_out": history.held_out_accuracy[:, 0].tolist(),
        "loss_at_end": float(history.loss[-1, 0]),
        "gradient_norms": finite(history.gradient_norms[-1, :, 0], 4),
        "map_range": float(maps.max() - maps.min()),
        "map": maps[0].round(4).tolist() if shown else None,
        "failures": len(history.failures),
    }


def first_nonzero(steps: NDArray[np.int64], values: Array) -> Array:
    """Step at which each layer's value is first above 0, (layers, seeds).

    It is infinite where it never is. ``steps`` ascend, (records,); ``values`` are (records, layers,
    seeds).
    """
    if len(steps) != len(values):
        raise ValueError(f"there must be one step a record, got {len(steps)} and {len(values)}")
    nonzero = values > 0
    first = np.asarray(steps, dtype=float)[nonzero.argmax(0)]
    return np.where(nonzero.any(0), first, np.inf)


def tuned_cell(
    method: str, steps: int, relaxed_steps: int, networks: int, tuning_steps: int
) -> dict[str, Any]:
    """Tune a method on networks and data of development, then fit networks that chose nothing.

    ``tune`` tries rate · √width from 3.2 down in factors of √10, widened until the best lies
    inside, ties to the middle. Network k is fitted to draw k. Rprop may shrink its steps to 1e-12.

    Args:
        method: ``"RAI"``; ``"as written"``, RAI by Eq. 4 to the letter, without a target for the
            output layer, at RAI's rate; ``"backprop"``; ``"hand-over"``, RAI with a rate tuned for
            it and then backpropagation; ``"orthogonal"`` or ``"skips"``, backpropagation from that
            start.
        steps: updates of a method, both phases of the hand-over together.
        relaxed_steps: RAI steps of the hand-over; as many fewer the two controls take.
        networks: how many.
        tuning_steps: updates at each rate that is tried.

    Returns:
        ``learning_rates`` tried, mean ``losses`` there (None: one was not finite),
        ``learning_rate`` taken and whether it is ``at_limit``; ``evaluated_at``, counted with the
        RAI steps of a hand-over, and there ``train`` and ``held_out``, (network, evaluation);
        ``gradient_norms`` of the network's own loss and ``spreads`` across examples, (network,
        layer), at the end, or for RAI after ``relaxed_steps``; ``front_errors``: largest deviation
        of the gradient's front from one layer a step, (network,).
    """
    one_of(method, METHODS, "method")
    architecture = replace(DEEP, skip_connections=method == "skips")
    T = architecture.depth
    initialisation = ("orthogonal_centred", 4.0) if method == "orthogonal" else ("torch_default",)
    layers = {"RAI": range(1, T + 1), "as written": range(1, T)}.get(method)
    fit = fit_backprop if layers is None else partial(fit_relaxed, layers=tuple(layers))
    tuning_data = moons(seed=7, held_out=500, held_out_seed=2042)

    def search(fit: Callable[..., Fit], networks: StackedMLP) -> Tuning:
        rates = [rate / WIDTH**0.5 for rate in SCALED_RATES]
        rule: dict[str, Any] = {
            "smallest_step": SMALLEST_STEP,
            "tie_margin": TIE_MARGIN,
            "limits": RATE_LIMITS,
        }
        return tune(fit, networks, tuning_data, tuning_steps, rates, **rule)

    tried = build_mlp(architecture, development_seeds(TUNING_NETWORKS), *initialisation)
    first = None
    if method == "hand-over":
        first = replace(search(fit_relaxed, tried).phase, steps=relaxed_steps)
        tried = fit_relaxed(tried, tuning_data, first).model
    found = search(fit_relaxed if method == "as written" else fit, tried)
    begin = relaxed_steps if method in ("hand-over", "orthogonal", "skips") else 0
    marks = [mark - begin for mark in sorted({*range(0, steps, 10), begin, steps}) if mark >= begin]
    watch = Watch(marks, range(min(T + 20, steps - begin)), snapshot_at=[marks[-1]])
    if layers is not None:
        watch = replace(watch, snapshot_at=[relaxed_steps])
    records: dict[str, list[Any]] = {}
    for network in confirmation_seeds(networks):
        model, data = build_mlp(architecture, [network], *initialisation), moons_draw(network)
        if first is not None:
            model = fit_relaxed(model, data, first).model
        result = fit(model, data, replace(found.phase, steps=steps - begin), watch=watch)
        (shown,) = result.snapshots.values()
        history = result.history
        reached = first_nonzero(history.inspected_at, history.gradient_norms)[:, 0]
        late = np.abs(np.minimum(reached, steps) - (T - np.arange(T))).max()
        for name, values in {
            "train": history.accuracy[:, 0],
            "held_out": history.held_out_accuracy[:, 0],
            "gradient_norms": gradient_norms(shown, data)[:, 0],
            "spreads": spread_across_examples(shown, data.x)[:, 0],
            "front_errors": late,
        }.items():
            records.setdefault(name, []).append(finite(values, 4))
    return {
        "learning_rates": found.learning_rates,
        "losses": finite(found.losses, 4),
        "learning_rate": found.phase.learning_rate,
        "at_limit": found.at_limit,
        "evaluated_at": [mark + (first.steps if first else 0) for mark in marks],
        **records,
    }


def early_cell(relaxed_steps: int, steps: int, networks: int) -> dict[str, Any]:
    """Hand over after a number of RAI steps, to backpropagation at several rates.

    Args:
        relaxed_steps: RAI steps with the proposal's first step of 0.1.
        steps: of backpropagation.
        networks: how many; network k learns draw k.

    Returns:
        ``learning_rates`` and ``held_out``, (network, rate): accuracy at the end.
    """
    held_out = []
    first = Phase(relaxed_steps, LEARNING_RATE, smallest_step=SMALLEST_STEP)
    second = Phase(steps, HANDOVER_RATES, smallest_step=SMALLEST_STEP)
    for network in confirmation_seeds(networks):
        model = fit_relaxed(build_mlp(DEEP, [network]), moons_draw(network), first).model
        same = stack([model] * len(HANDOVER_RATES))
        history = fit_backprop(same, moons_draw(network), second, watch=Watch([steps])).history
        held_out.append(finite(history.held_out_accuracy[-1], 4))
    return {"learning_rates": HANDOVER_RATES, "held_out": held_out}


def activation_cell(
    activation: str, learning_rate: float, steps: int, networks: int
) -> dict[str, Any]:
    """Train deep networks of another activation function by RAI alone.

    Network k learns draw k. Returns ``train`` and ``held_out``, (network,): accuracy at the end,
    None where the forward pass is not finite.
    """
    architecture = replace(DEEP, hidden_activation=activation)
    phase, watch = Phase(steps, learning_rate), Watch([steps])
    fits = (
        fit_relaxed(build_mlp(architecture, [network]), moons_draw(network), phase, watch=watch)
        for network in confirmation_seeds(networks)
    )
    return ends(*(fit.history for fit in fits), digits=4)


_LONG_NETWORKS = confirmation_seeds(NETWORKS)
SWEEPS = (
    Sweep(
        "proposal",
        (
            *grid(
                {"precision": "float32", "steps": STEPS},
                method=["RAI", "backprop"],
                network=_LONG_NETWORKS,
            ),
            # As control, backpropagation where no gradient underflows.
            *grid(
                {"method": "backprop", "precision": "float64", "steps": CONTROL_STEPS},
                network=_LONG_NETWORKS,
            ),
        ),
        long_cell,
    ),
    Sweep(
        "methods",
        grid(
            {"steps": 400, "relaxed_steps": 200, "networks": NETWORKS, "tuning_steps": 200},
            method=METHODS,
        ),
        tuned_cell,
    ),
    Sweep(
        "handover-steps",
        grid({"steps": 100, "networks": 5}, relaxed_steps=(20, 50, 100, 110, 150, 200, 400)),
        early_cell,
    ),
    Sweep(
        "deep-activations",
        grid({"steps": 200, "networks": 5}, activation=("tanh", "relu"), learning_rate=(0.1, 0.01)),
        activation_cell,
    ),
)

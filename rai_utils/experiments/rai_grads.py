"""What the notebook rai-grads measures, and the long runs that it reads (``make study``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rai_utils.checks import one_of
from rai_utils.data import moons
from rai_utils.diagnostics import decision_map
from rai_utils.experiments.sweep import Cell, Sweep
from rai_utils.models import Architecture, StackedMLP, build_mlp, pre_activations
from rai_utils.training import Phase, Watch, fit_backprop, fit_relaxed, schedule

Array = NDArray[np.float64]

# The proposal's length, step and network; its data is draw 0.
STEPS = 10_000
CONTROL_STEPS = 1_000
LEARNING_RATE = 0.1
HIDDEN_LAYERS, WIDTH = 100, 100
NETWORKS = 10
RESOLUTION = 61


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
    data = moons(seed=42 + network, held_out_seed=1042 + network)
    architecture = Architecture((2, *[WIDTH] * HIDDEN_LAYERS, 1))
    start = build_mlp(architecture, [network], dtype=getattr(torch, precision))
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
        "gradient_norms": [float(f"{norm:.4g}") for norm in history.gradient_norms[-1, :, 0]],
        "map_range": float(maps.max() - maps.min()),
        "map": maps[0].round(4).tolist() if shown else None,
        "failures": len(history.failures),
    }


def _long_cells() -> tuple[Cell, ...]:
    """The proposal's pair, and as control backpropagation where no gradient underflows."""
    return tuple(
        {"method": method, "network": network, "precision": precision, "steps": steps}
        for method, precision, steps in (
            ("RAI", "float32", STEPS),
            ("backprop", "float32", STEPS),
            ("backprop", "float64", CONTROL_STEPS),
        )
        for network in range(NETWORKS)
    )


SWEEPS = (Sweep("proposal", _long_cells(), long_cell),)

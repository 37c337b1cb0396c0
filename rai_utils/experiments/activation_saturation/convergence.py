"""Steps to a set loss for every activation: the sweep that activation-saturation reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rai_utils.checks import one_of, whole_number
from rai_utils.data import Dataset, digits, moons
from rai_utils.experiments.activation_saturation.descent import descend, race
from rai_utils.experiments.sweep import Cell, Sweep
from rai_utils.models import Architecture, StackedMLP, Start, build_mlp, compared_activations

PROBLEMS = {"Moons": lambda: moons(100), "Digits": lambda: digits(200, 200)}
DEPTHS = (2, 5)
GOAL, MOST_STEPS = 0.1, 600
RATES = (0.03, 0.1, 0.18, 0.3, 0.56, 1.0, 1.8, 3.0, 5.6, 10.0, 18.0, 30.0)
NETWORKS, TUNING_NETWORKS = 20, 8

# Label to activation, starts, and the slope of leaky ReLU that is trained along.
RECIPES: dict[str, tuple[str, tuple[Start, ...], float | None]] = {
    activation.label: (name, activation.starts, None)
    for name, activation in compared_activations().items()
}
RECIPES["PReLU (learned)"] = ("leaky_relu", RECIPES["leaky ReLU 0.01"][1], 0.25)


def small(
    activation: str,
    depth: int,
    data: Dataset,
    initialisation: str,
    gain: float,
    seeds: Sequence[int],
) -> StackedMLP:
    """Return networks of 32 units a hidden layer that fit the data."""
    output = "softmax" if data.outputs > 1 else "sigmoid"
    shape = Architecture((data.x.shape[1], *[32] * depth, data.outputs), activation, output)
    return build_mlp(shape, seeds, initialisation, gain)


def convergence_cell(
    problem: str, depth: int, recipe: str, networks: int, most_steps: int
) -> dict[str, Any]:
    """Steps of gradient descent to the training loss ``GOAL``, from the start and rate that suit.

    Start and rate are those that first bring 90 % of ``TUNING_NETWORKS`` other networks there.

    Args:
        problem: a key of ``PROBLEMS``.
        depth: hidden layers, at least 1.
        recipe: a key of ``RECIPES``.
        networks: of seeds from 0.
        most_steps: where each ends at the latest.

    Returns:
        ``steps``: of each network, at most ``most_steps``; ``start``: initialisation and gain;
        ``learning_rate``; ``slopes``: learned ones of each hidden layer and network, None where
        they are not finite, or None for all.

    Raises:
        ValueError: a name is unknown or a number out of range.
    """
    data = PROBLEMS[one_of(problem, PROBLEMS, "problem")]()
    activation, starts, slope = RECIPES[one_of(recipe, RECIPES, "recipe")]
    depth, networks = whole_number(depth, "depth", 1), whole_number(networks, "networks", 1)
    tuning = range(1000, 1000 + TUNING_NETWORKS)
    races = {}
    for start in starts:
        trial = small(activation, depth, data, *start, tuning)
        races[start] = race(trial, data, RATES, most_steps, GOAL, initial_slope=slope)
    start = min(races, key=lambda each: races[each].steps)
    rate = races[start].rate
    model = small(activation, depth, data, *start, range(networks))
    run = descend(model, data, [rate] * networks, most_steps, goal=GOAL, initial_slope=slope)
    slopes = None
    if run.slopes is not None:
        slopes = [[s if np.isfinite(s) else None for s in row] for row in run.slopes.tolist()]
    return {
        "steps": np.minimum(run.reached_at, most_steps).tolist(),
        "start": list(start),
        "learning_rate": rate,
        "slopes": slopes,
    }


def _cells() -> tuple[Cell, ...]:
    return tuple(
        {
            "problem": problem,
            "depth": depth,
            "recipe": recipe,
            "networks": NETWORKS,
            "most_steps": MOST_STEPS,
        }
        for problem in PROBLEMS
        for depth in DEPTHS
        for recipe in RECIPES
    )


SWEEPS = (Sweep("convergence", _cells(), convergence_cell),)

"""Steps to a set loss for every activation: the sweep that activation-saturation reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from torch.nn import functional

from rai_utils.checks import one_of, whole_number
from rai_utils.data import Dataset, digits, moons_draw
from rai_utils.experiments.activation_saturation.descent import Bend, descend, race
from rai_utils.experiments.sweep import Sweep, finite, grid
from rai_utils.models import (
    Architecture,
    StackedMLP,
    build_mlp,
    compared_activations,
    confirmation_seeds,
)

# Draws of the data by their number, which is that of the network that goes with it.
PROBLEMS = {"Moons": moons_draw, "Digits": partial(digits, 200, 200)}
DEPTHS = (2, 5)
GOAL, MOST_STEPS = 0.1, 600
# The same for every activation. Of starts that are as fast the first is taken.
KINDS = ("xavier", "he", "orthogonal_centred")
GAINS = (1.0, 2.0, 0.5, 4.0, 0.25, 8.0, 16.0, 32.0)
RATES = (0.003, 0.0056, 0.01, 0.018, 0.03, 0.056, 0.1, 0.18)
RATES = (*RATES, 0.3, 0.56, 1.0, 1.8, 3.0, 5.6, 10.0, 18.0, 30.0)
# What tutorials start with; the sweep from these starts asks what the tuning of starts changes.
USUAL = {"ReLU": ("he", 1.0), "tanh": ("xavier", 1.0), "sigmoid": ("xavier", 1.0)}
NETWORKS, TUNING_NETWORKS = 20, 8
FIRST_TUNING = 1100  # the random states of these draws of Moons are none of the others'


@dataclass(frozen=True)
class Recipe:
    """What bends in the hidden layers.

    Attributes:
        activation: a key of ``ACTIVATIONS``.
        slope: where the slopes of leaky ReLU that are trained along begin; None for none.
        bend: an activation in its place.
    """

    activation: str
    slope: float | None = None
    bend: Bend | None = None


RECIPES = {activation.label: Recipe(name) for name, activation in compared_activations().items()}
RECIPES["PReLU (learned)"] = Recipe("leaky_relu", 0.25)
RECIPES |= {
    f"ELU, α = {alpha:g}": Recipe("elu", bend=partial(functional.elu, alpha=alpha))
    for alpha in (0.5, 2.0)
}


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
    problem: str, depth: int, recipe: str, networks: int, most_steps: int, usual: bool = False
) -> dict[str, Any]:
    """Steps of gradient descent to the training loss ``GOAL``, from the start and rate that suit.

    They are those of ``KINDS`` times ``GAINS`` and ``RATES`` that first bring 90 % of
    ``TUNING_NETWORKS`` other networks there. Every network has a draw of the data of its own.

    Args:
        problem: a key of ``PROBLEMS``.
        depth: hidden layers, at least 1.
        recipe: a key of ``RECIPES``.
        networks: of seeds from 0.
        most_steps: where each ends at the latest.
        usual: whether the start is that of ``USUAL``, and the rate alone is tuned.

    Returns:
        ``steps``: of each network, at most ``most_steps``; ``start``: initialisation and gain;
        ``learning_rate``; ``tuning_steps``: those of the race that chose them, None where nobody
        got there; ``inside``: whether none of what was tuned is the lowest or highest that was
        tried; ``slopes``: learned ones of each hidden layer and network, None where they are
        not finite, or None for all.
    """
    draw = PROBLEMS[one_of(problem, PROBLEMS, "problem")]
    how = RECIPES[one_of(recipe, RECIPES, "recipe")]
    depth, networks = whole_number(depth, "depth", 1), whole_number(networks, "networks", 1)
    tuning = range(FIRST_TUNING, FIRST_TUNING + TUNING_NETWORKS)
    drawn = [draw(number) for number in tuning]
    starts = [(kind, gain) for gain, kind in product(GAINS, KINDS)]
    starts = [USUAL[one_of(recipe, USUAL, "recipe")]] if usual else starts
    trials = [small(how.activation, depth, drawn[0], *start, tuning) for start in starts]
    bends: dict[str, Any] = {"initial_slope": how.slope, "bend": how.bend}
    won = race(trials, drawn, RATES, most_steps, GOAL, **bends)
    kind, gain = starts[won.start]
    reported = confirmation_seeds(networks)
    drawn = [draw(number) for number in reported]
    model = small(how.activation, depth, drawn[0], kind, gain, reported)
    run = descend(model, drawn, [won.rate] * networks, most_steps, goal=GOAL, **bends)
    at_edge = not usual and gain in (min(GAINS), max(GAINS))
    at_edge = at_edge or won.rate in (min(RATES), max(RATES))
    return {
        "steps": np.minimum(run.reached_at, most_steps).tolist(),
        "start": [kind, gain],
        "learning_rate": won.rate,
        "tuning_steps": finite(won.steps),
        "inside": not at_edge,
        "slopes": None if run.slopes is None else finite(run.slopes),
    }


_SAME: dict[str, Any] = {"networks": [NETWORKS], "most_steps": [MOST_STEPS]}
SWEEPS = (
    Sweep(
        "convergence",
        grid(problem=PROBLEMS, depth=DEPTHS, recipe=RECIPES, **_SAME),
        convergence_cell,
    ),
    Sweep(
        "convergence-usual",
        grid(problem=PROBLEMS, depth=DEPTHS, recipe=USUAL, **_SAME, usual=[True]),
        convergence_cell,
    ),
)

"""What a learning rate does to a network, over all rates: the zig-zag and the units that die.

Each network has a draw of the data of its own, and descends at all rates side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rai_utils.checks import one_of, whole_number
from rai_utils.data import digits, moons_draw
from rai_utils.experiments.activation_saturation.convergence import small
from rai_utils.experiments.activation_saturation.descent import descend, set_intercepts
from rai_utils.experiments.activation_saturation.saturation import silent
from rai_utils.experiments.sweep import Sweep, finite, grid
from rai_utils.models import confirmation_seeds, stack
from rai_utils.training import schedule

ZIGZAG_RATES = tuple(round(0.25 * 2 ** (k / 2), 4) for k in range(15))  # 0.25 … 32
ZIGZAG = ("sigmoid", "centred_sigmoid")
GOAL = 0.1
DYING_RATES = (0.1, 0.18, 0.3, 0.56, 1.0, 1.8, 3.0)
INTERCEPTS = (0.0, 0.01, 0.1)
DYING = ("relu", "leaky_relu", "leaky_relu_0.1", "elu")


def zigzag_cell(activation: str, number: int, most_steps: int) -> dict[str, Any]:
    """Steps to a training loss of 0.1 and the path to it, at each of ``ZIGZAG_RATES``.

    One network with three hidden layers on 200 digits, from the orthogonal start that centres each
    layer: sigmoid and sigmoid − ½ begin as the same function.

    Args:
        activation: one of ``ZIGZAG``.
        number: of the network and of its draw of the digits.
        most_steps: where it counts as not there.

    Returns:
        ``steps`` and ``winding``, path over distance between its ends, one a rate; None where the
        loss did not get there.
    """
    one_of(activation, ZIGZAG, "activation")
    dataset = digits(200, 200, number)
    one = small(activation, 3, dataset, "orthogonal_centred", 4.0, [number])
    run = descend(stack([one] * len(ZIGZAG_RATES)), dataset, ZIGZAG_RATES, most_steps, goal=GOAL)
    steps = [int(s) if np.isfinite(s) else None for s in run.reached_at]
    return {
        "steps": steps,
        "winding": [
            None if s is None else float(run.path[s, i] / run.displacement[s, i])
            for i, s in enumerate(steps)
        ],
    }


def dying_cell(activation: str, number: int, steps: int) -> dict[str, Any]:
    """Silent units over training, at each intercept and rate; silent: z ≤ 0 on every example.

    One network with three hidden layers of 32 units on a draw of Moons, 100 examples, from He's
    start, with each of ``INTERCEPTS`` as the bias of all hidden units, at each of ``DYING_RATES``.

    Args:
        activation: one of ``DYING``.
        number: of the network and of its draw of Moons.
        steps: updates.

    Returns:
        All (intercepts, rates): ``loss``, the last, None where it is not finite; ``at_start``,
        share of hidden units silent before the first step; ``died``, share of those alive then
        that are silent at every look of the second half; ``at_end``, share silent at the last;
        ``ever``, how many were silent at some look, and ``back``, how many of these were not at
        the last. ``curve``: share silent at each look without intercept, (looks, rates); ``looks``.
    """
    one_of(activation, DYING, "activation")
    steps = whole_number(steps, "steps", 2)
    dataset = moons_draw(number)
    looks = schedule(steps, 12)
    start = small(activation, 3, dataset, "he", 1.0, [number])
    pairs = [(intercept, rate) for intercept in INTERCEPTS for rate in DYING_RATES]
    model = stack([set_intercepts(start, intercept) for intercept, _ in pairs])
    run = descend(model, dataset, [rate for _, rate in pairs], steps, snapshot_at=looks)
    off = np.stack([silent(run.snapshots[look], dataset.x) for look in looks])
    off = np.moveaxis(off, 2, 1)  # (looks, pairs, layers, units)
    late = [place for place, look in enumerate(looks) if look >= steps / 2]
    ever, died = off.any(0), ~off[0] & off[late].all(0)
    shape = len(INTERCEPTS), len(DYING_RATES)

    def table(values: np.ndarray) -> list[list[float]]:
        return values.reshape(shape).tolist()

    return {
        "loss": finite(run.loss[-1].reshape(shape)),
        "at_start": table(off[0].mean((1, 2))),
        "died": table(died.sum((1, 2)) / (~off[0]).sum((1, 2))),
        "at_end": table(off[-1].mean((1, 2))),
        "ever": table(ever.sum((1, 2))),
        "back": table((ever & ~off[-1]).sum((1, 2))),
        "curve": off.mean((2, 3))[:, : len(DYING_RATES)].tolist(),
        "looks": [int(look) for look in looks],
    }


SWEEPS = (
    Sweep(
        "zig-zag",
        grid(activation=ZIGZAG, number=confirmation_seeds(10), most_steps=[200]),
        zigzag_cell,
    ),
    Sweep(
        "dying-units",
        grid(activation=DYING, number=confirmation_seeds(12), steps=[200]),
        dying_cell,
    ),
)

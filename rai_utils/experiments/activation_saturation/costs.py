"""What each activation costs: alone on numbers in the cache and out of it, and in a training step.

Ratios to ReLU's time within a round, where the two ran right after each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from rai_utils.checks import one_of, whole_number
from rai_utils.experiments.sweep import Sweep, grid
from rai_utils.experiments.timing import Clock, Timed, clocked, interleaved, summarise
from rai_utils.models import compared_activations

ELEMENTS = {"in cache": 100_000, "out of cache": 8_000_000}  # 0.4 and 32 MB
WIDTHS = {"training step, width 64": 64, "training step, width 512": 512}
PLACES = (*ELEMENTS, *WIDTHS)
BATCH, HIDDEN_LAYERS = 256, 4


def cost_cell(
    place: str,
    rounds: int,
    names: Sequence[str] = tuple(compared_activations()),
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Time of each activation over ReLU's.

    Args:
        place: a key of ``ELEMENTS``: functions and backward rules of the study on so many normal
            numbers in float32; or of ``WIDTHS``: a step of gradient descent of a plain torch
            network of that width, forward, backward and update.
        rounds: timed rounds, at least 1.
        names: keys of ``ACTIVATIONS``, ReLU among them.
        clock: seconds since some moment.

    Returns:
        ``ratios``: pass (``forward`` and ``backward``, or ``step``) and activation, to median and
        quartiles over the rounds.
    """
    one_of(place, PLACES, "place")
    rounds = whole_number(rounds, "rounds", 1)
    work: dict[str, Timed] = {}
    for name in names:
        if place in ELEMENTS:
            repeats = max(1, 2_000_000 // ELEMENTS[place])
            for way, call in _passes(name, ELEMENTS[place]).items():
                work[f"{way} {name}"] = clocked(call, repeats=repeats, clock=clock)
        else:
            work[f"step {name}"] = clocked(_step(name, WIDTHS[place]), clock=clock)
    seconds = interleaved(work, rounds, warm_up=3)
    ratios: dict[str, dict[str, list[float]]] = {}
    for key, each in seconds.items():
        way, _, name = key.partition(" ")
        ratios.setdefault(way, {})[name] = summarise(each / seconds[f"{way} relu"])
    return {"ratios": ratios}


def _passes(name: str, elements: int) -> dict[str, Callable[[], object]]:
    activation = compared_activations()[name]
    generator = torch.Generator().manual_seed(0)
    z, gradient = (torch.randn(elements, generator=generator) for _ in range(2))
    kept = activation.kept(z, activation.function(z))
    return {
        "forward": partial(activation.function, z),
        "backward": partial(activation.pull_back, gradient, kept),
    }


def _step(name: str, width: int) -> Callable[[], object]:
    modules: list[nn.Module] = []
    for _ in range(HIDDEN_LAYERS):
        modules += [nn.Linear(width, width), compared_activations()[name].module()]
    network = nn.Sequential(*modules, nn.Linear(width, 1))
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-6)
    batch = torch.randn(BATCH, width, generator=torch.Generator().manual_seed(0))

    def step() -> None:
        optimiser.zero_grad()
        network(batch).square().mean().backward()
        optimiser.step()

    return step


SWEEPS = (Sweep("activation-costs", grid(place=PLACES, rounds=[15]), cost_cell),)

"""How long things take, as ratios from one interleaved run; ``make bench`` publishes them.

A ratio is taken within a round, where the two things compared ran right after each other, and
its median over the rounds is what counts: a machine that is slow for a while is slow for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Clock = Callable[[], float]
Timed = Callable[[], float]

NETWORK_WIDTHS = (16, 64, 256, 1024)


@dataclass(frozen=True)
class Timing:
    """A number to publish.

    Attributes:
        name: its name among the metrics of the bench.
        value: median over the rounds.
        interval: the middle half of the rounds (first and third quartile).
    """

    name: str
    value: float
    interval: tuple[float, float]


def interleaved(
    timed: Mapping[str, Timed], rounds: int, *, warm_up: int = 2
) -> dict[str, NDArray[np.float64]]:
    """Time each piece of work once a round, in the order given.

    Args:
        timed: name to a function that does a piece of work and returns how long it took, in
            seconds: ``clocked`` or ``steady``.
        rounds: how many rounds count, at least 1.
        warm_up: rounds before that do not count, at least 0.

    Returns:
        Seconds, (rounds,) each.

    Raises:
        ValueError: there is no work, or a count is out of range.
    """
    if not timed or rounds < 1 or warm_up < 0:
        raise ValueError(
            "there must be work, rounds of at least 1 and a warm-up of at least 0, got "
            f"{len(timed)} pieces of work, {rounds} and {warm_up}"
        )
    turns = [{name: work() for name, work in timed.items()} for _ in range(warm_up + rounds)]
    return {name: np.array([turn[name] for turn in turns[warm_up:]]) for name in timed}


def clocked(
    call: Callable[[], object], *, repeats: int = 1, clock: Clock = time.perf_counter
) -> Timed:
    """Make a function that runs ``call`` so many times and returns the mean seconds of a run.

    Raises:
        ValueError: ``repeats`` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")

    def timed() -> float:
        start = clock()
        for _ in range(repeats):
            call()
        return (clock() - start) / repeats

    return timed


def steady(
    run: Callable[[int], Sequence[float] | NDArray[np.float64]], steps: int, warm_up: int = 2
) -> Timed:
    """Make a function that returns the median seconds of a step in a row of steps.

    Args:
        run: runs so many steps in a row and returns the seconds of each.
        steps: steps that count, at least 1.
        warm_up: further steps at the start that do not count, at least 0.

    Raises:
        ValueError: a count is out of range.
    """
    if steps < 1 or warm_up < 0:
        raise ValueError(
            f"steps must be at least 1 and the warm-up at least 0, got {steps} and {warm_up}"
        )
    return lambda: float(np.median(run(warm_up + steps)[warm_up:]))


def summarise(name: str, values: NDArray[np.float64]) -> Timing:
    """Median and quartiles over the rounds.

    Raises:
        ValueError: there is no value, or one is not above 0.
    """
    if values.size == 0 or not (values > 0).all():
        raise ValueError(f"durations or ratios of {name} must be above 0, got {values}")
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Timing(name, float(middle), (float(low), float(high)))


def backward_over_forward(
    widths: Sequence[int] = NETWORK_WIDTHS,
    *,
    hidden_layers: int = 4,
    examples: int = 256,
    rounds: int = 40,
    clock: Clock = time.perf_counter,
) -> list[Timing]:
    """Cost of a backward pass of autograd over that of the forward pass before it.

    Plain torch: ReLU networks of equal layers, a mean squared error, gradients of all weights
    and biases. The forward pass is timed with the graph being recorded, as training has it.

    Args:
        widths: units of a layer, input included; one network each.
        hidden_layers: hidden layers of each network, at least 1.
        examples: rows of the batch, at least 1.
        rounds: timed rounds, at least 1.
        clock: seconds since some moment.

    Returns:
        ``backward_over_forward_width_<width>`` for each width: ratios within a round.

    Raises:
        ValueError: a count or width is below 1, or there is no width.
    """
    if not widths or min(*widths, hidden_layers, examples, rounds) < 1:
        raise ValueError(
            "widths, hidden layers, examples and rounds must be at least 1, got "
            f"{tuple(widths)}, {hidden_layers}, {examples} and {rounds}"
        )
    generator = torch.Generator().manual_seed(0)
    timings = []
    for width in widths:
        # Each width has a run of its own: a large network in between would leave a small one
        # with cold caches and returned memory, and only the two passes are compared.
        network = _network(width, hidden_layers)
        batch = torch.randn(examples, width, generator=generator)
        passes = {
            name: clocked(call, clock=clock) for name, call in _passes(network, batch).items()
        }
        seconds = interleaved(passes, rounds, warm_up=5)
        ratios = seconds["backward"] / seconds["forward"]
        timings.append(summarise(f"backward_over_forward_width_{width}", ratios))
    return timings


def _network(width: int, hidden_layers: int) -> nn.Sequential:
    """Layers with fixed weights: how long they take does not depend on what they hold."""
    modules: list[nn.Module] = []
    for _ in range(hidden_layers):
        modules += [nn.Linear(width, width), nn.ReLU()]
    network = nn.Sequential(*modules, nn.Linear(width, 1))
    with torch.no_grad():
        for position, parameter in enumerate(network.parameters()):
            generator = torch.Generator().manual_seed(position)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / width**0.5)
    return network


def _passes(network: nn.Sequential, batch: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Two calls to be timed in turn: the second one uses up the graph that the first one made."""
    parameters = list(network.parameters())
    losses: list[torch.Tensor] = []

    def forward() -> None:
        losses.append(network(batch).square().mean())

    def backward() -> None:
        torch.autograd.grad(losses.pop(), parameters)

    return {"forward": forward, "backward": backward}

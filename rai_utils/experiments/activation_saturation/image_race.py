"""Krizhevsky, Sutskever and Hinton's test of activations (2012, figure 1), on images at hand.

A four-layer convolutional network without regularisation, stochastic gradient descent with
momentum, and the steps until the error on the training images is 25 %, each activation with the
learning rate that makes it fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rai_utils import data
from rai_utils.checks import one_of, seeded, whole_number
from rai_utils.experiments.sweep import Cell, Sweep, grid
from rai_utils.models import compared_activations, confirmation_seeds, development_seeds
from rai_utils.training import batches, steps

ERROR, MOMENTUM, BATCH = 0.25, 0.9, 128
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
# Standard deviations of the weights: one for all layers, as in the paper, or a factor over √inputs.
STARTS: dict[str, tuple[float, ...]] = {"0.01": (), "tuned": (0.5, 1.0, 1.4, 2.0, 4.0, 8.0)}
# The channels of the three convolutions; on CIFAR-10 those of the network that the paper's test
# is like.
IMAGES = {"digits": (8, 8, 16), "CIFAR-10": (32, 32, 64)}


@cache
def load(name: str, seed: int) -> tuple[Tensor, Tensor]:
    """Training images, (examples, channels, rows, columns), and their labels, (examples,).

    ``"digits"`` are 800 of scikit-learn's 1797, drawn by the seed. ``"CIFAR-10"`` are all 50 000
    of OpenML's data set 40927, which scikit-learn downloads on first use; each pixel and channel
    has mean 0 and standard deviation 1.
    """
    if one_of(name, IMAGES, "images") == "digits":
        drawn = data.digits(800, 500, seed)
        return drawn.x.view(-1, 1, 8, 8), drawn.y
    return _cifar()


@cache  # one copy, whatever the seed: it takes half a minute to read
def _cifar() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import fetch_openml

    pixels, labels = fetch_openml(data_id=40927, return_X_y=True, as_frame=False)
    x = torch.from_numpy(np.asarray(pixels[:50_000], dtype=np.float32)).view(-1, 3, 32, 32)
    return (x - x.mean(0)) / x.std(0), torch.from_numpy(labels[:50_000].astype(np.int64))


def network(
    activation: str,
    shape: Sequence[int],
    gain: float | None,
    seed: int,
    counts: Sequence[int] = IMAGES["digits"],
) -> nn.Sequential:
    """Three convolutions of 3 × 3 pixels, the first two pooled, and a linear layer on top.

    Images have the shape (channels, rows, columns); ``counts`` are the channels that each
    convolution makes of them.

    Weights are normal with a standard deviation of gain over the square root of a unit's inputs,
    or of 0.01 where the gain is None; biases are 0.
    """
    channels, rows, columns = shape
    generator = seeded(seed)
    modules: list[nn.Module] = []
    for place, count in enumerate(counts):
        modules += [nn.Conv2d(channels, count, 3, padding=1)]
        modules += [compared_activations()[activation].module()]
        if place < 2:
            modules.append(nn.MaxPool2d(2))
        channels = count
    modules += [nn.Flatten(), nn.Linear(channels * (rows // 4) * (columns // 4), 10)]
    model = nn.Sequential(*modules)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.zeros_(parameter)
            continue
        deviation = 0.01 if gain is None else gain / parameter[0].numel() ** 0.5
        nn.init.normal_(parameter, 0, deviation, generator=generator)
    return model


def steps_to_error(
    activation: str,
    gain: float | None,
    rate: float,
    seed: int,
    most: int,
    images: str = "digits",
    look_every: int = 1,
) -> int:
    """Steps until at most a quarter of the training images is classified wrong, at most ``most``.

    Network, images and the order of the batches are those of the seed. All
    training images are looked at every so many steps, and steps are counted to such a look.
    """
    x, y = load(images, seed)
    model = network(activation, x.shape[1:], gain, seed, IMAGES[images])
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM)

    def find_loss(rows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x[rows]), y[rows])

    def find_gradients(loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()

    rows = islice(batches(len(x), BATCH, seed), most)
    for step in steps(find_loss, find_gradients, lambda _: optimiser.step(), rows):
        if step.updates % look_every == 0:
            with torch.no_grad():
                parts = zip(x.split(2000), y.split(2000), strict=True)
                wrong = torch.cat([model(part).argmax(1) != of for part, of in parts])
            if wrong.double().mean() <= ERROR:
                return step.updates
        if not step.loss.isfinite():
            break
    return most


def race_cell(
    activation: str,
    start: str,
    networks: int,
    tuning_networks: int,
    most_steps: int,
    images: str = "digits",
    look_every: int = 1,
) -> dict[str, Any]:
    """Steps of each network to a training error of 25 %, from the start and rate that suit best.

    Chosen are those with the fewest steps of the slowest of the tuning networks (of development
    seeds); none is followed beyond the steps of the best so far.

    Args:
        activation: a key of ``ACTIVATIONS`` that is compared.
        start: a key of ``STARTS``.
        networks: of seeds from 0, each with images of its own draw.
        tuning_networks: as many that tune.
        most_steps: where a network counts as not there.
        images: a key of ``IMAGES``.
        look_every: steps between two looks at the error.

    Returns:
        ``steps`` of each network, the ``gain`` (None for 0.01) and ``learning_rate`` chosen, and
        ``inside``: whether rate and gain are neither the lowest nor the highest of their grids;
        None where no rate brings all tuning networks there, and the middle one is taken.
    """
    one_of(activation, compared_activations(), "activation")
    tuned = STARTS[one_of(start, STARTS, "start")]
    gains = tuned or (None,)
    most_steps = whole_number(most_steps, "most_steps", 1)
    options = images, whole_number(look_every, "look_every", 1)
    tuning = development_seeds(tuning_networks)
    best, chosen = most_steps, (gains[0], RATES[len(RATES) // 2])
    for gain in gains:
        for rate in sorted(RATES, key=lambda each: abs(np.log(each / 0.1))):  # likely ones first
            slowest = 0
            for seed in tuning:
                found = steps_to_error(activation, gain, rate, seed, best, *options)
                slowest = max(slowest, found)
                if slowest >= best:
                    break
            if slowest < best:
                best, chosen = slowest, (gain, rate)
    gain, rate = chosen
    at_edge = rate in (RATES[0], RATES[-1]) or (tuned and gain in (tuned[0], tuned[-1]))
    return {
        "steps": [
            steps_to_error(activation, gain, rate, seed, most_steps, *options)
            for seed in confirmation_seeds(networks)
        ],
        "gain": gain,
        "learning_rate": rate,
        "inside": None if best == most_steps else not at_edge,
    }


def cells(images: str) -> tuple[Cell, ...]:
    """What is raced on these images: each activation from each start, with steps enough.

    From the small start the digits take more steps. On CIFAR-10 the paper's tanh network, the
    slower one, is there after some 35 passes of 391 batches; 40 passes are 15 640.
    """
    same = {"activation": ["relu", "tanh", "sigmoid"], "networks": [10], "tuning_networks": [3]}
    if one_of(images, IMAGES, "images") == "digits":
        small = grid(**same, start=["0.01"], most_steps=[1500], look_every=[10])
        return (*small, *grid(**same, start=["tuned"], most_steps=[120]))
    return grid(**same, start=STARTS, most_steps=[15_640], look_every=[100])


SWEEPS = (Sweep("krizhevsky", cells("digits"), race_cell),)

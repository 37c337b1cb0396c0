"""Krizhevsky's test: its network against the paper's words, its steps against a plain loop."""

import numpy as np
import pytest
import torch
from torch import nn

from rai_utils.data import digits
from rai_utils.experiments.activation_saturation import image_race
from rai_utils.experiments.activation_saturation.image_race import (
    ERROR,
    cells,
    load,
    network,
    race_cell,
    steps_to_error,
)


def test_the_network_has_four_layers_of_normal_weights():
    model = network("tanh", (1, 8, 8), None, 0)
    layers = [m for m in model if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 4 and isinstance(layers[-1], nn.Linear)
    assert model(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert network("relu", (3, 32, 32), None, 0)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert layers[2].weight.std().item() == pytest.approx(0.01, rel=0.05)
    scaled = [m for m in network("tanh", (1, 8, 8), 2.0, 0) if isinstance(m, nn.Conv2d)]
    assert scaled[2].weight.std().item() == pytest.approx(2 / (8 * 9) ** 0.5, rel=0.05)


def test_steps_are_those_until_a_quarter_is_wrong():
    steps = steps_to_error("relu", 1.4, 0.1, 3, 60)
    assert 0 < steps < 60
    x, y = load("digits", 3)
    for most, reached in ((steps - 1, False), (steps, True)):
        model = network("relu", x.shape[1:], 1.4, 3)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        generator, order = torch.Generator().manual_seed(3), []
        for _ in range(most):
            if not order:  # the last batch of a pass has what is left, 32
                order = torch.randperm(800, generator=generator).tolist()
            rows, order = order[:128], order[128:]
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
        wrong = (model(x).argmax(1) != y).double().mean().item()
        assert (wrong <= ERROR) == reached


def test_digits_are_the_draw_of_their_number():
    x, y = load("digits", 5)
    drawn = digits(800, 500, 5)
    assert torch.equal(x.flatten(1), drawn.x) and torch.equal(y, drawn.y)
    with pytest.raises(ValueError, match="images must be one of digits, CIFAR-10"):
        load("MNIST", 0)


@pytest.fixture
def stand_in(monkeypatch):
    """Twenty noisy pictures of two classes as OpenML would give them, and how often it is asked."""
    pixels = np.random.default_rng(0).integers(0, 255, (20, 3072))
    pixels[1::2, :1024] //= 8  # the second class has little red
    asked = []

    def fetch(**given):
        asked.append(given)
        return pixels, np.array(["3", "7"] * 10)

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    for kept in (image_race.load, image_race._cifar):
        kept.cache_clear()
    yield pixels, asked
    for kept in (image_race.load, image_race._cifar):
        kept.cache_clear()


def test_cifar_is_read_once_and_as_openml_holds_it(stand_in):
    pixels, asked = stand_in
    x, y = load("CIFAR-10", 0)
    assert x.shape == (20, 3, 32, 32) and y[:2].tolist() == [3, 7]
    # Red is the first third of a row, and rows of the picture follow each other.
    again = x * torch.from_numpy(pixels.astype(np.float32)).view(-1, 3, 32, 32).std(0)
    expected = torch.from_numpy(pixels[:, 1024 + 32 * 5 + 7].astype(np.float32))
    torch.testing.assert_close(again[:, 1, 5, 7], expected - expected.mean(), rtol=1e-4, atol=1e-3)
    assert load("CIFAR-10", 1)[0] is x and load("CIFAR-10", 0)[0] is x
    assert len(asked) == 1


def test_cifar_has_a_network_and_steps_of_its_own(stand_in, monkeypatch):
    channels = []

    def watched(*given):
        channels.append(given[-1])
        return network(*given)

    monkeypatch.setattr(image_race, "network", watched)
    assert all(cell["most_steps"] * 128 >= 40 * 50_000 for cell in cells("CIFAR-10"))
    monkeypatch.setattr(image_race, "BATCH", 20)
    (cell,) = [c for c in cells("CIFAR-10") if (c["activation"], c["start"]) == ("relu", "tuned")]
    monkeypatch.setitem(image_race.STARTS, "tuned", (0.5, 1.0, 1.4))
    monkeypatch.setattr(image_race, "RATES", (0.001, 0.01, 0.1))
    few = {"networks": 2, "tuning_networks": 1, "most_steps": 12, "look_every": 4}
    found = race_cell(**cell | few, images="CIFAR-10")
    assert found["inside"] is not None and set(channels) == {(32, 32, 64)}
    assert all(steps in (4, 8) for steps in found["steps"])  # they arrive, at a look


def test_the_race_takes_what_is_fastest_on_other_networks(monkeypatch):
    asked = []

    def steps(activation, gain, rate, seed, most, images, look_every):
        asked.append(seed)
        return min(most, int(50 * abs(np.log(rate / 0.3)) + 10 * abs(gain - 2) + 5 + seed % 3))

    monkeypatch.setattr(
        "rai_utils.experiments.activation_saturation.image_race.steps_to_error", steps
    )
    found = race_cell("tanh", "tuned", 4, 3, 400)
    assert (found["gain"], found["learning_rate"], found["inside"]) == (2.0, 0.3, True)
    assert found["steps"] == [5, 6, 7, 5]
    assert race_cell("tanh", "tuned", 1, 3, 5)["inside"] is None  # nobody gets there in 5 steps
    assert set(asked) == {1000, 1001, 1002, 0, 1, 2, 3}

"""What the notebook relax-your-own measures: networks of other kinds, relaxed by ``relax``.

Four small networks of torch's own parts, on digits read as pictures or as sequences of rows, and on
the diabetes regression. Every method passes over the data equally often, by Adam, and its rate is
tuned by the rules of ``tuning.tune``. Scores are those of the plain forward pass in
evaluation mode: accuracy, or the share of variance explained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from rai_utils.checks import one_of
from rai_utils.data import Dataset, digits, from_arrays
from rai_utils.experiments.sweep import Sweep, grid
from rai_utils.experiments.timing import clocked, interleaved, summarise
from rai_utils.models import confirmation_seeds, development_seeds
from rai_utils.modules import Relaxation, RelaxedDataset, Selection, relax, relax_dataset
from rai_utils.training import batches
from rai_utils.tuning import search

EXAMPLES, BATCH, PASSES, NETWORKS = 200, 50, 60, 10
# Typed before the data: the grid and its limits, the tie, how much faster targets move than
# weights, and how often fresh ones move before the weights do.
RATES, LIMITS, TIE = (0.003, 0.01, 0.03), (1e-5, 3.0), 0.02
TARGETS_FASTER, INNER = 10.0, 2


class Transformer(nn.Module):
    """Reads the 8 rows of a digit: one encoder layer, mean over rows, output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 24)
        self.place = nn.Parameter(0.1 * torch.randn(8, 24))
        self.encoder = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.0, batch_first=True)
        self.output = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(examples, 64) -> (examples, 10)."""
        h = self.embed(x.unflatten(1, (8, 8))) + self.place  # (examples, rows, 24)
        return self.output(self.encoder(h).mean(1))


class Recurrent(nn.Module):
    """Reads the 8 rows of a digit by an LSTM; the output reads its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 32, batch_first=True)
        self.output = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(examples, 64) -> (examples, 10)."""
        states, _ = self.lstm(x.unflatten(1, (8, 8)))  # (examples, rows, 32)
        return self.output(states[:, -1])


def convolutional() -> nn.Module:
    """Return two convolutions with pooling and an output layer, for digits of 8 × 8 pixels."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def regressor() -> nn.Module:
    """Return a multilayer perceptron from the 10 features of the diabetes data to one number."""
    layers = [nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)]
    return nn.Sequential(*layers, nn.Flatten(0))


def diabetes(draw: int) -> Dataset:
    """Return the diabetes data of scikit-learn, in standard units, split by ``draw``."""
    x, y = load_diabetes(return_X_y=True)
    x, held_out_x, y, held_out_y = train_test_split(x, y, train_size=EXAMPLES, random_state=draw)
    return from_arrays("Diabetes", "regression", (x, y), (held_out_x, held_out_y), scaled=True)


@dataclass(frozen=True)
class Task:
    """A network, its data by the number of the draw, and what is relaxed: one place, or all."""

    build: Callable[[], nn.Module]
    draw: Callable[[int], Dataset]
    once: Selection
    every: Selection

    def network(self, number: int) -> nn.Module:
        """Return the network of a number, drawn from torch's default start."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            return self.build()


def _digits(draw: int) -> Dataset:
    return digits(EXAMPLES, 500, seed=draw)


TASKS: dict[str, Task] = {
    "convolutional net": Task(convolutional, _digits, "6", (nn.Conv2d, nn.Linear)),
    "transformer": Task(Transformer, _digits, "encoder", (nn.Linear, nn.MultiheadAttention)),
    "LSTM": Task(Recurrent, _digits, "lstm", (nn.LSTM, nn.Linear)),
    "regression": Task(regressor, diabetes, "2", nn.Linear),
}
EVERY = "RAI, every layer"
METHODS = ("backprop", "RAI", EVERY, "last layer")
BATCH_METHODS = ("backprop, batches", "table", "fresh targets", "shared targets")


def loss_of(data: Dataset, z: Tensor, y: Tensor) -> Tensor:
    """Return cross-entropy, or for a regression the mean squared error."""
    if data.task == "regression":
        return nn.functional.mse_loss(z, y)
    return nn.functional.cross_entropy(z, y)


def judge(module: nn.Module, data: Dataset) -> dict[str, float]:
    """Return the held-out loss and the scores of the ordinary network."""
    module.eval()
    found: dict[str, float] = {}
    with torch.no_grad():
        for name, x, y in (
            ("train", data.x, data.y),
            ("held_out", data.held_out_x, data.held_out_y),
        ):
            z = module(x)
            found[f"{name}_loss"] = loss = loss_of(data, z, y).item()
            if data.task == "regression":
                found[name] = 1 - loss / y.var(correction=0).item()
            else:
                found[name] = (z.argmax(1) == y).double().mean().item()
    module.train()
    return found


def train(
    task: Task, data: Dataset, number: int, method: str, rate: float, passes: int = PASSES
) -> tuple[nn.Module, NDArray[np.float64], int]:
    """Train a network; return it, the seconds of each update and the bytes that targets take.

    ``number`` is that of the network and of the order of its batches.
    """
    one_of(method, (*METHODS, *BATCH_METHODS), "method")
    module = task.network(number)
    if method == "last layer":
        module.requires_grad_(False)
        [part for part in module.modules() if isinstance(part, nn.Linear)][-1].requires_grad_(True)
    own = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(own, lr=rate)
    select = task.every if method == EVERY else task.once
    faster = TARGETS_FASTER * rate
    relaxed: Relaxation | None = None
    tabled: RelaxedDataset | None = None
    if method.startswith("RAI"):
        relaxed = relax(module, data.x, select)
        optimizer.add_param_group({"params": [*relaxed.parameters()], "lr": faster})
    elif method in ("table", "shared targets"):
        examples = TensorDataset(data.x, data.y)
        relaxed = tabled = relax_dataset(module, examples, select, rate=faster)
    seconds, whole = [], method in METHODS
    batch = len(data.x) if whole else BATCH
    updates = passes * math.ceil(len(data.x) / batch)
    for ids in islice(batches(len(data.x), batch, number), updates):
        started = perf_counter()
        x, y = (data.x, data.y) if whole else (data.x[ids], data.y[ids])
        if method == "fresh targets":
            _move_fresh(module, select, data, (x, y), faster)
        else:
            if tabled is not None:
                # The control takes whatever targets stand at the places of the batch.
                tabled.take(ids if method == "table" else range(len(ids)))
            optimizer.zero_grad()
            loss = loss_of(data, module(x), y)
            (loss if relaxed is None else loss + relaxed.hidden_loss()).backward()
        optimizer.step()
        if tabled is not None:
            tabled.step()
        seconds.append(perf_counter() - started)
    size = 0
    if relaxed is not None:
        # Adam keeps two numbers for each target.
        full = sum(3 * target.nbytes for target in relaxed.parameters())
        size = full if tabled is None else tabled.bytes
        relaxed.close()
    return module, np.array(seconds), size


def _move_fresh(
    module: nn.Module, select: Selection, data: Dataset, batch: tuple[Tensor, Tensor], rate: float
) -> None:
    """Make targets of a batch, move them, and leave the gradients of the weights there."""
    x, y = batch
    with relax(module, x, select) as relaxed:
        targets = torch.optim.Adam(relaxed.parameters(), lr=rate)
        for inner in range(INNER + 1):
            module.zero_grad()
            targets.zero_grad()
            (loss_of(data, module(x), y) + relaxed.hidden_loss()).backward()
            if inner < INNER:
                targets.step()


def own_cell(
    task: str,
    method: str,
    passes: int = PASSES,
    networks: int = NETWORKS,
    tuning_networks: int = 5,
    rates: Sequence[float] = RATES,
) -> dict[str, Any]:
    """Tune a method on networks and draws of development, and train fresh ones at its rate."""
    problem = TASKS[one_of(task, TASKS, "task")]

    def run(number: int, rate: float) -> dict[str, Any]:
        data = problem.draw(number)
        module, seconds, size = train(problem, data, number, method, rate, passes)
        return judge(module, data) | {"seconds": float(np.median(seconds)), "bytes": size}

    seeds = development_seeds(tuning_networks)

    def try_rates(tried: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        runs = [[run(n, rate) for n in seeds] for rate in tried]
        losses = np.array([[each["held_out_loss"] for each in row] for row in runs])
        scores = np.array([[each["held_out"] for each in row] for row in runs])
        return np.nan_to_num(losses, nan=np.inf), scores

    found = search(try_rates, rates, seeds, TIE, LIMITS)
    runs = [run(number, found.rate) for number in confirmation_seeds(networks)]
    return {
        "rate": found.rate,
        "rates": list(found.learning_rates),
        "losses": np.minimum(found.losses, 1e6).tolist(),
        "at_limit": found.at_limit,
        **{name: [each[name] for each in runs] for name in runs[0]},
    }


def cost_cell(network: str, rounds: int = 30, repeats: int = 4) -> dict[str, Any]:
    """Time a step by ``relax`` against the same sums written out, without hooks and checks.

    Returns median and quartiles of the ratio within a round; both sides make the same step of Adam.
    """
    if network == "convolutional net":
        data, module = _digits(0), TASKS[network].network(0)
    else:
        data = digits(100, 100)
        widths = [64, *[100] * int(network.partition(" ")[0]), 10]
        linears = [nn.Linear(*pair) for pair in pairwise(widths)]
        parts = [part for linear in linears for part in (linear, nn.Sigmoid())]
        module = nn.Sequential(*parts[:-1])
    kinds = (nn.Conv2d, nn.Linear)
    chosen: list[nn.Module] = [part for part in module.modules() if isinstance(part, kinds)]
    with relax(module, data.x, kinds) as relaxed:
        starts = [target.detach().clone() for target in relaxed.parameters()]
    own = dict(zip(chosen, (start.requires_grad_() for start in starts), strict=True))

    def written_out() -> Tensor:
        h, terms = data.x, []
        for part in module.children():
            z = part(h)
            if part in own:
                terms.append((z - own[part]).square().mean())
                z = own[part].clone() if isinstance(part, nn.Conv2d) else own[part]
            h = z
        return loss_of(data, h, data.y) + torch.stack(terms).sum()

    def steps(loss: Callable[[], Tensor], targets: Iterable[Tensor]) -> float:
        optimizer = torch.optim.Adam([*module.parameters(), *targets], lr=1e-4)

        def step() -> None:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()

        step()  # makes the optimiser's state
        return clocked(step, repeats=repeats)()

    def hooked() -> float:
        with relax(module, data.x, kinds) as relaxed:
            return steps(
                lambda: loss_of(data, module(data.x), data.y) + relaxed.hidden_loss(),
                relaxed.parameters(),
            )

    seconds = interleaved(
        {"hooked": hooked, "plain": lambda: steps(written_out, own.values())}, rounds
    )
    return {"ratio": summarise(seconds["hooked"] / seconds["plain"])}


SWEEPS = (
    Sweep(
        "relax-your-own",
        (
            *grid(task=TASKS, method=[name for name in METHODS if name != EVERY]),
            *grid(task=["convolutional net", "transformer"], method=[EVERY]),
            *grid(task=["convolutional net"], method=BATCH_METHODS),
        ),
        own_cell,
    ),
    Sweep("relax-costs", grid(network=["convolutional net", "5 layers", "50 layers"]), cost_cell),
)

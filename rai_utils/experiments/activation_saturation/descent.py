"""Plain gradient descent on a stack of networks, each with a learning rate of its own.

What the activation functions are compared with: θ ← θ − η ∂L/∂θ, nothing else, so that a step
means the same for all of them, and a whole grid of learning rates runs as one stack. The slope
of leaky ReLU can be trained along with the weights (PReLU, He et al. 2015b, Eq. 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rai_utils import training
from rai_utils.checks import number, numbers, one_each, whole_number, whole_numbers
from rai_utils.data import Dataset
from rai_utils.models import Architecture, StackedMLP, affine, forward, stack
from rai_utils.relaxation import output_loss
from rai_utils.training import check_data, loss_for, update_rule

Array = NDArray[np.float64]
Bend = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Descent:
    """What a descent did; S networks.

    Attributes:
        model: the networks after the last step.
        slopes: negative slopes of each hidden layer after it, (T − 1, S); None if not trained.
        loss: training loss before each step and after the last, (steps + 1, S).
        reached_at: first step with a loss of at most the goal, (S,); infinite where none.
        path: length of the way that all weights and biases together went so far, (steps + 1, S).
        displacement: their distance from where they began, (steps + 1, S).
        snapshots: networks at the steps asked for.
    """

    model: StackedMLP
    slopes: Array | None
    loss: Array
    reached_at: Array
    path: Array
    displacement: Array
    snapshots: dict[int, StackedMLP]


def descend(
    model: StackedMLP,
    dataset: Dataset | Sequence[Dataset],
    learning_rates: Sequence[float],
    steps: int,
    *,
    goal: float | None = None,
    initial_slope: float | None = None,
    bend: Bend | None = None,
    snapshot_at: Sequence[int] = (),
    enough: Callable[[Array], bool] | None = None,
) -> Descent:
    """Run gradient descent; with a goal, until every network has reached it or failed.

    Each of the networks has a learning rate, above 0, of its own. What is out of range or does not
    fit is refused with a ValueError.

    Args:
        model: the networks to start from; left as they are.
        dataset: the examples of all networks, or as many data sets of classes as there are
            networks, each with as many examples: a draw for each.
        learning_rates: one for each network, above 0.
        steps: updates at most, at least 1.
        goal: the training loss to reach, above 0; None to make all steps.
        initial_slope: where the trained negative slopes start, one for each hidden layer and
            network; None for the architecture's own activation. Needs ``"leaky_relu"``.
        bend: an activation in place of the architecture's, which autograd can follow.
        snapshot_at: steps at which the networks are kept. An early end leaves later ones out.
        enough: with a goal, ends the run too; it is given ``reached_at`` as it stands.
    """
    architecture = model.architecture
    drawn = [dataset] if isinstance(dataset, Dataset) else list(dataset)
    first = drawn[0]
    loss_name = loss_for(first.task)
    for each in drawn:
        check_data(architecture, each, loss_name)
    _check_draws(drawn, model.seeds)
    if architecture.skip_connections and bend:
        raise ValueError(f"networks must be without skips, got {architecture}")
    own_rates = one_each(learning_rates, model.seeds, "learning rate", above=0)
    steps = whole_number(steps, "steps", 1)
    snapshot_at = whole_numbers(snapshot_at, "snapshot_at", most=steps)
    goal = None if goal is None else number(goal, "goal", above=0)
    dtype = model.weights[0].dtype
    x, y = first.x.to(dtype), first.y
    if len(drawn) > 1:  # (networks, examples, features) and (networks, examples)
        x, y = torch.stack([each.x.to(dtype) for each in drawn]), torch.stack([d.y for d in drawn])
    y = y.to(dtype) if y.is_floating_point() else y
    runs = len(architecture.runs)
    leaves = [p.detach().clone().requires_grad_() for p in (*model.weights, *model.biases)]
    slopes = None
    if initial_slope is not None:
        slope = number(initial_slope, "initial slope")
        _check_leaky(architecture)
        shape = (architecture.depth - 1, model.seeds, 1, 1)
        slopes = torch.full(shape, slope, dtype=dtype, requires_grad=True)
    trained = leaves if slopes is None else [*leaves, slopes]
    start = [leaf.detach().clone() for leaf in leaves]
    rates, sgd = torch.tensor(own_rates, dtype=dtype)[None, :, None, None], update_rule("sgd")
    losses: list[Tensor] = []
    reached = torch.full((model.seeds,), torch.inf, dtype=torch.float64)
    moves: list[Tensor] = []
    distances: list[Tensor] = []

    @torch.no_grad()
    def distance() -> Tensor:
        pairs = zip(leaves, start, strict=True)
        return torch.stack([(a - b).double().square().sum((0, 2, 3)) for a, b in pairs]).sum(0)

    snapshots: dict[int, StackedMLP] = {}

    def find_loss(_: None) -> Tensor:
        z = _outputs(architecture, leaves[:runs], leaves[runs:], slopes, x, bend)
        return output_loss(z, y, architecture.output_activation, loss_name)

    def find_gradients(loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss.sum(), trained)

    @torch.no_grad()
    def update(gradients: tuple[Tensor, ...]) -> None:
        moved = [(rates * gradient).square().sum((0, 2, 3)) for gradient in gradients]
        moves.append(torch.stack(moved[: len(leaves)]).sum(0).sqrt().double())
        for leaf, gradient in zip(trained, gradients, strict=True):
            sgd.step(leaf, gradient, (), rates)

    for step in training.steps(find_loss, find_gradients, update, repeat(None)):
        if step.updates in snapshot_at:
            snapshots[step.updates] = _networks(architecture, leaves)
        losses.append(step.loss.detach())
        distances.append(distance())
        if goal is not None:
            there = torch.isinf(reached) & (losses[-1] <= goal)
            reached[there] = step.updates
            settled = ~torch.isinf(reached) | ~torch.isfinite(losses[-1])
            if settled.all() or (enough is not None and there.any() and enough(reached.numpy())):
                break
        if step.updates == steps:
            break
    still = torch.zeros(1, model.seeds, dtype=torch.float64)
    path = torch.cat([still, torch.stack(moves).cumsum(0)]) if moves else still
    return Descent(
        _networks(architecture, leaves),
        None if slopes is None else slopes.detach()[..., 0, 0].double().numpy(),
        torch.stack(losses).double().numpy(),
        reached.numpy(),
        path.numpy(),
        torch.stack(distances).sqrt().numpy(),
        snapshots,
    )


MOST = 0.9
"""Share of the seeds that must reach the goal before a learning rate counts as there."""


@dataclass(frozen=True)
class Race:
    """Which start and learning rate were first.

    Attributes:
        start: place of the winner among the starts.
        rate: the winner's.
        steps: step by which 90 % of the winner's seeds were there; infinite if none was.
    """

    start: int
    rate: float
    steps: float


def race(
    starts: Sequence[StackedMLP],
    dataset: Dataset | Sequence[Dataset],
    grid: Sequence[float],
    steps: int,
    goal: float,
    *,
    initial_slope: float | None = None,
    bend: Bend | None = None,
) -> Race:
    """Find the start and the learning rate that first bring 90 % of the networks to the goal.

    All rates run side by side from every start, and the race ends with the first pair that is
    there: no other can be faster. Of pairs that are there at the same step the one with the rate
    nearest to the middle of the grid wins, and of these the earlier start. If none gets there, the
    one with the most networks there wins, and among equals the one with the lowest median loss at
    the end. No start and no rate are refused with a ValueError.

    Args:
        starts: the same networks from each start, of seeds that no reported number uses.
        dataset: as for ``descend``, for the networks of one start.
        grid: the learning rates.
        steps: updates at most.
        goal: a training loss.
        initial_slope, bend: as for ``descend``.
    """
    grid = numbers(grid, "learning rates", above=0)
    if not grid:
        raise ValueError("grid must hold at least one learning rate, got none")
    if not starts:
        raise ValueError("starts must hold at least one, got none")
    seeds = starts[0].seeds
    pairs = [(start, rate) for start in range(len(starts)) for rate in grid]

    def by_pair(values: Array) -> Array:
        return values.reshape(len(pairs), seeds)

    def there(reached_at: Array) -> Array:
        return np.quantile(by_pair(reached_at), MOST, axis=1, method="inverted_cdf")

    run = descend(
        stack([starts[start] for start, _ in pairs]),
        dataset if isinstance(dataset, Dataset) else [*dataset] * len(pairs),
        [rate for _, rate in pairs for _ in range(seeds)],
        steps,
        goal=goal,
        initial_slope=initial_slope,
        bend=bend,
        enough=lambda reached_at: bool(np.isfinite(there(reached_at)).any()),
    )
    arrived = there(run.reached_at)
    if np.isfinite(arrived).any():
        off_middle = np.array([abs(2 * grid.index(rate) - len(grid) + 1) for _, rate in pairs])
        winner = int(np.lexsort((off_middle, arrived))[0])
    else:
        missing = np.isinf(by_pair(run.reached_at)).sum(1)
        last = np.median(np.nan_to_num(by_pair(run.loss[-1]), nan=np.inf, posinf=np.inf), axis=1)
        winner = int(np.lexsort((last, missing))[0])
    start, rate = pairs[winner]
    return Race(start, float(rate), float(arrived[winner]))


def set_intercepts(model: StackedMLP, value: float) -> StackedMLP:
    """Return a copy whose hidden layers all have this bias; the output layer keeps its own."""
    biases = [torch.full_like(bias, value) for bias in model.biases[:-1]]
    return StackedMLP(
        model.architecture,
        [weight.detach().clone() for weight in model.weights],
        [*biases, model.biases[-1].detach().clone()],
        model.drawn_from,
    )


def _check_draws(drawn: Sequence[Dataset], networks: int) -> None:
    if len(drawn) not in (1, networks):
        raise ValueError(f"there must be one data set, or {networks}, got {len(drawn)}")
    if len(drawn) > 1 and (
        drawn[0].task == "regression" or len({each.x.shape for each in drawn}) > 1
    ):
        raise ValueError("several data sets must be of classes and of one size, got others")


def _check_leaky(architecture: Architecture) -> None:
    if architecture.hidden_activation != "leaky_relu" or architecture.skip_connections:
        raise ValueError(f"a trained slope needs plain leaky_relu networks, got {architecture}")
    if architecture.depth < 2:
        raise ValueError("a trained slope needs a hidden layer, got none")


def _outputs(
    architecture: Architecture,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    slopes: Tensor | None,
    x: Tensor,
    bend: Bend | None = None,
) -> Tensor:
    """z_T of the plain forward pass, (S, examples, l_T); with slopes, h = z or slope · z.

    x is (examples, l₀), or (S, examples, l₀) where each network has its own.
    """
    if slopes is None and bend is None:
        return forward(architecture, weights, biases, x)
    activation = bend or architecture.activation.function
    h = x.expand(weights[0].shape[1], *x.shape[-2:])
    for run, weight, bias in zip(architecture.runs[:-1], weights, biases, strict=False):
        for offset in range(run.layers):
            z = affine(h, weight[offset], bias[offset])
            if slopes is None:
                h = activation(z)
            else:
                h = torch.where(z > 0, z, slopes[run.first + offset - 1] * z)
    return affine(h, weights[-1][0], biases[-1][0])


def _networks(architecture: Architecture, leaves: Sequence[Tensor]) -> StackedMLP:
    runs = len(architecture.runs)
    copies = [leaf.detach().clone() for leaf in leaves]
    return StackedMLP(architecture, copies[:runs], copies[runs:])

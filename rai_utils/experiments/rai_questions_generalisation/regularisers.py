"""Regularisers of RAI, each added alone to the same fit: what they do to the gap and the spread.

Minimising the network's own loss is the constrained problem "least L_y such that every residual
r_t = ẑ_t − z_t is 0"; the relaxed loss is its quadratic penalty function. Three regularisers come
from there: another penalty weight, a growing one, and multipliers. The other ones are those of
any network, applied to weights, to targets, or to the length of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rai_utils.checks import number, one_of, seeded, whole_number
from rai_utils.data import Dataset, exclusive_or, moons
from rai_utils.diagnostics import decision_map, disagreement, mean_of_pairs
from rai_utils.experiments.sweep import Sweep
from rai_utils.models import Architecture, StackedMLP, affine, build_mlp, confirmation_seeds, stack
from rai_utils.relaxation import (
    OutputLoss,
    RelaxationPlan,
    RelaxedLoss,
    Targets,
    output_loss,
    relaxed_loss,
)
from rai_utils.training import (
    Fit,
    Objective,
    Phase,
    Watch,
    evaluate,
    fit_backprop,
    fit_relaxed,
    schedule,
)
from rai_utils.tuning import stop_early

# Nothing is recorded, and networks this small are no work for a GPU.
_QUIET: dict[str, Any] = {"watch": Watch(evaluate_at=()), "device": "cpu"}


def residuals(
    plan: RelaxationPlan,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    values: Sequence[Tensor],
    x: Tensor,
) -> list[Tensor]:
    """Residuals r_t = ẑ_t − z_t of a circuit whose layers are all relaxed, differentiable.

    One tensor a layer, input to output, (seeds, examples, l_t); arguments as of ``relaxed_loss``. A
    layer that is not relaxed is refused with a ValueError.
    """
    architecture = plan.architecture
    if len(plan.layers) < architecture.depth:
        raise ValueError(
            f"all {architecture.depth} layers must be relaxed, got layers {plan.layers}"
        )
    result = []
    h = x.expand(weights[0].shape[1], *x.shape)  # (seeds, examples, l₀)
    for layer in plan.layers:
        group, position = plan.locate(layer)
        run, offset = architecture.locate(layer)
        z = values[group][position]  # (seeds, examples, l_t)
        result.append(affine(h, weights[run][offset], biases[run][offset]) - z)
        h = architecture.activation.function(z)
    return result


def with_multipliers(multipliers: Sequence[Tensor]) -> Objective:
    """Augmented Lagrangian of the constraints r_t = 0, with scaled multipliers u_t of every layer.

        total = L_y + λ Σ_t mean_{i,j} (r_tⁱ_j + u_tⁱ_j)²

    The augmented Lagrangian of Nocedal & Wright (2006, section 17.3) with the square completed
    (Boyd et al. 2011, section 3.1.1); the constant − λ Σ_t mean u_t² is left out. The multiplier
    itself is 2 λ u_t / (examples × width), u_t being (seeds, examples, l_t). For neural networks:
    Carreira-Perpiñán & Wang (2014); Taylor et al. (2016) keep the multiplier of the output layer
    alone. The recorded hidden terms are mean r_t².
    """

    def objective(
        plan: RelaxationPlan,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        values: Sequence[Tensor],
        x: Tensor,
        y: Tensor,
        *,
        hidden_weight: float = 1.0,
        loss: OutputLoss = "cross_entropy",
        into: Sequence[Tensor] | None = None,  # autograd alone does the work: no memory to give
    ) -> RelaxedLoss:
        owed = residuals(plan, weights, biases, values, x)
        shifted = [r + u.to(r) for r, u in zip(owed, multipliers, strict=True)]
        penalty = torch.stack([s.square().mean((1, 2)) for s in shifted]).sum(0)  # (seeds,)
        terms = torch.stack([r.detach().square().mean((1, 2)) for r in owed])
        z = values[-1][-1]  # targets of the output layer, (seeds, examples, l_T)
        output = output_loss(z, y, plan.architecture.output_activation, loss)
        return RelaxedLoss(output + hidden_weight * penalty, output.detach(), terms)

    return objective


def with_target_noise(deviation: float, generator: torch.Generator) -> Objective:
    """Relaxed loss at z_t + ε_t, with ε_t ~ N(0, deviation²) drawn anew at every step, on the CPU.

    A layer that reads z_t + ε_t is trained on noisy inputs, which for the squared error is a
    penalty on its slope (Bishop 1995). The deviation, of each pre-activation, is at least 0.
    """
    deviation = number(deviation, "deviation", least=0)

    def objective(*arguments: Any, **options: Any) -> RelaxedLoss:
        *circuit, values, x, y = arguments  # those of relaxed_loss
        noisy = [
            v + deviation * torch.randn(v.shape, generator=generator, dtype=v.dtype).to(v.device)
            for v in values
        ]
        return relaxed_loss(*circuit, noisy, x, y, **options)

    return objective


def with_target_decay(decay: float) -> Objective:
    """Relaxed loss with an L2 penalty on the targets: total + decay · Σ_t mean_{i,j} (z_tⁱ_j)².

    The sum is over the relaxed layers, the mean over examples and units; the decay is at least 0.
    """
    decay = number(decay, "decay", least=0)

    def objective(*arguments: Any, **options: Any) -> RelaxedLoss:
        parts, values = relaxed_loss(*arguments, **options), arguments[3]
        squares = torch.cat([v.square().mean((2, 3)) for v in values]).sum(0)  # (seeds,)
        return replace(parts, total=parts.total + decay * squares)

    return objective


def _fit(model: StackedMLP, dataset: Dataset, phase: Phase, **options: Any) -> Fit:
    return fit_relaxed(model, dataset, phase, **{**_QUIET, **options})


def _relaxed(model: StackedMLP, dataset: Dataset, phase: Phase, **options: Any) -> StackedMLP:
    return _fit(model, dataset, phase, **options).model


def _share_out(phase: Phase, rounds: int) -> list[Phase]:
    """Cut a phase into rounds whose steps add up to its own."""
    rounds = whole_number(rounds, "rounds", 1, phase.steps)
    ends = [phase.steps * k // rounds for k in range(rounds + 1)]
    return [replace(phase, steps=b - a) for a, b in pairwise(ends)]


def fit_growing(
    model: StackedMLP, dataset: Dataset, phase: Phase, hidden_weights: Sequence[float]
) -> tuple[StackedMLP, Targets]:
    """Train by RAI in rounds of equal length, one hidden weight λ a round: the penalty method.

    Weights and targets go on from where they were; the optimiser starts afresh in each round. With
    a growing λ it is Framework 17.1 of Nocedal & Wright (2006) with a fixed number of steps in
    place of a tolerance, and with one λ throughout the control for the fresh optimiser. The steps
    of ``phase`` are those of all rounds together; more rounds than steps, or none, are refused with
    a ValueError.
    """
    if not hidden_weights:
        raise ValueError("hidden_weights must hold one λ or more, got none")
    targets: Targets | None = None
    for part, weight in zip(_share_out(phase, len(hidden_weights)), hidden_weights, strict=True):
        fit = _fit(model, dataset, part, hidden_weight=weight, targets=targets)
        model, targets = fit.model, fit.targets
    return model, fit.relaxed_targets


def fit_with_multipliers(
    model: StackedMLP, dataset: Dataset, phase: Phase, rounds: int, hidden_weight: float = 1.0
) -> tuple[StackedMLP, Targets, list[Tensor]]:
    """Train by RAI on the augmented Lagrangian: after each round, u_t ← u_t + r_t.

    Framework 17.3 of Nocedal & Wright (2006) with λ held and a fixed number of steps in place of a
    tolerance. u_t starts at 0; rounds as in ``fit_growing``. Returns the networks, their targets,
    and the multipliers of the last round.
    """
    targets = None
    multipliers: list[Tensor] = []
    for part in _share_out(phase, rounds):
        if targets is not None:
            circuit = targets.plan, [*model.weights], [*model.biases], targets.values
            owed = residuals(*circuit, dataset.x)
            multipliers = [
                u + r.detach() for u, r in zip(multipliers or [0.0] * len(owed), owed, strict=True)
            ]
        objective = with_multipliers(multipliers) if multipliers else relaxed_loss
        options: dict[str, Any] = {"hidden_weight": hidden_weight, "targets": targets}
        fit = _fit(model, dataset, part, objective=objective, **options)
        model, targets = fit.model, fit.targets
    return model, fit.relaxed_targets, multipliers


def fit_renewed(model: StackedMLP, dataset: Dataset, phase: Phase, rounds: int) -> StackedMLP:
    """Train by RAI in rounds, as in ``fit_growing``, each with targets from a fresh forward pass.

    The optimiser starts afresh with them, so the new targets are the ones that it trains.
    """
    for part in _share_out(phase, rounds):
        model = _relaxed(model, dataset, part)
    return model


def fit_stopped(model: StackedMLP, dataset: Dataset, phase: Phase, points: int) -> StackedMLP:
    """Train by RAI and return each network as it was when its held-out loss was lowest.

    About so many ``points`` are compared, evenly spaced on a log axis. The held-out part chooses,
    so it may not judge.
    """
    steps = schedule(phase.steps, points)
    fit = _fit(model, dataset, phase, watch=Watch(evaluate_at=steps, snapshot_at=steps))
    stopped = stop_early(fit, dataset.held_out_x, dataset.held_out_y, dataset.task).stopped_at
    return stack([fit.snapshots[int(step)].select([i]) for i, step in enumerate(stopped)])


GROWTH_ROUNDS = 5


@dataclass(frozen=True)
class Regulariser:
    """One way to regularise, and how strongly it is tried.

    Attributes:
        train: (networks, data, phase, strength) -> trained networks.
        strengths: what is tried, ascending: until the best lies inside, or at one of ``ends``.
        meaning: what the strength is.
        ends: strengths beyond which there is nothing more to try of this regulariser.
    """

    train: Callable[[StackedMLP, Dataset, Phase, float], StackedMLP]
    strengths: tuple[float, ...]
    meaning: str
    ends: tuple[float, ...] = ()


REGULARISERS: dict[str, Regulariser] = {
    "none": Regulariser(
        lambda model, data, phase, rate: _relaxed(model, data, replace(phase, learning_rate=rate)),
        (0.003, 0.01, 0.03, 0.1, 0.3),
        "learning rate",
    ),
    "weight decay": Regulariser(
        lambda model, data, phase, decay: _relaxed(model, data, replace(phase, weight_decay=decay)),
        (1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
        "penalty on the weights",
    ),
    "fixed λ": Regulariser(
        lambda model, data, phase, weight: _relaxed(model, data, phase, hidden_weight=weight),
        (0.1, 10.0, 30.0, 100.0, 1000.0),
        "λ",
    ),
    "growing λ": Regulariser(
        lambda model, data, phase, factor: fit_growing(
            model, data, phase, [factor**k for k in range(GROWTH_ROUNDS)]
        )[0],
        (1.1, 1.25, 1.5, 2.0, 4.0),
        f"factor on λ = 1, {GROWTH_ROUNDS - 1} times",
        ends=(1.1,),  # a factor of 1 is rounds alone
    ),
    "multipliers": Regulariser(
        lambda model, data, phase, rounds: fit_with_multipliers(model, data, phase, int(rounds))[0],
        (2, 3, 5, 10, 20),
        "rounds",
        ends=(2,),  # in one round there is no multiplier yet
    ),
    "target noise": Regulariser(
        lambda model, data, phase, deviation: _relaxed(
            model, data, phase, objective=with_target_noise(deviation, seeded(0))
        ),
        (0.003, 0.01, 0.03, 0.1, 0.3),
        "standard deviation",
    ),
    "target decay": Regulariser(
        lambda model, data, phase, decay: _relaxed(
            model, data, phase, objective=with_target_decay(decay)
        ),
        (1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
        "penalty on the targets",
    ),
    "early stopping": Regulariser(
        lambda model, data, phase, points: fit_stopped(model, data, phase, int(points)),
        (5, 10, 20, 40, 100),
        "steps compared",
        ends=(5, 100),  # how closely the run is looked through, from hardly to nearly every step
    ),
    "renewed targets": Regulariser(
        lambda model, data, phase, rounds: fit_renewed(model, data, phase, int(rounds)),
        (2, 5, 10, 20, 40),
        "rounds",
        ends=(2,),  # one round is plain RAI
    ),
    # What the rounds do by themselves: they start the optimiser afresh.
    "rounds alone": Regulariser(
        lambda model, data, phase, rounds: fit_growing(model, data, phase, [1.0] * int(rounds))[0],
        (2, 5, 10, 20, 40),
        "rounds",
        ends=(2,),
    ),
    "backprop": Regulariser(
        lambda model, data, phase, rate: (
            fit_backprop(model, data, replace(phase, learning_rate=rate), **_QUIET).model
        ),
        (0.0001, 0.0003, 0.001, 0.003, 0.01),
        "learning rate",
    ),
}

PROBLEMS: dict[str, Callable[..., Dataset]] = {
    "noisy moons": partial(moons, 100, 0.3),
    "noisy XOR": partial(exclusive_or, 100, 0.5),
}


def measure(
    problem: str,
    regulariser: str,
    strength: float,
    draws: int,
    seeds: int,
    hidden_layers: int,
    width: int,
    steps: int,
    learning_rate: float,
) -> dict[str, Any]:
    """One cell: one strength of one regulariser, on several draws of 100 training examples.

    On each draw, 0 … draws − 1, the same seeds' ReLU networks with default initialisation are
    trained by Adam. 500 validation examples are there to stop early and to choose a strength; 2 000
    others judge. Three seeds at least: disagreements of pairs need them.

    Returns:
        Mean over the seeds, one number a draw: ``training``, ``validation``, ``validation_loss``
            and ``test`` (accuracies of the plain forward pass, and the loss), and ``disagreement``,
            the share of the square [−3, 3]² that two networks of one draw decide differently, mean
            over their pairs.
    """
    one_of(problem, PROBLEMS, "problem")
    one_of(regulariser, REGULARISERS, "regulariser")
    seeds = whole_number(seeds, "seeds", 2)
    architecture = Architecture((2, *(width,) * hidden_layers, 1), "relu")
    rows = []
    for draw in confirmation_seeds(draws):
        data = PROBLEMS[problem](draw, 500, 1_000_000 + draw)
        test = PROBLEMS[problem](draw, 2000, 2_000_000 + draw)
        start = build_mlp(architecture, confirmation_seeds(seeds))
        phase = Phase(steps, learning_rate, "adam")
        model = REGULARISERS[regulariser].train(start, data, phase, strength)
        _, training = evaluate(model, data.x, data.y, data.task)
        loss, validation = evaluate(model, data.held_out_x, data.held_out_y, data.task)
        _, judged = evaluate(model, test.held_out_x, test.held_out_y, data.task)
        _, maps = decision_map(model, resolution=61)
        spread = mean_of_pairs(disagreement(maps, maps), range(seeds))
        rows.append([training.mean(), validation.mean(), loss.mean(), judged.mean(), spread])
    names = ("training", "validation", "validation_loss", "test", "disagreement")
    return dict(zip(names, np.array(rows).T.tolist(), strict=True))


def chosen_strengths(cells: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Take each regulariser at the strength that did best on the validation examples.

    The cells are arguments and results of ``measure`` in one mapping each. Returns problem to
    regulariser to the cell with the highest validation accuracy, mean over the draws; the lower
    validation loss decides between equals.
    """
    chosen: dict[str, dict[str, dict[str, Any]]] = {}

    def merit(cell: dict[str, Any]) -> tuple[float, float]:
        return float(np.mean(cell["validation"])), -float(np.mean(cell["validation_loss"]))

    for cell in cells:
        best = chosen.setdefault(cell["problem"], {})
        rival = best.get(cell["regulariser"])
        if rival is None or merit(cell) > merit(rival):
            best[cell["regulariser"]] = cell
    return chosen


def at_edges(chosen: dict[str, dict[str, dict[str, Any]]]) -> list[tuple[str, str, float]]:
    """Return the problem, regulariser and strength at each edge of a range that is no end of it.

    The argument is what ``chosen_strengths`` returns.
    """
    found = []
    for problem, best in chosen.items():
        for name, cell in best.items():
            strengths, strength = REGULARISERS[name].strengths, cell["strength"]
            outermost = strength in (strengths[0], strengths[-1])
            if outermost and strength not in REGULARISERS[name].ends:
                found.append((problem, name, strength))
    return found


def change(cell: dict[str, Any], reference: dict[str, Any], quantity: str) -> NDArray[np.float64]:
    """Return what a cell has more of a quantity than a reference on the same draws, (draws,).

    The quantity is a key of both, or ``"gap"``, training less test accuracy.
    """

    def values(of: dict[str, Any]) -> NDArray[np.float64]:
        if quantity == "gap":
            return np.array(of["training"]) - np.array(of["test"])
        return np.array(of[quantity])

    return values(cell) - values(reference)


NETWORKS = {"draws": 10, "seeds": 8, "hidden_layers": 3, "width": 32}
TRAINING = {"steps": 400, "learning_rate": 0.01}
SWEEPS = (
    Sweep(
        "regularisers",
        tuple(
            {"problem": problem, "regulariser": name, "strength": strength, **NETWORKS, **TRAINING}
            for problem in PROBLEMS
            for name, regulariser in REGULARISERS.items()
            for strength in regulariser.strengths
        ),
        measure,
    ),
)

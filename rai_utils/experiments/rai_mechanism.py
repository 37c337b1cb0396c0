"""What the notebook rai-mechanism measures, and the long runs that it reads (``make study``).

Sigmoid networks on Moons, from torch's default initialisation; network k has a draw of the data of
its own. Accuracies are those of the plain forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rai_utils.checks import one_of, seeded, whole_number
from rai_utils.data import Dataset, moons_draw
from rai_utils.diagnostics import backward_gains, gradients_of, logistic_regression
from rai_utils.experiments.sweep import Cell, Sweep, ends, finite, grid
from rai_utils.models import (
    Architecture,
    StackedMLP,
    build_mlp,
    confirmation_seeds,
    pre_activations,
    stack,
)
from rai_utils.relaxation import (
    RelaxationPlan,
    RelaxedLoss,
    Targets,
    forward_targets,
    predictions,
    relaxation_plan,
    relaxed_loss,
    with_gradients,
)
from rai_utils.training import (
    Fit,
    Objective,
    Phase,
    Watch,
    compile_rprop,
    fit_backprop,
    fit_relaxed,
)

Array = NDArray[np.float64]

# RAI steps after the front has passed: a network of T hidden layers takes T and these.
AFTER_FRONT = 120
# First step of Rprop in the second phase of a hand-over at 100 hidden layers.
SECOND_RATE = 1e-4
NETWORKS = 10
# Number of the first network that confirms what others have suggested.
FRESH = 100
# Held-out accuracy above which a network has left chance.
LEFT_CHANCE = 0.7
# Layers whose directions are published, of 100 hidden ones and the output.
SHOWN_LAYERS = (1, 2, 3, 4, 10, 30, 50, 70, 90, 100)
SHOWN_STEPS = (0, 60, 101, 110, 130, 220)

# Which layers are relaxed, of T linear ones.
SUBSETS: Mapping[str, Callable[[int], Collection[int]]] = {
    "all": lambda T: range(1, T + 1),
    "every 2nd": lambda T: range(2, T + 1, 2),
    "every 10th": lambda T: range(10, T + 1, 10),
    "first half": lambda T: range(1, T // 2 + 1),
    "last half": lambda T: range(T // 2 + 1, T + 1),
}

# Which layers the second phase of a hand-over trains.
SECOND_PHASES: Mapping[str, Callable[[int], Collection[int]]] = {
    "all": lambda T: range(1, T + 1),
    "1": lambda T: [1],
    "1 and 2": lambda T: [1, 2],
    "3 to T": lambda T: range(3, T + 1),
    "4 to T": lambda T: range(4, T + 1),
}


def draw(network: int, left_out: int = 0) -> Dataset:
    """Return the data of a network: Moons, without some examples of class 0.

    Args:
        network: number of the draw, as in ``moons_draw``.
        left_out: training examples of class 0 to leave out, of 50; the held-out data stays
            balanced, so its chance is ½.
    """
    data = moons_draw(network)
    left_out = whole_number(left_out, "left_out", 0, 49)
    rows = torch.cat([(data.y == 0).nonzero()[left_out:], (data.y == 1).nonzero()])[:, 0]
    rows = rows.sort().values
    return replace(data, x=data.x[rows], y=data.y[rows])


def centred(model: StackedMLP) -> StackedMLP:
    """Write sigmoid networks in centred coordinates: the same functions, another descent.

        W_t σ(z) + b_t = W_t (σ(z) − ½) + b'_t,        b'_t = b_t + ½ Σ_k W_t,k

    A gradient of W_t is then a sum of residuals times σ(z) − ½, which has either sign, where it was
    one of residuals times σ(z) > 0 (Schraudolph 1998, *Centering neural network gradient factors*).
    Networks of another hidden activation are refused with a ValueError.
    """
    if model.architecture.hidden_activation != "sigmoid":
        raise ValueError(
            f"networks must be of sigmoids, got {model.architecture.hidden_activation}"
        )
    weights = [weight.detach().clone() for weight in model.weights]
    biases = [bias.detach().clone() for bias in model.biases]
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        bias += weight.sum(3)[:, :, None] / 2
    shape = replace(model.architecture, hidden_activation="centred_sigmoid")
    return StackedMLP(shape, weights, biases, model.drawn_from)


@torch.no_grad()
def term_sizes(
    plan: RelaxationPlan,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    values: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
) -> list[Tensor]:
    """Return what the gradient of each number would be if none of its terms cancelled.

    The relaxed loss is a sum over layers, examples and units, and the gradient of a number is the
    sum of what each of these pulls; here their sizes are added. For r_t = ẑ_t − z_t, with n
    examples, of a weight, a bias and a target

        2/(n l_t) Σ_i |r_tij h_ik|,    2/(n l_t) Σ_i |r_tij|,
        2/(n l_t) |r_tik| + 2/(n l_{t+1}) |φ'(z_tik)| Σ_j |r_{t+1,ij} W_{t+1,jk}|,

    and |σ(z_T) − y|/n more for a target of the output. Arguments as of ``relaxed_loss``; a layer
    that is not relaxed is refused with a ValueError.

    Returns:
        Sizes of the shapes of weights, biases and values, in this order.
    """
    architecture = plan.architecture
    if len(plan.layers) < architecture.depth:
        raise ValueError(f"every layer must be relaxed, got {len(plan.layers)} of {plan.layers}")
    activation = architecture.activation
    predicted = predictions(plan, weights, biases, values, x)
    residuals = [(ours - v).abs() for ours, v in zip(predicted, values, strict=True)]
    sizes = [torch.zeros_like(leaf) for leaf in (*weights, *biases, *values)]
    runs = len(weights)
    pulled = sizes[2 * runs :]
    h = x.expand(values[0].shape[1], *x.shape)  # (seeds, examples, l_{t−1})
    for layer, width in enumerate(architecture.widths[1:], 1):
        (run, row), (group, place) = architecture.locate(layer), plan.locate(layer)
        residual = residuals[group][place] * (2 / (len(x) * width))
        sizes[run][row] = residual.mT @ h.abs()
        sizes[runs + run][row] = residual.sum(1, keepdim=True)
        pulled[group][place] += residual
        if layer > 1:
            below, at = plan.locate(layer - 1)
            z = values[below][at]
            slope = activation.pull_back(torch.ones_like(z), activation.kept(z, h)).abs()
            pulled[below][at] += residual @ weights[run][row].abs() * slope
        h = activation.function(values[group][place])
    pulled[-1][-1] += (values[-1][-1].sigmoid() - y[:, None]).abs() / len(x)
    return sizes


def with_dead_zone(threshold: float, is_relative: bool = False) -> Objective:
    """Return the relaxed loss with gradients that count as 0 below a size, for one fit.

    Args:
        threshold: the size.
        is_relative: whether the size is so many times ``term_sizes``.
    """
    sizes: list[Tensor] = []

    def measured(*arguments: Any, **options: Any) -> RelaxedLoss:
        sizes[:] = term_sizes(*arguments)
        return relaxed_loss(*arguments, **options)

    def counted(gradient: Tensor, place: int, kind: str) -> Tensor:
        size = sizes[place] if is_relative else 1.0
        return gradient * (gradient.abs() >= threshold * size)

    return with_gradients(counted, measured if is_relative else relaxed_loss)


def looking(look: Callable[..., object]) -> Objective:
    """Return the relaxed loss; before step k ``look(k, plan, weights, biases, values, x)``."""
    step = -1

    def objective(*arguments: Any, **options: Any) -> RelaxedLoss:
        nonlocal step
        step += 1
        look(step, *arguments[:5])
        return relaxed_loss(*arguments, **options)

    return objective


def first_direction(z: Tensor, compared: Sequence[Array]) -> list[float]:
    """How far one direction is all that tells examples apart, and what it says.

    Args:
        z: pre-activations or targets of one layer, (examples, units).
        compared: numbers of the examples, (examples,) each.

    Returns:
        Share of the variance across examples in the first principal direction, then the absolute
        correlation of the examples' coordinate along it with each of ``compared``; NaN where all
        examples are one point.
    """
    coordinates, sizes, _ = torch.linalg.svd(z.double() - z.double().mean(0), full_matrices=False)
    if not sizes[0]:
        return [np.nan] * (1 + len(compared))
    along = coordinates[:, 0].numpy()
    correlations = [abs(float(np.corrcoef(along, each)[0, 1])) for each in compared]
    return [float(sizes[0].square() / sizes.square().sum()), *correlations]


def references(data: Dataset) -> tuple[Array, Array]:
    """Return the score of logistic regression and the label, ±1, of each training example."""
    from sklearn.linear_model import LogisticRegression

    x, y = data.x.numpy(), data.y.numpy()
    score = LogisticRegression(C=np.inf, max_iter=10_000).fit(x, y).decision_function(x)
    return score, 2.0 * y - 1


def line_map(data: Dataset, grid: Array) -> Array:
    """P(class 1) by logistic regression on a square grid, rows upwards, (points, points)."""
    from sklearn.linear_model import LogisticRegression

    first, second = np.meshgrid(grid, grid)
    points = np.stack([first.ravel(), second.ravel()], 1)
    fitted = LogisticRegression(C=np.inf, max_iter=10_000).fit(data.x.numpy(), data.y.numpy())
    return fitted.predict_proba(points)[:, 1].reshape(first.shape)


def trace(
    model: StackedMLP, data: Dataset, phase: Phase, marks: Sequence[int], layers: Sequence[int]
) -> tuple[Fit, Array, Array]:
    """Train one network by RAI, and look at the first direction of its layers on the way.

    Args:
        model: the network.
        data: its examples.
        phase: of the RAI steps.
        marks: ascending steps, the last that of the phase.
        layers: numbers of the layers to look at, 1 … T.

    Returns:
        The fit, with a snapshot at each mark; and for the targets, then for the plain forward pass,
        ``first_direction`` with logistic score and label, (marks, layers, 3).
    """
    compared = references(data)
    found: dict[int, list[list[float]]] = {}

    def note(step: int, targets: Targets) -> None:
        found[step] = [first_direction(targets.at(t)[0].detach(), compared) for t in layers]

    def look(step: int, plan: Any, weights: Any, biases: Any, values: Any, x: Tensor) -> None:
        if step in marks:
            note(step, Targets(plan, tuple(values), x))

    watch = Watch(evaluate_at=marks, snapshot_at=marks)
    fit = fit_relaxed(model, data, phase, objective=looking(look), watch=watch)
    note(phase.steps, fit.relaxed_targets)
    forward_pass = [pre_activations(fit.snapshots[mark], data.x) for mark in marks]
    return (
        fit,
        np.array([found[mark] for mark in marks]),
        np.array([[first_direction(z[t - 1][0], compared) for t in layers] for z in forward_pass]),
    )


def mean_field_gain(width: int) -> float:
    """Backward gain of wide sigmoid layers from torch's default start, at the fixed point.

    Weights and biases are uniform on ±1/√n, so n Var(W) = 1/3 and Var(b) = 1/(3n). With Z standard
    normal (Schoenholz et al. 2017, *Deep information propagation*, Eq. 3 and 9):

        q = E[σ(√q Z)²]/3 + 1/(3n),        gain² = E[σ'(√q Z)²]/3.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    weights /= weights.sum()
    q = 0.1
    for _ in range(100):
        h = 1 / (1 + np.exp(-(q**0.5) * points))
        q = float(weights @ h**2) / 3 + 1 / (3 * width)
    return float(weights @ (h * (1 - h)) ** 2 / 3) ** 0.5


def common_jump(model: StackedMLP, data: Dataset, layer: int, count: int, rate: float) -> Array:
    """How far one step moves all examples together where the front has just passed.

    Args:
        model: one network.
        data: its examples.
        layer: whose prediction ẑ_t to follow, 2 … T − 1.
        count: RAI steps.
        rate: first step of Rprop.

    Returns:
        For each step, of the residual ẑ_t − z_t of that layer, (count, 3): root mean square over
        units of its mean over all examples; of half the difference of its means over the classes;
        and the size of the cosine between the two, 0 where one of them is 0.
    """
    ones = data.y > 0.5
    rows = []

    def look(step: int, plan: Any, weights: Any, biases: Any, values: Any, x: Tensor) -> None:
        group, place = plan.locate(layer)
        predicted = predictions(plan, weights, biases, values, x)[group][place, 0]
        residual = (predicted - values[group][place, 0]).detach().double()  # (examples, units)
        common, half = residual.mean(0), (residual[ones].mean(0) - residual[~ones].mean(0)) / 2
        cosine = torch.nn.functional.cosine_similarity(common, half, dim=0, eps=1e-30).abs()
        sizes = [float(part.square().mean().sqrt()) for part in (common, half)]
        rows.append([*sizes, float(cosine)])

    fit_relaxed(
        model, data, Phase(count, rate), objective=looking(look), watch=Watch(evaluate_at=())
    )
    return np.array(rows)


def network_cell(
    network: int, hidden_layers: int, width: int, rate: float, second_steps: int
) -> dict[str, Any]:
    """Train a network by RAI, and look at what each layer holds; then parts of it by backprop.

    Args:
        network: its number, and that of its data.
        hidden_layers: depth.
        width: of the hidden layers.
        rate: first step of Rprop, of the RAI steps.
        second_steps: backpropagation steps of each second phase.

    Returns:
        For ``targets`` and ``forward`` (pass), by step and layer of ``SHOWN_STEPS`` and
        ``SHOWN_LAYERS``: share of the variance in the first direction, its correlation with the
        logistic score, and with the label, or None; ``gains_at_start``, ``gains_after``: backward
        gain per layer, input to output, in float64; ``train``, ``held_out`` after RAI; for each
        of ``SECOND_PHASES`` ``second_train`` and ``second_held_out``; ``line_train`` and
        ``line_held_out``: of logistic regression.
    """
    data = draw(network)
    start = build_mlp(Architecture((2, *[width] * hidden_layers, 1)), [network])
    shown = [layer for layer in SHOWN_LAYERS if layer <= hidden_layers]
    count = hidden_layers + AFTER_FRONT
    marks = [*(step for step in SHOWN_STEPS if step < count), count]
    compile_rprop()
    fit, *found = trace(start, data, Phase(count, rate), marks, shown)
    result: dict[str, Any] = {"steps": marks, "layers": shown}
    for name, values in zip(("targets", "forward"), found, strict=True):
        result[name] = finite(values.round(5))
    for name, model in (("gains_at_start", start), ("gains_after", fit.model)):
        # The step below the output layer is left out: it depends on the output's width.
        result[name] = finite(backward_gains(model, data)[:-1], 4)
    parts = [chosen(hidden_layers + 1) for chosen in SECOND_PHASES.values()]
    second = fit_backprop(
        stack([fit.model] * len(parts)),
        data,
        Phase(second_steps, SECOND_RATE, smallest_step=1e-12),
        watch=Watch(evaluate_at=(second_steps,)),
        find=gradients_of(parts),
    ).history
    train, held_out = second.accuracy[-1].tolist(), second.held_out_accuracy[-1].tolist()
    line_train, line_held_out = logistic_regression(data)
    return result | {
        "train": float(fit.history.accuracy[-1, 0]),
        "held_out": float(fit.history.held_out_accuracy[-1, 0]),
        "second_train": dict(zip(SECOND_PHASES, train, strict=True)),
        "second_held_out": dict(zip(SECOND_PHASES, held_out, strict=True)),
        "line_train": line_train,
        "line_held_out": line_held_out,
    }


def relay_cell(
    network: int,
    hidden_layers: int,
    width: int,
    rates: list[float],
    left_out: int = 0,
    is_centred: bool = False,
    residual: float = 0.0,
    threshold: float = 0.0,
    is_relative: bool = False,
    relaxed: str = "all",
    precision: str = "float32",
) -> dict[str, Any]:
    """Does RAI leave chance? One network at each of several first steps.

    Args:
        network: its number, and that of its data.
        hidden_layers: depth; RAI takes as many steps and ``AFTER_FRONT`` more.
        width: of the hidden layers.
        rates: first steps of Rprop.
        left_out: see ``draw``.
        is_centred: whether the network is written in ``centred`` coordinates.
        residual: standard deviation of what is added to targets that start as the forward pass.
        threshold: size below which a gradient counts as 0.
        is_relative: whether that size is so many times the sum of the sizes of its terms.
        relaxed: a key of ``SUBSETS``.
        precision: ``"float32"`` or ``"float64"``.

    Returns:
        ``train``, ``held_out``: accuracy after the last step at each rate, None where the network
        is not finite.
    """
    one_of(relaxed, SUBSETS, "relaxed")
    data = draw(network, left_out)
    shape = Architecture((2, *[width] * hidden_layers, 1))
    start = build_mlp(shape, [network], dtype=getattr(torch, precision))
    start = stack([centred(start) if is_centred else start] * len(rates))
    plan = relaxation_plan(start.architecture, SUBSETS[relaxed](shape.depth))
    targets = forward_targets(start, data.x.to(start.weights[0].dtype), plan)
    if residual:
        generator = seeded(network)
        for value in targets.values:
            one_draw = value[:, :1].shape  # for all rates, (layers, 1, examples, width)
            value += residual * torch.randn(one_draw, dtype=value.dtype, generator=generator)
    compile_rprop()
    count = hidden_layers + AFTER_FRONT
    history = fit_relaxed(
        start,
        replace(data, x=targets.x),
        Phase(count, tuple(rates)),
        targets=targets,
        objective=with_dead_zone(threshold, is_relative) if threshold else relaxed_loss,
        watch=Watch(evaluate_at=(count,)),
    ).history
    return ends(history)


# Sizes below which a gradient counts as 0; and in units of the sum of the sizes of its terms, where
# 1 is the end: no gradient is greater.
ABSOLUTE_THRESHOLDS = (1e-8, 1e-7, 1e-6, 1e-5)
RELATIVE_THRESHOLDS = (1e-4, 1e-3, 0.01, 0.1, 0.3, 1.0)

# First steps in units of 1/√width.
UNITS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
# Those inside the window, and those that must lie outside.
INSIDE, OUTSIDE = (1.0, 1.4), (0.5, 4.0)
JUDGED_UNITS = (0.5, 1.0, 1.4, 4.0)


def _relay_cells(networks: int, first: int = 0, **changes: Any) -> tuple[Cell, ...]:
    """Return a cell for each of some networks, of the proposal's shape and step but for changes."""
    cell: Cell = {"hidden_layers": 100, "width": 100, "rates": [0.1], **changes}
    return grid(cell, network=confirmation_seeds(networks, first))


def _in_units(width: int, units: Sequence[float]) -> list[float]:
    """Return first steps that are so many times 1/√width."""
    return [float(f"{unit / width**0.5:.4g}") for unit in units]


def _window_cells() -> tuple[Cell, ...]:
    shapes = (
        (100, False, {20: 10, 50: 10, 100: 5}),
        (30, False, {20: 10, 50: 10, 100: 10, 200: 4}),
        (10, False, {20: 5, 50: 5, 100: 5}),
        (30, True, {20: 3, 50: 3, 100: 3}),
    )  # hidden layers, whether it is centred, and how many networks each width has
    return tuple(
        cell
        for depth, is_centred, networks in shapes
        for width, count in networks.items()
        for cell in _relay_cells(
            count,
            hidden_layers=depth,
            width=width,
            rates=_in_units(width, UNITS),
            is_centred=is_centred,
        )
    )


def _fresh_window_cells() -> tuple[Cell, ...]:
    """What judges the window: networks that no other sweep has, their number fixed unseen."""
    return tuple(
        cell
        for depth, widths, units, networks in (
            (100, (20, 50, 100), JUDGED_UNITS, NETWORKS),
            (30, (20, 50, 100), UNITS, NETWORKS),
            (30, (200,), UNITS, 4),
        )
        for width in widths
        for cell in _relay_cells(
            networks, FRESH, hidden_layers=depth, width=width, rates=_in_units(width, units)
        )
    )


def _balance_cells() -> tuple[Cell, ...]:
    ways = [(1, False, NETWORKS), (1, True, NETWORKS), (10, True, 5)]
    return tuple(
        cell
        for left_out, is_centred, networks in ways
        for cell in _relay_cells(networks, left_out=left_out, is_centred=is_centred)
    )


def _residual_cells() -> tuple[Cell, ...]:
    sizes, either = (0.0, 1e-8, 1e-6), (False, True)
    absolute, relative = (0.0, *ABSOLUTE_THRESHOLDS), RELATIVE_THRESHOLDS
    ways = (
        *grid({"precision": "float32"}, is_centred=either, threshold=absolute, residual=sizes),
        *grid({"precision": "float64", "is_centred": False, "threshold": 0.0}, residual=sizes[:2]),
        *grid({"is_relative": True}, is_centred=either, threshold=relative, residual=sizes),
    )
    return tuple(cell for way in ways for cell in _relay_cells(NETWORKS, hidden_layers=30, **way))


# What judges M4: starts of networks that no other sweep has. So many are the fewest, and one more,
# of which none or all decide at limits of 0.1 and 0.9.
JUDGES, FIRST_JUDGE = 36, 200
# What did best at its worst size of residual on the first networks.
BEST_THRESHOLD: Cell = {"threshold": 1e-6}
JUDGED: dict[str, Cell] = {
    "exact zeros": {"hidden_layers": 30},
    "residuals of 1e-8": {"hidden_layers": 30, "residual": 1e-8},
    "best threshold, 1e-8": {"hidden_layers": 30, "residual": 1e-8, **BEST_THRESHOLD},
    "best threshold, 1e-6": {"hidden_layers": 30, "residual": 1e-6, **BEST_THRESHOLD},
    "balanced": {},
    "one left out": {"left_out": 1},
    "one left out, centred": {"left_out": 1, "is_centred": True},
    "ten left out, centred": {"left_out": 10, "is_centred": True},
}


def _judging_cells() -> tuple[Cell, ...]:
    return tuple(
        cell for way in JUDGED.values() for cell in _relay_cells(JUDGES, FIRST_JUDGE, **way)
    )


def _partial_cells() -> tuple[Cell, ...]:
    ways = [("every 2nd", False, 100, NETWORKS, [0.1, 0.14])]
    ways += [(name, False, 100, NETWORKS, [0.14]) for name in ("first half", "last half")]
    rates = [0.05, 0.1, 0.14]
    ways += [(name, way, 30, 3, rates) for name in SUBSETS for way in (False, True)]
    return tuple(
        cell
        for name, is_centred, depth, networks, tried in ways
        for cell in _relay_cells(
            networks, hidden_layers=depth, rates=tried, relaxed=name, is_centred=is_centred
        )
    )


SWEEPS = (
    Sweep(
        "mechanism-networks",
        grid(
            {"hidden_layers": 100, "width": 100, "rate": 0.1, "second_steps": 150},
            network=range(NETWORKS),
        ),
        network_cell,
    ),
    Sweep("mechanism-balance", _balance_cells(), relay_cell),
    Sweep("mechanism-window", _window_cells(), relay_cell),
    Sweep("mechanism-fresh-window", _fresh_window_cells(), relay_cell),
    Sweep("mechanism-partial", _partial_cells(), relay_cell),
    Sweep("mechanism-residuals", _residual_cells(), relay_cell),
    Sweep("mechanism-judges", _judging_cells(), relay_cell),
)

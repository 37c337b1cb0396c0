"""What the notebook rai-optimizers measures, and the long runs that it reads (``make study``).

Sigmoid networks on Moons from torch's default weights; network k has a draw of the data of its own.
Each is trained on one of three objectives by a first-order method, or by L-BFGS. Accuracies are
those of the plain forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from rai_utils.checks import one_of, seeded
from rai_utils.data import Dataset, moons_draw
from rai_utils.experiments.sweep import Cell, Sweep, ends, finite, grid
from rai_utils.models import (
    Architecture,
    StackedMLP,
    build_mlp,
    confirmation_seeds,
    development_seeds,
    forward,
    stack,
)
from rai_utils.relaxation import (
    RelaxedLoss,
    Targets,
    forward_targets,
    guided_targets,
    output_loss,
    relaxation_plan,
    relaxed_loss,
    resting,
    with_gradients,
)
from rai_utils.training import (
    Fit,
    History,
    Phase,
    Watch,
    compile_rprop,
    evaluate,
    fit_backprop,
    fit_relaxed,
)
from rai_utils.tuning import tune

Array = NDArray[np.float64]

OBJECTIVES = ("plain", "relaxed", "guided")
# Guided targets rest for so many steps, as in rai-guided-starts; seed of their draw for network 0.
REST, GUIDE = 50, 500_000
SMALLEST_STEP, TIE_MARGIN = 1e-12, 1e-3
TUNING_DRAW = 1100


@dataclass(frozen=True)
class Method:
    """A method of optimisation and the rates at which its search begins.

    Attributes:
        rule: a key of ``training.UPDATE_RULES``; None for L-BFGS.
        rates: the first grid, descending, in a constant ratio.
        limits: between which it may be widened.
    """

    rule: str | None
    rates: tuple[float, ...]
    limits: tuple[float, float]


def _grid(middle: float, ratio: float) -> tuple[float, ...]:
    return tuple(float(f"{middle * ratio**power:.4g}") for power in (2, 1, 0, -1, -2))


# The grids are from networks and draws of development, at 10 and 30 layers.
_LINEAR = _grid(0.1, 10**0.5), (1e-6, 1e6)  # whose step is rate times gradient
_STEPS = _grid(0.08, 2.0), (1e-8, 50.0)  # whose step has the size of the rate
METHODS: dict[str, Method] = {
    "SGD": Method("sgd", *_LINEAR),
    "momentum": Method("momentum", *_LINEAR),
    "Nesterov": Method("nesterov", *_LINEAR),
    "Adagrad": Method("adagrad", _grid(0.32, 2.0), (1e-8, 50.0)),
    "RMSprop": Method("rmsprop", *_STEPS),
    "Adam": Method("adam", *_STEPS),
    "NAdam": Method("nadam", *_STEPS),
    "Muon": Method("muon", *_STEPS),
    "sign SGD": Method("sign_sgd", *_STEPS),
    "Rprop": Method("rprop", _grid(0.22, 2.0), (1e-8, 50.0)),
    "L-BFGS": Method(None, _grid(1.0, 10**0.5), (1e-6, 1e6)),
}
FIRST_ORDER = tuple(name for name, method in METHODS.items() if method.rule)


def starting_targets(
    objective: str, model: StackedMLP, data: Dataset, residual: float = 0.0
) -> Targets | None:
    """Return where the targets of an objective start; None for ``"plain"``.

    Args:
        objective: of ``OBJECTIVES``.
        model: the networks, each of a seed.
        data: what they are trained on.
        residual: standard deviation of noise on targets that start as the forward pass.
    """
    one_of(objective, OBJECTIVES, "objective")
    if objective == "plain":
        return None
    if objective == "guided":
        return guided_targets(model, data, [GUIDE + seed for seed in model.drawn_from])
    x = data.x.to(model.weights[0].dtype)
    targets = forward_targets(model, x, relaxation_plan(model.architecture))
    if residual:
        generator = seeded(model.drawn_from[0])
        for value in targets.values:
            value += residual * torch.randn(value.shape, generator=generator).to(value)
    return targets


def changed(
    loss: Callable[..., RelaxedLoss], reads_signs: bool = False, target_ratio: float = 1.0
) -> Callable[..., RelaxedLoss]:
    """Return a relaxed loss whose gradients a method sees otherwise, for one fit.

    Args:
        loss: to change.
        reads_signs: whether it sees the sign of each gradient alone.
        target_ratio: factor on the gradients of the targets; where steps are proportional to the
            gradient, the rate of the targets over that of the weights.
    """

    def seen(gradient: Tensor, place: int, kind: str) -> Tensor:
        gradient = gradient.sign() if reads_signs else gradient
        return gradient * target_ratio if kind == "target" else gradient

    return with_gradients(seen, loss)


def fit_by_rule(
    model: StackedMLP,
    data: Dataset,
    phase: Phase,
    *,
    objective: str,
    residual: float = 0.0,
    watch: Watch | None = None,
    reads_signs: bool = False,
    target_ratio: float = 1.0,
) -> Fit:
    """Train networks on an objective by the update rule of the phase; arguments as elsewhere."""
    targets = starting_targets(objective, model, data, residual)
    if targets is None:
        return fit_backprop(model, data, phase, watch=watch, device="cpu")
    loss = resting(REST) if objective == "guided" else relaxed_loss
    if reads_signs or target_ratio != 1:
        loss = changed(loss, reads_signs, target_ratio)
    data = replace(data, x=targets.x)
    return fit_relaxed(
        model, data, phase, targets=targets, objective=loss, watch=watch, device="cpu"
    )


def fit_lbfgs(
    model: StackedMLP,
    data: Dataset,
    phase: Phase,
    *,
    objective: str,
    residual: float = 0.0,
    watch: Watch | None = None,
) -> Fit:
    """Train each network by torch's L-BFGS, with a strong Wolfe line search and a memory of 10.

    A step of the phase is one evaluation of loss and gradient; the last line search may exceed them
    by some. Guided targets rest for the first ``REST``, and the method then starts anew with the
    targets. The phase's rate is the length of the first trial of each line search; its optimiser
    counts for nothing. ``watch`` is not read: the end alone is evaluated.
    """
    trained = [
        _lbfgs_alone(model.select([position]), data, phase, position, objective, residual)
        for position in range(model.seeds)
    ]
    networks = stack(trained)
    rows = [
        np.stack(evaluate(networks, x, y, data.task))  # (2, networks)
        for x, y in ((data.x, data.y), (data.held_out_x, data.held_out_y))
    ]
    none, looked = np.empty(0), np.array([phase.steps])
    history = History(
        looked, *(row[None] for pair in rows for row in pair), looked[:0], *[none] * 6, ()
    )
    return Fit(networks, None, history, {}, none)


def _lbfgs_alone(
    model: StackedMLP, data: Dataset, phase: Phase, position: int, objective: str, residual: float
) -> StackedMLP:
    """Return one network trained by L-BFGS at its own rate of the phase."""
    architecture, rates = model.architecture, phase.learning_rate
    targets = starting_targets(objective, model, data, residual)
    begin = [*model.weights, *model.biases, *(targets.values if targets else ())]
    leaves = [part.detach().clone().requires_grad_() for part in begin]
    runs = len(architecture.runs)
    weights, biases, values = leaves[:runs], leaves[runs : 2 * runs], leaves[2 * runs :]

    def find_loss() -> Tensor:
        if targets is None:
            z = forward(architecture, weights, biases, data.x)
            return output_loss(z, data.y, architecture.output_activation).sum()
        return relaxed_loss(targets.plan, weights, biases, values, data.x, data.y).total.sum()

    rest = min(REST, phase.steps) if objective == "guided" else 0
    for moved, count in ((leaves[: 2 * runs], rest), (leaves, phase.steps - rest)):
        if not count:
            continue
        optimizer = torch.optim.LBFGS(
            moved,
            lr=rates[position] if isinstance(rates, tuple) else rates,
            max_iter=count,
            max_eval=count,
            tolerance_grad=0,
            tolerance_change=0,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            for leaf in leaves:
                leaf.grad = None
            loss = find_loss()
            loss.backward()
            return loss

        optimizer.step(closure)
    parts = [leaf.detach() for leaf in leaves]
    return StackedMLP(architecture, parts[:runs], parts[runs : 2 * runs], model.drawn_from)


def depth_cell(
    optimizer: str,
    objective: str,
    hidden_layers: int,
    width: int,
    steps: int,
    tuning_networks: int,
    networks: int,
    residual: float = 0.0,
    reads_signs: bool = False,
    target_ratio: float = 1.0,
) -> dict[str, Any]:
    """Tune a method on networks and data of development, then fit networks that chose nothing.

    Args:
        optimizer: a key of ``METHODS``.
        objective: of ``OBJECTIVES``.
        hidden_layers, width: shape.
        steps: updates, or evaluations of L-BFGS, in the search and after it.
        tuning_networks: on one draw of the data, at each rate that is tried.
        networks: how many are fitted then, network k to draw k.
        residual: above 0 they are fitted a second time, at the same rate, from targets that miss
            the forward pass by noise of this standard deviation.
        reads_signs, target_ratio: as in ``changed``, on the relaxed and the guided objective.

    Returns:
        ``learning_rates`` tried, mean ``losses`` there (None: one was not finite),
        ``learning_rate`` taken and whether it is ``at_limit``; ``train``, ``held_out`` at the end,
        (network,), None where the forward pass is not finite; ``disturbed_held_out``: of the
        second time, or none.
    """
    method = METHODS[one_of(optimizer, METHODS, "optimizer")]
    one_of(objective, OBJECTIVES, "objective")
    architecture = Architecture((2, *[width] * hidden_layers, 1))
    compile_rprop()
    options: dict[str, Any] = {"objective": objective}
    if reads_signs or target_ratio != 1:
        options |= {"reads_signs": reads_signs, "target_ratio": target_ratio}
    fit = partial(fit_by_rule if method.rule else fit_lbfgs, **options)
    found = tune(
        fit,
        build_mlp(architecture, development_seeds(tuning_networks)),
        moons_draw(TUNING_DRAW),
        steps,
        method.rates,
        optimizer=method.rule or "sgd",
        smallest_step=SMALLEST_STEP,
        tie_margin=TIE_MARGIN,
        limits=method.limits,
    )
    histories: list[History] = []
    disturbed: list[History] = []
    watch = Watch([steps])
    for network in confirmation_seeds(networks):
        start, data = build_mlp(architecture, [network]), moons_draw(network)
        histories.append(fit(start, data, found.phase, watch=watch).history)
        if residual:
            again = fit(start, data, found.phase, residual=residual, watch=watch)
            disturbed.append(again.history)
    return {
        "learning_rates": found.learning_rates,
        "losses": finite(found.losses, 4),
        "learning_rate": found.phase.learning_rate,
        "at_limit": found.at_limit,
        **ends(*histories, digits=4),
        "disturbed_held_out": ends(*disturbed, digits=4)["held_out"],
    }


def trainable_depth(held_out: Mapping[int, Sequence[float | None]], limit: float) -> int:
    """Return the greatest depth at which nearly all networks come to a limit, 0 where none does.

    Nearly all are four of five.

    Args:
        held_out: depth -> accuracy of each network, None counting as 0.
        limit: accuracy that is enough.
    """
    reached = [
        depth
        for depth, values in held_out.items()
        if sum((value or 0.0) >= limit for value in values) >= 0.8 * len(values)
    ]
    return max(reached, default=0)


def layer_sizes(architecture: Architecture, examples: int) -> list[int]:
    """Return how many numbers each part of ``written_loss``'s vector has, in its order.

    Weights and bias of layer 1, …, of layer T; then the targets of layer 1, …, of layer T.
    """
    shapes = [*pairwise(architecture.widths)]
    own = [(inputs + 1) * outputs for inputs, outputs in shapes]
    return own + [examples * outputs for _, outputs in shapes]


def written_vector(model: StackedMLP, targets: Targets | None) -> Tensor:
    """Return the numbers of one network, and of its targets if it has some, as one vector."""
    layers = model.as_module(0).parameters()
    values = [targets.at(layer)[0] for layer in targets.plan.layers] if targets else []
    return torch.cat([part.detach().flatten() for part in [*layers, *values]])


def written_loss(architecture: Architecture, data: Dataset) -> Callable[[Tensor], Tensor]:
    """Return the loss of a sigmoid network as a function of ``written_vector``, for any derivative.

    Without targets in the vector it is the network's own loss, with them the relaxed one (Eq. 4).
    """
    sizes = layer_sizes(architecture, len(data.x))
    shapes, own = [*pairwise(architecture.widths)], len(architecture.widths) - 1

    def loss(vector: Tensor) -> Tensor:
        is_relaxed = len(vector) > sum(sizes[:own])
        parts = vector.split(sizes if is_relaxed else sizes[:own])
        h, total = data.x, vector.new_zeros(())
        for layer, (inputs, outputs) in enumerate(shapes):
            weight, bias = parts[layer].split([inputs * outputs, outputs])
            z = h @ weight.view(outputs, inputs).mT + bias  # (examples, outputs)
            if is_relaxed:
                target = parts[own + layer].view_as(z)
                total = total + (z - target).square().mean()
                z = target
            h = z.sigmoid()
        return total + binary_cross_entropy_with_logits(z[:, 0], data.y)

    return loss


def hessian(loss: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Any]:
    """Return the gradient, and the Hessian as a linear operator: a product costs two gradients.

    The product of the Hessian and a vector v is the gradient of ∇f · v (Pearlmutter 1994).
    """
    point = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(point), point, create_graph=True)

    def product(vector: Array) -> Array:
        v = torch.from_numpy(np.ascontiguousarray(vector).reshape(-1)).to(point)
        (found,) = torch.autograd.grad(gradient, point, v, retain_graph=True)
        return found.numpy()

    return gradient.detach(), _operator(len(at), product)


def _operator(size: int, product: Callable[[Array], Array]) -> Any:
    from scipy.sparse.linalg import LinearOperator

    make: Any = LinearOperator  # what it takes when it is called is more than its __init__ says
    return make((size, size), product, dtype=np.float64)


def greatest_curvature(operator: Any, part: slice | None = None) -> float:
    """Return the eigenvalue of greatest size of a symmetric operator, or of one diagonal block.

    By Lanczos from a fixed vector, to a ten-thousandth of itself.

    Args:
        operator: symmetric.
        part: rows and columns of the block.
    """
    from scipy.sparse.linalg import eigsh

    rows = range(operator.shape[0])[part or slice(None)]
    size, first = len(rows), rows[0]

    def product(vector: Array) -> Array:
        padded = np.zeros(operator.shape[0])
        padded[first : first + size] = vector.reshape(-1)
        return operator.matvec(padded)[first : first + size]

    block = _operator(size, product)
    start = np.random.default_rng(0).normal(size=size)
    (found,) = eigsh(block, k=1, which="LM", v0=start, tol=1e-4, return_eigenvectors=False)
    return float(found)


def extreme_curvatures(operator: Any) -> tuple[float, float]:
    """Return the least and the greatest eigenvalue of a symmetric operator.

    The second is found as the one of greatest size after the first has been shifted to 0, so both
    are exact to a ten-thousandth of the greater size, and a smaller one reads as noise around 0.
    """
    from scipy.sparse import identity
    from scipy.sparse.linalg import aslinearoperator

    one = greatest_curvature(operator)
    shifted = operator - one * aslinearoperator(identity(operator.shape[0]))
    other = one + greatest_curvature(shifted)
    return min(one, other), max(one, other)


def curvature_cell(
    objective: str, hidden_layers: int, width: int, network: int, rate: float, marks: Sequence[int]
) -> dict[str, Any]:
    """Look at the Hessian of an objective where Rprop comes by, in float64.

    Args:
        objective: of ``OBJECTIVES``.
        hidden_layers, width: shape.
        network: its number, and that of its data.
        rate: first step of Rprop.
        marks: after how many updates.

    Returns:
        At each mark ``least`` and ``greatest`` eigenvalue, of weights and targets together;
        ``weights`` and ``targets``: eigenvalue of greatest size of each layer's block, (mark,
        layer); ``cosines``: of the objective's gradient and the plain one in the weights and bias
        of each layer, None where one of the two is 0; ``held_out`` accuracy.
    """
    data = moons_draw(network).to("cpu", torch.float64)
    architecture = Architecture((2, *[width] * hidden_layers, 1))
    start = build_mlp(architecture, [network], dtype=torch.float64)
    loss = written_loss(architecture, data)
    ends = np.cumsum([0, *layer_sizes(architecture, len(data.x))])
    blocks = [slice(int(a), int(b)) for a, b in pairwise(ends)]
    depth = architecture.depth
    found: dict[str, list[Any]] = {}
    for mark in marks:
        model, targets = start, starting_targets(objective, start, data)
        if mark:
            phase = Phase(mark, rate, smallest_step=SMALLEST_STEP)
            fit = fit_by_rule(start, data, phase, objective=objective, watch=Watch([mark]))
            model, targets = fit.model, fit.targets
        gradient, operator = hessian(loss, written_vector(model, targets))
        plain = torch.func.grad(loss)(written_vector(model, None))
        least, greatest = extreme_curvatures(operator)
        of_blocks = [
            greatest_curvature(operator, part) for part in blocks[: None if targets else depth]
        ]
        _, accuracy = evaluate(model, data.held_out_x, data.held_out_y, data.task)
        for name, values in {
            "least": least,
            "greatest": greatest,
            "weights": of_blocks[:depth],
            "targets": of_blocks[depth:],
            "cosines": [_cosine(gradient[part], plain[part]) for part in blocks[:depth]],
            "held_out": accuracy[0],
        }.items():
            found.setdefault(name, []).append(values)
    return found


# Length of a float64 gradient that is rounding: of terms that cancel, by the kernels of one
# processor to 0 and of another to 1e-17 or so.
ROUNDING = 1e-14


def _cosine(one: Tensor, other: Tensor) -> float | None:
    """Return the cosine of two vectors, None where one is 0 or rounding and it has no meaning."""
    if min(float(one.norm()), float(other.norm())) <= ROUNDING:
        return None
    return float(cosine_similarity(one, other, dim=0, eps=0.0))


WIDTH, STEPS, NETWORKS = 30, 200, 5
# Typed before any network of confirmation was trained, from what those of development showed.
# Held-out accuracies from which on a network counts as solved, and as past chance; a straight line
# has 0.88.
SOLVED, PAST_CHANCE = 0.95, 0.7
# Whose steps begin at one size and shrink: they take the relaxed objective past chance, in 4 of 5
# networks, and of every other first-order method at most 1 of 5 gets there, at 30 and 100 layers.
SHRINKING, MOST, FEWEST = ("Rprop", "Adagrad"), 4, 1
# How many of the ten solve the guided objective at 100 layers; how many more go deeper relaxed than
# plain than go less deep, and how many more at least for a part.
GUIDED_METHODS, DEEPER_METHODS, SOME_DEEPER = 6, 8, 2
# Greatest curvature of a layer over that of another, at the start of 10 layers.
UNEVEN, EVEN = 1e6, 100.0
# Depth, objective and methods. A method of which no network leaves chance at 10 layers is tried no
# deeper on the relaxed objective, nor at 100 one of which none does at 30.
STAGES: tuple[tuple[int, str, Sequence[str]], ...] = (
    *((depth, objective, tuple(METHODS)) for depth in (3, 10) for objective in OBJECTIVES),
    (30, "plain", tuple(METHODS)),
    (30, "relaxed", ("Adagrad", "RMSprop", "Adam", "NAdam", "Muon", "Rprop")),
    (100, "relaxed", ("Adagrad", "Rprop")),
    (100, "guided", FIRST_ORDER),
    (30, "guided", tuple(METHODS)),
    (100, "plain", tuple(METHODS)),
)
MARKS = [0, 20, 50, 100, 200]
# Rates of targets over rates of weights, up to about n l_t/2 of the hidden layers, by which the
# curvature of a target is below that of weights.
TARGET_RATIOS = (10.0, 100.0, 1000.0)
LINEAR_METHODS = ("SGD", "momentum", "Nesterov")


_SETTING: Cell = {"width": WIDTH, "steps": STEPS, "tuning_networks": 3, "networks": NETWORKS}


def _depth_cells() -> tuple[Cell, ...]:
    cells: list[Cell] = []
    for depth, objective, methods in STAGES:
        residual = 1e-6 if objective == "relaxed" and depth in (3, 30) else 0.0
        case = {"objective": objective, "hidden_layers": depth, "residual": residual}
        cells += grid({**_SETTING, **case}, optimizer=methods)
    return tuple(cells)


def _apart_cells() -> tuple[Cell, ...]:
    """What tells the parts of Rprop's success apart, on the relaxed objective."""
    same: Cell = {"objective": "relaxed", **_SETTING}
    # Adagrad on signs divides the rate by the root of the number of moves.
    signs = grid({"optimizer": "Adagrad", "reads_signs": True}, hidden_layers=(3, 10, 30, 100))
    ratios = grid(hidden_layers=(3, 10), optimizer=LINEAR_METHODS, target_ratio=TARGET_RATIOS)
    return tuple({**same, **cell} for cell in (*signs, *ratios))


SWEEPS = (
    Sweep("optimizers-depths", _depth_cells(), depth_cell),
    Sweep("optimizers-apart", _apart_cells(), depth_cell),
    Sweep(
        "optimizers-curvature",
        grid(
            {"width": 10, "rate": 0.1, "marks": MARKS},
            hidden_layers=(3, 10),
            objective=OBJECTIVES,
            network=range(3),
        ),
        curvature_cell,
    ),
)

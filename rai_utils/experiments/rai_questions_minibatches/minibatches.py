"""RAI with mini-batches: where the targets of a batch come from.

A target belongs to one example, so a loop that changes its batch cannot go on with the tensor of
targets that it has. There are three ways around that, and what happens without one:

- ``fit_table``: a table keyed by example keeps the targets and their optimiser state. A batch takes
  its rows out, makes one step of weights and targets together, and puts them back. With
  ``renew_every`` the rows are made anew from a forward pass every so many passes over the data,
  with fresh optimiser state, so that the optimiser trains the new ones.
- ``fit_fresh``: nothing is kept. Each batch makes its targets by a forward pass, moves them for
  some steps with the weights fixed, and then makes one step of the weights.
- ``fit_shared``: one tensor for whatever batch comes, which ``fit_table`` refuses. The control.

``fit_backprop_batches`` is the baseline. A table whose batch is all of the examples is
``training.fit_relaxed``, step by step. Many networks are trained at once, each with learning rates
of its own, on the same batches: ``model`` are the networks to start from, left as they are,
``weight_rates`` and ``target_rates`` one number for each of them. What is out of range or does not
fit is refused with a ValueError before any work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor

from rai_utils.checks import LAST_SEED, number, one_each, one_of, seeded, whole_number
from rai_utils.data import Dataset, digits, spirals
from rai_utils.experiments.sweep import Sweep, finite, grid
from rai_utils.experiments.timing import Timed, clocked, interleaved, summarise
from rai_utils.models import Architecture, StackedMLP, build_mlp, check_inputs, confirmation_seeds
from rai_utils.relaxation import (
    OutputLoss,
    RelaxationPlan,
    check_examples,
    forward_targets,
    output_loss,
    relaxation_plan,
    relaxed_loss,
)
from rai_utils.training import (
    UpdateRule,
    batches,
    check_data,
    check_rprop_rates,
    evaluate,
    loss_for,
    steps,
    update_rule,
)

# --- the table --------------------------------------------------------------------------------


@dataclass
class BatchTargets:
    """Targets of one batch and their optimiser state, taken out to be trained.

    Attributes:
        values: as in ``relaxation.Targets``, (layers, networks, batch, width) each.
        states: state of each tensor of ``values``, of its shape.
        updates: how many updates the targets of each example have had, (batch,).
    """

    values: list[Tensor]
    states: list[tuple[Tensor, ...]]
    updates: Tensor


class TargetTable:
    """Targets and optimiser state of every example, kept by the example's row.

    A row is empty until its example comes for the first time: its targets are then the forward
    pass of the weights as they are, with residuals that are exactly 0.

    Attributes:
        plan: which layers are relaxed.
        x: a copy of the examples the table is for, (examples, l₀).
        rule: the optimiser of the targets.
        values: (layers, networks, examples, width) for each group of ``plan.target_runs``.
        states: optimiser state, the same shapes.
        updates: updates that each row has had since it was filled, −1 where it is empty,
            (examples,).
    """

    def __init__(self, plan: RelaxationPlan, x: Tensor, networks: int, rule: str = "adam") -> None:
        check_inputs(plan.architecture, x)
        networks = whole_number(networks, "networks", 1)
        self.plan, self.x, self.rule = plan, x.clone(), update_rule(rule)
        widths = plan.architecture.widths
        shapes = [(len(run), networks, len(x), widths[run[0]]) for run in plan.target_runs]
        self.values = [torch.empty(shape, dtype=x.dtype) for shape in shapes]
        self.states = [
            tuple(torch.empty_like(value) for _ in self.rule.first) for value in self.values
        ]
        self.updates = torch.full((len(x),), -1, dtype=torch.int32)

    @property
    def bytes(self) -> int:
        """Bytes of targets and optimiser state, see ``table_bytes``; counters left out."""
        return sum(part.numel() * part.element_size() for part in _tensors(self))

    def renew(self) -> None:
        """Empty every row: targets and optimiser state start afresh when its example comes."""
        self.updates.fill_(-1)

    def take(self, rows: Tensor, x: Tensor, model: StackedMLP, rates: Tensor) -> BatchTargets:
        """Take a batch out; empty rows are filled first, by the networks as they are.

        ``rows`` say which examples, (batch,), and ``rates`` are the learning rates of the targets
        of each network, (networks,). Where ``x``, (batch, l₀), are not the inputs of those rows, a
        ValueError says so.
        """
        check_examples(self.x[rows], x)
        updates = self.updates[rows]
        batch = BatchTargets(
            [value[:, :, rows] for value in self.values],
            [tuple(part[:, :, rows] for part in state) for state in self.states],
            updates,
        )
        empty = updates < 0
        if empty.any():
            fresh = fresh_targets(model, x, self.plan, self.rule, rates)
            for kept, made in zip(_tensors(batch), _tensors(fresh), strict=True):
                kept[:, :, empty] = made[:, :, empty]
            batch.updates = updates.clamp(min=0)
        return batch

    def put(self, rows: Tensor, batch: BatchTargets) -> None:
        """Write a batch back into the rows that it was taken from."""
        for kept, new in zip(_tensors(self), _tensors(batch), strict=True):
            kept[:, :, rows] = new.detach()
        self.updates[rows] = batch.updates


def _tensors(of: BatchTargets | TargetTable) -> list[Tensor]:
    return [*of.values, *(part for state in of.states for part in state)]


def fresh_targets(
    model: StackedMLP, x: Tensor, plan: RelaxationPlan, rule: UpdateRule, rates: Tensor
) -> BatchTargets:
    """Targets equal to the forward pass of ``x``, with residuals that are exactly 0, untrained."""
    values = list(forward_targets(model, x, plan).values)
    states = [rule.start(_spread(rates).expand_as(value)) for value in values]
    return BatchTargets(values, states, torch.zeros(len(x), dtype=torch.int32))


def table_bytes(architecture: Architecture, examples: int, states: int = 2) -> int:
    """Bytes of a table for one network whose layers are all relaxed, in float32.

        bytes = 4 n Σ_{t=1}^{T} l_t (1 + s)

    with n ``examples`` and s optimiser ``states`` for each target (2 for Adam and Rprop, 0 for
    gradient descent). The counter of each row, 4 bytes an example whatever the network, is left
    out.
    """
    examples, states = whole_number(examples, "examples", 1), whole_number(states, "states")
    return 4 * examples * sum(architecture.widths[1:]) * (1 + states)


# --- work -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """Multiplications of matrix products for one example, by what is asked for.

    With P = Σ_t l_t l_{t−1}: a forward pass takes P; gradients with respect to the weights
    another P; pulling residuals or errors back through layers 2 … T, P − l_1 l_0. The inputs
    have no gradient. A step of RAI on weights and targets together takes exactly what a step of
    backpropagation takes.

    Attributes:
        forward: a forward pass.
        targets: gradients of the relaxed loss with respect to the targets.
        weights: gradients of the relaxed loss with respect to the weights.
        both: both of these at once; or all gradients of backpropagation.
    """

    forward: int
    targets: int
    weights: int
    both: int


def work_of(architecture: Architecture) -> Work:
    """Count the multiplications for one example, see ``Work``."""
    widths = architecture.widths
    layers = [below * above for below, above in pairwise(widths)]
    forward_pass, pulled = sum(layers), sum(layers[1:])
    return Work(
        forward=forward_pass,
        targets=forward_pass + pulled,
        weights=2 * forward_pass,
        both=2 * forward_pass + pulled,
    )


# --- fits -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Budget:
    """How much a fit may do.

    Attributes:
        work: gradient work, in passes of backpropagation over the training data, above 0. The
            step that reaches it is the last.
        batch: examples of a step, at least 1; the last batch of a pass may be smaller.
        order_seed: of the order of the examples, drawn anew for each pass over the data.
        evaluations: how often the fit looks at itself after step 0, evenly in work, at least 1.
    """

    work: float
    batch: int
    order_seed: int = 0
    evaluations: int = 8

    def __post_init__(self) -> None:
        values = {
            "work": number(self.work, "work", above=0),
            "batch": whole_number(self.batch, "batch", 1),
            "order_seed": whole_number(self.order_seed, "order_seed", most=LAST_SEED),
            "evaluations": whole_number(self.evaluations, "evaluations", 1),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class BatchHistory:
    """What a fit recorded; E evaluations, S networks. Everything is the plain forward pass's.

    Attributes:
        steps: updates of the weights before each evaluation, (E,).
        passes: passes over the training data, (E,).
        work: gradient work in passes of backpropagation, (E,).
        loss, accuracy: on the training data, (E, S).
        held_out_loss, held_out_accuracy: on the held-out data, (E, S). Accuracy is NaN for
            regression, and where the forward pass is not finite.
    """

    steps: NDArray[np.int64]
    passes: NDArray[np.float64]
    work: NDArray[np.float64]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    held_out_loss: NDArray[np.float64]
    held_out_accuracy: NDArray[np.float64]


@dataclass(frozen=True)
class BatchFit:
    """Result of a fit with mini-batches.

    Attributes:
        model: the trained networks.
        history: the record.
        snapshots: the networks at each evaluation, in order.
    """

    model: StackedMLP
    history: BatchHistory
    snapshots: tuple[StackedMLP, ...]


# Multiplications of a step, and what makes it.
_Update = tuple[int, Callable[[], None]]


class _Learner:
    """Networks being trained, with an optimiser state and a learning rate for each of them."""

    def __init__(
        self, model: StackedMLP, dataset: Dataset, rates: Sequence[float], optimizer: str
    ) -> None:
        self.model, self.updates = model.select(range(model.seeds)), 0
        self.loss, self.rule = loss_for(dataset.task), update_rule(optimizer)
        self.rates = _spread(_rates(model, rates, "weights", optimizer))
        self.leaves = [*self.model.weights, *self.model.biases]
        self.states = [self.rule.start(self.rates.expand_as(leaf)) for leaf in self.leaves]

    @torch.no_grad()
    def advance(self, gradients: Sequence[Tensor]) -> None:
        self.updates += 1
        for leaf, gradient, state in zip(self.leaves, gradients, self.states, strict=True):
            self.rule.step(leaf, gradient, state, self.rates, self.updates)


def _rates(model: StackedMLP, rates: Sequence[float], name: str, optimizer: str) -> Tensor:
    own = one_each(rates, model.seeds, f"learning rate of the {name}", above=0)
    if optimizer == "rprop":
        check_rprop_rates(own)
    return torch.tensor(own, dtype=model.weights[0].dtype)


def _spread(rates: Tensor) -> Tensor:
    """Put one number a network on the network axis, (1, networks, 1, 1)."""
    return rates[None, :, None, None]


def fit_backprop_batches(
    model: StackedMLP,
    dataset: Dataset,
    budget: Budget,
    weight_rates: Sequence[float],
    *,
    optimizer: str = "adam",
) -> BatchFit:
    """Train by backpropagation on mini-batches; ``optimizer`` is a key of ``UPDATE_RULES``."""
    learner = _Learner(model, dataset, weight_rates, optimizer)
    architecture, work = model.architecture, work_of(model.architecture)

    def prepare(rows: Tensor, x: Tensor, y: Tensor, _: int) -> _Update:
        loss = output_loss(learner.model(x), y, architecture.output_activation, learner.loss)
        gradients = torch.autograd.grad(loss.sum(), learner.leaves)
        return work.both * len(rows), partial(learner.advance, gradients)

    return _run(learner, dataset, budget, prepare)


def fit_table(
    model: StackedMLP,
    dataset: Dataset,
    budget: Budget,
    weight_rates: Sequence[float],
    target_rates: Sequence[float],
    *,
    optimizer: str = "adam",
    renew_every: int | None = None,
) -> BatchFit:
    """Train by RAI on mini-batches, with targets and their optimiser state kept in a table.

    Each step updates the weights and the batch's targets together, by gradients of the relaxed loss
    of the batch (Eq. 4). With ``budget.batch`` the number of examples and equal rates it makes the
    steps of ``training.fit_relaxed``.

    Args:
        optimizer: a key of ``UPDATE_RULES``, for weights and for targets, each with its own state.
        renew_every: passes over the data after which all targets are made anew by a forward pass,
            with fresh state, at least 1; None for never.
    """
    if renew_every is not None:
        renew_every = whole_number(renew_every, "renew_every", 1)
    learner = _Learner(model, dataset, weight_rates, optimizer)
    rates = _rates(model, target_rates, "targets", optimizer)
    plan, work = relaxation_plan(model.architecture), work_of(model.architecture)
    table = TargetTable(plan, dataset.x.to(rates.dtype), model.seeds, optimizer)
    renewed = 0

    def prepare(rows: Tensor, x: Tensor, y: Tensor, passes: int) -> _Update:
        nonlocal renewed
        if renew_every is not None and passes >= renewed + renew_every:
            table.renew()
            renewed = passes
        filled = int((table.updates[rows] < 0).sum())
        batch = table.take(rows, x, learner.model, rates)
        done = work.both * len(rows) + work.forward * filled
        advance = _joint_update(learner, plan, rates, batch, x, y)

        def update() -> None:
            advance()
            table.put(rows, batch)

        return done, update

    return _run(learner, dataset, budget, prepare)


def fresh_gradients(
    model: StackedMLP,
    x: Tensor,
    y: Tensor,
    rates: Tensor,
    *,
    inner_steps: int,
    loss: OutputLoss = "cross_entropy",
) -> tuple[Tensor, ...]:
    """Gradients of the weights, then of the biases, as ``fit_fresh`` takes them for one batch.

    The batch is ``x``, (batch, l₀), and ``y``, (batch,); ``rates``, (networks,), are the target
    rates of ``fit_fresh``, whose arguments the others are.
    """
    inner_steps = whole_number(inner_steps, "inner_steps", 1)
    plan, rule = relaxation_plan(model.architecture), update_rule("sgd")
    batch = fresh_targets(model, x, plan, rule, rates)
    for _ in range(inner_steps):
        values = _trainable(batch)
        total = _relaxed_total(plan, model, values, x, y, loss)
        _advance_targets(batch, torch.autograd.grad(total, values), rule, rates * len(x))
    total = _relaxed_total(plan, model, batch.values, x, y, loss)
    return torch.autograd.grad(total, [*model.weights, *model.biases])


def fit_fresh(
    model: StackedMLP,
    dataset: Dataset,
    budget: Budget,
    weight_rates: Sequence[float],
    target_rates: Sequence[float],
    *,
    inner_steps: int,
    optimizer: str = "adam",
) -> BatchFit:
    """Train by RAI on mini-batches whose targets live for one batch.

    Each batch: targets from a forward pass; ``inner_steps`` of gradient descent on the targets with
    the weights fixed; one step of the weights on what the targets have become. From residuals of 0
    the signal moves one layer a step, so the weights of layer t have a gradient only if
    ``inner_steps`` ≥ T − t + 1.

    Args:
        target_rates: step of the targets, for a loss that is a sum over examples, not a mean: an
            example's targets then move alike in batches of any size.
        inner_steps: K, at least 1.
        optimizer: a key of ``UPDATE_RULES``, for the weights.
    """
    learner = _Learner(model, dataset, weight_rates, optimizer)
    rates = _rates(model, target_rates, "targets", "sgd")
    work = work_of(model.architecture)
    inner_steps = whole_number(inner_steps, "inner_steps", 1)
    options: dict[str, Any] = {"inner_steps": inner_steps, "loss": learner.loss}

    def prepare(rows: Tensor, x: Tensor, y: Tensor, _: int) -> _Update:
        gradients = fresh_gradients(learner.model, x, y, rates, **options)
        done = (work.forward + inner_steps * work.targets + work.weights) * len(rows)
        return done, partial(learner.advance, gradients)

    return _run(learner, dataset, budget, prepare)


def fit_shared(
    model: StackedMLP,
    dataset: Dataset,
    budget: Budget,
    weight_rates: Sequence[float],
    target_rates: Sequence[float],
    *,
    optimizer: str = "adam",
) -> BatchFit:
    """Train by RAI with the targets of the first batch for every batch: the mistake, measured.

    Everything but that is as in ``fit_table``. The targets that were made for one example are
    trained on whatever example stands in its place in the next batch.
    """
    learner = _Learner(model, dataset, weight_rates, optimizer)
    rates, rule = _rates(model, target_rates, "targets", optimizer), learner.rule
    plan, work = relaxation_plan(model.architecture), work_of(model.architecture)
    batch: BatchTargets | None = None

    def prepare(rows: Tensor, x: Tensor, y: Tensor, _: int) -> _Update:
        nonlocal batch
        if len(rows) < budget.batch:  # the last examples of a pass are too few for the tensor
            return 0, lambda: None
        done = work.both * len(rows)
        if batch is None:
            batch = fresh_targets(learner.model, x, plan, rule, rates)
            done += work.forward * len(rows)
        return done, _joint_update(learner, plan, rates, batch, x, y)

    return _run(learner, dataset, budget, prepare)


def _relaxed_total(
    plan: RelaxationPlan,
    model: StackedMLP,
    values: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    loss: OutputLoss,
) -> Tensor:
    """Relaxed loss of a batch, summed over networks."""
    circuit = plan, [*model.weights], [*model.biases], values
    return relaxed_loss(*circuit, x, y, loss=loss).total.sum()


def _joint_update(
    learner: _Learner,
    plan: RelaxationPlan,
    rates: Tensor,
    batch: BatchTargets,
    x: Tensor,
    y: Tensor,
) -> Callable[[], None]:
    """Return what makes one step of the weights and of a batch's targets, by its relaxed loss."""
    values, count = _trainable(batch), len(learner.leaves)
    total = _relaxed_total(plan, learner.model, values, x, y, learner.loss)
    gradients = torch.autograd.grad(total, [*learner.leaves, *values])

    def update() -> None:
        learner.advance(gradients[:count])
        _advance_targets(batch, gradients[count:], learner.rule, rates)

    return update


def _trainable(batch: BatchTargets) -> list[Tensor]:
    return [value.detach().requires_grad_() for value in batch.values]


@torch.no_grad()
def _advance_targets(
    batch: BatchTargets, gradients: Sequence[Tensor], rule: UpdateRule, rates: Tensor
) -> None:
    batch.updates = batch.updates + 1
    count = batch.updates[:, None]  # (batch, 1)
    for value, gradient, state in zip(batch.values, gradients, batch.states, strict=True):
        rule.step(value, gradient, state, _spread(rates), count.to(value))


def _run(
    learner: _Learner,
    dataset: Dataset,
    budget: Budget,
    prepare: Callable[[Tensor, Tensor, Tensor, int], _Update],
) -> BatchFit:
    """Make what ``prepare`` returns for rows, x, y and passes made, until the budget is spent."""
    architecture, dtype = learner.model.architecture, learner.model.weights[0].dtype
    check_data(architecture, dataset, learner.loss)
    data = dataset.to("cpu", dtype)
    examples = len(data.x)
    unit = work_of(architecture).both * examples
    interval = budget.work / budget.evaluations
    records: list[tuple[Any, ...]] = []
    snapshots: list[StackedMLP] = []
    done, seen, due = 0, 0, 0.0

    def find_update(rows: Tensor) -> _Update:
        return prepare(rows, data.x[rows], data.y[rows], seen // examples)

    rows = batches(examples, budget.batch, budget.order_seed)
    for step in steps(find_update, lambda update: update[1], lambda advance: advance(), rows):
        spent = done / unit
        if spent >= due:
            snapshots.append(learner.model.select(range(learner.model.seeds)))
            measured = evaluate(learner.model, data.x, data.y, data.task)
            held_out = evaluate(learner.model, data.held_out_x, data.held_out_y, data.task)
            records.append((learner.updates, seen / examples, spent, *measured, *held_out))
            if spent >= budget.work:
                break
            due = min(interval * (spent // interval + 1), budget.work)
        done += step.loss[0]
        seen += len(step.rows)
    history = BatchHistory(*(np.array(column) for column in zip(*records, strict=True)))
    return BatchFit(snapshots[-1], history, tuple(snapshots))


def layer_cosines(gradients: Sequence[Tensor], others: Sequence[Tensor]) -> NDArray[np.float64]:
    """Cosine of the angle between two gradients of each layer's weights, (T, networks).

    It is 0 where a gradient is exactly 0. The gradients have one tensor a run of equal layers,
    (layers, networks, outputs, inputs).
    """
    pairs = [
        (one.double().flatten(2), other.double().flatten(2))
        for one, other in zip(gradients, others, strict=True)
    ]
    products = torch.cat([(one * other).sum(2) for one, other in pairs])  # (T, networks)
    norms = torch.cat([one.norm(dim=2) * other.norm(dim=2) for one, other in pairs])
    return torch.where(norms > 0, products / norms, 0.0).numpy()


# --- the study --------------------------------------------------------------------------------


def validation_split(dataset: Dataset, examples: int, seed: int = 42) -> Dataset:
    """Hold out so many of the training examples in place of the held-out ones, by ``seed``.

    What is chosen on the result has not seen ``dataset.held_out_x``. Classes keep their shares.
    """
    examples = whole_number(examples, "examples", 1, len(dataset.x) - 1)
    whole_number(seed, "seed", most=LAST_SEED)
    rows, held_out_rows = train_test_split(
        np.arange(len(dataset.x)),
        test_size=examples,
        stratify=None if dataset.task == "regression" else dataset.y.numpy(),
        random_state=seed,
    )
    x, y = dataset.x, dataset.y
    held_out = {"held_out_x": x[held_out_rows], "held_out_y": y[held_out_rows]}
    return replace(dataset, x=x[rows], y=y[rows], **held_out)


@dataclass(frozen=True)
class Trial:
    """One setting that a method may choose on validation data.

    Attributes:
        weight_rate: learning rate of the weights.
        target_rate: of the targets; None for backpropagation.
        option: inner steps, or passes between renewals; None where the method has neither.
    """

    weight_rate: float
    target_rate: float | None = None
    option: int | None = None


def _grid(
    weight_rates: Sequence[float],
    target_rates: Sequence[float | None] = (None,),
    options: Sequence[int | None] = (None,),
) -> tuple[Trial, ...]:
    return tuple(Trial(w, t, o) for o, w, t in product(options, weight_rates, target_rates))


@dataclass(frozen=True)
class Method:
    """A way to train, with the settings to choose from and how much it may do.

    Attributes:
        trials: the settings, twenty for each method, thirty for the longer one.
        whole: whether a batch is all of the examples.
        effort: factor on the work of the others.
    """

    trials: tuple[Trial, ...]
    whole: bool = False
    effort: int = 1


# Of backpropagation, with room on both sides.
RATES = tuple(float(f"{rate:.2g}") for rate in np.geomspace(1e-4, 1e-1, 20))
TABLE_TRIALS = _grid((3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (0.1, 0.3, 1.0, 3.0))
FRESH_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
METHODS: dict[str, Method] = {
    "backprop": Method(_grid(RATES)),
    "table": Method(TABLE_TRIALS),
    # Renewed every 30 passes, the work of all, it would be the table itself.
    "renewed table": Method(_grid((3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (1.0,), (5, 10, 15, 20))),
    # A target step of 1 takes the whole gradient of the output's loss, and more is not tried.
    "fresh targets": Method(
        (
            *_grid(FRESH_RATES, (0.1, 0.3, 1.0), (4,)),
            *_grid(FRESH_RATES, (1.0,), (2, 8)),
        )
    ),
    "shared targets": Method(TABLE_TRIALS),
    "full batch": Method(_grid((3e-3, 1e-2, 3e-2, 1e-1), (0.1, 0.3, 1.0, 3.0, 10.0)), whole=True),
    "full batch, longer": Method(
        _grid((1e-3, 3e-3, 1e-2, 3e-2, 1e-1), (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
        whole=True,
        effort=6,
    ),
}
# For the second problem.
WIDER: dict[str, Method] = {
    "backprop": Method(_grid(RATES)),
    "table": Method(_grid((1e-3, 3e-3, 1e-2, 3e-2), (0.01, 0.03, 0.1, 0.3, 1.0))),
    "fresh targets": Method(_grid((3e-3, 1e-2, 3e-2, 1e-1), (0.01, 0.03, 0.1, 0.3, 1.0), (4,))),
}
ARCHITECTURE = Architecture((64, 64, 64, 64, 10), "tanh", "softmax")


def train(
    method: str, trials: Sequence[Trial], dataset: Dataset, budget: Budget, seed: int
) -> BatchFit:
    """Train one network a trial by a method from the same weights; the trials share their option.

    ``seed`` is of the weights.
    """
    one_of(method, METHODS, "method")
    options = {trial.option for trial in trials}
    if len(options) != 1:
        raise ValueError(f"trials must have one option, got {sorted(map(str, options))}")
    (option,) = options
    widths = (dataset.x.shape[1], *ARCHITECTURE.widths[1:-1], dataset.outputs)
    model = build_mlp(replace(ARCHITECTURE, widths=widths), [seed] * len(trials))
    weight_rates = [trial.weight_rate for trial in trials]
    if method == "backprop":
        return fit_backprop_batches(model, dataset, budget, weight_rates)
    target_rates = [trial.target_rate for trial in trials if trial.target_rate is not None]
    rates = weight_rates, target_rates
    if method == "fresh targets":
        if option is None:
            raise ValueError("trials of fresh targets must name their inner steps, got None")
        return fit_fresh(model, dataset, budget, *rates, inner_steps=option)
    if method == "shared targets":
        return fit_shared(model, dataset, budget, *rates)
    return fit_table(model, dataset, budget, *rates, renew_every=option)


def compare(
    method: str, seed: int, work: float, batch: int, problem: str = "digits"
) -> dict[str, Any]:
    """Try all settings of a method on one split or draw of a problem, and judge the chosen one.

    A seed is one whole replication: 1024 examples to train on and 256 to choose on; the first
    weights; the order of the batches. Of the digits it is a split, which leaves 517 of 1797 images
    to judge on; spirals, with three arms and the settings of ``WIDER``, are drawn anew, with 2000
    to judge on. The setting with the lowest validation loss at the end is chosen, and its network
    is judged as it is. ``work``, before the method's own factor, and ``batch`` are as in
    ``Budget``.

    Returns:
        Curves of the chosen network (``steps``, ``passes``, ``work``, ``test_accuracy``,
            ``train_accuracy``, each (E,)), its setting (``weight_rate``, ``target_rate``,
            ``option``), and for each trial its setting and last ``validation_loss`` (None if not
            finite), ``validation_accuracy`` and ``test_accuracy``.
    """
    if one_of(problem, ("digits", "spirals"), "problem") == "digits":
        chosen_method, whole = METHODS[one_of(method, METHODS, "method")], digits(1280, 517, seed)
    else:
        chosen_method = WIDER[one_of(method, WIDER, "method")]
        whole = spirals(1280, 0.15, 2 * seed, 2000, 2 * seed + 1)
    dataset = validation_split(whole, 256, seed=seed)
    budget = Budget(
        work * chosen_method.effort,
        len(dataset.x) if chosen_method.whole else batch,
        order_seed=seed,
        evaluations=10,
    )
    tried: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for option in dict.fromkeys(trial.option for trial in chosen_method.trials):
        trials = [trial for trial in chosen_method.trials if trial.option == option]
        fit = train(method, trials, dataset, budget, seed)
        history = fit.history
        judged = whole.held_out_x, whole.held_out_y, whole.task
        test = np.array([evaluate(each, *judged)[1] for each in fit.snapshots])  # (E, trials)
        shared = {name: getattr(history, name).tolist() for name in ("steps", "passes", "work")}
        for position, trial in enumerate(trials):
            tried.append(
                {
                    **asdict(trial),
                    "validation_loss": finite(history.held_out_loss[-1, position]),
                    "validation_accuracy": finite(history.held_out_accuracy[-1, position]),
                    "test_accuracy": finite(test[-1, position]),
                }
            )
            curves.append(
                {
                    **shared,
                    "test_accuracy": finite(test[:, position]),
                    "train_accuracy": finite(history.accuracy[:, position]),
                }
            )
    losses = [np.inf if t["validation_loss"] is None else t["validation_loss"] for t in tried]
    best = int(np.argmin(losses))
    return {**asdict(chosen_method.trials[best]), **curves[best], "trials": tried}


def chosen_rates(cells: Sequence[dict[str, Any]]) -> list[tuple[str, str, float, bool]]:
    """Return each rate that a cell of ``compare`` chose, and whether it is the outermost tried.

    Each is method, ``weight_rate`` or ``target_rate``, value, and whether it lies at an edge. A
    rate of which one alone was tried is held, not chosen. A target step of 1 is where the range of
    fresh targets ends, and counts as inside.
    """
    found = []
    for cell in cells:
        for name in ("weight_rate", "target_rate"):
            tried = sorted({trial[name] for trial in cell["trials"] if trial[name] is not None})
            if len(tried) > 1:
                chosen, ends = cell[name], {tried[0], tried[-1]}
                if (cell["method"], name) == ("fresh targets", "target_rate"):
                    ends.remove(1.0)
                found.append((cell["method"], name, chosen, chosen in ends))
    return found


def durations(rounds: int, work: float, batch: int, rows: list[int]) -> dict[str, Any]:
    """Time the methods at the same work, and the table's traffic at several sizes.

    Each of the rounds runs each piece once, so that a slow while of the machine meets all of them.
    No two runs give the same numbers. ``work`` and ``batch`` are as in ``Budget``, ``rows`` sizes
    of tables of random examples, ascending.

    Returns:
        ``time_ratio``: method -> [median, first quartile, third quartile] of its time over that of
            backpropagation at the same work. ``traffic_ratio``: the same of taking a batch out of
            each table and putting it back, over the first.
    """
    dataset = digits(1024, 517)
    budget = Budget(work, batch, evaluations=1)
    names = [name for name, method in METHODS.items() if not method.whole]

    def training(name: str) -> Timed:
        trial = METHODS[name].trials[len(METHODS[name].trials) // 2]
        return clocked(lambda: train(name, [trial], dataset, budget, 0))

    spent = interleaved({name: training(name) for name in names}, rounds, warm_up=1)
    traffic = interleaved(
        {str(count): clocked(_traffic(count, batch), repeats=100) for count in rows},
        rounds,
        warm_up=1,
    )

    def ratios(seconds: dict[str, NDArray[np.float64]], first: str) -> dict[str, list[float]]:
        return {name: summarise(each / seconds[first]) for name, each in seconds.items()}

    return {
        "time_ratio": ratios(spent, "backprop"),
        "traffic_ratio": ratios(traffic, str(rows[0])),
    }


def filled_table(examples: int) -> tuple[TargetTable, StackedMLP]:
    """A table of random examples, every row filled, and the network that filled it."""
    examples = whole_number(examples, "examples", 1)
    x = torch.randn(examples, ARCHITECTURE.widths[0], generator=seeded(0))
    model = build_mlp(ARCHITECTURE, [0])
    table = TargetTable(relaxation_plan(ARCHITECTURE), x, 1)
    rates = torch.tensor([0.1])
    for rows in torch.arange(examples).split(10_000):
        table.put(rows, table.take(rows, x[rows], model, rates))
    return table, model


def _traffic(examples: int, batch: int) -> Callable[[], object]:
    table, model = filled_table(examples)
    rates = torch.tensor([0.1])
    generator = torch.Generator().manual_seed(0)

    def call() -> None:
        rows = torch.randint(examples, (batch,), generator=generator)
        table.put(rows, table.take(rows, table.x[rows], model, rates))

    return call


SEEDS = confirmation_seeds(10)
WORK = 30
BATCH = 32
SWEEPS = (
    Sweep("minibatches", grid(seed=SEEDS, method=METHODS, work=[WORK], batch=[BATCH]), compare),
    Sweep(
        "minibatches-spirals",
        grid(seed=SEEDS, method=WIDER, work=[WORK], batch=[BATCH], problem=["spirals"]),
        compare,
    ),
    Sweep(
        "minibatch-durations",
        ({"rounds": 5, "work": 12, "batch": BATCH, "rows": [1000, 10_000, 100_000]},),
        durations,
    ),
)

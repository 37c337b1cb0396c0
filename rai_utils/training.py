"""Fits by backpropagation, by RAI, and by hand-over, with a record of what happened.

Full batch, torch's own optimisers, many seeds at once. A fit changes nothing that it is given: it
trains a copy and returns it. Everywhere ``x`` are inputs, (examples, features), ``y`` labels,
(examples,), ``task`` is what they mean, and ``loss`` the output error, None for the task's default.
What is out of range or does not fit together is refused with a ValueError, what is no number with a
TypeError, before any work.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, astuple, dataclass, replace
from functools import cache, cached_property, partial
from itertools import chain, count, repeat
from math import prod
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rai_utils import native
from rai_utils.checks import number, numbers, one_each, one_of, seeded, whole_number, whole_numbers
from rai_utils.data import Dataset, Task
from rai_utils.models import (
    Architecture,
    DeadLayers,
    StackedMLP,
    check_inputs,
    forward,
    layer_norms,
    pre_activations,
)
from rai_utils.relaxation import (
    OutputLoss,
    RelaxationPlan,
    RelaxedLoss,
    Targets,
    check_examples,
    forward_targets,
    output_loss,
    relaxation_plan,
    relaxed_loss,
    settle_targets,
)

if TYPE_CHECKING:
    import pandas
    from tqdm import tqdm

Objective = Callable[..., RelaxedLoss]

# Between them Rprop keeps its steps, unless it is told otherwise (torch's defaults).
SMALLEST_STEP, LARGEST_STEP = 1e-6, 50.0

# Compiling the Rprop step takes about 15 s once a process and saves about 3.5 ns a number and
# step on two cores, so it pays above some 4e9 of them. On a GPU it saves a hundredth of that.
COMPILE_ABOVE = {"cpu": 4e9, "cuda": 4e11}
# Layers in a row from which ``native`` is as fast for one network as a step that torch compiles;
# for ten networks it is faster from 6 on.
DEEP = 20

# Numbers that an optimiser other than Rprop visits at a time on a CPU.
BLOCK = 2**14

# Whether a step on a GPU is recorded once and played back, which saves its hundreds of launches.
CUDA_GRAPHS: bool = True


def configure(threads: int = 1) -> None:
    """Fix what the numbers of a run depend on: threads, and denormal numbers read as 0.

    Call it before any other tensor work of the process: worker threads take over the treatment of
    denormals when they start. In a deep sigmoid net most gradients of backpropagation are denormal
    or smaller, and arithmetic on denormals is many times slower.

    Args:
        threads: threads of one tensor operation, at least 1; of NumPy's and SciPy's products too,
            which would take a thread a processor from the runs beside this one.

    Raises:
        RuntimeError: the processor cannot flush denormals, or worker threads ran already.
    """
    from threadpoolctl import threadpool_limits

    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    # Memory in huge pages, which torch asks for once, when it takes the first: page faults and
    # address look-ups are a tenth of a step of a deep network.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    torch.set_num_threads(threads)
    threadpool_limits(threads, user_api="blas")
    if not torch.set_flush_denormal(True):
        raise RuntimeError("this processor cannot read denormal numbers as 0")
    if (torch.full((1_000_000,), 1e-30) * 1e-10).any():
        raise RuntimeError(
            "configure must come before any other tensor work of the process: "
            "worker threads that still keep denormal numbers ran already"
        )


State = tuple[Tensor, ...]


@dataclass(frozen=True)
class UpdateRule:
    """An optimiser's step on any tensor of trained numbers, with a state for each number.

    Attributes:
        step: (numbers, gradient, state, learning rates, which update of them this is, smallest
            step) -> nothing to keep. Shapes broadcast to that of the numbers; numbers and state are
            written in place. The update counts from 1 and may differ from number to number, a
            tensor of the numbers' type. A rule reads no further than it needs.
        first: for each state, learning rates, of the shape of the trained numbers -> the first one.
        counts: whether a step hangs on which update it is.
        of_weights: another rule for the weights of a fit, (…, outputs, inputs), which reads whole
            matrices.
    """

    step: Callable[..., object]
    first: tuple[Callable[[Tensor], Tensor], ...] = ()
    counts: bool = False
    of_weights: UpdateRule | None = None

    def start(self, rates: Tensor) -> State:
        """Return the first state of numbers with these learning rates, of their shape."""
        return tuple(make(rates) for make in self.first)


def _adam(
    numbers: Tensor, gradient: Tensor, state: State, rates: Tensor, update: int | Tensor, *_: Any
) -> None:
    """Kingma & Ba 2015, Algorithm 1, with torch's defaults."""
    mean, square = state
    first_decay, second_decay, epsilon = 0.9, 0.999, 1e-8
    mean.lerp_(gradient, 1 - first_decay)
    square.mul_(second_decay).addcmul_(gradient, gradient, value=1 - second_decay)
    spread = square.sqrt().div_((1 - second_decay**update) ** 0.5).add_(epsilon)
    numbers.addcdiv_(mean * rates * (-1 / (1 - first_decay**update)), spread)


def _sgd(numbers: Tensor, gradient: Tensor, state: State, rates: Tensor, *_: Any) -> None:
    numbers.addcmul_(gradient, rates, value=-1)


def _sign_sgd(numbers: Tensor, gradient: Tensor, state: State, rates: Tensor, *_: Any) -> None:
    """Bernstein et al. 2018, Algorithm 1, on all examples."""
    numbers.addcmul_(gradient.sign(), rates, value=-1)


def _momentum(
    numbers: Tensor, gradient: Tensor, state: State, rates: Tensor, *_: Any, looks_ahead: bool
) -> None:
    """Gradients that add up, each step keeping 0.9 of them; Nesterov's adds its own once more."""
    (velocity,) = state
    velocity.mul_(0.9).add_(gradient)
    moved = gradient.add(velocity, alpha=0.9) if looks_ahead else velocity
    numbers.addcmul_(moved, rates, value=-1)


def _adagrad(numbers: Tensor, gradient: Tensor, state: State, rates: Tensor, *_: Any) -> None:
    """Duchi et al. 2011, diagonal form, with torch's defaults."""
    (total,) = state
    total.addcmul_(gradient, gradient)
    numbers.addcdiv_(gradient * rates, total.sqrt().add_(1e-10), value=-1)


def _rmsprop(numbers: Tensor, gradient: Tensor, state: State, rates: Tensor, *_: Any) -> None:
    """Tieleman & Hinton 2012, with torch's defaults: the mean square starts at 0 and stays so."""
    (square,) = state
    square.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
    numbers.addcdiv_(gradient * rates, square.sqrt().add_(1e-8), value=-1)


def _nadam(
    numbers: Tensor, gradient: Tensor, state: State, rates: Tensor, update: int | Tensor, *_: Any
) -> None:
    """Dozat 2016, with torch's defaults: Adam whose mean looks one step ahead."""
    mean, square, product = state
    mean.lerp_(gradient, 0.1)
    square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    now, following = (0.9 * (1 - 0.5 * 0.96 ** (0.004 * step)) for step in (update, update + 1))
    product.mul_(now)
    spread = square.div(1 - 0.999**update).sqrt_().add_(1e-8)
    ahead = gradient * (1 - now) / (1 - product) + mean * following / (1 - product * following)
    numbers.addcdiv_(ahead * rates, spread, value=-1)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Bring singular values near 1 by five steps of Newton and Schulz (Jordan et al. 2024).

    X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X from X = G/‖G‖_F, with a, b, c = 3.4445, −4.775, 2.0315: all
    but the smallest singular values come to 0.7 … 1.2. Matrices smaller than 1e-7 grow by at most
    a⁵ and stay small.

    Args:
        matrices: (…, outputs, inputs).

    Returns:
        Of the same shape.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


def _muon(numbers: Tensor, gradient: Tensor, state: State, rates: Tensor, *_: Any) -> None:
    """Jordan et al. 2024: Nesterov momentum of 0.95, each matrix of it orthogonalised.

    Times 0.2 √(greater side), which makes a step as large as one of Adam (Liu et al. 2025, §2.2).
    """
    (velocity,) = state
    velocity.mul_(0.95).add_(gradient)
    moved = orthogonalised(gradient.add(velocity, alpha=0.95))
    numbers.addcmul_(moved, rates, value=-0.2 * max(moved.shape[-2:]) ** 0.5)


def _rprop(
    numbers: Tensor,
    gradient: Tensor,
    state: State,
    rates: Tensor,
    update: int | Tensor,
    smallest_step: float = SMALLEST_STEP,
) -> None:
    rprop_step(numbers, gradient, *state, smallest_step)


_ZERO = torch.zeros_like
_ADAM = UpdateRule(_adam, (_ZERO, _ZERO), counts=True)
UPDATE_RULES: dict[str, UpdateRule] = {
    "rprop": UpdateRule(_rprop, (_ZERO, torch.clone)),
    "sgd": UpdateRule(_sgd),
    "sign_sgd": UpdateRule(_sign_sgd),
    "momentum": UpdateRule(partial(_momentum, looks_ahead=False), (_ZERO,)),
    "nesterov": UpdateRule(partial(_momentum, looks_ahead=True), (_ZERO,)),
    "adagrad": UpdateRule(_adagrad, (_ZERO,)),
    "rmsprop": UpdateRule(_rmsprop, (_ZERO,)),
    "adam": _ADAM,
    "nadam": UpdateRule(_nadam, (_ZERO, _ZERO, torch.ones_like), counts=True),
    "muon": replace(_ADAM, of_weights=UpdateRule(_muon, (_ZERO,))),
}


def update_rule(optimizer: str) -> UpdateRule:
    """Return the rule of an optimiser, a key of ``UPDATE_RULES``; a ValueError if it is unknown."""
    return UPDATE_RULES[one_of(optimizer, UPDATE_RULES, "optimizer")]


@dataclass(frozen=True)
class Phase:
    """How long and with what a fit trains.

    Attributes:
        steps: parameter updates, at least 1.
        learning_rate: first step size, above 0. For Rprop it is the size of the first step of
            every number, from ``smallest_step`` to 50: torch would move it into these limits, here
            it is refused. There may be one for each network, in any sequence or array, so that a
            whole grid of learning rates is one fit of stacked networks.
        optimizer: a key of ``UPDATE_RULES``.
        weight_decay: δ, at least 0, of each step; one for all networks or one for each. It is
            the L2 penalty ½ δ Σ_t ‖W_t‖²_F of each network: δ W is added to the gradient of the
            weights, before the optimiser sees it, as in torch's SGD and Adam. Biases and targets
            do not decay. Losses and gradient norms are recorded without it.
        smallest_step: of Rprop, above 0: no number's step shrinks below it. 1e-6 is torch's
            default, which is too coarse for backpropagation in a deep net
            (``experiments.rai_questions_initialisation.smallest_step_cell``).

    Rprop is torch's. The step of a number grows by 1.2 where its gradient has the sign it had
    before, and shrinks by 0.5 where the sign has changed; after a change the gradient counts as 0
    for that update, so the number rests and the next update neither grows nor shrinks the step.
    Riedmiller & Braun (1993) also take the last move back after a change of sign: torch does not.
    The signs are those of gradient × previous gradient. In float32 that product is 0 where both
    are below 1e-19 or so, and a step then no longer adapts.
    """

    steps: int
    learning_rate: float | tuple[float, ...]
    optimizer: str = "rprop"
    weight_decay: float | tuple[float, ...] = 0.0
    smallest_step: float = SMALLEST_STEP

    def __post_init__(self) -> None:
        update_rule(self.optimizer)
        values = {
            "steps": whole_number(self.steps, "steps", least=1),
            "learning_rate": _one_or_each(self.learning_rate, "learning rate", above=0),
            "weight_decay": _one_or_each(self.weight_decay, "weight decay", least=0),
            "smallest_step": number(self.smallest_step, "smallest step", above=0),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if self.optimizer == "rprop":
            check_rprop_rates(_each(self.learning_rate), self.smallest_step)


def _each(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


def _one_or_each(value: Any, name: str, **limits: float) -> float | tuple[float, ...]:
    """Return one number for all networks, or a sequence with one for each as a tuple."""
    if not hasattr(value, "__len__") or getattr(value, "ndim", 1) == 0:
        return number(value, name, **limits)
    each = numbers(value, name, **limits)
    if not each:
        raise ValueError(f"{name} must be given for one network or more, got none")
    return each


def check_rprop_rates(rates: Sequence[float], smallest_step: float = SMALLEST_STEP) -> None:
    """Refuse first steps outside [``smallest_step``, ``LARGEST_STEP``], where Rprop moves them."""
    for rate in rates:
        if not smallest_step <= rate <= LARGEST_STEP:
            raise ValueError(
                f"learning rate of Rprop, its first step, must lie in [{smallest_step:g}, "
                f"{LARGEST_STEP:g}], from its smallest to its largest step, got {rate:g}"
            )


def schedule(steps: int, points: int = 25) -> tuple[int, ...]:
    """Return steps 0 … ``steps``, about ``points`` of them, evenly spaced on a log axis."""
    steps, points = whole_number(steps, "steps", 1), whole_number(points, "points", 1)
    spaced = np.unique(np.geomspace(1, steps, points).round().astype(int))
    return (0, *spaced.tolist())


@dataclass(frozen=True)
class Watch:
    """At which steps a fit looks at itself; step k is after k updates.

    Attributes:
        evaluate_at: plain-forward loss and accuracy on training and held-out data; None for
            ``schedule(steps)``. As the others, whole numbers, at least 0, in any sequence or array.
        inspect_at: gradient norm per layer and, for RAI, the parts of the relaxed loss.
        snapshot_at: keep a copy of the weights.
    """

    evaluate_at: Sequence[int] | None = None
    inspect_at: Sequence[int] = ()
    snapshot_at: Sequence[int] = ()

    def __post_init__(self) -> None:
        for name, steps in [*vars(self).items()]:
            if steps is not None:
                object.__setattr__(self, name, whole_numbers(steps, name))


@dataclass(frozen=True)
class Failure:
    """A seed whose loss became NaN or infinite; its weights mean nothing from then on.

    Attributes:
        position: place of the network on the seed axis.
        step: after how many updates.
        layer: number of the first layer concerned, from 1; T for the output.
    """

    position: int
    step: int
    layer: int

    def __str__(self) -> str:
        """Say what happened."""
        return (
            f"network {self.position}: the loss is NaN or infinite after {self.step} steps, "
            f"first in layer {self.layer}"
        )


@dataclass(frozen=True)
class History:
    """What a fit recorded, as plain arrays. E evaluations, I inspections, S seeds, T layers.

    Attributes:
        evaluated_at: steps, (E,).
        loss: the network's own loss on the training data, plain forward pass, (E, S).
        accuracy: plain-forward training accuracy, (E, S); NaN for regression, and where the
            forward pass is not finite.
        held_out_loss: the same loss on the held-out data, (E, S).
        held_out_accuracy: plain-forward held-out accuracy, (E, S).
        inspected_at: steps, (I,).
        gradient_norms: Euclidean norm of the gradient of weights and bias of each layer,
            (I, T, S). For RAI it is the gradient of the relaxed loss.
        relaxed_loss: total of Eq. 4, (I, S); empty for backpropagation, as are the next four.
        output_term: L_y of the output target, (I, S).
        hidden_terms: mean squared residual of each relaxed layer, (I, relaxed layers, S).
        target_mean_square: mean of z_t² over examples and units, (I, relaxed layers, S).
        target_variance: variance of z_t across examples, mean over units, same shape.
        failures: seeds that failed, in order.
    """

    evaluated_at: NDArray[np.int64]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    held_out_loss: NDArray[np.float64]
    held_out_accuracy: NDArray[np.float64]
    inspected_at: NDArray[np.int64]
    gradient_norms: NDArray[np.float64]
    relaxed_loss: NDArray[np.float64]
    output_term: NDArray[np.float64]
    hidden_terms: NDArray[np.float64]
    target_mean_square: NDArray[np.float64]
    target_variance: NDArray[np.float64]
    failures: tuple[Failure, ...]

    def frame(self) -> pandas.DataFrame:
        """Return the evaluations as a tidy table, one row per evaluation and seed, E · S rows.

        Columns: ``step``; ``seed``, the position among the seeds from 0; ``loss``, ``accuracy``,
        ``held_out_loss`` and ``held_out_accuracy`` as above.
        """
        import pandas  # what the package offers else needs torch and numpy alone

        evaluations, seeds = self.loss.shape
        step, seed = np.repeat(self.evaluated_at, seeds), np.tile(range(seeds), evaluations)
        names = ("loss", "accuracy", "held_out_loss", "held_out_accuracy")
        values = {name: getattr(self, name).ravel() for name in names}
        return pandas.DataFrame({"step": step, "seed": seed, **values})


@dataclass(frozen=True)
class OptimizerState:
    """What an optimiser of all trained numbers goes on from, on the CPU.

    Attributes:
        optimizer: a key of ``UPDATE_RULES``.
        updates: how many it has made.
        vectors: its state; each vector has a number for each weight, bias and target, in this
            order, or for those that the rule keeps it of.
    """

    optimizer: str
    updates: int
    vectors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Fit:
    """Result of a fit. Where networks to start from are asked for, it stands for going on.

    Attributes:
        model: the trained networks, on the CPU.
        targets: the trained targets; None for backpropagation.
        history: the record.
        snapshots: networks at the steps asked for.
        step_seconds: wall-clock time of each update, without evaluations and inspections,
            (updates,).
        state: of the optimiser; None where another way to train kept none.
    """

    model: StackedMLP
    targets: Targets | None
    history: History
    snapshots: dict[int, StackedMLP]
    step_seconds: NDArray[np.float64]
    state: OptimizerState | None = None

    @property
    def relaxed_targets(self) -> Targets:
        """The trained targets of a fit by RAI; a ValueError after one by backpropagation."""
        if self.targets is None:
            raise ValueError("the fit must be one by RAI, got one without targets")
        return self.targets


_FIT_FILE = "a fit of rai_utils, 1"


def save_fit(fit: Fit, path: str | Path) -> None:
    """Write all of a fit to one file, for ``load_fit``. It holds numbers and names, no code."""
    history, targets, state = dict(vars(fit.history)), fit.targets, fit.state
    kept = {
        "kind": _FIT_FILE,
        "architecture": asdict(fit.model.architecture),
        "drawn_from": fit.model.drawn_from,
        "networks": {
            step: [part.detach() for part in model.parameters()]
            for step, model in {-1: fit.model, **fit.snapshots}.items()
        },
        "targets": None if targets is None else (targets.plan.layers, targets.values, targets.x),
        "failures": [astuple(failure) for failure in history.pop("failures")],
        "history": {name: torch.from_numpy(column) for name, column in history.items()},
        "step_seconds": torch.from_numpy(fit.step_seconds),
        "state": None if state is None else vars(state),
    }
    torch.save(kept, path)


def load_fit(path: str | Path) -> Fit:
    """Read what ``save_fit`` wrote, to the same bits; a ValueError if the file is another."""
    with Path(path).open("rb") as file:
        try:
            kept = torch.load(file, weights_only=True)
        except Exception:  # each wrong file has one of its own
            kept = None
    if not isinstance(kept, dict) or kept.get("kind") != _FIT_FILE:
        raise ValueError(f"a file of a fit must be one that save_fit wrote, got {path}")
    architecture = Architecture(**kept["architecture"])
    runs = len(architecture.runs)
    networks = {
        step: StackedMLP(architecture, parts[:runs], parts[runs:], kept["drawn_from"])
        for step, parts in kept["networks"].items()
    }
    targets = None
    if kept["targets"] is not None:
        layers, values, x = kept["targets"]
        targets = Targets(relaxation_plan(architecture, layers), values, x)
    columns = {name: column.numpy() for name, column in kept["history"].items()}
    history = History(**columns, failures=tuple(Failure(*each) for each in kept["failures"]))
    state = None if kept["state"] is None else OptimizerState(**kept["state"])
    model, seconds = networks.pop(-1), kept["step_seconds"].numpy()
    return Fit(model, targets, history, networks, seconds, state)


def loss_for(task: Task, loss: OutputLoss | None = None) -> OutputLoss:
    """Return ``loss``, or by default cross-entropy for classes and squared error for regression.

    Cross-entropy of labels that are no classes is refused with a ValueError.
    """
    if task == "regression" and loss == "cross_entropy":
        raise ValueError("regression must have the loss 'squared_error', got 'cross_entropy'")
    return loss or ("squared_error" if task == "regression" else "cross_entropy")


def evaluate(
    model: StackedMLP, x: Tensor, y: Tensor, task: Task, loss: OutputLoss | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Loss and accuracy of the plain forward pass, see ``score``."""
    with torch.no_grad():
        return score(model(x), y, task, model.architecture.output_activation, loss)


def score(
    z: Tensor, y: Tensor, task: Task, output_activation: str, loss: OutputLoss | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Loss and accuracy of what networks put out, (seeds,) each.

    A prediction is right if it is a probability above ½, or the greatest output of several, where
    the label says so. Accuracy is NaN for regression, and for a network whose outputs are not
    finite.

    Args:
        z: pre-activations of the output layer, (seeds, examples, outputs).
        y, task, loss: as everywhere here.
        output_activation: ``"sigmoid"``, ``"softmax"`` or ``"identity"``; with one unit and
            ``"identity"`` the output itself is compared with ½.
    """
    classes = z.shape[-1]
    if task == "multiclass" and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(
            f"labels must lie in 0 … {classes - 1}, the network's classes, "
            f"got {int(y.min())} … {int(y.max())}"
        )
    with torch.no_grad():
        losses = output_loss(z, y, output_activation, loss_for(task, loss)).double()
        if task == "regression":
            accuracy = torch.full_like(losses, torch.nan)
        else:
            threshold = 0.0 if output_activation == "sigmoid" else 0.5
            right = z.argmax(-1) == y if classes > 1 else (z[..., 0] > threshold) == (y > 0.5)
            accuracy = right.sum(1).double() / len(y)
            accuracy[~torch.isfinite(z).all(-1).all(-1)] = torch.nan
    return losses.cpu().numpy(), accuracy.cpu().numpy()


def resolve_device(device: str) -> torch.device:
    """Return the device; ``"auto"`` takes a CUDA GPU where there is one, else the CPU.

    CUDA where there is none is refused with a ValueError.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} needs a CUDA GPU, and torch sees none")
    return chosen


def fit_backprop(
    model: StackedMLP | Fit,
    dataset: Dataset,
    phase: Phase,
    *,
    watch: Watch | None = None,
    loss: OutputLoss | None = None,
    device: str = "auto",
    find: Callable[..., tuple[Tensor, ...]] | None = None,
    compiled: bool = False,
) -> Fit:
    """Train by backpropagation: gradients of the network's own loss.

    Args:
        model: the networks to start from, left as they are; or a ``Fit``, to go on with its
            networks, targets and optimiser. Steps and more steps of one phase are then, to the last
            bit, a fit of all of them. A learning rate may change on the way; Rprop has steps of its
            own by then.
        dataset: the examples, the same for all seeds.
        phase: steps, learning rate, optimiser; the steps of a ``Watch`` count from its start.
        watch: when to record.
        loss: the output error.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        find: other gradients to train by, those of the weights and then of the biases: (networks,
            x, y, loss=) -> gradients.
        compiled: whether loss and gradients are compiled, on a CPU. A step of one shallow network
            is 3 times as fast, of 16 1.3 times, and equal to rounding. Compiling takes some 10 s
            for each shape, so it pays for thousands of steps. By backpropagation deep networks are
            slower. RAI with DEEP or more layers of one width in a row takes ``native`` instead,
            where that serves: a C file, made in 2 s for all shapes; the Rprop step is compiled too.
            Not with ``find``.
    """
    if isinstance(model, Fit) and model.targets is not None:
        raise ValueError("backpropagation must go on from a fit by backpropagation, got one by RAI")
    if compiled and find is not None:
        raise ValueError("compiled must be False where find gives the gradients, got True")
    return _fit(model, dataset, phase, watch, loss, device, compiled, find=find)


def fit_relaxed(
    model: StackedMLP | Fit,
    dataset: Dataset,
    phase: Phase,
    *,
    layers: Sequence[int] | Literal["all"] = "all",
    hidden_weight: float = 1.0,
    targets: Targets | None = None,
    objective: Objective = relaxed_loss,
    watch: Watch | None = None,
    loss: OutputLoss | None = None,
    device: str = "auto",
    compiled: bool = False,
) -> Fit:
    """Train by RAI: weights and targets together, gradients of the relaxed loss (Eq. 4).

    Args:
        model, dataset, watch, loss, device, compiled: as in ``fit_backprop``.
        phase: steps, learning rate, optimiser; one optimiser for weights and targets.
        layers: numbers of the relaxed layers, from 1, or ``"all"``; with ``targets``, all of those
            that they are of.
        hidden_weight: λ, at least 0.
        targets: where the targets start; None for the plain forward pass, with residuals that are
            exactly 0, or for those of a ``Fit``.
        objective: what is minimised, called as ``relaxed_loss`` is at every step.

    Raises:
        ValueError: another objective is to be compiled, or a ``Fit`` is not one by RAI, has targets
            beside it, or another optimiser than the phase.
    """
    if compiled and objective is not relaxed_loss:
        raise ValueError(f"what is compiled must be relaxed_loss, got {objective}")
    hidden_weight = number(hidden_weight, "hidden weight", least=0)
    networks, own = (
        (model.model, model.relaxed_targets) if isinstance(model, Fit) else (model, None)
    )
    if own and targets:
        raise ValueError("targets must be those of the fit that goes on, got others beside it")
    targets = targets or own
    plan = relaxation_plan(networks.architecture, layers)
    if targets is not None:
        if not isinstance(layers, str) and plan.layers != targets.plan.layers:
            raise ValueError(f"the targets are of layers {targets.plan.layers}, got {plan.layers}")
        plan = targets.plan
        if targets.plan.architecture != networks.architecture:
            raise ValueError(
                f"the targets must be of the architecture {networks.architecture}, "
                f"got {targets.plan.architecture}"
            )
        if targets.values[0].shape[1] != networks.seeds:
            raise ValueError(
                f"the targets must be of {networks.seeds} networks, "
                f"got those of {targets.values[0].shape[1]}"
            )
        check_examples(targets.x, dataset.x)
    fitting = model, dataset, phase, watch, loss, device, compiled
    return _fit(
        *fitting, plan=plan, hidden_weight=hidden_weight, targets=targets, objective=objective
    )


@dataclass(frozen=True)
class HandOver:
    """Result of a hand-over: the RAI fit and the backpropagation fit that followed it."""

    relaxed: Fit
    backprop: Fit


def fit_handover(
    model: StackedMLP,
    dataset: Dataset,
    relaxed_phase: Phase,
    backprop_phase: Phase,
    *,
    layers: Sequence[int] | Literal["all"] = "all",
    hidden_weight: float = 1.0,
    relaxed_watch: Watch | None = None,
    backprop_watch: Watch | None = None,
    loss: OutputLoss | None = None,
    device: str = "auto",
) -> HandOver:
    """Train by RAI, then by backpropagation on the very same weights, with a fresh optimiser.

    The targets are dropped between the two. Each phase has a watch of its own; all else is as in
    ``fit_relaxed``.
    """
    both: dict[str, Any] = {"loss": loss, "device": device}
    own: dict[str, Any] = {"layers": layers, "hidden_weight": hidden_weight, **both}
    relaxed = fit_relaxed(model, dataset, relaxed_phase, watch=relaxed_watch, **own)
    backprop = fit_backprop(relaxed.model, dataset, backprop_phase, watch=backprop_watch, **both)
    return HandOver(relaxed, backprop)


def check_data(architecture: Architecture, dataset: Dataset, loss: OutputLoss) -> None:
    """Refuse networks, data and a loss that do not fit each other, before any work."""
    check_inputs(architecture, dataset.x)
    if dataset.outputs != architecture.widths[-1]:
        raise ValueError(
            f"{dataset.name} needs {dataset.outputs} output units, "
            f"got a network with {architecture.widths[-1]}"
        )
    example = torch.zeros(1, 1, architecture.widths[-1])
    output_loss(example, dataset.y[:1], architecture.output_activation, loss)


def batches(examples: int, batch: int, seed: int = 0) -> Iterator[Tensor]:
    """Yield the rows of each step, without end.

    Each pass over the data has an order of its own, drawn by ``seed`` without replacement; its last
    batch may be smaller. ``batch`` lies in 1 … ``examples``.
    """
    batch, generator = whole_number(batch, "batch", 1, examples), seeded(seed, "order_seed")
    return chain.from_iterable(
        torch.randperm(examples, generator=generator).split(batch) for _ in count()
    )


Rows = TypeVar("Rows")
Loss = TypeVar("Loss")
Gradients = TypeVar("Gradients")
Result = TypeVar("Result")


@dataclass
class Step(Generic[Rows, Loss, Gradients]):
    """One step of a fit before its update. What is asked of it is computed once, when it is asked.

    Attributes:
        updates: how many came before.
        rows: which examples its batch has.
        find_loss, find_gradients: as in ``steps``.
        seconds: what was computed of it took so long.
    """

    updates: int
    rows: Rows
    find_loss: Callable[[Rows], Loss]
    find_gradients: Callable[[Loss], Gradients]
    seconds: float = 0.0

    @cached_property
    def loss(self) -> Loss:
        """What ``find_loss`` returned for the batch."""
        return self.timed(self.find_loss, self.rows)

    @cached_property
    def gradients(self) -> Gradients:
        """What ``find_gradients`` returned for the loss."""
        return self.timed(self.find_gradients, self.loss)

    def timed(self, work: Callable[[Any], Result], given: Any) -> Result:
        """Do a part of the step."""
        started = perf_counter()
        result = work(given)
        self.seconds += perf_counter() - started
        return result


def steps(
    find_loss: Callable[[Rows], Loss],
    find_gradients: Callable[[Loss], Gradients],
    update: Callable[[Gradients], object],
    rows: Iterable[Rows],
    seconds: list[float] | None = None,
) -> Iterator[Step[Rows, Loss, Gradients]]:
    """Train: loss, gradients, update, batch after batch. Every fit of the study runs this loop.

    A step is handed out before its update, so the networks stand where ``step.updates`` updates
    have left them. Who takes no further step ends the training, and nothing more is computed.

    Args:
        find_loss: rows of a batch -> what is to fall.
        find_gradients: that loss -> its gradients.
        update: gradients -> None; makes one optimiser step.
        rows: the batches, ``repeat(None)`` for all examples; the training ends with the last.
        seconds: what each finished step took is added to it, without what its reader did.
    """
    for updates, batch in enumerate(rows):
        step = Step(updates, batch, find_loss, find_gradients)
        yield step
        step.timed(update, step.gradients)
        if seconds is not None:
            seconds.append(step.seconds)


def module_steps(
    optimizer: torch.optim.Optimizer,
    find_loss: Callable[[], Tensor],
    count: int,
    seconds: list[float] | None = None,
) -> Iterator[Step[None, Tensor, None]]:
    """Train any module on all of its examples, by an optimiser of torch: see ``steps``."""

    def find_gradients(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()

    rows = repeat(None, count)
    return steps(lambda _: find_loss(), find_gradients, lambda _: optimizer.step(), rows, seconds)


def _check_fit(model: StackedMLP, watch: Watch, phase: Phase) -> None:
    for name, at in vars(watch).items():
        whole_numbers(at or (), name, most=phase.steps)
    for name, values in vars(phase).items():
        if isinstance(values, tuple):
            one_each(values, model.seeds, name.replace("_", " "))


Shapes = tuple[tuple[int, ...], ...]


def _views(flat: Tensor, shapes: Shapes) -> list[Tensor]:
    """Return the parts of one vector in their shapes."""
    parts = flat.split([prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


Recorded = dict[int, tuple[NDArray[np.float64], ...]]  # step -> an entry for each column


def _history(
    evaluated: Recorded,
    inspected: Recorded,
    failures: Sequence[Failure],
    architecture: Architecture,
    seeds: int,
    plan: RelaxationPlan | None,
) -> History:
    """Stack the rows that were recorded, of which there may be none."""
    narrow, wide = ((seeds,), (len(plan.layers), seeds)) if plan else ((0,), (0,))
    inspection = ((architecture.depth, seeds), narrow, narrow, wide, wide, wide)
    columns: list[NDArray[Any]] = []
    for rows, shapes in ((evaluated, ((seeds,),) * 4), (inspected, inspection)):
        columns.append(np.array(list(rows), dtype=np.int64))
        for i, shape in enumerate(shapes):
            column = np.array([row[i] for row in rows.values()], dtype=float)
            columns.append(column.reshape(len(rows), *shape))
    return History(*columns, failures=tuple(failures))


def _fit(
    start: StackedMLP | Fit,
    dataset: Dataset,
    phase: Phase,
    watch: Watch | None,
    loss: OutputLoss | None,
    device: str,
    compiled: bool,
    *,
    plan: RelaxationPlan | None = None,
    hidden_weight: float = 1.0,
    targets: Targets | None = None,
    objective: Objective = relaxed_loss,
    find: Callable[..., tuple[Tensor, ...]] | None = None,
) -> Fit:
    """Train by gradients of the loss, or, without targets, by those that ``find`` returns."""
    model, before = (start.model, start.state) if isinstance(start, Fit) else (start, None)
    if isinstance(start, Fit) and (before is None or before.optimizer != phase.optimizer):
        raise ValueError(
            f"the optimiser must be that of the fit that goes on, {before and before.optimizer}, "
            f"got {phase.optimizer}: for a new one, start from fit.model and fit.targets"
        )
    watch = watch or Watch()
    loss = loss_for(dataset.task, loss)
    architecture, place = model.architecture, resolve_device(device)
    check_data(architecture, dataset, loss)
    _check_fit(model, watch, phase)
    dtype = model.weights[0].dtype
    data = dataset.to(place, dtype)
    trained = [*model.weights, *model.biases]
    if plan is not None:
        trained += (targets or forward_targets(model, dataset.x.to(dtype), plan)).values
    shapes = tuple(tuple(tensor.shape) for tensor in trained)
    flat = torch.cat([tensor.detach().to(place).reshape(-1) for tensor in trained])
    leaves = _views(flat, shapes)
    runs = len(architecture.runs)
    weights, biases, values = leaves[:runs], leaves[runs : 2 * runs], leaves[2 * runs :]
    deep = compiled and plan is not None and plan.longest_stretch >= DEEP
    by_c = deep and native.serves(architecture.hidden_activation, flat)
    if by_c:
        objective = partial(objective, by_c=True)
    if plan is not None and targets is None:
        # In the buffers that the fit will use: another address may be another rounding.
        settle_targets(plan, weights, biases, values, data.x, by_c)
    for leaf in leaves:
        leaf.requires_grad_()
    gradient = torch.zeros_like(flat)
    gradients = _views(gradient, shapes)
    compiled = compiled and place.type == "cpu" and compile_rprop() is not None and not deep
    # Rprop alone moves nothing whose gradient is 0 for good; a decaying weight moves all the same.
    resting = plan is None and find is None and phase.optimizer == "rprop" and not compiled
    resting = resting and not any(_each(phase.weight_decay)) and place.type != "cuda"
    dead = [DeadLayers() for _ in range(runs - 1)] if resting else None
    advance, state = _stepper(phase, flat, gradient, shapes, runs, dead, before)
    advance = _decayed(phase, flat, gradient, shapes[:runs], advance)
    current = StackedMLP(architecture, weights, biases, model.drawn_from)
    evaluate_at = set(schedule(phase.steps) if watch.evaluate_at is None else watch.evaluate_at)
    inspect_at, snapshot_at = set(watch.inspect_at), set(watch.snapshot_at)
    evaluated: Recorded = {}
    inspected: Recorded = {}
    failures: list[Failure] = []
    snapshots: dict[int, StackedMLP] = {}
    alive = torch.ones(model.seeds, dtype=torch.bool, device=place)

    def find_loss(_: None) -> RelaxedLoss:
        if plan is None:
            z = forward(architecture, weights, biases, data.x, gradients, dead)
            return _plain(output_loss(z, data.y, architecture.output_activation, loss))
        numbers = weights, biases, values, data.x, data.y
        return objective(plan, *numbers, hidden_weight=hidden_weight, loss=loss, into=gradients)

    def find_gradients(found: RelaxedLoss) -> None:
        if find is None:
            new = torch.autograd.grad(found.total.sum(), leaves)
        else:
            new = find(current, data.x, data.y, loss=loss)
        for own, each in zip(gradients, new, strict=True):
            if own.data_ptr() != each.data_ptr():  # not written to its place at once
                own.copy_(each)

    losses_of: Callable[[None], RelaxedLoss] = find_loss
    gradients_of: Callable[[RelaxedLoss], None] = find_gradients
    if place.type == "cuda":
        if CUDA_GRAPHS and find is None and objective is relaxed_loss:
            losses_of, gradients_of = _recorded(losses_of, gradients_of)
            if not update_rule(phase.optimizer).counts:  # else no step is as the one before
                advance = _recorded_update(advance)
        losses_of, advance = _awaited(losses_of), _awaited(advance)
    if compiled:
        both = _compiled_gradients(architecture, plan, hidden_weight, loss)
        tensors = flat, gradient, shapes, data.x, data.y
        # Each shape is a variant of one function, of which torch would keep eight.
        with torch._dynamo.config.patch(recompile_limit=1000):
            both(*tensors)
        losses_of, gradients_of = lambda _: RelaxedLoss(*both(*tensors)), lambda _: None
    seconds: list[float] = []
    rows = repeat(None)
    with _progress_bar(phase.steps, "RAI" if plan else "backprop") as bar:
        for step in steps(losses_of, gradients_of, lambda _: advance(), rows, seconds):
            updates = step.updates
            if updates in snapshot_at:
                snapshots[updates] = deepcopy(current).cpu()
            if updates in evaluate_at:
                row = evaluated[updates] = (
                    *evaluate(current, data.x, data.y, data.task, loss),
                    *evaluate(current, data.held_out_x, data.held_out_y, data.task, loss),
                )
                known = row[1][np.isfinite(row[1])]
                if known.size:
                    bar.set_postfix(accuracy=f"{known.mean():.3f}")
            if updates == phase.steps and updates not in inspect_at:
                break
            found = step.loss
            finite = torch.isfinite(found.total.detach())
            if not finite[alive].all():
                for position in (alive & ~finite).nonzero().flatten().tolist():
                    layer = _first_bad_layer(current, data.x, plan, found, position)
                    failures.append(Failure(position, updates, layer))
                alive &= finite
                if not alive.any():
                    break
            if updates in inspect_at:
                _ = step.gradients
                inspected[updates] = _inspect(runs, gradients, values, found)
            if updates == phase.steps:
                break
            bar.update()
    final = None
    if plan is not None:
        final = Targets(plan, tuple(v.detach().cpu().clone() for v in values), dataset.x)
    history = _history(evaluated, inspected, failures, architecture, model.seeds, plan)
    updates = len(seconds) + (before.updates if before else 0)
    kept = OptimizerState(phase.optimizer, updates, tuple(vector.cpu() for vector in state))
    return Fit(deepcopy(current).cpu(), final, history, snapshots, np.array(seconds), kept)


def _plain(total: Tensor) -> RelaxedLoss:
    """Return the loss of backpropagation, (seeds,): nothing is relaxed."""
    return RelaxedLoss(total, total.detach(), total.new_empty(0, len(total)))


def _inspect(
    runs: int, gradients: list[Tensor], values: list[Tensor], parts: RelaxedLoss
) -> tuple[NDArray[np.float64], ...]:
    norms = layer_norms(gradients[:runs], gradients[runs : 2 * runs]).cpu().numpy()  # (T, seeds)
    if not values:
        return (norms, *(np.empty(0),) * 5)
    mean_squares = torch.cat([v.detach().double().square().mean((2, 3)) for v in values])
    variances = torch.cat([v.detach().double().var(2, correction=0).mean(2) for v in values])
    record = (parts.total, parts.output, parts.hidden, mean_squares, variances)
    return (norms, *(value.detach().double().cpu().numpy() for value in record))


def _first_bad_layer(
    model: StackedMLP, x: Tensor, plan: RelaxationPlan | None, parts: RelaxedLoss, position: int
) -> int:
    """Return the first layer with a NaN or infinite value, T if only the output loss has one."""
    if plan is not None:
        bad = ~torch.isfinite(parts.hidden[:, position])
        return plan.layers[int(bad.nonzero()[0])] if bad.any() else model.architecture.depth
    for layer, z in enumerate(pre_activations(model, x), start=1):
        if not torch.isfinite(z[position]).all():
            return layer
    return model.architecture.depth


def _stepper(
    phase: Phase,
    flat: Tensor,
    gradient: Tensor,
    shapes: Shapes,
    runs: int,
    dead: Sequence[DeadLayers] | None,
    before: OptimizerState | None,
) -> tuple[Callable[[], object], State]:
    """Return a function that makes one optimiser step on all trained numbers, and its state.

    One vector, because torch's optimisers pay for each tensor and the compiled step for each
    number of tensors. ``shapes`` are those of its parts, (layers, seeds, …), first the weights of
    each of the ``runs``. Rprop leaves out the leading layers of each run whose gradient was 0 at
    this step and the one before. The state is that of ``before``, if it is given.
    """
    rates = _per_number(_each(phase.learning_rate), flat, shapes)
    rule = update_rule(phase.optimizer)
    begin = sum(map(prod, shapes[:runs])) if rule.of_weights else 0
    of_weights = rule.of_weights.start(rates[:begin]) if rule.of_weights else ()
    state = rule.start(rates[begin:])
    for vector, kept in zip((*of_weights, *state), before.vectors if before else (), strict=False):
        vector.copy_(kept)
    if phase.optimizer == "rprop":
        kind, numbers = flat.device.type, phase.steps * flat.numel()
        pays = kind in _compiled or numbers > COMPILE_ABOVE[kind]
        step = (compile_rprop(kind) if pays else None) or rprop_step
        if dead is None:
            return lambda: step(flat, gradient, *state, phase.smallest_step), state
        moved = flat, gradient, *state
        counts = [0] * len(dead)

        def step_the_living() -> None:
            nonlocal counts
            before, counts = counts, [layers.count for layers in dead]
            for part in _living(shapes, [*map(min, before, counts)]):
                step(*(numbers[part] for numbers in moved), phase.smallest_step)

        return step_the_living, state
    whole = flat, gradient, rates  # of which every part is one of numbers, gradient and rates
    # What several passes read fits into a cache; a GPU pays for each launch.
    size = BLOCK if flat.device.type == "cpu" else flat.numel()
    vectors = *(each[begin:] for each in whole), *state
    parts = [(rule, each) for each in zip(*(v.split(size) for v in vectors), strict=True)]
    if rule.of_weights:
        vectors = *(each[:begin] for each in whole), *of_weights
        matrices = zip(*(_views(vector, shapes[:runs]) for vector in vectors), strict=True)
        parts += [(rule.of_weights, each) for each in matrices]
    updates = count(1 + (before.updates if before else 0))

    def step_each() -> None:
        update = next(updates)
        for own, (numbers, slope, at, *kept) in parts:
            own.step(numbers, slope, tuple(kept), at, update)

    return step_each, (*of_weights, *state)


def _living(shapes: Shapes, resting: Sequence[int]) -> list[slice]:
    """Return the parts of the vector of all weights and biases that an optimiser has to visit.

    ``resting`` counts the leading layers to leave out of each run but the last.
    """
    parts: list[slice] = []
    start = 0
    for shape, layers in zip(shapes, [*resting, 0] * 2, strict=True):
        first, end = start + layers * prod(shape[1:]), start + prod(shape)
        if parts and parts[-1].stop == first:
            parts[-1] = slice(parts[-1].start, end)
        elif first < end:
            parts.append(slice(first, end))
        start = end
    return parts


def _per_number(values: Sequence[float], flat: Tensor, shapes: Shapes) -> Tensor:
    """Repeat one value for all, or one a network, for each number of a vector, of its shape."""
    own = torch.tensor(values, dtype=flat.dtype, device=flat.device)
    if len(values) == 1:
        return own.expand_as(flat)
    each = torch.empty_like(flat)
    for part in _views(each, shapes):
        part.copy_(own[:, None, None])
    return each


def _decayed(
    phase: Phase,
    flat: Tensor,
    gradient: Tensor,
    shapes: Shapes,
    advance: Callable[[], object],
) -> Callable[[], object]:
    """Return ``advance`` with δ W added to the gradient of the weights, which stand first."""
    decays = _each(phase.weight_decay)
    if not any(decays):
        return advance
    size = sum(map(prod, shapes))
    decaying, own = flat[:size], gradient[:size]
    decay = _per_number(decays, decaying, shapes)  # (all weights,)

    def step() -> None:
        own.addcmul_(decaying, decay)
        advance()

    return step


def rprop_step(
    parameter: Tensor,
    gradient: Tensor,
    previous: Tensor,
    step_size: Tensor,
    smallest_step: float,
) -> None:
    """Apply the update of ``torch.optim.Rprop`` to one vector, in place and to the same bits.

    Written out because torch's own is made of masked writes, which do not fuse: compiled, this
    one moves half as many bytes.
    """
    agreement = gradient * previous
    smaller = torch.where(agreement < 0, step_size * 0.5, step_size)
    changed = torch.where(agreement > 0, step_size * 1.2, smaller)
    step_size.copy_(changed.clamp(smallest_step, LARGEST_STEP))
    kept = torch.where(agreement < 0, 0.0, gradient)
    parameter.sub_(kept.sign() * step_size)
    previous.copy_(kept)


RpropStep = Callable[[Tensor, Tensor, Tensor, Tensor, float], None]
_compiled: dict[str, RpropStep | None] = {}


def compile_rprop(device: str = "cpu") -> RpropStep | None:
    """Compile the Rprop step now, for vectors of any length; every later fit then uses it.

    For a process that makes many fits, each too short to pay for it. Returns None, with a warning,
    where there is no compiler; ``device`` is ``"cpu"`` or ``"cuda"``.
    """
    if device not in _compiled:
        # It would tell every reader with a CUDA compiler and no GPU, on stderr, that there is none.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        # Torch keeps compiled code by its source, whatever instructions it is for: with another
        # ATEN_CPU_CAPABILITY it would take what does not compile there.
        from torch._inductor.codecache import cache_dir

        folder, kind = Path(cache_dir()), torch.backends.cpu.get_cpu_capability().lower()
        if folder.name != kind:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / kind)
        step = torch.compile(rprop_step, dynamic=True)
        try:
            step(*(torch.zeros(64, device=device) for _ in range(4)), 1e-6)
        except Exception as error:  # whatever the compiler tool chain raises
            reason = " ".join(str(error).split("\n\n")[0].split())
            warnings.warn(
                f"torch.compile does not work here ({reason}): the Rprop step runs eagerly, "
                "about eight times slower, with the same numbers",
                stacklevel=2,
            )
            step = None
        _compiled[device] = step
    return _compiled[device]


def _recorded(
    find_loss: Callable[[None], Loss], find_gradients: Callable[[Loss], object]
) -> tuple[Callable[[None], Loss], Callable[[Loss], None]]:
    """Record loss and gradients of all examples as one CUDA graph; return what plays it back.

    What it returns are the same tensors at every step, with new numbers.
    """

    def both() -> Loss:
        loss = find_loss(None)
        find_gradients(loss)
        return loss

    # What libraries set up on first use may not be recorded.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        both()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = both()

    def play(_: None) -> Loss:
        graph.replay()
        return recorded

    return play, lambda _: None


@cache
def _compiled_gradients(
    architecture: Architecture, plan: RelaxationPlan | None, hidden_weight: float, loss: OutputLoss
) -> Callable[..., tuple[Tensor, ...]]:
    """Return what writes the gradient of all numbers of a fit, in one compiled function.

    It takes the vector of all trained numbers, memory for their gradient, the shapes of the
    vector's parts, x and y, and returns the parts of a ``RelaxedLoss``.
    """
    runs = len(architecture.runs)

    def find(
        flat: Tensor, shapes: Shapes, x: Tensor, y: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        leaves = _views(flat, shapes)
        weights, biases, values = leaves[:runs], leaves[runs : 2 * runs], leaves[2 * runs :]
        if plan is None:
            z = forward(architecture, weights, biases, x)
            found = _plain(output_loss(z, y, architecture.output_activation, loss))
        else:
            parameters = weights, biases, values
            found = relaxed_loss(plan, *parameters, x, y, hidden_weight=hidden_weight, loss=loss)
        return found.total.sum(), (found.total, found.output, found.hidden)

    @partial(torch.compile, dynamic=False, fullgraph=True)
    def both(
        flat: Tensor, gradient: Tensor, shapes: Shapes, x: Tensor, y: Tensor
    ) -> tuple[Tensor, ...]:
        own, found = torch.func.grad(find, has_aux=True)(flat, shapes, x, y)
        gradient.copy_(own)
        return found

    return both


def _awaited(work: Callable[..., Result]) -> Callable[..., Result]:
    """Return work that ends when the GPU has done it: the next look at a number waits anyway."""

    def wait(*arguments: Any) -> Result:
        result = work(*arguments)
        torch.cuda.synchronize()
        return result

    return wait


def _recorded_update(advance: Callable[[], object]) -> Callable[[], object]:
    """Return the optimiser's step, recorded when it is made for the second time."""

    def plays() -> Iterator[object]:
        yield advance()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            advance()
        while True:
            yield graph.replay()

    return partial(next, plays())


def _progress_bar(steps: int, name: str) -> tqdm:
    """Return a bar for a person who waits: in a terminal or a notebook, unless RAI_PROGRESS=off."""
    from tqdm.auto import tqdm

    watched = "ipykernel" in sys.modules or sys.stderr.isatty()
    hidden = os.environ.get("RAI_PROGRESS") == "off" or not watched
    return tqdm(total=steps, desc=name, disable=hidden, leave=False)

"""What the notebook rai-guided-starts measures, and the long runs that it reads (``make study``).

Targets are free parameters, so they may start anywhere; ``relaxation.guided_targets`` says where
they start here. Accuracies are those of the plain forward pass.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rai_utils.checks import one_of, seeded
from rai_utils.data import Dataset, circles, digits, dose_response, from_arrays, moons, spirals
from rai_utils.experiments.sweep import Cell, Sweep, grid
from rai_utils.models import (
    Architecture,
    StackedMLP,
    build_mlp,
    confirmation_seeds,
    pre_activations,
)
from rai_utils.publishing.settings import NOTEBOOK_SETTINGS, SETTINGS
from rai_utils.relaxation import guided_targets, resting
from rai_utils.training import Fit, Phase, Watch, compile_rprop, evaluate, fit_backprop, fit_relaxed

# Number of the first network that confirms what others have suggested.
FRESH = 100
# Random states: of held-out data, and of what a guided start draws, for network 0.
HELD_OUT, GUIDE = 20_042, 500_000
SMALLEST_STEP = 1e-12
NEVER = 10**9
# The one setting, and what is changed for inputs of many features and for steeper activations:
# fixed on networks and draws from 1000 on, where what is published has smaller numbers.
PATH, SCALE, OFFSET, CODE, REST = 1.0, 6.0, 9.0, 5.0, 50
MANY: Cell = {"scale": 3.0, "offset": 1.5}
STEEP: Cell = {"scale": 2.0, "offset": 3.0, "code": 2.0}
STEEP_RATES = {"tanh": 0.02, "relu": 0.005}

# For a training accuracy of 1 on digits: fixed on networks 1000 to 1007 at 12 layers, where 150
# steps left one of them short.
DIGITS_SETTING: Cell = {"steps": 300}

# The first step of Rprop in shallow networks, from networks and draws from 1000 on.
BACKPROP_RATE = 0.01


def noisy_moons(share: float, **draw: int) -> Dataset:
    """Moons with this share of the training labels turned round, the same number in each class."""
    data = moons(**draw)
    turned = data.y.clone()
    for label in (0, 1):
        places = (data.y == label).nonzero().flatten()
        order = torch.randperm(len(places), generator=seeded(draw["seed"]))
        turned[places[order[: round(share * len(places))]]] = 1 - label
    return replace(data, name="Moons, noisy labels", y=turned)


def mnist_1d(seed: int) -> Dataset:
    """Digits as curves of 40 points, shifted and disturbed (Greydanus & Kobak 2024), drawn anew.

    1000 to train on and 1000 held out, as many of each of the ten classes over both parts.
    """
    # Imported here: it brings matplotlib, and one task alone needs it.
    from mnist1d.data import get_dataset_args, make_dataset

    options = get_dataset_args()
    options.seed, options.num_samples, options.train_split = seed, 2000, 0.5
    made = make_dataset(options)
    parts = (made["x"], made["y"]), (made["x_test"], made["y_test"])
    return from_arrays("MNIST-1D", "multiclass", *parts)


def _drawn(make: Callable[..., Dataset]) -> Callable[[int], Dataset]:
    return lambda network: make(seed=42 + network, held_out_seed=HELD_OUT + network)


TASKS: dict[str, Callable[[int], Dataset]] = {
    "moons": _drawn(partial(moons, held_out=1000)),
    "moons, noisy labels": _drawn(partial(noisy_moons, 0.1, held_out=1000)),
    "circles": _drawn(partial(circles, held_out=1000)),
    "spirals": _drawn(partial(spirals, held_out=1000)),
    "digits": lambda network: digits(seed=42 + network),
    "digits, 100 examples": lambda network: digits(100, seed=42 + network),
    "MNIST-1D": lambda network: mnist_1d(42 + network),
    "dose curve": lambda network: dose_response(100, seed=42 + network),
}


def network_of(
    data: Dataset, hidden_layers: int, network: int, activation: str = "sigmoid", width: int = 100
) -> StackedMLP:
    """Return one network at its default start, with the output that the task needs."""
    outputs = {"multiclass": "softmax", "binary": "sigmoid", "regression": "identity"}
    widths = (data.x.shape[1], *[width] * hidden_layers, data.outputs)
    return build_mlp(Architecture(widths, activation, outputs[data.task]), [network])


def guided_cell(
    task: str,
    hidden_layers: int,
    network: int,
    *,
    steps: int = 200,
    rest: int = REST,
    path: float = PATH,
    scale: float = SCALE,
    offset: float = OFFSET,
    code: float = CODE,
    own_codes: bool = False,
    layers: Sequence[int] | None = None,
    rate: float = 0.1,
    decay: float = 0.0,
    activation: str = "sigmoid",
    width: int = 100,
    precision: str = "float32",
    disturbance: float = 0.0,
    resolution: int = 1,
) -> dict[str, Any]:
    """Train one network from a guided start, on a draw of the data of its own, by Rprop.

    Args:
        task: a key of ``TASKS``.
        hidden_layers: of one width.
        network: seed of the network, of the data and of the guide.
        steps: updates.
        rest: targets rest in so many steps from the start; ``NEVER`` freezes them.
        path, scale, offset, code: as in ``guided_targets``; a path of −1 is one without end.
        own_codes: whether each example has a code of its own, so that it says nothing of classes.
        layers: those that are trained; None for all.
        rate: first step of Rprop.
        decay: weight decay.
        activation, width: of the hidden layers.
        precision: ``"float32"`` or ``"float64"``.
        disturbance: standard deviation of noise on the targets at the start.
        resolution: one of so many of the steps of ``marks`` is looked at, the last always.

    Returns:
        ``evaluated_at``; there ``train`` and ``held_out``, the accuracy of the plain forward pass,
        or the share of variance explained for a regression, None where the pass is not finite;
        ``seconds_a_step``: the median.
    """
    dtype = getattr(torch, one_of(precision, ("float32", "float64"), "precision"))
    data = TASKS[one_of(task, TASKS, "task")](network).to("cpu", dtype)
    start = network_of(data, hidden_layers, network, activation, width).to(dtype)
    length = math.inf if path < 0 else path
    labels = torch.arange(len(data.x)) if own_codes else None
    targets = guided_targets(
        start,
        data,
        [GUIDE + network],
        path=length,
        scale=scale,
        offset=offset,
        code=code,
        labels=labels,
    )
    if disturbance:
        generator = seeded(network)
        for value in targets.values:
            value += disturbance * torch.randn(value.shape, generator=generator).to(value)
    compile_rprop()
    fit = fit_relaxed(
        start,
        data,
        replace(_phase(steps, rate), weight_decay=decay),
        targets=targets,
        objective=resting(rest, layers),
        watch=Watch(evaluate_at=marks(steps)[::-resolution]),
        device="cpu",
    )
    return _scores(fit, data)


def marks(steps: int) -> tuple[int, ...]:
    """Return the steps at which a fit is looked at: often while most of them rise, then less."""
    early = [0, 10, 15, 18, *range(20, 31, 2), 35, 40, 50, 60, 80, 100, 150, 200]
    return (*(step for step in [*early, *range(300, steps, 100)] if step < steps), steps)


def _scores(fit: Fit, data: Dataset) -> dict[str, Any]:
    history = fit.history
    train, held_out = history.accuracy, history.held_out_accuracy
    if data.task == "regression":
        train = 1 - history.loss / float(data.y.var(correction=0))
        held_out = 1 - history.held_out_loss / float(data.held_out_y.var(correction=0))
    plain = [
        [round(value, 4) if math.isfinite(value) else None for value in values[:, 0].tolist()]
        for values in (train, held_out)
    ]
    return {
        "evaluated_at": history.evaluated_at.tolist(),
        "train": plain[0],
        "held_out": plain[1],
        "seconds_a_step": round(float(np.median(fit.step_seconds)), 4),
    }


def backprop_cell(task: str, hidden_layers: int, network: int, steps: int) -> dict[str, Any]:
    """Train the network of ``guided_cell`` by backpropagation; returns as it does."""
    data = TASKS[one_of(task, TASKS, "task")](network)
    compile_rprop()
    seen = sorted({*marks(steps), *range(hidden_layers + 120, steps, 20)})
    start, phase = network_of(data, hidden_layers, network), _phase(steps, BACKPROP_RATE)
    watch = Watch(evaluate_at=seen)
    return _scores(fit_backprop(start, data, phase, watch=watch, device="cpu"), data)


def _phase(steps: int, rate: float) -> Phase:
    return Phase(steps, rate, smallest_step=SMALLEST_STEP)


def arithmetic_cell(setting: str, networks: Sequence[int], steps: int) -> dict[str, Any]:
    """Run ``guided_cell`` on Moons at 100 layers in a process that rounds otherwise.

    Args:
        setting: name of a setting of ``make arithmetic`` that means something here.
        networks: one call each.
        steps: as in ``guided_cell``.

    Returns:
        ``train``, ``held_out``: at the end, (networks,) each.
    """
    variables = {each.name: each.variables for each in SETTINGS}[setting]
    program = (
        "import json; from rai_utils.training import configure; configure();"
        # A compiler takes longer than the cells of one process.
        f"import {__name__} as ours; ours.compile_rprop = lambda: None;"
        f"cells = [ours.guided_cell('moons', 100, n, steps={steps}) for n in {list(networks)}];"
        "print(json.dumps({k: [c[k][-1] for c in cells] for k in ('train', 'held_out')}))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


@torch.no_grad()
def read_at_layers(model: StackedMLP, x: Tensor, y: Tensor, code: Tensor) -> NDArray[np.float64]:
    """How well the label can be read at each hidden layer of the plain forward pass.

    Read is the sign of Σ_j (z_tj − mean over examples) u_j, or its opposite, whichever is right
    more often.

    Args:
        model: one network.
        x: inputs, (examples, features).
        y: labels 0 or 1, (examples,).
        code: u, (width,).

    Returns:
        Accuracy, (T − 1,).
    """
    found = []
    for z in pre_activations(model, x)[:-1]:
        read = (z[0] - z[0].mean(0)) @ code  # (examples,)
        right = float(((read > 0) == (y > 0.5)).double().mean())
        found.append(max(right, 1 - right))
    return np.array(found)


def spliced(below: StackedMLP, above: StackedMLP, layers: int) -> StackedMLP:
    """Return the first ``layers`` layers of one network under the other ones of another."""
    joined = above.select(range(above.seeds))
    for run, weight, bias, lower_weight, lower_bias in zip(
        joined.architecture.runs,
        joined.weights,
        joined.biases,
        below.weights,
        below.biases,
        strict=True,
    ):
        taken = max(0, min(run.layers, layers - run.first + 1))
        weight.data[:taken] = lower_weight.data[:taken]
        bias.data[:taken] = lower_bias.data[:taken]
    return joined


def spliced_cell(network: int, hidden_layers: int, steps: int) -> dict[str, Any]:
    """Put upper layers of other networks on the lowest two of one that was trained on Moons.

    Args:
        network: seed of the network, of the data and of the guide, as in ``guided_cell``.
        hidden_layers: depth.
        steps: updates of each fit, in which targets rest for ``REST``.

    Returns:
        Held-out accuracy on Moons with layers 3 … T of the network itself (``own``), of one that
        was trained from the same weights and guide on Circles (``circles``), and as they were
        drawn (``untrained``).
    """
    compile_rprop()
    data = TASKS["moons"](network)
    start = network_of(data, hidden_layers, network)

    def trained(problem: Dataset) -> StackedMLP:
        guide = guided_targets(start, problem, [GUIDE + network])
        return fit_relaxed(
            start,
            problem,
            _phase(steps, 0.1),
            targets=guide,
            objective=resting(REST),
            watch=Watch(evaluate_at=()),
            device="cpu",
        ).model

    own = trained(data)
    uppers = {"own": own, "circles": trained(TASKS["circles"](network)), "untrained": start}
    found = {}
    for name, upper in uppers.items():
        joined = spliced(own, upper, 2)
        _, accuracy = evaluate(joined, data.held_out_x, data.held_out_y, data.task)
        found[name] = round(float(accuracy[0]), 4)
    return found


# The end alone is looked at.
END: Cell = {"resolution": 1000}


def _depth_cells() -> tuple[Cell, ...]:
    """The one setting over depth."""
    sizes = ((30, 10, 100, 1), (100, 10, 200, 1), (300, 5, 60, 1))
    sizes += ((1000, 5, 60, 1), (3000, 2, 60, 1), (10_000, 1, 60, 2))
    cells: list[Cell] = []
    for depth, networks, steps, resolution in sizes:
        case = {"hidden_layers": depth, "steps": steps, "resolution": resolution}
        cells += grid({"task": "moons", **case}, network=range(networks))
    return tuple(cells)


def _solved_cells() -> tuple[Cell, ...]:
    """The setting for a training accuracy of 1, on networks and draws that no other sweep has."""
    setting = {"scale": 10.0, "offset": 15.0, "rest": 100, "rate": 0.05, "decay": 1e-5}
    case = {"task": "moons", "steps": 200, **END, **setting}
    return tuple(
        cell
        for depth, networks in ((100, 10), (300, 3))
        for cell in grid(
            {"hidden_layers": depth, **case}, network=confirmation_seeds(networks, FRESH)
        )
    )


# What the controls change, by the names that figures give them, each on 10 networks of 30 layers.
CONTROLS: dict[str, Cell] = {
    "the setting": {},
    "code only": {"path": 0},
    "features only": {"path": -1},
    "own code per example": {"own_codes": True},
    "layers 1–3 and output trained": {"layers": [1, 2, 3, 31]},
    "layers 3–31 trained": {"layers": [*range(3, 32)]},
    "no rest": {"rest": 0},
    "targets frozen": {"rest": NEVER},
    "path 2": {"path": 2},
    "path 5": {"path": 5},
    "path 10": {"path": 10},
    "path 10, no rest": {"path": 10, "rest": 0},
    "path 10, frozen": {"path": 10, "rest": NEVER},
    "path 29": {"path": 29},
    "features × 1/6": {"scale": 1, "offset": 1.5},
    "features × 1/2": {"scale": 3, "offset": 4.5},
    "features × 2.5": {"scale": 15, "offset": 22.5},
    "no offset": {"offset": 0},
    "code × 1/5": {"code": 1},
    "code × 2": {"code": 10},
    "first step 0.03": {"rate": 0.03},
    "first step 0.3": {"rate": 0.3},
}
# Where targets are trained from the start, after a rest, and frozen: 5 networks of 8 layers each.
OWN_FEATURES = "Digits, Moons' features"
RESTS = {"no rest": 0, "rest": REST, "frozen": NEVER}
CASES: dict[str, Cell] = {
    "Moons": {"task": "moons"},
    "Moons, 20 units": {"task": "moons", "width": 20},
    "Moons, 10 units": {"task": "moons", "width": 10},
    "Moons, 5 units": {"task": "moons", "width": 5},
    "Moons, noisy labels": {"task": "moons, noisy labels"},
    "Circles": {"task": "circles"},
    "Spirals": {"task": "spirals"},
    "Digits": {"task": "digits", **MANY},
    "Digits, 100 examples": {"task": "digits, 100 examples", **MANY},
    "Digits, 30 units": {"task": "digits", "width": 30, **MANY},
    OWN_FEATURES: {"task": "digits"},
}


def _control_cells() -> tuple[Cell, ...]:
    return tuple(
        {"task": "moons", "hidden_layers": 30, "network": network, "steps": 100, **END, **change}
        for change in CONTROLS.values()
        for network in range(10)
    )


# What the first five networks left open, and where they had not been asked; 30 layers where a
# path of 10 needs them.
FRESH_CASES: dict[str, Cell] = {
    **{name: CASES[name] for name in CASES if name not in ("Circles", "Spirals", OWN_FEATURES)},
    "Moons, path 10": {"task": "moons", "hidden_layers": 30, "path": 10},
    "Moons, 1500 steps": {"task": "moons", "steps": 1500},
    "Digits, 1500 steps": {"task": "digits", "steps": 1500, **MANY},
}
# How many networks the long ones and all others have.
LONG_NETWORKS, PAYING_NETWORKS = 5, 20


def _resting_cells() -> tuple[Cell, ...]:
    return tuple(
        {**case, **END, "hidden_layers": 8, "network": network, "steps": 150, "rest": rest}
        for case in CASES.values()
        for rest in RESTS.values()
        for network in range(5)
    )


def _paying_cells() -> tuple[Cell, ...]:
    """What judges where training the targets pays: networks that no other sweep has."""
    return tuple(
        {"hidden_layers": 8, "network": network, "steps": 150, "rest": rest, **END, **case}
        for case in FRESH_CASES.values()
        for rest in ((REST, NEVER) if "steps" in case else RESTS.values())
        for count in [LONG_NETWORKS if "steps" in case else PAYING_NETWORKS]
        for network in confirmation_seeds(count, FRESH)
    )


def _task_cells() -> tuple[Cell, ...]:
    """What it carries over to, and the same start in three layers."""
    cases: list[Cell] = [{"task": task} for task in ("circles", "spirals", "dose curve")]
    cases += [
        {"task": "moons", "activation": name, "rate": rate, **STEEP}
        for name, rate in STEEP_RATES.items()
    ]
    cells = [
        cell
        for case in cases
        for cell in grid({**case, **END, "steps": 100}, hidden_layers=(2, 100), network=range(10))
    ]
    for task, depth, networks, steps in (
        ("digits", 2, 10, 150),
        ("digits", 50, 10, 150),
        ("digits", 300, 5, 150),
        ("digits", 1000, 2, 150),
        ("MNIST-1D", 2, 5, 100),
        ("MNIST-1D", 12, 5, 100),
    ):
        case = {"task": task, "hidden_layers": depth, "steps": steps, **END, **MANY}
        cells += grid(case, network=range(networks))
    return tuple(cells)


def _null_cells() -> tuple[Cell, ...]:
    """Backpropagation at the depths to which guided starts carry over; it stays at chance."""
    depths = {"circles": 100, "spirals": 100, "digits": 300, "MNIST-1D": 12}
    return tuple(
        {"task": task, "hidden_layers": depth, "network": 0, "steps": 60}
        for task, depth in depths.items()
    )


def _shallow_cells() -> tuple[Cell, ...]:
    same = {"hidden_layers": 2, "steps": 200}
    tasks = ("moons", "circles", "spirals", "dose curve", "digits")
    return (
        *grid(same, task=tasks, network=range(10)),
        *grid(same, task=["MNIST-1D"], network=range(5)),
        # What digits are held against on the networks that judge them.
        *grid(same, task=["digits"], network=confirmation_seeds(10, FRESH)),
    )


def _disturbed_cells() -> tuple[Cell, ...]:
    same: Cell = {"task": "moons", "hidden_layers": 100, "steps": 60, **END}
    return (
        *grid(same, disturbance=(1e-8, 1e-4, 0.1, 1.0), network=range(10)),
        *grid(same, precision=["float64"], network=range(10)),
    )


SWEEPS = (
    Sweep("guided-depths", _depth_cells(), guided_cell),
    Sweep("guided-solved", _solved_cells(), guided_cell),
    Sweep("guided-controls", _control_cells(), guided_cell),
    Sweep("guided-rests", _resting_cells(), guided_cell),
    Sweep("guided-pays", _paying_cells(), guided_cell),
    Sweep(
        "guided-splices", grid({"hidden_layers": 100, "steps": 50}, network=range(10)), spliced_cell
    ),
    Sweep("guided-tasks", _task_cells(), guided_cell),
    # The setting for a training accuracy of 1 on digits, on networks that no other sweep has.
    Sweep(
        "guided-digits",
        grid(
            {"task": "digits", **DIGITS_SETTING, **END, **MANY},
            hidden_layers=(2, 300),
            network=confirmation_seeds(10, FRESH),
        ),
        guided_cell,
    ),
    Sweep("guided-null", _null_cells(), backprop_cell),
    Sweep("guided-shallow", _shallow_cells(), backprop_cell),
    Sweep("guided-disturbed", _disturbed_cells(), guided_cell),
    Sweep(
        "guided-arithmetic",
        grid({"networks": [*range(10)], "steps": 60}, setting=NOTEBOOK_SETTINGS),
        arithmetic_cell,
    ),
)

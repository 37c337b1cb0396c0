"""How far hand-over carries, what stands beside it, and what it starts from.

Every function that works on a cell trains deep networks of one shape and returns plain numbers; a
sweep calls it for each cell (``make study``). Accuracies are those of the plain forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rai_utils.checks import number, one_of, seeded
from rai_utils.data import Dataset, circles, moons, moons_draw, spirals
from rai_utils.diagnostics import gradients_of, loss_gradients
from rai_utils.experiments.sweep import Cell, Sweep, ends, finite, grid
from rai_utils.models import (
    Architecture,
    StackedMLP,
    affine,
    build_mlp,
    confirmation_seeds,
    development_seeds,
    pre_activations,
    stack,
)
from rai_utils.relaxation import OutputLoss, forward_targets, output_loss, relaxation_plan
from rai_utils.training import (
    LARGEST_STEP,
    History,
    Phase,
    Watch,
    compile_rprop,
    fit_backprop,
    fit_handover,
    fit_relaxed,
    module_steps,
    score,
)
from rai_utils.tuning import tune

DATASETS: dict[str, Callable[..., Dataset]] = {
    "moons": moons,
    "circles": circles,
    "spirals": lambda **seeds: spirals(classes=2, **seeds),
}

# Of every backpropagation here. With torch's own 1e-6 Rprop stalls in a deep network
# (``smallest_step_cell``).
SMALLEST_STEP = 1e-12


def shape(
    hidden_layers: int, width: int, activation: str, data: Dataset, skip_connections: bool = False
) -> Architecture:
    """Return ``hidden_layers`` layers of one width, with the output that the task needs."""
    output = "softmax" if data.task == "multiclass" else "sigmoid"
    widths = (data.x.shape[1], *[width] * hidden_layers, data.outputs)
    return Architecture(widths, activation, output, skip_connections)


def relaxed_phase(hidden_layers: int, activation: str) -> Phase:
    """First phase of a hand-over: Rprop for one step a layer and 120 more.

    The front needs one step a layer (P10), what follows is the fit.
    The first step size is the proposal's 0.1 for the sigmoid. For tanh and ReLU, whose slope is
    up to four times the sigmoid's, it is a tenth of that.
    """
    rate = 0.1 if activation == "sigmoid" else 0.01
    return Phase(hidden_layers + 120, rate)


def backprop_phase(hidden_layers: int, steps: int) -> Phase:
    """Second phase of a hand-over: Rprop with a first step size of 10⁴/T⁴ for T hidden layers.

    It is 1e-3 at most; steps may shrink to ``SMALLEST_STEP``. The rule was found on networks of
    other seeds and on other data, at 100, 300 and 1000 layers, and is used for all.
    """
    return Phase(steps, min(1e-3, 1e4 / hidden_layers**4), smallest_step=SMALLEST_STEP)


def handover_cell(
    hidden_layers: int, activation: str, width: int, dataset: str, seed: int, backprop_steps: int
) -> dict[str, Any]:
    """Hand over from torch's default initialisation, one network.

    Returns:
        ``relaxed_train``, ``relaxed_held_out``: accuracy after the RAI steps; ``reached_at``: RAI
        steps, in tens, after which the training accuracy first is 0.8, None if never; ``train``,
        ``held_out``: accuracy at the evaluation, every ten backpropagation steps, whose training
        loss is lowest; ``solved_at``: steps after which the training accuracy first is 1;
        ``relaxed_seconds_a_step`` and ``backprop_seconds_a_step``. None stands for an accuracy
        that does not exist because the forward pass is not finite.
    """
    data = DATASETS[one_of(dataset, DATASETS, "dataset")]()
    start = build_mlp(shape(hidden_layers, width, activation, data), [seed])
    relaxed = relaxed_phase(hidden_layers, activation)
    backprop = backprop_phase(hidden_layers, backprop_steps)
    compile_rprop()
    fits = fit_handover(
        start,
        data,
        relaxed,
        backprop,
        relaxed_watch=Watch(evaluate_at=_tens(relaxed.steps)),
        backprop_watch=Watch(evaluate_at=_tens(backprop.steps)),
    )
    second = fits.backprop.history
    return {
        **_relaxed_scores(fits.relaxed.history),
        **{name: values[0] for name, values in _at_lowest_loss(second).items()},
        "solved_at": _first_step(second, 1.0),
        "relaxed_seconds_a_step": float(np.median(fits.relaxed.step_seconds)),
        "backprop_seconds_a_step": float(np.median(fits.backprop.step_seconds)),
    }


def smallest_step_cell(
    hidden_layers: int, width: int, seed: int, smallest_steps: list[float], backprop_steps: int
) -> dict[str, Any]:
    """Hand over from one RAI phase to second phases that differ in Rprop's smallest step alone.

    Sigmoid network, Moons, torch's default initialisation. While all N numbers take the smallest
    step s, one update changes the loss by at most s ‖∇L‖₁ to first order. Where s is above the
    first step of ``backprop_phase``, the phase begins with steps of s.

    Returns:
        ``train``, ``held_out``: accuracy at the evaluation, every ten steps, whose training loss is
        lowest, for each smallest step; ``losses``: training loss at every evaluation, one list for
        each; ``gradient_sum``: ‖∇L‖₁ at the hand-over.
    """
    data = moons()
    start = build_mlp(shape(hidden_layers, width, "sigmoid", data), [seed])
    relaxed = relaxed_phase(hidden_layers, "sigmoid")
    compile_rprop()
    handed_over = fit_relaxed(start, data, relaxed, watch=_end(relaxed.steps)).model
    backprop = backprop_phase(hidden_layers, backprop_steps)
    result: dict[str, Any] = {"train": [], "held_out": [], "losses": []}
    for smallest_step in smallest_steps:
        rate = max(backprop.learning_rate, smallest_step)
        phase = replace(backprop, learning_rate=rate, smallest_step=smallest_step)
        history = _second_phase(handed_over, data, phase)
        for name, values in _at_lowest_loss(history).items():
            result[name] += values
        result["losses"].append(finite(history.loss[:, 0].round(6)))
    total = sum(part.abs().sum() for part in loss_gradients(handed_over, data))
    return result | {"gradient_sum": float(total)}


def fresh_handover_cell(
    hidden_layers: int, seed: int, second_phases: list[list[float]], backprop_steps: int
) -> dict[str, Any]:
    """Hand over one network on a draw of Moons of its own, to one or more second phases.

    Sigmoid network of width 100, torch's default initialisation, the rules of ``handover_cell``.

    Args:
        hidden_layers: depth.
        seed: of the weights and of the draw.
        second_phases: first and smallest step of Rprop in each; from one and the same RAI phase.
        backprop_steps: updates of each.

    Returns:
        ``relaxed_train``, ``relaxed_held_out`` and ``reached_at`` as ``handover_cell``; and one
        number for each second phase: ``train``, ``held_out`` (at the evaluation of lowest training
        loss), ``solved_at``, ``loss`` (the last one).
    """
    data, start = _fresh(hidden_layers, seed)
    relaxed = relaxed_phase(hidden_layers, "sigmoid")
    compile_rprop()
    # Before the front has passed, the first layers are untrained and the accuracy is chance.
    first = fit_relaxed(
        start, data, relaxed, watch=Watch(evaluate_at=range(hidden_layers, relaxed.steps + 1, 10))
    )
    result = _relaxed_scores(first.history)
    result |= {name: [] for name in ("train", "held_out", "solved_at", "loss")}
    for first_step, smallest_step in second_phases:
        phase = Phase(backprop_steps, first_step, smallest_step=smallest_step)
        history = _second_phase(first.model, data, phase)
        for name, values in _at_lowest_loss(history).items():
            result[name] += values
        result["solved_at"].append(_first_step(history, 1.0))
        result["loss"] += finite(history.loss[-1])
    return result


def handover_parts_cell(
    hidden_layers: int, seed: int, parts: list[list[int]], backprop_steps: int
) -> dict[str, Any]:
    """Hand over one network of ``fresh_handover_cell`` to second phases that train some layers.

    Args:
        hidden_layers: depth.
        seed: of the weights and of the draw.
        parts: first and last layer that a second phase trains, of layers 1 … ``hidden_layers`` + 1;
            all from one and the same RAI phase.
        backprop_steps: updates of each.

    Returns:
        One number for each part: ``train`` and ``held_out``, accuracies at the evaluation of lowest
        training loss.
    """
    data, start = _fresh(hidden_layers, seed)
    relaxed = relaxed_phase(hidden_layers, "sigmoid")
    compile_rprop()
    handed_over = fit_relaxed(start, data, relaxed, watch=_end(relaxed.steps)).model
    phase = backprop_phase(hidden_layers, backprop_steps)
    find = gradients_of([range(first, last + 1) for first, last in parts])
    history = _second_phase(stack([handed_over] * len(parts)), data, phase, find=find)
    return _at_lowest_loss(history)


def _fresh(hidden_layers: int, seed: int) -> tuple[Dataset, StackedMLP]:
    """The draw and the network of a seed that no one looked at while the method was settled."""
    data = moons(seed=seed, held_out=500, held_out_seed=1000 + seed)
    return data, build_mlp(shape(hidden_layers, 100, "sigmoid", data), [seed])


def layer_sequential(model: StackedMLP, x: Tensor) -> StackedMLP:
    """Scale each layer in turn so that its pre-activations have variance 1 (LSUV); returns a copy.

    z_t is taken over examples and units of the forward pass of ``x`` through the layers already
    scaled, and W_t ← W_t / std(z_t) (Mishkin & Matas 2016, Algorithm 1, which starts from
    orthonormal weights and no biases).
    """
    scaled = model.select(range(model.seeds))
    activation = model.architecture.activation.function
    with torch.no_grad():
        h = x.expand(model.seeds, *x.shape)
        for weight, bias in scaled.layers():
            z = affine(h, weight, bias)  # (seeds, examples, l_t)
            weight /= z.std((1, 2), keepdim=True)
            h = activation(affine(h, weight, bias))
    return scaled


WAYS = ("default", "orthogonal", "he", "layer_sequential", "skip", "batch_norm")


def _start(way: str, architecture: Architecture, data: Dataset, seeds: Sequence[int]) -> StackedMLP:
    if way == "orthogonal":
        gain = architecture.activation.orthogonal_gain
        return build_mlp(architecture, seeds, "orthogonal_centred", gain)
    if way == "layer_sequential":
        plain = build_mlp(architecture, seeds, "orthogonal_centred")
        for bias in plain.biases:
            torch.nn.init.zeros_(bias)
        return layer_sequential(plain, data.x)
    if way == "he":
        return build_mlp(architecture, seeds, "he")
    return build_mlp(architecture, seeds)


def with_batch_norm(model: StackedMLP, index: int) -> nn.Sequential:
    """Copy a network and normalise every hidden pre-activation over the batch.

    BatchNorm with trained scale and shift stands between each hidden linear layer and its
    activation (Ioffe & Szegedy 2015, Algorithm 1).
    """
    plain = dict(model.as_module(index).named_children())
    modules: list[nn.Module] = []
    for layer in range(1, model.architecture.depth + 1):
        modules.append(plain[f"linear{layer}"])
        if layer < model.architecture.depth:
            width = model.architecture.widths[layer]
            # Full batches: the statistics of the last pass are those of the training set.
            modules += [nn.BatchNorm1d(width, momentum=1.0), plain[f"activation{layer}"]]
    return nn.Sequential(*modules)


def fit_module(module: nn.Module, data: Dataset, steps: int, learning_rate: float) -> None:
    """Train a module with one sigmoid output in place, by full-batch Rprop on cross-entropy.

    It is left in evaluation mode, with the statistics of its final weights.
    """
    optimizer = torch.optim.Rprop(
        module.parameters(),
        lr=learning_rate,
        step_sizes=(SMALLEST_STEP, LARGEST_STEP),
        foreach=True,
    )
    loss = nn.functional.binary_cross_entropy_with_logits
    module.train()
    for _ in module_steps(optimizer, lambda: loss(module(data.x)[:, 0], data.y), steps):
        pass
    with torch.no_grad():
        module(data.x)
    module.eval()


def _module_scores(module: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Loss and accuracy in evaluation mode."""
    with torch.no_grad():
        losses, accuracies = score(module(x)[None], y, "binary", "sigmoid")
    return float(losses[0]), float(accuracies[0])


def alternative_cell(
    way: str,
    hidden_layers: int,
    activation: str,
    width: int,
    seeds: list[int],
    learning_rates: list[float],
    tuning_steps: int,
    steps: int,
) -> dict[str, Any]:
    """Backpropagation on Moons with another remedy, its learning rate tuned.

    Args:
        way: ``"default"`` (no remedy), ``"orthogonal"`` (gain-matched, centred), ``"he"``,
            ``"layer_sequential"``, ``"skip"`` (skip connections) or ``"batch_norm"``.
        hidden_layers, activation, width, seeds: of the networks to report.
        learning_rates: the grid, tried for ``tuning_steps`` on a network and data of their own.
        steps: updates of the reported networks.

    Returns:
        ``learning_rate`` chosen; ``train`` and ``held_out``, accuracies of each seed.
    """
    one_of(way, WAYS, "way")
    data, tuning_data = moons(), moons(seed=7, held_out_seed=1007)
    architecture = shape(hidden_layers, width, activation, data, way == "skip")
    start = _start(way, architecture, data, seeds)
    trial = _start(way, architecture, tuning_data, development_seeds(1))
    if way == "batch_norm":
        return _batch_norm(start, trial, data, tuning_data, learning_rates, tuning_steps, steps)
    compile_rprop()
    tuning = tune(
        fit_backprop, trial, tuning_data, tuning_steps, learning_rates, smallest_step=SMALLEST_STEP
    )
    fit = fit_backprop(start, data, replace(tuning.phase, steps=steps), watch=_end(steps))
    return {"learning_rate": tuning.phase.learning_rate, **ends(fit.history)}


def _batch_norm(
    start: StackedMLP,
    trial: StackedMLP,
    data: Dataset,
    tuning_data: Dataset,
    learning_rates: Sequence[float],
    tuning_steps: int,
    steps: int,
) -> dict[str, Any]:
    losses = []
    for rate in learning_rates:
        module = with_batch_norm(trial, 0)
        fit_module(module, tuning_data, tuning_steps, rate)
        losses.append(_module_scores(module, tuning_data.held_out_x, tuning_data.held_out_y)[0])
    rate = learning_rates[int(np.argmin(np.nan_to_num(losses, nan=np.inf)))]
    train, held_out = [], []
    for index in range(start.seeds):
        module = with_batch_norm(start, index)
        fit_module(module, data, steps, rate)
        train.append(_module_scores(module, data.x, data.y)[1])
        held_out.append(_module_scores(module, data.held_out_x, data.held_out_y)[1])
    return {"learning_rate": rate, "train": train, "held_out": held_out}


def start_cell(
    initialisation: str,
    gain: float,
    hidden_layers: int,
    width: int,
    seeds: list[int],
    steps: int,
    learning_rates: list[float],
) -> dict[str, Any]:
    """Train sigmoid networks on Moons from one kind of start, by RAI and by backpropagation.

    Both have the same weights, the same steps of Rprop, the same smallest step, and a first step
    chosen for this start, on the same five networks and the same data, none of which is reported:
    from the same grid, which is widened from 1e-7 to 10 if need be. First steps that do as well as
    the best are ties. Network k learns draw k.

    Returns:
        For ``rai`` and for ``backprop``: ``…_held_out``, accuracies of each seed; ``…_rate``
        chosen; ``…_at_limit``, whether it is the outermost; ``…_rates`` and ``…_losses``, what was
        tried and the mean held-out loss of the tuning networks, None if not finite.
    """
    tuning_data = moons(seed=1000, held_out=500, held_out_seed=2000)
    architecture = shape(hidden_layers, width, "sigmoid", tuning_data)
    trial = build_mlp(architecture, development_seeds(5), initialisation, gain)
    compile_rprop()
    result: dict[str, Any] = {}
    for name, fit in (("rai", fit_relaxed), ("backprop", fit_backprop)):
        tuning = tune(
            fit,
            trial,
            tuning_data,
            steps,
            learning_rates,
            smallest_step=SMALLEST_STEP,
            tie_margin=0.01,
            limits=(1e-7, 10.0),
        )
        held_out = []
        for seed in seeds:
            start = build_mlp(architecture, [seed], initialisation, gain)
            history = fit(start, moons_draw(seed), tuning.phase, watch=_end(steps)).history
            held_out += ends(history)["held_out"]
        result[f"{name}_held_out"] = held_out
        result[f"{name}_rate"] = tuning.phase.learning_rate
        result[f"{name}_at_limit"] = tuning.at_limit
        result[f"{name}_rates"] = [*tuning.learning_rates]
        result[f"{name}_losses"] = finite(tuning.losses)
    return result


def residual_cell(
    residual: float,
    optimizer: str,
    learning_rate: float,
    hidden_layers: int,
    width: int,
    seeds: list[int],
    steps: int,
) -> dict[str, Any]:
    """RAI from the default start with residuals of a given size in place of exact zeros.

    Each target is the forward pass plus ``residual`` times a standard normal number.

    Returns:
        ``train``: training accuracy of each seed after the steps; ``best``: its greatest value
        along the run, in tens of steps.
    """
    data = moons()
    start = build_mlp(shape(hidden_layers, width, "sigmoid", data), seeds)
    targets = forward_targets(start, data.x, relaxation_plan(start.architecture))
    generator = seeded(0)
    for value in targets.values if residual else ():
        value += residual * torch.randn(value.shape, generator=generator)
    compile_rprop()
    history = fit_relaxed(
        start,
        data,
        Phase(steps, learning_rate, optimizer),
        targets=targets,
        watch=Watch(evaluate_at=_tens(steps)),
    ).history
    best = np.nan_to_num(history.accuracy).max(0)
    return {"train": ends(history)["train"], "best": finite(best)}


@dataclass(frozen=True)
class Round(Phase):
    """A phase of RAI, which starts with fresh optimiser state.

    Attributes:
        hidden_weight: λ.
        every: which layers are relaxed: each one whose number this divides.
        renewed: whether the targets start anew from a plain forward pass.
    """

    hidden_weight: float = 1.0
    every: int = 1
    renewed: bool = False


_FIRST, _RENEWED = Round(220, 0.1), Round(200, 1e-4, renewed=True)
SCHEDULES: Mapping[str, tuple[Round, ...]] = {
    "as proposed": (Round(1020, 0.1),),
    "smaller steps": (Round(1020, 0.1, smallest_step=SMALLEST_STEP),),
    "growing λ": (
        _FIRST,
        *(Round(200, 1e-3, hidden_weight=weight) for weight in (1e1, 1e2, 1e3, 1e4)),
    ),
    "renewed targets": (_FIRST, *(_RENEWED,) * 4),
    "every 10th, λ = 100": (_FIRST, *(replace(_RENEWED, hidden_weight=100.0, every=10),) * 4),
}


def schedule_cell(schedule: str, hidden_layers: int, width: int, seed: int) -> dict[str, Any]:
    """RAI alone through one of ``SCHEDULES``, sigmoid network, Moons, default initialisation.

    Returns:
        ``train``, ``held_out``: accuracy after each round.
    """
    one_of(schedule, SCHEDULES, "schedule")
    data = moons()
    model = build_mlp(shape(hidden_layers, width, "sigmoid", data), [seed])
    compile_rprop()
    targets, histories = None, []
    for stretch in SCHEDULES[schedule]:
        layers = range(stretch.every, model.architecture.depth + 1, stretch.every)
        fit = fit_relaxed(
            model,
            data,
            stretch,
            layers=tuple(layers),
            hidden_weight=stretch.hidden_weight,
            targets=None if stretch.renewed else targets,
            watch=_end(stretch.steps),
        )
        model, targets = fit.model, fit.targets
        histories.append(fit.history)
    return ends(*histories)


def sequential_cell(hidden_layers: int, width: int, seed: int, steps: int) -> dict[str, Any]:
    """RAI as proposed, then RAI whose targets move one at a time (``sequential_gradients``).

    Sigmoid network, Moons, default initialisation; the steps of the two phases are those of a
    hand-over.

    Returns:
        ``train``, ``held_out``: accuracy after each phase; ``deviation``: that of the gradient from
        backpropagation's at the start of the second (``sequential_deviation``).
    """
    data = moons()
    start = build_mlp(shape(hidden_layers, width, "sigmoid", data), [seed])
    first, second = relaxed_phase(hidden_layers, "sigmoid"), backprop_phase(hidden_layers, steps)
    compile_rprop()
    relaxed = fit_relaxed(start, data, first, watch=_end(first.steps))
    sequential = fit_backprop(
        relaxed.model, data, second, watch=_end(steps), find=sequential_gradients
    )
    return {
        **ends(relaxed.history, sequential.history),
        "deviation": sequential_deviation(relaxed.model, data),
    }


def sequential_gradients(
    model: StackedMLP,
    x: Tensor,
    y: Tensor,
    *,
    hidden_weight: float = 1.0,
    loss: OutputLoss = "cross_entropy",
) -> tuple[Tensor, ...]:
    """Gradients of the relaxed loss when its targets move one at a time, from the top down.

    All hidden layers are relaxed, the output layer is not. The targets start as the forward pass,
    with residuals of 0. Then, for t = T − 1 … 1, with n examples, l_t units and λ, the
    ``hidden_weight``, above 0,

        z_t ← z_t − (n l_t / 2λ) ∂𝓛/∂z_t,        g(θ_t) = ∂𝓛/∂θ_t   right after it.

    When its turn comes, z_t feels the residual above it alone, and the step is the one that makes
    its own residual equal to the error it was sent: ẑ_t − z_t = (n l_t / 2λ) ∂𝓛/∂z_t. As z_{t−1} is
    still where the forward pass left it, g is the gradient of backpropagation, for any λ. This is
    the zero-divergence inference learning of predictive coding (Song et al., *Can the Brain Do
    Backpropagation?*, NeurIPS 2020).

    Returns the gradients of ``model.weights``, then of ``model.biases``; skip connections are
    refused with a ValueError.
    """
    hidden_weight = number(hidden_weight, "hidden weight", above=0)
    architecture = model.architecture
    if architecture.skip_connections:
        raise ValueError("targets that move one at a time need a plain chain, got skip connections")
    targets = [x.expand(model.seeds, *x.shape), *pre_activations(model, x)]  # z_0 is the input
    activation = architecture.activation.function
    gradients = [torch.empty_like(part) for part in (*model.weights, *model.biases)]
    layer = architecture.depth
    for run in reversed(range(len(architecture.runs))):
        weights, biases = model.weights[run].detach(), model.biases[run].detach()
        for place in reversed(range(weights.shape[0])):
            leaves = [weights[place], biases[place], targets[layer - 1]]
            weight, bias, below = (leaf.detach().requires_grad_() for leaf in leaves)
            h = below if layer == 1 else activation(below)
            prediction = affine(h, weight, bias)  # (seeds, examples, l_t)
            if layer == architecture.depth:
                term = output_loss(prediction, y, architecture.output_activation, loss)
            else:
                term = hidden_weight * (prediction - targets[layer]).square().mean((1, 2))
            found = torch.autograd.grad(term.sum(), (weight, bias, below))
            gradients[run][place], gradients[len(model.weights) + run][place] = found[:2]
            if layer > 1:
                # Its own residual is 0 before the move and adds nothing to its gradient.
                step = below[0].numel() / (2 * hidden_weight)
                targets[layer - 1] = (below - step * found[2]).detach()
            layer -= 1
    return tuple(gradients)


def sequential_deviation(model: StackedMLP, data: Dataset) -> float:
    """Distance of the gradient by sequential targets from backpropagation's, relative, in float64.

    It is ‖g − g'‖/‖g'‖ over all weights and biases of one or more networks.
    """
    exact = model.select(range(model.seeds)).double()
    examples = data.to(torch.device("cpu"), torch.float64)
    found = sequential_gradients(exact, examples.x, examples.y)
    expected = loss_gradients(exact, examples)
    difference = torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)])
    return float(difference.norm() / torch.cat([b.flatten() for b in expected]).norm())


def _second_phase(model: StackedMLP, data: Dataset, phase: Phase, **options: Any) -> History:
    """Backpropagation after a hand-over, looked at every ten steps."""
    watch = Watch(evaluate_at=_tens(phase.steps))
    return fit_backprop(model, data, phase, watch=watch, **options).history


def _relaxed_scores(history: History) -> dict[str, Any]:
    """What the cells of a hand-over say of its RAI steps, of one network."""
    scores = {f"relaxed_{name}": values[0] for name, values in ends(history).items()}
    return scores | {"reached_at": _first_step(history, 0.8)}


def _at_lowest_loss(history: History) -> dict[str, list[float | None]]:
    """Accuracies of each network at the evaluation where its training loss is lowest."""
    losses = np.where(np.isfinite(history.loss), history.loss, np.inf)  # (evaluations, networks)
    best = losses.argmin(0), np.arange(losses.shape[1])
    scores = {"train": history.accuracy, "held_out": history.held_out_accuracy}
    return {name: finite(values[best]) for name, values in scores.items()}


def _first_step(history: History, accuracy: float) -> int | None:
    """Evaluated step at which the only network first has this training accuracy, None if never."""
    reached = history.accuracy[:, 0] >= accuracy
    return int(history.evaluated_at[reached.argmax()]) if reached.any() else None


def _tens(steps: int) -> range:
    return range(0, steps + 1, 10)


def _end(steps: int) -> Watch:
    return Watch(evaluate_at=(steps,))


# First of the networks and draws that confirm: on those before, the rules of this file were tried.
FRESH = 10
_MOONS: Cell = {"width": 100, "dataset": "moons", "backprop_steps": 400}
_SIGMOID: Cell = {"activation": "sigmoid", "backprop_steps": 400}
# The longest first: beside it the others fill the second processor.
HANDOVER_CELLS = (
    *grid({**_SIGMOID, **_MOONS}, hidden_layers=(1000, 300), seed=range(5)),
    *grid({**_SIGMOID, **_MOONS}, hidden_layers=(100, 30, 10), seed=range(10)),
    *grid(_MOONS, activation=("tanh", "relu"), hidden_layers=(10, 30, 100), seed=range(3)),
    *grid(
        {**_SIGMOID, "hidden_layers": 100, "width": 100},
        dataset=("circles", "spirals"),
        seed=range(3),
    ),
    *grid(
        {**_SIGMOID, "dataset": "moons"},
        hidden_layers=(100, 30, 10),
        width=(20, 50, 200),
        seed=range(3),
    ),
)
_REMEDIES = ("default", "orthogonal", "layer_sequential", "skip", "batch_norm")
ALTERNATIVE_CELLS = tuple(
    {
        "way": way,
        "hidden_layers": depth,
        "activation": activation,
        "width": 100,
        "seeds": list(range(count)),
        "learning_rates": [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7],
        "tuning_steps": 100,
        "steps": 400,
    }
    for way, depth, activation, count in (
        *((way, 100, "sigmoid", 3) for way in _REMEDIES),
        ("orthogonal", 300, "sigmoid", 2),
        ("orthogonal", 1000, "sigmoid", 2),
        ("he", 100, "relu", 3),
        ("orthogonal", 100, "tanh", 3),
    )
)
START_CELLS = grid(
    initialisation=("torch_default", "xavier", "orthogonal_centred"),
    gain=tuple(round(0.5 * 2 ** (half / 2), 3) for half in range(9)),
    hidden_layers=[20],
    width=[50],
    seeds=[list(confirmation_seeds(10, FRESH))],
    steps=[150],
    learning_rates=[[0.01, 0.03, 0.1, 0.3, 1.0]],
)
RESIDUAL_CELLS = tuple(
    cell
    for optimizer, rate, depth in (
        ("rprop", 0.1, 100),
        ("rprop", 0.1, 30),
        ("adam", 0.01, 30),
        ("sgd", 0.1, 30),
    )
    for cell in grid(
        {"optimizer": optimizer, "learning_rate": rate, "hidden_layers": depth, "width": 100},
        residual=(0.0, 1e-8, 1e-6),
        seeds=[[0, 1, 2]],
        steps=[depth + 120],
    )
)
_SEVERAL, _ENDS = [1e-6, 1e-7, 1e-8, 1e-9, SMALLEST_STEP], [1e-6, SMALLEST_STEP]
SMALLEST_STEP_CELLS = tuple(
    cell
    for depth, seeds, steps in ((1000, 1, _ENDS), (300, 10, _SEVERAL), (100, 3, _SEVERAL))
    for cell in grid(
        {"hidden_layers": depth, "width": 100, "smallest_steps": steps, "backprop_steps": 400},
        seed=range(seeds),
    )
)


def _fresh_handover_cells() -> tuple[Cell, ...]:
    """No seed and no draw here was used while the method was settled; the deepest come last."""
    cells = []
    for depth, count, steps, compared in (
        (10, 10, 400, 0),
        (30, 10, 400, 0),
        (100, 10, 400, 0),
        (300, 10, 300, 10),
        (1000, 5, 300, 2),
    ):
        case = {"hidden_layers": depth, "backprop_steps": steps}
        first = backprop_phase(depth, steps).learning_rate
        # Both sides of the comparison of smallest steps begin with the same step.
        same = max(first, 1e-6)
        for place, seed in enumerate(confirmation_seeds(count, FRESH)):
            phases = [(first, SMALLEST_STEP)]
            if place < compared:
                phases += [(same, SMALLEST_STEP), (same, 1e-6)]
            phases = [list(phase) for phase in dict.fromkeys(phases)]
            cells.append({**case, "seed": seed, "second_phases": phases})
    return tuple(cells)


# Layers 1 and 2, and the relay from layer 4 to the output.
PARTS_CELLS = tuple(
    cell
    for depth, count in ((300, 10), (1000, 5))
    for cell in grid(
        {"hidden_layers": depth, "parts": [[1, 2], [4, depth + 1]], "backprop_steps": 300},
        seed=confirmation_seeds(count, FRESH),
    )
)
_DEEP = {"hidden_layers": [100], "width": [100]}
SWEEPS = (
    Sweep("handover", HANDOVER_CELLS, handover_cell),
    Sweep("fresh-handover", _fresh_handover_cells(), fresh_handover_cell),
    Sweep("handover-parts", PARTS_CELLS, handover_parts_cell),
    Sweep("initialisations", START_CELLS, start_cell),
    Sweep("alternatives", ALTERNATIVE_CELLS, alternative_cell),
    Sweep("residuals", RESIDUAL_CELLS, residual_cell),
    Sweep("schedules", grid(seed=range(3), schedule=SCHEDULES, **_DEEP), schedule_cell),
    Sweep("sequential", grid(seed=range(3), steps=[400], **_DEEP), sequential_cell),
    Sweep("smallest-steps", SMALLEST_STEP_CELLS, smallest_step_cell),
)

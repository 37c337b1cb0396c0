"""Softmax as a hidden layer and as an output: its Jacobian, its gains, its calibration.

A name that is unknown, a number out of range, or arrays that do not fit are refused with a
ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rai_utils.checks import number, one_of, whole_number
from rai_utils.data import Dataset, dose_response, moons, spirals
from rai_utils.experiments.sweep import Cell, Sweep, ends, finite, grid
from rai_utils.models import (
    ACTIVATIONS,
    DEVELOPMENT,
    Architecture,
    StackedMLP,
    affine,
    build_mlp,
    check_inputs,
    compared_activations,
    confirmation_seeds,
    development_seeds,
)
from rai_utils.relaxation import OutputLoss
from rai_utils.training import Watch, fit_backprop
from rai_utils.tuning import Tuning, tune

Array = NDArray[np.float64]

# Recipes for a curve of one input: hidden activation and output activation.
RECIPES = {
    "softmax": ("softmax", "identity"),
    "softplus": ("softplus", "identity"),
    "tanh": ("tanh", "identity"),
    "sigmoid": ("sigmoid", "identity"),
    "ReLU": ("relu", "identity"),
    "ReLU, sigmoid output": ("relu", "sigmoid"),
}
FITS, STUCK = 0.05, 0.2  # root mean square errors; a flat line has 0.47 at three doses, 0.35 else
# Steps, and the first rates.
OPTIMIZERS = {
    "sgd": (300, (0.1, 0.316228, 1.0)),
    "adam": (200, (0.01, 0.0316228, 0.1, 0.316228)),
}
RATE_LIMITS, GAIN_LIMITS = (1e-4, 100.0), (1 / 8, 128.0)
TUNING_NETWORKS = 10
# Hidden layers of one width, and what is trained in them.
ACTIVATIONS_COMPARED = ("relu", "tanh", "sigmoid", "softmax")
MIDDLE, DEPTHS = 12, (1, 4, 8)
TRAINED = {
    "sgd": ("relu", "tanh", "sigmoid", "softmax"),
    "adam": ("relu", "tanh", "softmax"),
}
DEPTH_DRAWS, DEPTH_NETWORKS = 10, 3
CONTROLS = ("softmax_times_width", "softmax_cold", "softmax_layer_norm", "sigmoid_flat")
SQUARED, ENTROPY = "squared_error", "cross_entropy"
PAIRINGS = {
    "Dose curve": (("sigmoid", SQUARED), ("identity", SQUARED)),
    "Dose curve, scaled": (("sigmoid", SQUARED), ("identity", SQUARED)),
    "Moons": (("sigmoid", ENTROPY), ("sigmoid", SQUARED), ("identity", SQUARED)),
    "Spirals": (("softmax", ENTROPY), ("softmax", SQUARED), ("identity", SQUARED)),
}


def softmax_jacobian(s: Tensor) -> Tensor:
    """Jacobian of the softmax from its output, J_ij = ∂S_i/∂z_j = S_i (δ_ij − S_j).

    The outputs s are (…, k), with one unit at least; the result is (…, k, k), symmetric.
    """
    if s.ndim < 1 or s.shape[-1] < 1:
        raise ValueError(f"softmax outputs must have shape (…, k), got {tuple(s.shape)}")
    return torch.diag_embed(s) - s[..., :, None] * s[..., None, :]


def jacobian_deviations(width: int, draws: int, generator: torch.Generator) -> dict[str, float]:
    """How far the softmax Jacobian is from what is said of it, at random logits, in float64.

    Logits are normal with a standard deviation drawn from 0.1 … 10, so that outputs lie
    anywhere between uniform and one-hot. Each number is a largest deviation, 0 in exact
    arithmetic:

    - ``formula``: S_i (δ_ij − S_j) against autograd.
    - ``row_sums``: Σ_j J_ij.
    - ``rank``: the k-th singular value, which is 0 where the rank is at most k − 1.
    - ``diagonal``: by how much a diagonal entry leaves [0, ¼].
    - ``off_diagonal``: by how much another entry leaves [−¼, 0].
    - ``halves``: entries at two outputs of ½ against ¼ and −¼, and their norm against ½.
    - ``uniform``: the spectral norm at equal logits against 1/k.

    Args:
        width: units k, at least 2.
        draws: random outputs, at least 1.
        generator: of the logits.
    """
    width, draws = whole_number(width, "width", 2), whole_number(draws, "draws", 1)
    scale = 10 ** (2 * torch.rand(draws, 1, generator=generator, dtype=torch.float64) - 1)
    z = scale * torch.randn(draws, width, generator=generator, dtype=torch.float64)
    jacobian = softmax_jacobian(torch.softmax(z, -1))  # (draws, k, k)
    automatic = torch.func.vmap(torch.func.jacrev(lambda row: torch.softmax(row, -1)))(z)
    diagonal = torch.diagonal(jacobian, dim1=-2, dim2=-1)
    others = jacobian - torch.diag_embed(diagonal)
    halves = torch.zeros(width, dtype=torch.float64)
    halves[:2] = 0.5
    at_halves = softmax_jacobian(halves)
    block = torch.tensor([[0.25, -0.25], [-0.25, 0.25]], dtype=torch.float64)
    uniform = softmax_jacobian(torch.full((width,), 1 / width, dtype=torch.float64))

    def norm(matrix: Tensor) -> Tensor:
        return torch.linalg.matrix_norm(matrix, 2)

    deviations = {
        "formula": (jacobian - automatic).abs().max(),
        "row_sums": jacobian.sum(-1).abs().max(),
        "rank": torch.linalg.svdvals(jacobian)[:, -1].max(),
        "diagonal": torch.maximum(diagonal - 0.25, -diagonal).max().clamp(min=0),
        "off_diagonal": torch.maximum(others, -0.25 - others).max().clamp(min=0),
        "halves": torch.maximum(
            (at_halves[:2, :2] - block).abs().max(), (norm(at_halves) - 0.5).abs()
        ),
        "uniform": (norm(uniform) - 1 / width).abs(),
    }
    return {name: float(value) for name, value in deviations.items()}


def small_signal_gain(activation: str, width: int, weight_variance: float) -> float:
    """Backward gain of a wide hidden layer whose pre-activations are near 0, predicted.

    With independent weights of variance v, a gradient g on the layer's k outputs becomes
    Wᵀ J g on its k inputs. Over W and over g without a preferred direction the mean square is
    multiplied by k v ‖J‖_F²/k, so that the gain is √(k v) · √(‖J‖_F²/k). At z = 0 the second
    factor is ¼ for the sigmoid, 1 for tanh, √½ for ReLU (half of the units are on) and
    √(k − 1)/k^{3/2} for the softmax, whose Jacobian is (I − 11ᵀ/k)/k.

    Args:
        activation: ``"softmax"``, or a key of ``ACTIVATIONS`` that works unit by unit, with the
            second factor that its orthogonal start makes up for.
        width: units k that the layer reads and writes.
        weight_variance: v.
    """
    one_of(activation, ("softmax", *compared_activations()), "activation")
    width = whole_number(width, "width", 1)
    weight_variance = number(weight_variance, "weight variance", above=0)
    if activation == "softmax":
        slope = (width - 1) ** 0.5 / width**1.5
    else:
        slope = 1 / ACTIVATIONS[activation].orthogonal_gain
    return (width * weight_variance) ** 0.5 * slope


def backward_norms(model: StackedMLP, x: Tensor, generator: torch.Generator) -> Array:
    """Size of a gradient on its way down: ‖∂(u · z_T)/∂h_t‖ of every hidden layer, by autograd.

    u is normal, drawn anew for each output of each example, so that nothing depends on a loss.

    Args:
        model: networks with one hidden layer or more; float64 lets small gradients be seen.
        x: inputs, (examples, features).
        generator: of u.

    Returns:
        Euclidean norm over examples and units, (T − 1, seeds), input to output. The ratio of
        neighbours is the backward gain of a layer.
    """
    architecture = model.architecture
    if architecture.depth < 2:
        raise ValueError(f"backward norms need a hidden layer, got {architecture}")
    check_inputs(architecture, x)
    h, hidden = x.expand(model.seeds, *x.shape), []
    with torch.enable_grad():
        for run, weight, bias in zip(architecture.runs, model.weights, model.biases, strict=True):
            for offset in range(run.layers):
                layer = run.first + offset
                z = affine(h, weight[offset], bias[offset])  # (seeds, examples, l_t)
                if layer < architecture.depth:
                    output = architecture.activation.function(z)
                    h = output + h if architecture.adds_input(layer) else output
                    hidden.append(h)
        u = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        gradients = torch.autograd.grad((u * z).sum(), hidden)
    return torch.stack([g.double().flatten(1).norm(dim=1) for g in gradients]).cpu().numpy()


def confidence(z: Tensor, y: Tensor, output_activation: str) -> tuple[Tensor, Tensor]:
    """Confidence of each prediction, and whether it is right.

    The prediction is class 1 where one output is above ½, or the class of the greatest of
    several outputs. With a sigmoid or softmax its confidence is its probability. Outputs
    without an activation are numbers, not probabilities: they are clipped to [0, 1] and, if
    there are several, divided by their sum (1/classes each where all are 0).

    Args:
        z: pre-activations of the output layer, (seeds, examples, outputs).
        y: labels, (examples,).
        output_activation: ``"sigmoid"``, ``"softmax"`` or ``"identity"``.

    Returns:
        Confidence, (seeds, examples), and right predictions as booleans, same shape.
    """
    outputs = z.shape[-1]
    value = ACTIVATIONS[output_activation].function(z)
    if output_activation == "identity":
        value = value.clamp(0, 1)
    if outputs == 1:
        first = value[..., 0]
        return torch.maximum(first, 1 - first), (first > 0.5) == (y > 0.5)
    right = z.argmax(-1) == y
    if output_activation == "identity":
        total = value.sum(-1, keepdim=True)
        value = torch.where(total > 0, value / total, 1 / outputs)
    return value.gather(-1, z.argmax(-1, keepdim=True))[..., 0], right


def reliability(
    confidences: Tensor, right: Tensor, bins: int = 10
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Mean confidence and share of right predictions in bins of equal width on [0, 1].

    Args:
        confidences: (examples,), in [0, 1].
        right: booleans, (examples,).
        bins: how many, at least 1.

    Returns:
        Mean confidence, share of right predictions (both NaN in an empty bin) and number of
        examples, (bins,) each.
    """
    if confidences.shape != right.shape or confidences.ndim != 1:
        raise ValueError(
            "confidences and right must both have shape (examples,), "
            f"got {tuple(confidences.shape)} and {tuple(right.shape)}"
        )
    bins = whole_number(bins, "bins", 1)
    values = confidences.double().cpu().numpy()
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("confidences must lie in [0, 1], got one outside")
    index = np.minimum((values * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, values, bins) / counts
        share = np.bincount(index, right.double().cpu().numpy(), bins) / counts
    return mean, share, counts


def expected_calibration_error(confidences: Tensor, right: Tensor, bins: int = 10) -> float:
    """Expected calibration error, Σ_b n_b/n |share right − mean confidence| (Guo et al. 2017).

    Arguments as of ``reliability``.
    """
    mean, share, counts = reliability(confidences, right, bins)
    return float(np.nansum(counts * np.abs(share - mean)) / counts.sum())


def output_gradient(z: Tensor, y: Tensor, output_activation: str, loss: OutputLoss) -> Tensor:
    """Gradient of one output unit's error with respect to its pre-activation z, in closed form.

    With ŷ the output: cross-entropy on a sigmoid gives ŷ − y, squared error on a sigmoid
    2 (ŷ − y) ŷ (1 − ŷ), squared error without an activation (``"identity"``) 2 (z − y). Labels y
    have the shape of z, whatever it is.
    """
    if (output_activation, loss) == ("sigmoid", "cross_entropy"):
        return torch.sigmoid(z) - y
    if (output_activation, loss) == ("sigmoid", "squared_error"):
        prediction = torch.sigmoid(z)
        return 2 * (prediction - y) * prediction * torch.sigmoid(-z)
    if (output_activation, loss) == ("identity", "squared_error"):
        return 2 * (z - y)
    raise ValueError(f"no gradient is known for {output_activation!r} with {loss!r}")


def placed_network(activation: str, width: int, x: Tensor, y: Tensor) -> StackedMLP:
    """A one-input network whose hidden layer is placed by hand and whose output layer is fitted.

    Centres c_i lie evenly on [0, 1], at a distance of d = 1/(k − 1).

    - ``"softmax"``: z_i = (c_i x − c_i²/2)/d². The term −x²/2d² that would complete the square is
      the same for all units, and a softmax does not see it: h_i is the Gaussian bump
      exp(−(x − c_i)²/2d²) divided by the sum of all bumps.
    - ``"sigmoid"``: z_i = (x − c_i)/d, a staircase with rounded steps.

    Output weights are the least-squares solution on the examples, in float64.

    Args:
        activation: ``"softmax"`` or ``"sigmoid"``.
        width: hidden units k, at least 2.
        x: examples in [0, 1], (examples, 1).
        y: values, (examples,).

    Returns:
        One network in float64, with no output activation.
    """
    if activation not in ("softmax", "sigmoid"):
        raise ValueError(f"activation must be softmax or sigmoid, got {activation!r}")
    width = whole_number(width, "width", 2)
    centres = torch.linspace(0, 1, width, dtype=torch.float64)
    distance = 1 / (width - 1)
    if activation == "softmax":
        slope, offset = centres / distance**2, -(centres**2) / (2 * distance**2)
    else:
        slope, offset = torch.full_like(centres, 1 / distance), -centres / distance
    h = ACTIVATIONS[activation].function(x.double() * slope + offset)  # (examples, k)
    columns = torch.cat([h, torch.ones(len(h), 1, dtype=torch.float64)], 1).numpy()
    solution = torch.from_numpy(np.linalg.lstsq(columns, y.double().numpy(), rcond=1e-10)[0])
    return StackedMLP(
        Architecture((1, width, 1), activation, "identity"),
        [slope.view(1, 1, width, 1), solution[:-1].view(1, 1, 1, width)],
        [offset.view(1, 1, 1, width), solution[-1:].view(1, 1, 1, 1)],
    )


def three_doses() -> Dataset:
    """The lesson's data: a low dose does nothing, a middle one works, a high one does nothing.

    What is held out is the same: the question is whether a network can fit them.
    """
    dose, effect = torch.tensor([[0.0], [0.5], [1.0]]), torch.tensor([0.0, 1.0, 0.0])
    return Dataset("Three doses", "regression", dose, effect, dose, effect)


def draw(task: str, number: int) -> Dataset:
    """Return draw ``number`` of a task: of its noise and, for classes, of its examples.

    Draws from 1000 up tune. Three doses have no noise.
    """
    tunes = number >= DEVELOPMENT
    noisy: dict[str, Any] = {"held_out": 60, "held_out_noise": 0.05} if tunes else {}
    makers: dict[str, Callable[[], Dataset]] = {
        "Three doses": three_doses,
        "Dose curve": lambda: dose_response(seed=number, **noisy),
        "Dose curve, scaled": lambda: dose_response(seed=number, standard_units=True, **noisy),
        "Moons": lambda: moons(200, 0.3, number, 1000, 100_000 + number),
        "Spirals": lambda: spirals(150, 0.2, number, 1000, 100_000 + number),
        "Spirals, less noise": lambda: spirals(120, 0.15, number, 1000, 100_000 + number),
    }
    return makers[one_of(task, makers, "task")]()


def tune_start(
    architecture: Architecture,
    task: str,
    optimizer: str,
    steps: int,
    *,
    initialisation: str = "torch_default",
    gains: Sequence[float] = (1.0, 2.0, 4.0),
    loss: OutputLoss | None = None,
) -> tuple[float, Tuning]:
    """Choose the gain of the start and the learning rate together, by the loss on held-out data.

    At each gain ``tune`` chooses a rate, with ``TUNING_NETWORKS`` networks and a draw of the data
    from 1000 up. As the rates, the gains are widened by a factor of 2 until the best lies inside
    or at ``GAIN_LIMITS``. Losses within the margin are ties: 0.01 for classes, 1e-4 for numbers;
    of gains that tie the nearest to 1 is taken.

    Args:
        architecture: of the networks.
        task: as for ``draw``.
        optimizer: a key of ``OPTIMIZERS``, which has the first rates.
        steps: updates, full batch.
        initialisation: what is multiplied by the gain.
        gains: where to begin, ascending in steps of a factor of 2; one alone is not widened.
        loss: the output error.

    Returns:
        The gain, and what ``tune`` found there.
    """
    data, rates = draw(task, DEVELOPMENT), OPTIMIZERS[optimizer][1]
    margin = 1e-4 if data.task == "regression" else 0.01
    trying, found = list(gains), dict[float, Tuning]()
    while True:
        for gain in trying:
            if gain not in found:
                networks = development_seeds(TUNING_NETWORKS)
                found[gain] = tune(
                    fit_backprop,
                    build_mlp(architecture, networks, initialisation, gain),
                    data,
                    steps,
                    rates,
                    optimizer=optimizer,
                    tie_margin=margin,
                    limits=RATE_LIMITS,
                    loss=loss,
                    device="cpu",
                )
        losses = np.array([loss_at_the_rate_chosen(found[gain]) for gain in trying])
        best = int(losses.argmin())
        at, beside, factor = (0, 1, 0.5) if best == 0 else (len(trying), -2, 2.0)
        beyond = trying[best] * factor
        at_edge = len(trying) > 1 and best in (0, len(trying) - 1)
        within = GAIN_LIMITS[0] <= beyond <= GAIN_LIMITS[1]
        if not (at_edge and within and losses[beside] - losses[best] > margin):
            break
        trying.insert(at, beyond)
    tied = [
        gain for gain, each in zip(trying, losses, strict=True) if each - losses[best] <= margin
    ]
    gain = min(tied or trying, key=lambda each: abs(np.log(each)))
    return gain, found[gain]


def loss_at_the_rate_chosen(tuning: Tuning) -> float:
    """Return the mean of the tuning networks' losses on held-out data, at the rate chosen."""
    return float(tuning.losses[tuning.learning_rates.index(tuning.phase.learning_rate)])


def curve_cell(
    task: str, recipe: str, widths: list[int], tuned_at: int, draws: int, starts: int, steps: int
) -> dict[str, Any]:
    """Fit a curve of one input by Adam on the squared error, from many starts, tuned.

    Args:
        task: as for ``draw``.
        recipe: a key of ``RECIPES``.
        widths: hidden units, one number or more.
        tuned_at: the number of them at which start and rate are tuned for all.
        draws: of the noise, from 0.
        starts: networks on each draw.
        steps: updates.

    Returns:
        ``gain``, ``learning_rate`` and ``at_limit``: as ``tune_start`` chose them; ``fits``: for
        each width ``errors`` and ``largest``, root mean square and largest error on the held-out
        part, (draws, starts), and ``shown``: slopes, offsets and output weights of the hidden units
        and the output's offset, of the network whose error is the median.
    """
    hidden, output = RECIPES[one_of(recipe, RECIPES, "recipe")]
    shapes = {width: Architecture((1, width, 1), hidden, output) for width in (*widths, tuned_at)}
    gain, tuning = tune_start(shapes[tuned_at], task, "adam", steps)

    def fit(width: int) -> dict[str, Any]:
        errors, largest, networks = [], [], []
        for each in confirmation_seeds(draws):
            data = draw(task, each)
            seeds = range(each * starts, (each + 1) * starts)
            model = build_mlp(shapes[width], seeds, gain=gain)
            watch = Watch(evaluate_at=(steps,))
            fitted = fit_backprop(model, data, tuning.phase, watch=watch, device="cpu").model
            error = fitted.predict(data.held_out_x)[..., 0] - data.held_out_y  # (starts, doses)
            errors.append(error.square().mean(1).sqrt().double().tolist())
            largest.append(error.abs().amax(1).double().tolist())
            networks.append(fitted)
        order = np.argsort(np.ravel(errors), kind="stable")
        position = int(order[len(order) // 2])
        shown = networks[position // starts].select([position % starts])
        (slopes, weights), (offsets, offset) = (
            [part.detach().double().flatten().tolist() for part in parts]
            for parts in (shown.weights, shown.biases)
        )
        network = {"slopes": slopes, "offsets": offsets, "weights": weights, "offset": offset[0]}
        return {"errors": errors, "largest": largest, "shown": network}

    return {
        "gain": gain,
        "learning_rate": tuning.phase.learning_rate,
        "at_limit": tuning.at_limit,
        "fits": {str(width): fit(width) for width in widths},
    }


def output_cell(
    task: str, hidden: str, output: str, loss: OutputLoss, networks: int, steps: int
) -> dict[str, Any]:
    """Train one pairing of output activation and loss by Adam, each network on a draw of its own.

    Args:
        task: a key of ``PAIRINGS``.
        hidden: ``"relu"`` or ``"softmax"``; 6 units for a curve, 12 for classes.
        output, loss: one of the task's pairings.
        networks: of seeds and draws from 0.
        steps: updates.

    Returns:
        ``learning_rate`` and ``at_limit``: as ``tune_start`` chose them at torch's default start;
        ``score``: root mean square error or accuracy on the held-out part, (networks,). For classes
        also
        ``calibration``: expected calibration error, (networks,); ``outside``: share of outputs
        outside [0, 1] before the output's activation; ``right`` and ``counts``: share of right
        predictions and their number in ten bins of confidence, over all networks.
    """
    first = draw(one_of(task, PAIRINGS, "task"), 0)
    width = 6 if first.task == "regression" else 12
    architecture = Architecture((first.x.shape[1], width, first.outputs), hidden, output)
    _, tuning = tune_start(architecture, task, "adam", steps, gains=(1.0,), loss=loss)
    scores, errors, outside, judged = [], [], [], []
    for each in confirmation_seeds(networks):
        data = draw(task, each)
        model = build_mlp(architecture, [each])
        watch = Watch(evaluate_at=(steps,))
        fit = fit_backprop(model, data, tuning.phase, watch=watch, loss=loss, device="cpu")
        if data.task == "regression":
            scores.append(float(fit.history.held_out_loss[-1, 0]) ** 0.5)
            continue
        with torch.no_grad():
            z = fit.model(data.held_out_x)  # (1, examples, outputs)
        sure, right = (part[0] for part in confidence(z, data.held_out_y, output))
        scores.append(float(right.double().mean()))
        errors.append(expected_calibration_error(sure, right))
        outside.append(float(((z < 0) | (z > 1)).double().mean()))
        judged.append((sure, right))
    result: dict[str, Any] = {
        "learning_rate": tuning.phase.learning_rate,
        "at_limit": tuning.at_limit,
        "score": scores,
    }
    if judged:
        sure, right = (torch.cat(part) for part in zip(*judged, strict=True))
        _, share, counts = reliability(sure, right)
        result |= {"calibration": errors, "outside": outside, "counts": counts.tolist()}
        result["right"] = finite(share)
    return result


def usual_start(activation: str) -> str:
    """Return the start of an activation in tutorials: He's for ReLU, Xavier's for all others."""
    return "he" if activation == "relu" else "xavier"


def depth_cell(
    optimizer: str,
    activation: str,
    width: int,
    depth: int,
    start: str,
    draws: int,
    networks: int,
    steps: int,
) -> dict[str, Any]:
    """Train networks of one shape on three spirals, on several draws of the data.

    Args:
        optimizer: a key of ``OPTIMIZERS``.
        activation: of the hidden layers.
        width: units of each.
        depth: how many there are, at least 1.
        start: ``"usual"``, or ``"tuned"``: orthogonal with centred biases, at the best gain.
        draws: of the data, from 0.
        networks: on each draw.
        steps: updates, full batch.

    Returns:
        ``gain``, ``learning_rate`` and ``at_limit``: as ``tune_start`` chose them; ``accuracy``:
        held out, after the last step, (draws, networks), chance where a network failed.
    """
    one_of(optimizer, OPTIMIZERS, "optimizer")
    depth = whole_number(depth, "depth", 1)
    usual = one_of(start, ("usual", "tuned"), "start") == "usual"
    kind = usual_start(activation) if usual else "orthogonal_centred"
    architecture = Architecture((2, *[width] * depth, 3), activation, "softmax")
    # Where a gain of 1 a layer is expected, whatever the activation; the search goes on from there.
    near = width if activation == "softmax" else ACTIVATIONS[activation].orthogonal_gain
    task, gains = "Spirals, less noise", (1.0,) if usual else (near / 2, near, 2 * near)
    gain, tuning = tune_start(
        architecture, task, optimizer, steps, initialisation=kind, gains=gains
    )
    accuracy = []
    for each in confirmation_seeds(draws):
        seeds = range(each * networks, (each + 1) * networks)
        model = build_mlp(architecture, seeds, kind, gain)
        watch = Watch(evaluate_at=(steps,))
        fit = fit_backprop(model, draw(task, each), tuning.phase, watch=watch, device="cpu")
        last = ends(fit.history)["held_out"]
        accuracy.append([1 / 3 if each is None else each for each in last])
    return {
        "gain": gain,
        "learning_rate": tuning.phase.learning_rate,
        "at_limit": tuning.at_limit,
        "accuracy": accuracy,
    }


def _curve_cells() -> tuple[Cell, ...]:
    """Three doses at every width from 1 to 6, the dose curve at the last."""
    widths = [*range(1, 7)]
    cases: tuple[Cell, ...] = (
        {"task": "Three doses", "widths": widths, "tuned_at": 3, "draws": 1, "starts": 100},
        {"task": "Dose curve", "widths": widths[-1:], "tuned_at": 6, "draws": 5, "starts": 20},
    )
    return tuple(cell for case in cases for cell in grid({**case, "steps": 1000}, recipe=RECIPES))


def _output_cells() -> tuple[Cell, ...]:
    same = {"networks": 8, "steps": 300}
    return tuple(
        {"task": task, "hidden": hidden, "output": output, "loss": loss, **same}
        for task, pairings in PAIRINGS.items()
        for hidden in ("relu", "softmax")
        for output, loss in pairings
    )


def _depth_cells() -> tuple[Cell, ...]:
    """Every depth from both starts, and by gradient descent the controls."""
    same = {"width": MIDDLE, "draws": DEPTH_DRAWS, "networks": DEPTH_NETWORKS}

    def cells(optimizer: str, names: Sequence[str], depth: int, start: str) -> tuple[Cell, ...]:
        own = {"optimizer": optimizer, "steps": OPTIMIZERS[optimizer][0]}
        return grid({**same, **own, "depth": depth, "start": start}, activation=names)

    trained = (
        cells(optimizer, names, depth, start)
        for start in ("usual", "tuned")
        for depth in DEPTHS
        for optimizer, names in TRAINED.items()
    )
    return (*chain(*trained), *cells("sgd", CONTROLS, 4, "usual"))


SWEEPS = (
    Sweep("softmax-curves", _curve_cells(), curve_cell),
    Sweep("softmax-outputs", _output_cells(), output_cell),
    Sweep("softmax-depth", _depth_cells(), depth_cell),
)

"""Softmax as a hidden layer and as an output: its Jacobian, its gains, its calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rai_utils.checks import number, one_of, whole_number
from rai_utils.data import spirals
from rai_utils.diagnostics import first_nonzero
from rai_utils.experiments.sweep import Cell, Sweep
from rai_utils.models import (
    ACTIVATIONS,
    Architecture,
    StackedMLP,
    affine,
    build_mlp,
    check_inputs,
    compared_activations,
)
from rai_utils.relaxation import OutputLoss
from rai_utils.training import Watch, schedule
from rai_utils.tuning import fit_tuned

Array = NDArray[np.float64]

# The sweep over widths and depths, in hidden layers: a grid, and one depth more at its middle.
WIDTHS, DEPTHS, DEEPEST = (4, 12, 36), (1, 2, 4), 8
MIDDLE = WIDTHS[1]
ACTIVATIONS_COMPARED = ("relu", "tanh", "sigmoid", "softmax")
CONTROLS = ("softmax_times_width", "softmax_cold", "softmax_layer_norm", "sigmoid_flat")
# Steps, and the learning rates that are tried.
OPTIMIZERS = {
    "sgd": (500, (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)),
    "adam": (300, (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)),
}
NETWORKS, TUNING_NETWORKS = 24, 8
SET_LOSS = 0.3  # to be reached on the training data; 1.1 at the start


def softmax_jacobian(s: Tensor) -> Tensor:
    """Jacobian of the softmax from its output, J_ij = ∂S_i/∂z_j = S_i (δ_ij − S_j).

    Args:
        s: softmax outputs, (…, k).

    Returns:
        (…, k, k), symmetric.

    Raises:
        ValueError: there is no axis of units.
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

    Raises:
        ValueError: a number is out of range.
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

    Raises:
        ValueError: another activation, or a number that is not above 0.
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

    Raises:
        ValueError: there is no hidden layer, or the inputs do not fit.
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

    Raises:
        ValueError: shapes differ, there is no bin, or a confidence is outside [0, 1].
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

    Args:
        confidences: (examples,), in [0, 1].
        right: booleans, (examples,).
        bins: bins of equal width.

    Raises:
        ValueError: as ``reliability``.
    """
    mean, share, counts = reliability(confidences, right, bins)
    return float(np.nansum(counts * np.abs(share - mean)) / counts.sum())


def output_gradient(z: Tensor, y: Tensor, output_activation: str, loss: OutputLoss) -> Tensor:
    """Gradient of one output unit's error with respect to its pre-activation z, in closed form.

    With ŷ the output: cross-entropy on a sigmoid gives ŷ − y, squared error on a sigmoid
    2 (ŷ − y) ŷ (1 − ŷ), squared error without an activation 2 (z − y).

    Args:
        z: pre-activations, any shape.
        y: labels, same shape.
        output_activation: ``"sigmoid"`` or ``"identity"``.
        loss: which error.

    Raises:
        ValueError: a pairing that does not exist.
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

    Raises:
        ValueError: another activation or a width below 2.
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


def initialisation(activation: str) -> str:
    """Return the start of an activation: He's for ReLU, Xavier's for all others."""
    return "he" if activation == "relu" else "xavier"


def depth_cell(
    optimizer: str, activation: str, width: int, depth: int, networks: int, steps: int
) -> dict[str, Any]:
    """Train networks of one shape on three spirals, at a learning rate tuned for them.

    The rate is chosen by the loss on held-out data, with ``TUNING_NETWORKS`` networks of seeds
    from 1000 and another draw of the data.

    Args:
        optimizer: a key of ``OPTIMIZERS``, which has the rates to try.
        activation: of the hidden layers.
        width: units of each.
        depth: how many there are, at least 1.
        networks: of seeds from 0.
        steps: updates, full batch.

    Returns:
        ``learning_rate``, the one chosen; ``accuracy``: held-out accuracy after the last step,
        (networks,), chance where a network failed; ``steps_to_set_loss``: first of the evaluated
        steps with a training loss below ``SET_LOSS``, (networks,), None where there is none.

    Raises:
        ValueError: a name is unknown or a number out of range.
    """
    rates = OPTIMIZERS[one_of(optimizer, OPTIMIZERS, "optimizer")][1]
    depth = whole_number(depth, "depth", 1)
    architecture = Architecture((2, *[width] * depth, 3), activation, "softmax")
    reported, tried = (
        build_mlp(architecture, draw, initialisation(activation))
        for draw in (range(networks), range(1000, 1000 + TUNING_NETWORKS))
    )
    data = spirals(150, 0.15, held_out=1000)
    other = spirals(150, 0.15, seed=7, held_out=1000, held_out_seed=1007)
    watch = Watch(evaluate_at=schedule(steps, 30))
    tuned = fit_tuned(
        reported, data, tried, other, steps, rates, optimizer=optimizer, watch=watch, device="cpu"
    )
    history = tuned.fit.history
    reached = first_nonzero(history.evaluated_at, (history.loss < SET_LOSS).astype(np.float64))
    return {
        "learning_rate": tuned.learning_rate,
        "accuracy": np.nan_to_num(history.held_out_accuracy[-1], nan=1 / 3).tolist(),
        "steps_to_set_loss": [int(step) if np.isfinite(step) else None for step in reached],
    }


def _depth_cells() -> tuple[Cell, ...]:
    """The grid and the deepest networks of four activations, and the controls at the middle."""
    shapes = [(width, depth) for width in WIDTHS for depth in DEPTHS] + [(MIDDLE, DEEPEST)]
    kinds = [(name, *shape) for shape in shapes for name in ACTIVATIONS_COMPARED]
    kinds += [(name, MIDDLE, depth) for depth in (DEPTHS[0], DEPTHS[-1]) for name in CONTROLS]
    return tuple(
        {
            "optimizer": optimizer,
            "activation": name,
            "width": width,
            "depth": depth,
            "networks": NETWORKS,
            "steps": steps,
        }
        for optimizer, (steps, _) in OPTIMIZERS.items()
        for name, width, depth in kinds
    )


SWEEPS = (Sweep("softmax-depth", _depth_cells(), depth_cell),)

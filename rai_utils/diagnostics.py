"""What to look at in trained and untrained networks: maps, gradients, spread, references."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rai_utils.checks import number, whole_number
from rai_utils.data import Dataset
from rai_utils.models import (
    ACTIVATIONS,
    Architecture,
    StackedMLP,
    affine,
    check_inputs,
    layer_norms,
    pre_activations,
)
from rai_utils.relaxation import OutputLoss, output_loss
from rai_utils.training import loss_for

Array = NDArray[np.float64]


def decision_map(
    model: StackedMLP, limits: tuple[float, float] = (-3.0, 3.0), resolution: int = 100
) -> tuple[Array, Array]:
    """Output of networks with two inputs and one output on a square grid, in one evaluation.

    Args:
        model: the networks.
        limits: ends of both axes.
        resolution: grid points along an axis, at least 2.

    Returns:
        The grid along either axis, (resolution,), and the output, (seeds, resolution,
        resolution): first the second input (rows, upwards), then the first (columns).

    Raises:
        ValueError: the networks have other inputs or outputs, or the grid is empty.
    """
    widths = model.architecture.widths
    if (widths[0], widths[-1]) != (2, 1):
        raise ValueError(
            f"a decision map needs 2 inputs and 1 output, got {widths[0]} and {widths[-1]}"
        )
    resolution = whole_number(resolution, "resolution", 2)
    low, high = (number(limit, "a limit of the map") for limit in limits)
    if not low < high:
        raise ValueError(f"a map needs two ascending limits, got {low:g} and {high:g}")
    axis = np.linspace(low, high, resolution)
    first, second = np.meshgrid(axis, axis)
    points = torch.from_numpy(np.stack([first.ravel(), second.ravel()], 1)).to(
        model.weights[0].device, model.weights[0].dtype
    )  # (resolution², 2)
    output = model.predict(points)[..., 0]  # (seeds, resolution²)
    return axis, output.double().cpu().numpy().reshape(-1, resolution, resolution)


def disagreement(maps: Array, others: Array) -> Array:
    """Share of the grid on which two sets of networks decide differently.

    Args:
        maps: probabilities, (networks, rows, columns).
        others: probabilities, (other networks, rows, columns).

    Returns:
        Shares in 0 … 1, (networks, other networks).

    Raises:
        ValueError: the grids differ.
    """
    if maps.ndim != 3 or maps.shape[1:] != others.shape[1:]:
        raise ValueError(
            "decision maps must have shape (networks, rows, columns) on one grid, "
            f"got {maps.shape} and {others.shape}"
        )
    first = (maps > 0.5).reshape(len(maps), -1).astype(float)
    second = (others > 0.5).reshape(len(others), -1).astype(float)
    return (first @ (1 - second).T + (1 - first) @ second.T) / first.shape[1]


def mean_pairwise(shares: Array, level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Mean over pairs of runs, with an interval that knows that pairs share runs.

    The mean over the n(n − 1)/2 pairs is a U-statistic; its standard error is the jackknife's,
    one run left out at a time, and the interval is Student's with n − 1 degrees of freedom.

    Args:
        shares: a symmetric quantity of pairs, (runs, runs); the diagonal is not read.
        level: coverage, between 0 and 1.

    Returns:
        The mean and its interval.

    Raises:
        ValueError: the array is not square with at least 3 runs, or the level is out of range.
    """
    from scipy import stats

    if not 0 < number(level, "level") < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if shares.ndim != 2 or shares.shape[0] != shares.shape[1] or len(shares) < 3:
        raise ValueError(f"shares must be (runs, runs) with 3 runs or more, got {shares.shape}")
    runs = len(shares)
    off_diagonal = shares * (1 - np.eye(runs))
    total, by_run = off_diagonal.sum(), off_diagonal.sum(1)
    mean = total / (runs * (runs - 1))
    left_out = (total - 2 * by_run) / ((runs - 1) * (runs - 2))
    error = np.sqrt((runs - 1) / runs * ((left_out - left_out.mean()) ** 2).sum())
    reach = stats.t.ppf((1 + level) / 2, runs - 1) * error
    return float(mean), (float(mean - reach), float(mean + reach))


def loss_gradients(
    model: StackedMLP, dataset: Dataset, loss: OutputLoss | None = None
) -> tuple[Tensor, ...]:
    """Backpropagation's gradient: of the network's own loss on the training part.

    Args:
        model: the networks.
        dataset: the examples.
        loss: the output error; None for the task's default.

    Returns:
        Gradients of ``model.weights``, then of ``model.biases``.
    """
    z = model(dataset.x)
    total = output_loss(
        z, dataset.y, model.architecture.output_activation, loss_for(dataset.task, loss)
    )
    return torch.autograd.grad(total.sum(), [*model.weights, *model.biases])


def gradient_norms(model: StackedMLP, dataset: Dataset, loss: OutputLoss | None = None) -> Array:
    """Backpropagation's gradient norm per layer, weights and bias together.

    Args:
        model: the networks.
        dataset: gradients are of the loss on its training part.
        loss: the output error; None for the task's default.

    Returns:
        Euclidean norms, (T, seeds).
    """
    gradients = loss_gradients(model, dataset, loss)
    runs = len(model.architecture.runs)
    return layer_norms(gradients[:runs], gradients[runs:]).cpu().numpy()


def spread_across_examples(model: StackedMLP, x: Tensor) -> Array:
    """How far the examples lie apart in each layer of the plain forward pass.

    Standard deviation of z_t across examples, root mean square over units, computed in float64
    from the values that the network's own precision gives: 0 means that the layer no longer
    tells any two examples apart.

    Args:
        model: the networks.
        x: inputs, (examples, features).

    Returns:
        (T, seeds).
    """
    spreads = [
        z.double().var(1, correction=0).mean(1).sqrt() for z in pre_activations(model, x)
    ]  # each (seeds,)
    return torch.stack(spreads).cpu().numpy()


def first_nonzero(steps: NDArray[np.int64], values: Array) -> Array:
    """Step at which each layer's value is first above 0.

    Args:
        steps: ascending, (records,).
        values: (records, layers, seeds).

    Returns:
        Steps, (layers, seeds); infinite where it never is.

    Raises:
        ValueError: the number of steps and records differ.
    """
    if len(steps) != len(values):
        raise ValueError(f"there must be one step a record, got {len(steps)} and {len(values)}")
    nonzero = values > 0
    first = np.asarray(steps, dtype=float)[nonzero.argmax(0)]
    return np.where(nonzero.any(0), first, np.inf)


def logistic_regression(dataset: Dataset) -> tuple[float, float]:
    """Accuracy of scikit-learn's logistic regression, the best that a linear solution does here.

    Args:
        dataset: a classification problem.

    Returns:
        Training and held-out accuracy.

    Raises:
        ValueError: the problem is a regression.
    """
    from sklearn.linear_model import LogisticRegression

    if dataset.task == "regression":
        raise ValueError("logistic regression needs a classification problem, got a regression")
    x, y = dataset.x.cpu().numpy(), dataset.y.cpu().numpy()
    fitted = LogisticRegression(C=np.inf, max_iter=10_000).fit(x, y)
    held_out = fitted.score(dataset.held_out_x.cpu().numpy(), dataset.held_out_y.cpu().numpy())
    return float(fitted.score(x, y)), float(held_out)


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
        activation: ``"sigmoid"``, ``"tanh"``, ``"relu"`` or ``"softmax"``.
        width: units k that the layer reads and writes.
        weight_variance: v.

    Raises:
        ValueError: another activation, or a number that is not above 0.
    """
    slopes = {
        "sigmoid": 0.25,
        "tanh": 1.0,
        "relu": 0.5**0.5,
        "softmax": (width - 1) ** 0.5 / width**1.5,
    }
    if activation not in slopes:
        raise ValueError(f"activation must be one of {', '.join(slopes)}, got {activation!r}")
    width = whole_number(width, "width", 1)
    weight_variance = number(weight_variance, "weight variance", above=0)
    return (width * weight_variance) ** 0.5 * slopes[activation]


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


def best_linear_accuracy(x: Array, y: Array) -> float:
    """Greatest share of points with two features that any straight line classifies right.

    Exact: the order in which a line meets the points as it sweeps over them changes only at the
    directions perpendicular to the line through two points, so one direction between every two
    neighbouring ones, with every threshold and both sides, covers all lines.

    Args:
        x: points, (n, 2).
        y: labels 0 or 1, (n,).

    Raises:
        ValueError: the shapes do not fit, or a label is neither 0 nor 1.
    """
    if x.ndim != 2 or x.shape[1] != 2 or y.shape != x.shape[:1] or not len(x):
        raise ValueError(f"expected points (n, 2) and labels (n,), got {x.shape} and {y.shape}")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {np.unique(y).tolist()}")
    y = y.astype(np.int64)
    first, second = np.triu_indices(len(x), 1)
    between = x[second] - x[first]
    critical = np.unique(np.mod(np.arctan2(between[:, 1], between[:, 0]) + np.pi / 2, np.pi))
    critical = np.append(critical, critical[0] + np.pi if critical.size else np.pi)
    angles = (critical[1:] + critical[:-1]) / 2 if critical.size > 1 else np.zeros(1)
    best = max(np.mean(y == 0), np.mean(y == 1))
    for chunk in np.array_split(angles, max(1, len(angles) // 4096)):
        along = np.stack([np.cos(chunk), np.sin(chunk)]).T @ x.T  # (directions, n)
        ordered = y[np.argsort(along, axis=1)]
        right = np.cumsum(1 - 2 * ordered, axis=1) + y.sum()  # class 0 below, class 1 above
        best = max(best, right.max() / len(x), 1 - right.min() / len(x))
    return float(best)


def last_hidden_layer(model: StackedMLP, x: Tensor) -> Array:
    """Activations of the last hidden layer, the features that the output layer reads.

    Args:
        model: networks with one hidden layer or more, without skip connections.
        x: inputs, (examples, features).

    Returns:
        (seeds, examples, units).

    Raises:
        ValueError: there is no hidden layer, or there are skip connections.
    """
    if model.architecture.depth < 2 or model.architecture.skip_connections:
        raise ValueError(f"expected a plain network with a hidden layer, got {model.architecture}")
    z = pre_activations(model, x)[-2]
    return model.architecture.activation.function(z).double().cpu().numpy()


def logistic_regression_on_features(model: StackedMLP, dataset: Dataset) -> Array:
    """Held-out accuracy of logistic regression on each network's last hidden layer.

    Args:
        model: the networks, trained or not.
        dataset: a classification problem.

    Returns:
        (seeds,).

    Raises:
        ValueError: the problem is a regression, or as ``last_hidden_layer``.
    """
    from sklearn.linear_model import LogisticRegression

    if dataset.task == "regression":
        raise ValueError("logistic regression needs a classification problem, got a regression")
    y, held_out_y = dataset.y.cpu().numpy(), dataset.held_out_y.cpu().numpy()
    accuracies = []
    for features, held_out in zip(
        last_hidden_layer(model, dataset.x),
        last_hidden_layer(model, dataset.held_out_x),
        strict=True,
    ):
        # A weak penalty (C = 1000): learned features are often separable, and without one the
        # coefficients would grow without end.
        fitted = LogisticRegression(C=1000.0, max_iter=10_000).fit(features, y)
        accuracies.append(fitted.score(held_out, held_out_y))
    return np.array(accuracies)


def composed_weights(model: StackedMLP) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one linear layer that a stack of linear layers equals.

    Args:
        model: networks with the activation ``"identity"``, without skip connections.

    Returns:
        W_T … W_1, (seeds, outputs, inputs), and the bias, (seeds, 1, outputs).

    Raises:
        ValueError: the networks have another activation or skip connections.
    """
    architecture = model.architecture
    if architecture.hidden_activation != "identity" or architecture.skip_connections:
        raise ValueError(f"expected a plain network of linear layers, got {architecture}")
    layers = [
        (weight[offset].detach(), bias[offset].detach())
        for run, weight, bias in zip(architecture.runs, model.weights, model.biases, strict=True)
        for offset in range(run.layers)
    ]
    product, shift = layers[0]
    for weight, bias in layers[1:]:
        product, shift = weight @ product, shift @ weight.mT + bias
    return product, shift


SATURATED_BELOW = 0.05
"""A unit counts as saturated where its slope is below this share of the greatest slope."""

GREATEST_SLOPE = {
    "identity": 1.0,
    "relu": 1.0,
    "sigmoid": 0.25,
    "tanh": 1.0,
    "leaky_relu": 1.0,
    "leaky_relu_0.1": 1.0,
    "centred_sigmoid": 0.25,
    "elu": 1.0,
}


def slope(activation: str, z: Tensor) -> Tensor:
    """φ'(z) of an activation that works unit by unit, by the backward rule that training uses.

    Args:
        activation: a key of ``GREATEST_SLOPE``.
        z: pre-activations, any shape.

    Raises:
        ValueError: the activation is unknown or mixes units.
    """
    if activation not in GREATEST_SLOPE:
        raise ValueError(
            f"activation must be one of {', '.join(GREATEST_SLOPE)}, got {activation!r}"
        )
    rule = ACTIVATIONS[activation]
    return rule.backward(torch.ones_like(z), rule.kept(z, rule.function(z)))


def hidden_slopes(model: StackedMLP, x: Tensor) -> list[Tensor]:
    """Slope of every hidden unit on every example, input to output.

    Args:
        model: the networks.
        x: inputs, (examples, features).

    Returns:
        φ'(z_t) for t = 1 … T − 1, each (seeds, examples, units).

    Raises:
        ValueError: the activation mixes units.
    """
    name = model.architecture.hidden_activation
    return [slope(name, z) for z in pre_activations(model, x)[:-1]]


def layer_singular_values(model: StackedMLP, x: Tensor) -> list[Array]:
    """Singular values of each layer's Jacobian ∂z_{t+1}/∂z_t = W_{t+1} diag(φ′(z_t)).

    At 1 a layer hands a gradient on as it is (dynamical isometry, Saxe et al. 2014); the largest
    one bounds how much it can grow, and directions far below it are lost on the way down.

    Args:
        model: networks whose hidden units do not interact, without skip connections.
        x: inputs, (examples, l₀); one Jacobian each, so a few are enough.

    Returns:
        For t = 1 … T − 1, from the greatest down, (seeds, examples, min(l_t, l_{t+1})).

    Raises:
        ValueError: the network has skip connections, or ``slope`` refuses its activation.
    """
    if model.architecture.skip_connections:
        raise ValueError("expected a plain chain, got an architecture with skip connections")
    slopes = hidden_slopes(model, x)  # each (seeds, examples, l_t)
    weights = [layer for weight in model.weights for layer in weight.detach().unbind(0)]
    return [
        torch.linalg.svdvals(weight[:, None] * slope[:, :, None]).double().numpy()
        for weight, slope in zip(weights[1:], slopes, strict=True)
    ]


def saturated_share(model: StackedMLP, x: Tensor) -> Array:
    """Share of (example, unit) pairs whose slope is below 5 % of the activation's greatest.

    Args:
        model: the networks.
        x: inputs, (examples, features).

    Returns:
        (hidden layers, seeds), in 0 … 1.
    """
    limit = SATURATED_BELOW * GREATEST_SLOPE[model.architecture.hidden_activation]
    shares = [(values < limit).double().mean((1, 2)) for values in hidden_slopes(model, x)]
    return torch.stack(shares).cpu().numpy()


def without_gradient(model: StackedMLP, x: Tensor) -> Tensor:
    """Which hidden units have a slope of exactly 0 on every example: no gradient reaches them.

    Args:
        model: networks whose hidden layers have one width.
        x: inputs, (examples, features).

    Returns:
        (hidden layers, seeds, units), true where a unit is dead on these examples.
    """
    return torch.stack([(values == 0).all(1) for values in hidden_slopes(model, x)])


def off_centre(model: StackedMLP, x: Tensor) -> Array:
    """Mean activation of each hidden layer over its root mean square.

    0 where outputs are balanced around zero, ±1 where all are the same number.

    Args:
        model: the networks.
        x: inputs, (examples, features).

    Returns:
        (hidden layers, seeds); 0 where a layer gives only zeros.
    """
    rows = []
    for z in pre_activations(model, x)[:-1]:
        h = model.architecture.activation.function(z).double()
        size = h.square().mean((1, 2)).sqrt()
        rows.append(h.mean((1, 2)) / size.clamp(min=torch.finfo(torch.float64).tiny))
    return torch.stack(rows).cpu().numpy()


def backward_signals(model: StackedMLP, dataset: Dataset) -> tuple[list[Tensor], list[Tensor]]:
    """What each layer reads, and the gradient of each example's own loss at what it computes.

    The gradient of example e on the weight from unit j to unit i of layer t is δ_{t,e,i} h_{e,j}.

    Args:
        model: plain networks, without skip connections.
        dataset: losses are on its training part.

    Returns:
        h_0 … h_{T−1}, each (seeds, examples, l_{t−1}), and δ_1 … δ_T with δ_t = ∂L_e/∂z_t, each
        (seeds, examples, l_t).

    Raises:
        ValueError: the networks have skip connections.
    """
    if model.architecture.skip_connections:
        raise ValueError(f"expected networks without skips, got {model.architecture}")
    activation = model.architecture.activation
    x = dataset.x.to(model.weights[0].dtype)
    z = [values.requires_grad_() for values in pre_activations(model, x)]
    inputs = [x.expand(model.seeds, *x.shape), *(activation.function(v.detach()) for v in z[:-1])]
    loss = output_loss(
        z[-1], dataset.y, model.architecture.output_activation, loss_for(dataset.task)
    )
    # The loss is a mean over examples; times their number it is a sum of each one's own.
    (delta,) = torch.autograd.grad(loss.sum() * len(x), z[-1])
    deltas = [delta]
    weights = [w[k].detach() for w in model.weights for k in range(len(w))]  # T × (seeds, m, n)
    for layer in range(len(z) - 2, -1, -1):
        upstream = delta @ weights[layer + 1]  # (seeds, examples, units)
        kept = activation.kept(z[layer].detach(), inputs[layer + 1])
        delta = activation.backward(upstream, kept)
        deltas.insert(0, delta)
    return inputs, deltas


def sign_coherence(inputs: Tensor, deltas: Tensor) -> tuple[Array, Array]:
    """How much the gradient on one unit's weights has a single sign, |mean of the signs|.

    1 where all its components have one sign, 0 where half of them are positive. With as many
    random signs as inputs n it is about √(2 / πn).

    Args:
        inputs: what the layer reads, (seeds, examples, inputs).
        deltas: gradients at its pre-activations, (seeds, examples, units).

    Returns:
        Mean over units and examples, for one example's gradient, and mean over units for that of
        all examples together; (seeds,) each. Gradients that are 0 everywhere are left out.
    """
    h_signs = inputs.sign().double().mean(2).abs()  # (seeds, examples): δ only flips all of them
    alive = (deltas != 0) & (inputs != 0).any(2, keepdim=True)  # (seeds, examples, units)
    each = (h_signs[..., None] * alive).sum((1, 2)) / alive.sum((1, 2)).clamp(min=1)
    together = deltas.mT @ inputs  # (seeds, units, inputs)
    some = (together != 0).any(2)
    batch = (together.sign().double().mean(2).abs() * some).sum(1) / some.sum(1).clamp(min=1)
    return each.cpu().numpy(), batch.cpu().numpy()


def backward_gains(deltas: list[Tensor]) -> Array:
    """Root mean square of δ_t over that of δ_{t+1}, for the hidden layers t = 1 … T − 2.

    Below 1 the gradient shrinks on its way down. The step below the output layer is left out: it
    depends on the output's width.

    Args:
        deltas: δ_1 … δ_T, each (seeds, examples, l_t).

    Returns:
        (T − 2, seeds).
    """
    sizes = torch.stack([d.double().square().mean((1, 2)).sqrt() for d in deltas[:-1]])
    return (sizes[:-1] / sizes[1:]).cpu().numpy()


def predicted_gains(
    activation: str, weight_variance: float, bias_variance: float, first: float, layers: int
) -> Array:
    """Backward gain per layer that mean-field theory predicts for wide random layers.

    With q_t the variance of the pre-activations and Z standard normal (Poole et al. 2016, Eq. 3;
    Schoenholz et al. 2017, Eq. 9):

        q_{t+1} = n Var(W) E[φ(√q_t Z)²] + Var(b),    gain_t² = n Var(W) E[φ'(√q_t Z)²].

    Args:
        activation: a key of ``GREATEST_SLOPE``.
        weight_variance: n Var(W), units of a layer times the variance of a weight, at least 0.
        bias_variance: Var(b), at least 0.
        first: variance of the pre-activations of the first layer, q_1, at least 0.
        layers: hidden layers, at least 2.

    Returns:
        Gain from layer t + 1 to layer t, for t = 1 … layers − 1, (layers − 1,).

    Raises:
        ValueError: a value is out of range or the activation is unknown.
    """
    weight_variance = number(weight_variance, "variance of the weights", least=0)
    bias_variance = number(bias_variance, "variance of the biases", least=0)
    q = number(first, "variance of the first layer", least=0)
    layers = whole_number(layers, "layers", 2)
    points = torch.linspace(-10, 10, 20_001, dtype=torch.float64)
    density = torch.exp(-points.square() / 2)
    density /= density.sum()
    gains = []
    for _ in range(layers - 1):
        z = q**0.5 * points
        slopes = slope(activation, z)
        gains.append((weight_variance * float((density * slopes.square()).sum())) ** 0.5)
        outputs = ACTIVATIONS[activation].function(z)
        q = weight_variance * float((density * outputs.square()).sum()) + bias_variance
    return np.array(gains)


def two_weight_descent(
    inputs: Array, outputs: Array, start: tuple[float, float], rate: float, steps: int
) -> Array:
    """Gradient descent on the two weights of one linear unit, one example a step, in turn.

    Loss of example e: ½ (w · h_e − y_e)². Its gradient is (w · h_e − y_e) h_e, so where both
    inputs are positive both weights move up or both move down.

    Args:
        inputs: h, (examples, 2).
        outputs: y, (examples,).
        start: the two weights.
        rate: learning rate, above 0.
        steps: updates, at least 1.

    Returns:
        The weights before each step and after the last, (steps + 1, 2).

    Raises:
        ValueError: shapes do not fit, or a value is out of range.
    """
    if inputs.ndim != 2 or inputs.shape[1] != 2 or outputs.shape != inputs.shape[:1]:
        raise ValueError(
            f"expected inputs (n, 2) and outputs (n,), got {inputs.shape} and {outputs.shape}"
        )
    rate, steps = number(rate, "rate", above=0), whole_number(steps, "steps", 1)
    path = np.empty((steps + 1, 2))
    path[0] = start
    for step in range(steps):
        h, y = inputs[step % len(inputs)], outputs[step % len(inputs)]
        path[step + 1] = path[step] - rate * (path[step] @ h - y) * h
    return path

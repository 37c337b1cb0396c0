"""What the notebook rai-demo measures, the long runs that it reads (``make study``), its plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.patches import Circle, FancyArrowPatch, Polygon, Rectangle
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import squareform
from torch import Tensor, nn

from rai_utils.checks import one_of
from rai_utils.data import moons, moons_draw
from rai_utils.diagnostics import decision_map, logistic_regression, mean_of_pairs
from rai_utils.experiments.sweep import Cell, Sweep, ends, finite, grid
from rai_utils.models import Architecture, build_mlp, confirmation_seeds, development_seeds
from rai_utils.plotting import (
    INK,
    VERMILLION,
    Style,
    check_axes,
    figure_of,
    landscape,
    method_style,
)
from rai_utils.recording import drawing
from rai_utils.relaxation import resting
from rai_utils.training import (
    Fit,
    Phase,
    Watch,
    compile_rprop,
    evaluate,
    fit_backprop,
    fit_relaxed,
    schedule,
)
from rai_utils.tuning import tune

Array = NDArray[np.float64]

# The proposal's shallow circuit, and the smaller one that its code trained by backpropagation.
SHALLOW = Architecture((2, 42, 100, 100, 42, 1), "relu")
SMALLER = Architecture((2, 42, 100, 42, 1), "relu")
DEEP = Architecture((2, *[100] * 100, 1))
METHODS = {"backprop": fit_backprop, "RAI": fit_relaxed}

STEPS = 1000
LEARNING_RATES = [0.1, 0.01, 0.001, 0.0001]
# What the sweep demo-tuning chose.
CHOSEN_RATE = {"backprop": 0.01, "RAI": 0.01}
DRAWS, NETWORKS = 10, 4
# Of the pair in the proposal's code.
AUTHOR_STEPS = {"backprop": 100, "RAI": 10_000}
# Within this distance of a training example a point of the plane counts as near the data.
NEAR = 0.5
# The training loss at which networks that learn at different speeds are compared.
MATCHED_LOSS = 0.01
RESOLUTION = 61


def loss_by_loops(
    layers: Sequence[nn.Linear], targets: Sequence[Tensor], x: Tensor, y: Tensor, *, written: bool
) -> float:
    """Relaxed loss of a ReLU circuit with one sigmoid output, one number at a time.

    Eq. 4 as written has sums, hidden terms 1 … T − 1, and the output error of f_T(z_{T−1}). The
    author's code has means, hidden terms 1 … T, and the output error of the last target.

    Args:
        layers: the T linear layers.
        targets: z_1 … z_T, (examples, l_t) each; as written the last is not read.
        x: inputs, (examples, l₀).
        y: labels, (examples,), each 0 or 1.
        written: which form.
    """
    parameters = [(layer.weight.tolist(), layer.bias.tolist()) for layer in layers]
    total, count = 0.0, len(x)
    for i, (h, label) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        for t, (weight, bias) in enumerate(parameters, start=1):
            z = [
                b + sum(w * v for w, v in zip(row, h, strict=True))
                for row, b in zip(weight, bias, strict=True)
            ]
            if t == len(layers) and written:
                break
            target = targets[t - 1][i].tolist()
            error = sum((a - b) ** 2 for a, b in zip(z, target, strict=True))
            total += error if written else error / (count * len(target))
            z, h = target, [max(value, 0.0) for value in target]
        error = math.log1p(math.exp(z[0])) - label * z[0]
        total += error if written else error / count
    return total


def near_the_data(axis: Array, points: ArrayLike, distance: float = NEAR) -> NDArray[np.bool_]:
    """Which points of a square grid lie within ``distance`` of an example.

    Args:
        axis: the grid along either axis, (resolution,).
        points: the examples, (n, 2).
        distance: in units of the plane.

    Returns:
        (resolution, resolution), rows upwards, as in ``decision_map``.
    """
    first, second = np.meshgrid(axis, axis)
    grid = np.stack([first, second], 2)[:, :, None]  # (rows, columns, 1, 2)
    return (((grid - np.asarray(points)) ** 2).sum(3) <= distance**2).any(2)


def differing(maps: Array, region: NDArray[np.bool_]) -> Array:
    """Share of a region's grid points on which two networks decide differently, (networks, ·)."""
    sides = (maps > 0.5)[:, region].astype(float)
    shares = sides @ (1 - sides).T / sides.shape[1]
    return shares + shares.T


def disagreements(
    distances: Array, swapped: NDArray[np.bool_] | None = None
) -> tuple[Array, Array, Array]:
    """Mean distances of networks from different starts, by two methods that share their starts.

    Args:
        distances: of n networks of one method and then of n from the same starts by the other,
            (draws, 2 n, 2 n).
        swapped: where the two networks of a start change places, (draws, n); None for nowhere.

    Returns:
        Within the first method, within the second, between the two, (draws,) each.
    """
    draws, networks = len(distances), distances.shape[1] // 2
    start = np.arange(networks)
    swapped = np.zeros((draws, networks), bool) if swapped is None else swapped
    first, second = (start + networks * (swapped != other) for other in (False, True))
    apart = start[:, None] != start
    blocks = [(first, first), (second, second), (first, second)]
    each = np.arange(draws)[:, None, None]
    within, within_other, between = (
        distances[each, rows[:, :, None], columns[:, None]][:, apart].mean(1)
        for rows, columns in blocks
    )
    return within, within_other, between


def energy_test(distances: Array, permutations: int = 999) -> tuple[float, float, float]:
    """Two-sample test on decision maps by two methods that share their starts.

    The statistic is 2 E d(X, Y) − E d(X, X′) − E d(Y, Y′), mean over draws, between networks of
    different starts. The distance of two maps, the share of a region where they differ, is a mean
    of squared differences and so of negative type: the statistic is 0 in expectation where both
    methods give maps of one law, and above it elsewhere (Székely & Rizzo, *Energy statistics*,
    2013). Under that hypothesis the two networks of a start may change places.

    Args:
        distances: as in ``disagreements``.
        permutations: how many times the places are dealt anew.

    Returns:
        The statistic; its p-value, (1 + permutations that reach it) / (1 + permutations); and the
        p-value of one dealing in its place, which is what no difference looks like.
    """

    def statistic(swapped: NDArray[np.bool_] | None = None) -> float:
        within, within_other, between = disagreements(distances, swapped)
        return float((2 * between - within - within_other).mean())

    generator = np.random.default_rng(0)
    shape = len(distances), distances.shape[1] // 2
    dealt = np.array([statistic(generator.random(shape) < 0.5) for _ in range(permutations + 1)])
    values = []
    for found in (statistic(), dealt[-1]):
        # Equal statistics may differ in their last digits.
        values.append((1 + int((dealt[:-1] >= found - 1e-12).sum())) / (1 + permutations))
    return statistic(), values[0], values[1]


def pair_distances(cells: Sequence[Cell], region: str, first: str, second: str) -> Array:
    """Distances of the networks of two groups of ``draw_cell``, (draws, 2 n, 2 n).

    Args:
        cells: of the sweep, one a draw.
        region: "whole" or "near".
        first: name of a group, such as "backprop 0.1".
        second: of another.
    """
    found = []
    for cell in cells:
        groups, networks = [*cell["groups"]], cell["networks"]
        starts = networks * np.array([[groups.index(first)], [groups.index(second)]])
        rows = (starts + np.arange(networks)).ravel()
        found.append(squareform(cell["distances"][region])[np.ix_(rows, rows)])
    return np.array(found)


# --- cells ------------------------------------------------------------------------------------


def tuning_cell(
    method: str, learning_rates: list[float], networks: int, steps: int
) -> dict[str, Any]:
    """Tune the first step of Rprop for a method, on networks and a draw of their own.

    Returns:
        ``tried``, and for each rate there ``losses`` and ``accuracies`` on 500 validation points;
        ``chosen``; ``at_limit``: whether a better one may lie beyond what was allowed.
    """
    data = moons(seed=1142, held_out=500, held_out_seed=2142)
    start = build_mlp(SHALLOW, development_seeds(networks))
    fit = METHODS[one_of(method, METHODS, "method")]
    tuning = tune(fit, start, data, steps, learning_rates, tie_margin=0.001, limits=(1e-6, 1.0))
    return {
        "tried": list(tuning.learning_rates),
        "losses": finite(tuning.losses, 5),
        "accuracies": finite(tuning.accuracies, 5),
        "chosen": tuning.phase.learning_rate,
        "at_limit": tuning.at_limit,
    }


def draw_cell(
    number: int, networks: int, learning_rates: list[float], chosen: dict[str, float], steps: int
) -> dict[str, Any]:
    """Train the shallow pair and its controls on one draw of Moons.

    Args:
        number: of the draw; its networks have seeds ``100 * number`` and on.
        networks: of each method.
        learning_rates: first steps of Rprop, every one for both methods.
        chosen: method -> the rate of the controls, and of the gaps.
        steps: updates.

    Returns:
        ``logistic``, ``untrained``: held-out accuracies; ``groups``: for "backprop 0.1" and so on,
        and for "last layer", the accuracies ``held_out`` and ``train`` of each network, ``loss``,
        and ``matched_loss`` where it first is at most ``MATCHED_LOSS``; ``disagreement``: stage
        ("end", "matched") -> region ("whole", "near", "far") -> group -> mean over pairs of
        networks, None where fewer than two got to the loss; ``near_share``: of the square;
        ``distances``: region -> of all networks of backprop, rate by rate, and then of RAI, the
        upper triangle row by row; ``gap_peak``, ``gap_end``: of RAI, worst layer;
        ``frozen``: the same two for targets that never move; ``ablation``: λ -> held-out accuracy.
    """
    data = moons_draw(number)
    compile_rprop()
    first = 100 * number
    start = build_mlp(SHALLOW, confirmation_seeds(networks, first))
    marks = Watch(evaluate_at=(steps,), inspect_at=schedule(steps, 40))
    times = schedule(steps, 50)
    groups: dict[str, dict[str, Any]] = {}
    maps: dict[str, dict[str, Array]] = {"end": {}, "matched": {}}
    gaps: dict[str, list[float]] = {}
    for method, fit in METHODS.items():
        for rate in learning_rates:
            watch = Watch(times, marks.inspect_at, snapshot_at=times)
            found = fit(start, data, Phase(steps, rate), watch=watch)
            name = f"{method} {rate:g}"
            groups[name] = _scores(found)
            axis, maps["end"][name] = decision_map(found.model, resolution=RESOLUTION)
            losses = found.history.loss  # (evaluations, networks)
            reached = [np.flatnonzero(own <= MATCHED_LOSS) for own in losses.T]
            first = {k: int(at[0]) for k, at in enumerate(reached) if at.size}
            groups[name]["matched_loss"] = [float(losses[at, k]) for k, at in first.items()]
            maps["matched"][name] = np.array(
                [
                    decision_map(found.snapshots[times[at]].select([k]), resolution=RESOLUTION)[1][
                        0
                    ]
                    for k, at in first.items()
                ]
            ).reshape(-1, RESOLUTION, RESOLUTION)
            if method == "RAI" and rate == chosen["RAI"]:
                gaps = _gaps(found)
    phase, hidden = Phase(steps, chosen["RAI"]), range(1, SHALLOW.depth)
    options: dict[str, Any] = {"layers": hidden, "watch": marks}
    # Targets that never move leave every hidden term at 0, so the output layer alone learns.
    frozen = fit_relaxed(start, data, phase, objective=resting(math.inf), **options)
    groups["last layer"] = _scores(frozen)
    _, maps["end"]["last layer"] = decision_map(frozen.model, resolution=RESOLUTION)
    ablation = {
        f"{weight:g}": fit_relaxed(start, data, phase, hidden_weight=weight, **options)
        for weight in (1.0, 0.0)
    }
    near = near_the_data(axis, data.x)
    regions = {"whole": np.ones_like(near), "near": near, "far": ~near}
    disagreement = {
        stage: {
            region: {
                name: mean_of_pairs(differing(own, where), range(len(own)))
                for name, own in by_group.items()
            }
            for region, where in regions.items()
        }
        for stage, by_group in maps.items()
    }
    everyone = np.concatenate([own for name, own in maps["end"].items() if name != "last layer"])
    upper = np.triu_indices(len(everyone), 1)
    return {
        "logistic": logistic_regression(data)[1],
        "untrained": evaluate(start, data.held_out_x, data.held_out_y, data.task)[1].tolist(),
        "groups": groups,
        "disagreement": disagreement,
        "near_share": float(near.mean()),
        "distances": {
            region: differing(everyone, regions[region])[upper].round(4).tolist()
            for region in ("whole", "near")
        },
        **gaps,
        "frozen": _gaps(frozen),
        "ablation": {weight: ends(fit.history)["held_out"] for weight, fit in ablation.items()},
    }


def author_cell(number: int) -> dict[str, Any]:
    """Train the unequal pair of the proposal's code, one network of each on one draw.

    Backpropagation has the smaller circuit and 100 steps, RAI the larger one and 10 000; Rprop
    starts with steps of 0.1 in both.

    Returns:
        For "backprop" and "RAI", ``train`` and ``held_out`` accuracy; and of draw 0 ``map``, the
        outputs on the square grid, rows upwards, else None.
    """
    data = moons_draw(number)
    result: dict[str, Any] = {}
    compile_rprop()
    for method, shape in (("backprop", SMALLER), ("RAI", SHALLOW)):
        phase, watch = Phase(AUTHOR_STEPS[method], 0.1), Watch(evaluate_at=(AUTHOR_STEPS[method],))
        fit = METHODS[method](build_mlp(shape, [number]), data, phase, watch=watch)
        _, maps = decision_map(fit.model, resolution=RESOLUTION)
        result[method] = _end(fit)
        result[method]["map"] = maps[0].round(3).tolist() if number == 0 else None
    return result


def forms_cell(number: int, steps: int) -> dict[str, Any]:
    """Train 101 sigmoid layers by both forms of Eq. 4, one network on one draw.

    As in the author's code all layers have targets and every term is a mean. As written layers
    1 … T − 1 have them and the terms are sums: over n examples and 100 units a hidden sum is 100 n
    means and the output sum n, so that the loss is n times that of means with λ = 100. Rprop does
    not see the factor n.

    Returns:
        ``train`` and ``held_out`` accuracy for "as written" and "author's code".
    """
    data = moons_draw(number)
    compile_rprop()
    start, phase, watch = build_mlp(DEEP, [number]), Phase(steps, 0.1), Watch(evaluate_at=(steps,))
    width = float(DEEP.widths[1])
    fits: dict[str, dict[str, Any]] = {
        "as written": {"layers": range(1, DEEP.depth), "hidden_weight": width},
        "author's code": {},
    }
    return {
        name: _end(fit_relaxed(start, data, phase, watch=watch, **options))
        for name, options in fits.items()
    }


def _end(fit: Fit) -> dict[str, Any]:
    """Return ``train`` and ``held_out``: accuracy of the only network at the end."""
    return {name: values[0] for name, values in ends(fit.history).items()}


def _scores(fit: Fit) -> dict[str, Any]:
    return {**ends(fit.history), "loss": finite(fit.history.loss[-1], 3)}


def _gaps(fit: Fit) -> dict[str, list[float]]:
    """``gap_peak`` and ``gap_end`` of each network, in the layer where they are worst.

    A gap is the root mean square residual over the spread of the targets; 0 where all targets
    coincide and residuals are 0.
    """
    history = fit.history
    spread = np.maximum(history.target_variance, np.finfo(np.float32).tiny)
    gaps = np.sqrt(history.hidden_terms / spread).max(1)  # (records, networks)
    return {"gap_peak": gaps.max(0).tolist(), "gap_end": gaps[-1].tolist()}


_EFFORT: Cell = {"learning_rates": LEARNING_RATES, "steps": STEPS}
SWEEPS = (
    Sweep("demo-tuning", grid({"networks": 6, **_EFFORT}, method=METHODS), tuning_cell),
    Sweep(
        "demo",
        grid(
            {"networks": NETWORKS, "chosen": CHOSEN_RATE, **_EFFORT},
            number=confirmation_seeds(DRAWS),
        ),
        draw_cell,
    ),
    Sweep("demo-author", grid(number=confirmation_seeds(10)), author_cell),
    Sweep("demo-forms", grid({"steps": 220}, number=confirmation_seeds(10)), forms_cell),
)


# --- plots ------------------------------------------------------------------------------------


@drawing
def boundaries(
    axes: Axes,
    grid_x: ArrayLike,
    grid_y: ArrayLike,
    probabilities: ArrayLike,
    points: ArrayLike,
    labels: ArrayLike,
    *,
    title: str = "",
) -> Axes:
    """Draw the 0.5 contours of several networks over the share of them that say class 1.

    Args:
        axes: The axes to draw on.
        grid_x: Positions of the maps' columns, shape (G_x,), increasing.
        grid_y: Positions of the maps' rows, shape (G_y,), increasing.
        probabilities: P(class 1) of each network, shape (networks, G_y, G_x), in [0, 1] or NaN.
        points: Training points, shape (n, 2).
        labels: Their classes, shape (n,), each 0 or 1.
        title: Title of the panel.

    Returns:
        The axes given.

    Raises:
        TypeError: If `axes` is not an `Axes`.
        ValueError: As `landscape`, or if there is no network.
    """
    values = np.asarray(probabilities, dtype=float)
    if not len(values):
        raise ValueError("probabilities must hold one network or more, got none")
    landscape(axes, grid_x, grid_y, (values > 0.5).mean(0), points, labels, title=title)
    for collection in [c for c in axes.collections if isinstance(c, ContourSet)]:
        collection.remove()  # the boundary of the vote is not a network's boundary
    look: Style = {"levels": [0.5], "colors": "white", "linewidths": 0.8, "alpha": 0.8, "zorder": 2}
    for network in values:
        if np.nanmin(network) < 0.5 < np.nanmax(network):
            axes.contour(grid_x, grid_y, network, **look)
    return axes


# Where the columns of both circuits stand, so that one can be read against the other: the input,
# the first layer, what it computes, the layers left out, the same at the other end, and the loss.
_COLUMNS = (0.75, 2.42, 4.09, 5.68, 7.27, 8.94, 10.61, 12.28)
_RADIUS = 0.6


@drawing
def circuit(axes: Axes, *, relaxed: bool) -> Axes:
    """Draw the proposal's figure 1: the plain circuit (Eq. 1), or the relaxed twin as trained.

    Dashed arrows show how far the gradient reaches: through every layer from the one loss, or
    from each term of the relaxed loss into one layer. What the last hidden term sees is shaded.
    The key of both stands under the twin. Text and lines grow with the panel, so the drawing stays
    the same when it is scaled; 3.4 inches is the least width it needs. The plain circuit is 0.31
    times as high as it is wide, the relaxed one 0.63 times.

    Args:
        axes: The axes to draw on; its ticks and spines are hidden.
        relaxed: Whether to draw the relaxed twin.
    """
    check_axes(axes)
    upper, bottom = (2.9, -2.45) if relaxed else (0.0, -1.1)
    top = upper + 3.0
    drawing = _Drawing(axes, bottom=bottom, top=top)
    drawing.node(_COLUMNS[0], 0, "$z_0$", "given")
    for x, name in ((_COLUMNS[1], "0"), (_COLUMNS[5], "T{-}1")):  # braces: a sign without space
        drawing.node(x, upper, f"$f_{{{name}}}$", "function")
        drawing.node(x, upper + 1.6, rf"$\theta_{{{name}}}$", "trained")
        drawing.arrow((x, upper + 0.95), (x, upper + 0.57))
    drawing.text(_COLUMNS[3], upper, "···")
    drawing.node(_COLUMNS[7], 0, "$L_y$", "loss")
    drawing.node(_COLUMNS[7], 1.6, "$y$", "given")
    drawing.arrow((_COLUMNS[7], 1.05), (_COLUMNS[7], 0.36))
    drawing.arrow((_COLUMNS[6] + _RADIUS, 0), (_COLUMNS[7] - 0.42, 0))
    title, equation = "Plain circuit", r"$z_{t{+}1} = f_t(z_t, \theta_t)$"
    reach = "one chain\nthrough every layer"
    if relaxed:
        title, equation = "Relaxed twin", rf"$\hat{{z}}{equation[2:]},   $\hat{{z}}_t \approx z_t$"
        reach = "each term\nreaches one layer"
        _draw_relaxed(drawing, upper)
        drawing.key()
    else:
        _draw_plain(drawing)
    drawing.text(0.2, top - 0.35, title, ha="left", weight="bold")
    drawing.text(4.1, top - 0.35, equation, ha="left")
    drawing.text(_COLUMNS[3], upper + 1.6, reach, size=0.37, color=VERMILLION)
    return axes


def _draw_plain(drawing: _Drawing) -> None:
    for x, name in zip(_COLUMNS[2:7:2], ("1", "T{-}1", "T"), strict=True):
        drawing.node(x, 0, f"$z_{{{name}}}$", "computed")
    for start, end in pairwise(_COLUMNS[:7]):
        drawing.arrow((start + _RADIUS, 0), (end - _RADIUS, 0))
    for start, end in pairwise(_COLUMNS[:0:-2]):
        drawing.arrow((start - 0.25, -0.7), (end + 0.25, -0.7), bend=-0.2)


def _draw_relaxed(drawing: _Drawing, upper: float) -> None:
    middle, layer, (first, before, last) = 1.48, _COLUMNS[5], _COLUMNS[2:7:2]
    drawing.shade(
        *((before - 0.72, -0.8), (last + 0.76, -0.8), (last + 0.76, upper + 0.72)),
        *((layer + 0.72, upper + 0.72), (layer + 0.72, upper + 2.32)),
        *((layer - 0.72, upper + 2.32), (layer - 0.72, upper - 0.72)),
        *((before + 0.68, 0.82), (before - 0.72, 0.82)),
    )
    for x, name in ((first, "1"), (before, "T{-}1"), (last, "T")):
        drawing.node(x, upper, rf"$\hat{{z}}_{{{name}}}$", "computed")
        drawing.node(x, 0, f"$z_{{{name}}}$", "trained")
        drawing.node(x, middle, "$L_h$", "loss")
        drawing.arrow((x, upper - _RADIUS), (x, middle + 0.36))
        drawing.arrow((x + 0.18, _RADIUS - 0.05), (x + 0.18, middle - 0.36))
        drawing.arrow((x - 0.2, middle - 0.36), (x - 0.2, _RADIUS + 0.03), bend=0)
    drawing.text(_COLUMNS[3], 0, "···")
    for start, layer, end in (_COLUMNS[0:3], _COLUMNS[2:5], _COLUMNS[4:7]):
        drawing.arrow((start + 0.42, 0.48), (layer - 0.45, upper - 0.66))
        drawing.arrow((layer + _RADIUS, upper), (end - _RADIUS, upper))
        drawing.arrow((end - 0.44, middle + 0.12), (layer + 0.1, upper - 0.7), bend=-0.3)
    # To the targets before a layer; the first layer's are the given input, without a gradient.
    drawing.arrow((last - 0.44, middle - 0.15), (before + 0.7, 0), bend=-0.2)
    drawing.arrow((before - 0.44, middle - 0.15), (_COLUMNS[3] + 0.3, 0.25), bend=-0.2)
    drawing.arrow((_COLUMNS[3] - 0.1, 0.7), (first + 0.7, 0), bend=-0.2)
    drawing.arrow((_COLUMNS[7] - 0.3, -0.42), (last + 0.5, -0.42), bend=-0.25)
    drawing.text(last + 0.95, upper, "predictions", ha="left", size=0.38)
    drawing.text(_COLUMNS[7], -0.85, "targets", size=0.38)


class _Drawing:
    """A panel in its own units, whose text and lines keep their size in those units."""

    # Width, height (without one it is round), face, edge, and width of the edge.
    _NODES: Mapping[str, tuple[float, float | None, str, str, float]] = {
        "given": (1.08, 1.08, "#CFCFCF", INK, 0.05),
        "trained": (2 * _RADIUS, None, "#D9ECF8", method_style("RAI")["color"], 0.13),
        "computed": (2 * _RADIUS, None, "white", INK, 0.05),
        "function": (1.1, 1.1, "white", INK, 0.05),
        "loss": (0.8, 0.66, "#FBE3D3", VERMILLION, 0.05),
    }

    def __init__(self, axes: Axes, *, bottom: float, top: float, width: float = 13.3) -> None:
        self.axes, self.bottom = axes, bottom
        axes.set_axis_off()
        axes.set(xlim=(0, width), ylim=(bottom, top), aspect="equal")
        # The layout has to be settled before a length in points can follow the panel's size.
        figure = figure_of(axes)
        figure.draw_without_rendering()
        self.unit = axes.get_window_extent().width / width * 72 / figure.dpi  # points a unit

    def text(self, x: float, y: float, text: str, *, size: float = 0.46, **settings: Any) -> None:
        settings = {"ha": "center", "va": "center", **settings}
        self.axes.text(x, y, text, fontsize=size * self.unit, zorder=4, **settings)

    def node(self, x: float, y: float, text: str, kind: str, *, scale: float = 1.0) -> None:
        """A value (given, trained or computed), a function, or a term of the loss."""
        width, height, face, edge, weight = self._NODES[kind]
        if height is None:
            shape = Circle((x, y), scale * width / 2)
        else:
            corner = x - scale * width / 2, y - scale * height / 2
            shape = Rectangle(corner, scale * width, scale * height)
        weight *= self.unit * scale**0.5
        shape.set(facecolor=face, edgecolor=edge, linewidth=weight, zorder=3)
        self.axes.add_patch(shape)
        self.text(x, y, text, size=0.44)

    def arrow(
        self, start: tuple[float, float], end: tuple[float, float], *, bend: float | None = None
    ) -> None:
        """What is computed from what; with a bend, the way back of a gradient."""
        look: Style = {"color": INK, "linewidth": 0.05 * self.unit}
        if bend is not None:
            look = {
                "color": VERMILLION,
                "linewidth": 0.075 * self.unit,
                "linestyle": (0, (2.5, 1.2)),
            }
            look["connectionstyle"] = f"arc3,rad={bend}"
        look |= {"mutation_scale": 0.42 * self.unit, "shrinkA": 0, "shrinkB": 0, "zorder": 2}
        self.axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", **look))

    def shade(self, *corners: tuple[float, float]) -> None:
        """An area behind everything else."""
        look: Style = {"facecolor": "#FFF2C4", "edgecolor": "#B89B3A", "zorder": 1}
        self.axes.add_patch(Polygon(corners, linewidth=0.03 * self.unit, **look))

    def key(self) -> None:
        """What the nodes, the dashed arrows and the shade are: the last two lines."""
        columns = (0.4, 4.4, 8.6)
        for row, kinds in enumerate((("given", "trained", "computed"), ("loss",))):
            y = self.bottom + 0.85 - 0.6 * row
            for x, kind in zip(columns, kinds, strict=False):
                self.node(x, y, "", kind, scale=0.3)
                name = "term of the loss" if kind == "loss" else kind
                self.text(x + 0.4, y, name, ha="left", size=0.37)
        self.arrow((columns[1] + 0.4, y), (columns[1] - 0.4, y), bend=0)
        self.text(columns[1] + 0.55, y, "gradient", ha="left", size=0.37)
        corners = ((-0.2, -0.17), (0.2, -0.17), (0.2, 0.17), (-0.2, 0.17))
        self.shade(*((columns[2] + across, y + up) for across, up in corners))
        self.text(columns[2] + 0.4, y, "seen by one term", ha="left", size=0.37)

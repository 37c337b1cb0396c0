"""The plots of the notebook network-basics; as in `plotting`, they draw on the axes given.

What does not fit is refused as there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise, product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch
from numpy.typing import ArrayLike

from rai_utils.plotting import (
    HALO,
    INK,
    VERMILLION,
    Style,
    check_axes,
    label_powers,
    training_curves,
)
from rai_utils.recording import drawing


@drawing
def expression_graph(
    axes: Axes,
    positions: Mapping[str, tuple[float, float]],
    labels: Mapping[str, str],
    values: Mapping[str, float],
    edges: Iterable[tuple[str, str, float]],
) -> Axes:
    """Draw a computational graph: values forward, and the gradient that each edge brings back.

    Args:
        axes: The axes to draw on; its frame is hidden.
        positions: Name of a node to where it stands, in units of the drawing.
        labels: Name of a node to what is written above it, such as a formula.
        values: Name of a node to its forward value, written into it.
        edges: Source, target and the gradient carried from the target back to the source.
    """
    check_axes(axes)
    edges = list(edges)
    for name, given in (("labels", labels), ("values", values)):
        if missing := sorted(positions.keys() - given.keys()):
            raise ValueError(f"{name} must hold one for each node, got none for {missing}")
    if unknown := sorted({node for edge in edges for node in edge[:2]} - positions.keys()):
        raise ValueError(f"edges must join nodes among {sorted(positions)}, got {unknown}")
    radius = 0.34
    forward: Style = {"color": INK, "linestyle": "-"}
    back: Style = {"color": VERMILLION, "linestyle": (0, (4, 2))}
    for source, target, gradient in edges:
        start, end = (np.array(positions[name], dtype=float) for name in (source, target))
        along = (end - start) / np.hypot(*(end - start))
        aside = np.array([-along[1], along[0]])
        ends = start + along * radius, end - along * radius
        for shift, (tail, tip), look in ((0.07, ends, forward), (-0.07, ends[::-1], back)):
            places = tail + shift * aside, tip + shift * aside
            size: Style = {"mutation_scale": 8, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}
            axes.add_patch(FancyArrowPatch(*places, arrowstyle="-|>", **size, **look))
        middle, text = (start + end) / 2 - 0.27 * aside, f"{gradient:g}"
        look: Style = {"color": VERMILLION, "weight": "bold", "path_effects": HALO}
        axes.text(*map(float, middle), s=text, ha="center", va="center", **look)
    for name, (x, y) in positions.items():
        axes.add_patch(Circle((x, y), radius, facecolor="white", edgecolor=INK, linewidth=1.0))
        axes.text(x, y, f"{values[name]:g}", ha="center", va="center")
        axes.text(x, y + radius + 0.08, labels[name], ha="center", va="bottom", path_effects=HALO)
    places = np.array(list(positions.values()), dtype=float)
    low, high = places.min(0) - 0.6, places.max(0) + 0.75
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set_axis_off()
    return axes


@drawing
def network_diagram(
    axes: Axes, widths: Sequence[int], inputs: Sequence[str], outputs: Sequence[str], title: str
) -> Axes:
    """Draw the units of a network as circles and its weights as lines, from left to right.

    Args:
        axes: The axes to draw on; its frame is hidden.
        widths: Units of each layer, from input to output.
        inputs: A label for each input.
        outputs: A label for each output.
        title: What stands above.
    """
    check_axes(axes)
    for name, labels, count in (("inputs", inputs, widths[0]), ("outputs", outputs, widths[-1])):
        if len(labels) != count:
            raise ValueError(f"{name} must be {count} labels, got {len(labels)}")
    layers = [[(2.0 * t, (w - 1) / 2 - i) for i in range(w)] for t, w in enumerate(widths)]
    for below, above in pairwise(layers):
        for (x, y), (to_x, to_y) in product(below, above):
            axes.plot([x, to_x], [y, to_y], color="#999999", lw=0.6, ls="-", zorder=1)
    last = len(layers) - 1
    for t, units in enumerate(layers):
        colour = {0: "#FFFFFF", last: "#F3D9C6"}.get(t, "#CFE3F1")
        for place, (x, y) in enumerate(units):
            axes.add_patch(Circle((x, y), 0.3, facecolor=colour, edgecolor=INK, lw=0.9, zorder=2))
            if t == 0:
                axes.text(x - 0.45, y, inputs[place], ha="right", va="center")
            if t == last:
                axes.text(x + 0.45, y, outputs[place], ha="left", va="center")
    top = (max(widths) - 1) / 2
    axes.set(xlim=(-1.2, 2 * last + 2.4), ylim=(-top - 0.5, top + 0.5), aspect="equal")
    axes.set_title(title)
    axes.set_axis_off()
    return axes


@drawing
def power_law(
    axes: Axes,
    sizes: ArrayLike,
    errors_by_name: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    references: Mapping[str, float] | None = None,
) -> Axes:
    """Draw errors against size on two logarithmic axes: a thin line a seed, the median thick.

    Args:
        sizes: Sizes, shape (n,), increasing, above 0.
        errors_by_name: Name to errors, each of shape (n, seeds), above 0.
        xlabel: What the sizes are.
        ylabel: What the errors are.
        references: Name to value of the horizontal lines, such as a limit.
    """
    check_axes(axes)
    for name, errors in errors_by_name.items():
        if not np.all(np.asarray(errors, dtype=float) > 0):
            raise ValueError(f"errors_by_name[{name!r}] must be above 0, got {errors}")
    training_curves(axes, sizes, errors_by_name, label=ylabel, references=references)
    axes.set_yscale("log")
    label_powers(axes.yaxis)
    shown = np.asarray(sizes)
    shown = shown[:: -(-len(shown) // 5)]  # about four ticks fit
    axes.set_xticks(shown, [f"{size:g}" for size in shown])
    axes.minorticks_off()
    axes.set_xlabel(xlabel)
    return axes

"""The plots of the notebook rai-demo; as in `plotting`, they draw on the axes given."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from numpy.typing import ArrayLike

from rai_utils.plotting import (
    INK,
    VERMILLION,
    Style,
    check_axes,
    figure_of,
    landscape,
    method_style,
)


def boundaries(
    axes: Axes,
    grid_x: ArrayLike,
    grid_y: ArrayLike,
    probabilities: ArrayLike,
    points: ArrayLike,
    labels: ArrayLike,
    *,
    title: str | None = None,
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
_DASHES = (0, (2.5, 1.2))


def circuit(axes: Axes, *, relaxed: bool) -> Axes:
    """Draw the proposal's figure 1: the plain circuit (Eq. 1) or its relaxed twin (Eq. 2–4).

    Dashed arrows show how far the gradient reaches: through every layer from the one loss, or
    from each term of the relaxed loss into one layer. Text and lines grow with the panel, so
    the drawing stays the same when it is scaled; 3.4 inches is the least width it needs. The
    plain circuit is 0.35 times as high as it is wide, the relaxed one 0.57 times.

    Args:
        axes: The axes to draw on; its ticks and spines are hidden.
        relaxed: Whether to draw the relaxed twin.
    """
    check_axes(axes)
    upper, top = (2.9, 5.95) if relaxed else (0.0, 3.05)
    drawing = _Drawing(axes, bottom=-1.6, top=top)
    drawing.node(_COLUMNS[0], 0, "$z_0$", "given")
    for x, name in ((_COLUMNS[1], "0"), (_COLUMNS[5], "T{-}1")):  # braces: a sign without space
        drawing.node(x, upper, f"$f_{{{name}}}$", "function")
        drawing.node(x, upper + 1.6, rf"$\theta_{{{name}}}$", "trained")
        drawing.arrow((x, upper + 0.95), (x, upper + 0.57))
    drawing.text(_COLUMNS[3], upper, "···")
    title, equation = "Plain circuit", r"$z_{t{+}1} = f_t(z_t, \theta_t)$"
    if relaxed:
        title, equation = "Relaxed twin", rf"$\hat{{z}}{equation[2:]},   $\hat{{z}}_t \approx z_t$"
        _draw_relaxed(drawing, upper)
        drawing.caption("each term reaches one layer")
    else:
        _draw_plain(drawing)
        drawing.caption("one chain through every layer")
    drawing.text(0.2, top - 0.35, title, ha="left", weight="bold")
    drawing.text(4.9, top - 0.35, equation, ha="left")
    return axes


def _draw_plain(drawing: _Drawing) -> None:
    for x, name in zip(_COLUMNS[2::2], ("1", "T{-}1", "T"), strict=True):
        drawing.node(x, 0, f"$z_{{{name}}}$", "computed")
    drawing.node(_COLUMNS[7], 0, "$L_y$", "loss")
    for start, end in pairwise(_COLUMNS):
        drawing.arrow((start + _RADIUS, 0), (end - _RADIUS, 0))
    for start, end in pairwise(_COLUMNS[:0:-2]):
        drawing.arrow((start - 0.25, -0.7), (end + 0.25, -0.7), bend=-0.2)


def _draw_relaxed(drawing: _Drawing, upper: float) -> None:
    middle, (first, before, last) = 1.48, _COLUMNS[2::2]
    for x, name, kind in (
        (first, "1", "trained"),
        (before, "T{-}1", "trained"),
        (last, "T", "given"),
    ):
        drawing.node(x, upper, rf"$\hat{{z}}_{{{name}}}$", "computed")
        drawing.node(x, 0, f"$z_{{{name}}}$", kind)
        drawing.node(x, middle, "$L_h$" if kind == "trained" else "$L_y$", "loss")
        drawing.arrow((x, upper - _RADIUS), (x, middle + 0.36))
        beside = 0.18 if kind == "trained" else 0.0
        drawing.arrow((x + beside, _RADIUS - 0.05), (x + beside, middle - 0.36))
        if beside:
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
    drawing.text(last + 0.8, upper, "estimates", ha="left", size=0.38)
    drawing.text(last + 0.8, 0, "targets", ha="left", size=0.38)


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
            look = {"color": VERMILLION, "linewidth": 0.075 * self.unit, "linestyle": _DASHES}
            look["connectionstyle"] = f"arc3,rad={bend}"
        look |= {"mutation_scale": 0.42 * self.unit, "shrinkA": 0, "shrinkB": 0, "zorder": 2}
        self.axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", **look))

    def caption(self, reach: str) -> None:
        """The last line: what the three kinds of value are and how far the gradient goes."""
        y = self.bottom + 0.3
        for x, kind in ((0.38, "given"), (2.15, "trained"), (4.25, "computed")):
            self.node(x, y, "", kind, scale=0.28)
            self.text(x + 0.3, y, kind, ha="left", size=0.37)
        self.arrow((7.6, y), (6.75, y), bend=0)
        self.text(7.75, y, reach, ha="left", size=0.37, color=VERMILLION)

"""One look for every figure of the study.

Each function takes plain arrays and an `Axes`, draws on it and returns it. None of them
computes a result, shows a window or writes a file, so whatever a figure says was decided
before it got here. Methods differ in line style and marker as well as in colour, and exact
zeros have a class of their own, because on a logarithmic scale they would otherwise vanish
or pass for very small values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Circle, FancyArrowPatch, Patch, Rectangle
from matplotlib.scale import SymmetricalLogTransform
from matplotlib.ticker import (
    LogFormatterMathtext,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Scale = Literal["linear", "log", "symlog"]

HALF_PAGE = 3.25
"""Width of every figure in inches: a column of a page."""

COLOUR_MAP = "viridis"
"""The proposal's map. Its lightness only grows, so a greyscale print keeps the order."""

_TEXT = 8.5
_SMALL_TEXT = 7.5
INK = "#222222"

# Okabe and Ito's palette: told apart with any of the common colour-vision deficiencies.
_BLUE, VERMILLION, _GREEN = "#0072B2", "#D55E00", "#009E73"
_PURPLE, _ORANGE = "#CC79A7", "#E69F00"

_NAMED_STYLES: dict[str, dict[str, Any]] = {
    "backprop": {"color": VERMILLION, "linestyle": (0, (4, 2)), "marker": "s"},
    "RAI": {"color": _BLUE, "linestyle": "-", "marker": "o"},
    "hand-over": {"color": _GREEN, "linestyle": (0, (6, 2, 1.2, 2)), "marker": "D"},
    "logistic regression": {"color": "#333333", "linestyle": (0, (3, 1.2)), "marker": "P"},
    "chance": {"color": "#777777", "linestyle": (0, (1, 1.3)), "marker": "X"},
}
# Cycles of lengths without a common factor: 4 × 5 × 7, so 35 pairs of dash and marker.
# The palette's hues, darkened so that a thin line stands out from white in greyscale too.
_OTHER_COLOURS = ("#A8497F", "#C98500", "#3D93C4", "#000000")
_OTHER_DASHES = ("-", (0, (2, 1)), (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 2.2)))
_OTHER_MARKERS = ("^", "v", "<", ">", "p", "*", "d")

_ZERO_LABEL = "exactly 0"
_HATCHED: dict[str, Any] = {
    "facecolor": "#DDDDDD",
    "edgecolor": "#888888",
    "hatch": "//////",
    "linewidth": 0.0,
}
_FEW = 300
"""Up to this ratio of its ends an axis has too few powers of ten to be read by them alone."""
_KEY: dict[str, Any] = {
    "handlelength": 2.7,  # long enough to tell the dashes apart
    "handletextpad": 0.6,
    "columnspacing": 1.0,
}
HALO = [patheffects.withStroke(linewidth=2.2, foreground="white")]


def use_style() -> None:
    """Set matplotlib's defaults to the style of the study, for all figures made from now on.

    What a reader's own settings changed is undone first: a figure looks the same for everybody.
    """
    mpl.rcdefaults()
    mpl.rcParams.update(
        {
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same everywhere
            "mathtext.fontset": "dejavusans",
            "text.usetex": False,
            "font.size": _TEXT,
            "axes.titlesize": _TEXT + 0.5,
            "axes.labelsize": _TEXT,
            "figure.labelsize": _TEXT,
            "xtick.labelsize": _SMALL_TEXT,
            "ytick.labelsize": _SMALL_TEXT,
            "legend.fontsize": _SMALL_TEXT,
            "legend.frameon": False,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": "#888888",
            "axes.linewidth": 0.6,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.prop_cycle": mpl.cycler(
                color=[_BLUE, VERMILLION, _GREEN, _PURPLE, _ORANGE],
                linestyle=["-", (0, (4, 2)), (0, (6, 2, 1.2, 2)), ":", (0, (8, 2))],
            ),
            "xtick.color": "#888888",
            "ytick.color": "#888888",
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.minor.width": 0.4,
            "ytick.minor.width": 0.4,
            "lines.linewidth": 1.5,
            "lines.markersize": 4.0,
            "hatch.linewidth": 0.4,
            "image.cmap": COLOUR_MAP,
            "figure.figsize": (HALF_PAGE, 2.5),
            "figure.constrained_layout.use": True,
            "figure.dpi": 150,
            "savefig.dpi": 200,
            "savefig.bbox": "standard",
            "pdf.fonttype": 42,  # text stays text
            "svg.fonttype": "none",
            "svg.hashsalt": "rai-study",  # the same bytes on every run
        }
    )


def figure(
    columns: int = 1,
    rows: int = 1,
    *,
    panel_height: float = 2.4,
    share_x: bool = False,
    share_y: bool = False,
) -> tuple[Figure, Any]:
    """Make a figure of equal panels, half a page wide: what is seen is what is printed.

    The panels of a row share that width, so no more than two of them stand side by side.

    Args:
        columns: Panels side by side, 1 or 2.
        rows: Panels on top of each other, at least 1.
        panel_height: Height of one panel in inches.
        share_x: Whether the panels of a column have one horizontal scale.
        share_y: Whether the panels of a row have one vertical scale.

    Returns:
        The figure, and its axes as `matplotlib.pyplot.subplots` gives them: one `Axes` for a
        single panel, an array (columns,) or (rows,) for one row or column, else (rows, columns).

    Raises:
        ValueError: If a count is below 1, there are more than two columns, or the height is not
            positive.
    """
    for name, count in (("columns", columns), ("rows", rows)):
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, came {count}")
    if columns > 2:
        raise ValueError(f"columns: expected 2 at most on half a page, came {columns}")
    if not panel_height > 0:
        raise ValueError(f"panel_height: expected a positive size in inches, came {panel_height}")
    return plt.subplots(
        rows,
        columns,
        figsize=(HALF_PAGE, rows * panel_height),
        layout="constrained",
        sharex="col" if share_x else False,
        sharey="row" if share_y else False,
    )


def outer_labels(panels: Iterable[Axes]) -> None:
    """Keep axis labels only under the last row and beside the first column of a grid of panels.

    For panels that have their scales in common; call it when all of them are drawn.

    Args:
        panels: The panels of one figure, as `figure` gives them, of any shape.
    """
    for axes in np.ravel(np.asarray(panels, dtype=object)):
        axes.label_outer()


def shared_key(figure: Figure, panels: Iterable[Axes]) -> Legend:
    """Set one key under a figure in place of the keys of its panels.

    Args:
        figure: The figure that holds the panels.
        panels: Panels with a key each, of any shape; entries of the same name are one.

    Returns:
        The key, as wide as the figure allows.

    Raises:
        ValueError: If no panel has a key.
    """
    handles: dict[str, Artist] = {}
    for axes in np.ravel(np.asarray(panels, dtype=object)):
        legend = axes.get_legend()
        if legend is not None:
            for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
                handles.setdefault(text.get_text(), handle)
            legend.remove()
    if not handles:
        raise ValueError("panels: expected a key in one of them or more, came none")
    width = 72 * figure.get_size_inches()[0]
    return figure.legend(
        handles.values(),
        handles,
        loc="outside lower center",
        ncols=_key_columns(handles, width),
        **_KEY,
    )


def method_style(name: str, position: int = 0) -> dict[str, Any]:
    """Give the colour, line style and marker of a method.

    "backprop", "RAI", "hand-over", "logistic regression" and "chance" look the same in every
    figure. Any other name takes the entry `position` of a cycle whose first 35 entries differ
    from each other, and from the named methods, in line style or marker.

    Args:
        name: Name of the method.
        position: Place in the cycle among the other methods of a figure, from 0. A named
            method does not depend on it.

    Returns:
        A new dictionary with `color`, `linestyle` and `marker`, as `Axes.plot` takes them.

    Raises:
        ValueError: If the position is negative.
    """
    if position < 0:
        raise ValueError(f"position: expected 0 or more, came {position}")
    if name in _NAMED_STYLES:
        return dict(_NAMED_STYLES[name])
    return {
        "color": _OTHER_COLOURS[position % len(_OTHER_COLOURS)],
        "linestyle": _OTHER_DASHES[position % len(_OTHER_DASHES)],
        "marker": _OTHER_MARKERS[position % len(_OTHER_MARKERS)],
    }


def landscape(
    axes: Axes,
    grid_x: ArrayLike,
    grid_y: ArrayLike,
    probability: ArrayLike,
    points: ArrayLike,
    labels: ArrayLike,
    *,
    title: str | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
    key: bool = True,
) -> Axes:
    """Draw a decision map with its 0.5 contour and the training points on top.

    Cells that are not a number are hatched. A map that does not cross 0.5 has no contour.

    Args:
        axes: The axes to draw on.
        grid_x: Positions of the map's columns, shape (G_x,), increasing.
        grid_y: Positions of the map's rows, shape (G_y,), increasing.
        probability: P(class 1) at (grid_x[j], grid_y[i]), shape (G_y, G_x), in [0, 1] or NaN.
        points: Training points, shape (n, 2).
        labels: Their classes, shape (n,), each 0 or 1.
        title: Title of the panel.
        limits: Probabilities at the two ends of the colour scale; the same for compared maps.
        key: Whether the meaning of the markers is written into the panel.

    Returns:
        The axes given.

    Raises:
        TypeError: If `axes` is not an `Axes`.
        ValueError: If shapes do not fit, a grid does not increase, a probability lies outside
            [0, 1], a label is neither 0 nor 1, or the limits do not increase.
    """
    check_axes(axes)
    x = increasing("grid_x", grid_x, "(G_x,)")
    y = increasing("grid_y", grid_y, "(G_y,)")
    values = float_array("probability", probability, (y.size, x.size), "(len(grid_y), len(grid_x))")
    positions = float_array("points", points, (None, 2), "(n, 2)")
    _check_finite("points", positions)
    classes = float_array("labels", labels, (len(positions),), "one label a point")
    if x.size < 2 or y.size < 2:
        raise ValueError(f"grid: expected at least 2 × 2 positions, came {x.size} × {y.size}")
    if np.any((values < 0) | (values > 1)):
        raise ValueError(
            f"probability: expected values in [0, 1], came {np.nanmin(values)} to "
            f"{np.nanmax(values)}"
        )
    if not np.all(np.isin(classes, (0, 1))):
        raise ValueError(f"labels: expected 0 or 1, came {np.unique(classes).tolist()}")
    _check_limits(limits)

    missing = np.isnan(values)
    handles: list[Artist] = []
    axes.pcolormesh(
        x,
        y,
        np.ma.masked_array(values, mask=missing),
        cmap=COLOUR_MAP,
        vmin=limits[0],
        vmax=limits[1],
        shading="nearest",
        rasterized=True,  # ten thousand cells would make a slow PDF with seams between them
        zorder=1,
    )
    known = values[~missing]
    if known.size and known.min() < 0.5 < known.max():
        boundary = axes.contour(x, y, values, levels=[0.5], colors="white", linewidths=1.4)
        boundary.set(path_effects=[patheffects.withStroke(linewidth=2.8, foreground="black")])
    # White with a black edge and black with a white edge are seen on every colour of the map.
    for value, marker, face, edge in ((0, "o", "white", "black"), (1, "^", "black", "white")):
        chosen = positions[classes == value]
        handles.append(
            axes.scatter(
                chosen[:, 0],
                chosen[:, 1],
                s=15,
                marker=marker,
                facecolor=face,
                edgecolor=edge,
                linewidth=0.7,
                zorder=4,
                label=f"class {value}",
            )
        )
    if missing.any():
        handles.append(_hatched_background(axes, x[[0, -1]], y[[0, -1]], "NaN"))
    if key:
        legend = axes.legend(
            handles=handles,
            loc="lower left",
            frameon=True,
            framealpha=0.85,
            edgecolor="none",
            facecolor="#BBBBBB",  # neither the white nor the black markers get lost in it
            handlelength=1.0,
            handletextpad=0.25,
            labelspacing=0.2,
            borderpad=0.25,
            borderaxespad=0.3,
        )
        legend.set_in_layout(False)  # it lies inside: a small map must not shrink for it
    axes.set(xlim=x[[0, -1]], ylim=y[[0, -1]], xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if title is not None:
        axes.set_title(title)
    return axes


def landscape_colour_bar(figure: Figure, axes: Axes | Iterable[Axes]) -> Colorbar:
    """Draw the one colour bar that belongs to all the landscapes given.

    Args:
        figure: The figure that holds the axes.
        axes: One landscape, or an array or sequence of them.

    Returns:
        The colour bar.

    Raises:
        ValueError: If an axes holds no landscape, or two of them differ in colour limits.
    """
    panels = [axes] if isinstance(axes, Axes) else list(np.ravel(np.asarray(axes, dtype=object)))
    meshes = [mesh for panel in panels for mesh in panel.collections if isinstance(mesh, QuadMesh)]
    if not panels or len(meshes) != len(panels):
        raise ValueError(
            f"axes: expected one landscape in each, came {len(meshes)} maps in {len(panels)} axes"
        )
    scales = sorted({mesh.get_clim() for mesh in meshes})
    if len(scales) > 1:
        raise ValueError(f"axes: expected landscapes of one colour scale, came limits {scales}")
    low, high = scales[0]
    bar = figure.colorbar(
        meshes[0],
        ax=panels,
        label="P(class 1)",
        aspect=25,
        pad=0.02,
        ticks=[low, 0.5, high] if low < 0.5 < high else None,
    )
    bar.outline.set_visible(False)
    if low < 0.5 < high:
        bar.ax.axhline(0.5, color="black", linewidth=2.8)
        bar.ax.axhline(0.5, color="white", linewidth=1.4)
    return bar


def layer_step_map(
    axes: Axes,
    steps: ArrayLike,
    layers: ArrayLike,
    values: ArrayLike,
    *,
    label: str,
    floor: float | None = None,
    ceiling: float | None = None,
    front: tuple[ArrayLike, ArrayLike] | None = None,
    scale: Scale = "linear",
) -> Axes:
    """Draw a non-negative quantity against layer and step, in colours by its logarithm.

    Exact zeros are a hatched class with its own entry in the key. Set `floor` and `ceiling`
    to give compared maps one colour scale.

    Args:
        axes: The axes to draw on; a colour bar is placed beside it.
        steps: Recorded steps, shape (S,), increasing, unevenly spaced if need be.
        layers: Layer numbers from input to output, shape (L,), increasing.
        values: Quantity at each step and layer, shape (S, L), finite and not negative.
        label: What the colour bar shows, with its unit.
        floor: Value of the darkest colour; smaller positive values share it.
        ceiling: Value of the lightest colour; larger values share it.
        front: Steps (K,) and layers (K,) of a line to mark, the one-layer-a-step front.
        scale: Scale of the step axis. "symlog" is linear from 0 to 1.

    Returns:
        The axes given.

    Raises:
        TypeError: If `axes` is not an `Axes`.
        ValueError: If shapes do not fit, steps or layers do not increase, a value is negative
            or not finite, the colour limits are not positive and increasing, or the step
            axis is "log" with a step of 0 or below, or "symlog" with one below 0.
    """
    check_axes(axes)
    times = increasing("steps", steps, "(S,)")
    depths = increasing("layers", layers, "(L,)")
    shown = float_array("values", values, (times.size, depths.size), "(len(steps), len(layers))")
    _check_not_negative("values", shown)
    if scale not in ("linear", "log", "symlog"):
        raise ValueError(f"scale: expected 'linear', 'log' or 'symlog', came {scale!r}")
    _check_step_scale(times, scale)
    for name, limit in (("floor", floor), ("ceiling", ceiling)):
        if limit is not None and not limit > 0:
            raise ValueError(f"{name}: expected a positive value, came {limit}")
    if floor is not None and ceiling is not None:
        _check_limits((floor, ceiling))
    line = None if front is None else _front(front)

    time_edges, depth_edges = _edges(times, scale), _edges(depths, "linear")
    zero = shown == 0
    positive = shown[~zero]
    handles: list[Artist] = []
    if zero.any():
        handles.append(
            _hatched_background(axes, time_edges[[0, -1]], depth_edges[[0, -1]], _ZERO_LABEL)
        )
    smallest = positive.min() if positive.size else (floor or ceiling or 1.0)
    largest = positive.max() if positive.size else smallest
    low = smallest if floor is None else floor
    high = largest if ceiling is None else ceiling
    if not low < high:  # a single value, or all of them beyond the one limit given
        low, high = (high / 10, high) if floor is None else (low, low * 10)
    mesh = axes.pcolormesh(
        time_edges,
        depth_edges,
        np.ma.masked_array(shown, mask=zero).T,
        norm=LogNorm(low, high),
        cmap=COLOUR_MAP,
        rasterized=True,
        zorder=1,
    )
    if positive.size or (floor is not None and ceiling is not None):
        below, above = smallest < low, largest > high
        extend = {(False, False): "neither", (True, False): "min", (False, True): "max"}
        bar = axes.get_figure(root=False).colorbar(
            mesh, ax=axes, label=label, extend=extend.get((below, above), "both"), pad=0.02
        )
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)
    if line is not None:
        (drawn,) = axes.plot(
            *line,
            color="white",
            linestyle=(0, (4, 2)),
            linewidth=1.3,
            path_effects=[patheffects.withStroke(linewidth=2.8, foreground="black")],
            zorder=3,
            label="one layer a step",
        )
        handles.append(drawn)
    _set_step_scale(axes, scale)
    axes.set(
        xlim=time_edges[[0, -1]],
        ylim=depth_edges[[0, -1]],
        xlabel="step",
        ylabel="layer (1 = nearest the input)",
    )
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    _legend_below(axes, handles)
    return axes


def layer_profile(
    axes: Axes,
    layers: ArrayLike,
    values_by_name: Mapping[str, ArrayLike],
    *,
    label: str,
    log: bool = True,
    intervals_by_name: Mapping[str, ArrayLike] | None = None,
) -> Axes:
    """Draw a quantity against layer, one line a method.

    On a logarithmic axis exact zeros have no place: they stand as hollow markers in a hatched
    band under the smallest positive value, one row a method.

    Args:
        axes: The axes to draw on.
        layers: Layer numbers from input to output, shape (L,), increasing.
        values_by_name: Method to quantity per layer, each of shape (L,), finite; not negative
            on a logarithmic axis.
        label: What the vertical axis shows, with its unit.
        log: Whether the vertical axis is logarithmic.
        intervals_by_name: Method to the ends of an interval, each of shape (2, L), low before
            high, drawn as a band. Methods may be left out.

    Returns:
        The axes given.

    Raises:
        TypeError: If `axes` is not an `Axes`.
        ValueError: If shapes do not fit, layers do not increase, a value is not finite, or
            negative on a logarithmic axis, an interval's low end is above its high end, or an
            interval belongs to no method.
    """
    check_axes(axes)
    depths = increasing("layers", layers, "(L,)")
    if not values_by_name:
        raise ValueError("values_by_name: expected at least one method, came none")
    profiles = {
        name: float_array(f"values_by_name[{name!r}]", values, (depths.size,), "(len(layers),)")
        for name, values in values_by_name.items()
    }
    intervals = {
        name: float_array(
            f"intervals_by_name[{name!r}]", ends, (2, depths.size), "(2, len(layers))"
        )
        for name, ends in (intervals_by_name or {}).items()
    }
    if unknown := sorted(intervals.keys() - profiles.keys()):
        raise ValueError(
            f"intervals_by_name: expected names among {sorted(profiles)}, came {unknown}"
        )
    check = _check_not_negative if log else _check_finite
    for name, values in profiles.items():
        check(f"values_by_name[{name!r}]", values)
    for name, ends in intervals.items():
        check(f"intervals_by_name[{name!r}]", ends)
        _check_ordered(f"intervals_by_name[{name!r}]", ends[0], ends[1])

    rows = _zero_rows(axes, profiles, intervals) if log else {}
    every = max(1, depths.size // 8)
    handles: list[Artist] = []
    for index, (name, style) in enumerate(_styles(profiles)):
        values = profiles[name]
        zero = (values == 0) if log else np.zeros(values.shape, dtype=bool)
        if name in intervals:
            low, high = intervals[name]
            axes.fill_between(depths, low, high, color=style["color"], alpha=0.2, linewidth=0)
        (drawn,) = axes.plot(
            depths,
            np.where(zero, np.nan, values),
            **style,
            # Markers of different methods are set at different layers, or they would hide
            # each other where the lines run together.
            markevery=(index * every // len(profiles), every),
            label=name,
        )
        handles.append(drawn)
        if zero.any():
            axes.plot(
                depths[zero],
                np.full(int(zero.sum()), rows[name]),
                linestyle="none",
                marker=style["marker"],
                markersize=3.2,
                markerfacecolor="white",
                markeredgecolor=style["color"],
                markeredgewidth=0.8,
                label=f"{name}, {_ZERO_LABEL}",
            )
    if rows:
        handles.append(Patch(**_HATCHED, label=_ZERO_LABEL))
    elif log:
        label_powers(axes.yaxis)
    axes.set(xlabel="layer (1 = nearest the input)", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    _legend_below(axes, handles)
    return axes


def training_curves(
    axes: Axes,
    steps: ArrayLike,
    curves_by_name: Mapping[str, ArrayLike],
    *,
    label: str,
    references: Mapping[str, float] | None = None,
    log_steps: bool = True,
) -> Axes:
    """Draw every seed of every method as a thin line and their median as a thick one.

    A value that is not finite is a gap in its seed's line, and the median has a gap wherever
    a seed is not a number: it is not taken over the seeds that happen to be left.

    Args:
        axes: The axes to draw on.
        steps: Recorded steps, shape (R,), increasing, not negative on a logarithmic axis.
        curves_by_name: Method to curves, each of shape (R, seeds).
        label: What the vertical axis shows.
        references: Name to value of the horizontal lines, such as chance.
        log_steps: Whether the step axis is logarithmic (linear from 0 to 1 if a step is 0).

    Returns:
        The axes given.

    Raises:
        TypeError: If `axes` is not an `Axes`.
        ValueError: If shapes do not fit, a method has no seed, steps do not increase or are
            negative on a logarithmic axis, or a reference is not finite.
    """
    check_axes(axes)
    times = increasing("steps", steps, "(R,)")
    if not curves_by_name:
        raise ValueError("curves_by_name: expected at least one method, came none")
    curves: dict[str, FloatArray] = {}
    for name, values in curves_by_name.items():
        shape = (times.size, None)
        curves[name] = float_array(
            f"curves_by_name[{name!r}]", values, shape, "(len(steps), seeds)"
        )
        if curves[name].shape[1] == 0:
            raise ValueError(f"curves_by_name[{name!r}]: expected at least one seed, came none")
    lines = _references(references)
    scale: Scale = ("symlog" if times[0] < 1 else "log") if log_steps else "linear"
    _check_step_scale(times, scale)

    styles = dict(_styles([*curves, *lines]))
    handles: list[Artist] = []
    for name, values in curves.items():
        style = styles[name]
        thin = {"color": style["color"], "linestyle": "-", "linewidth": 0.5, "alpha": 0.35}
        axes.plot(times, values, **thin, zorder=2)
        (drawn,) = axes.plot(
            times,
            np.median(values, axis=1),
            **style,
            linewidth=1.9,
            markevery=0.13,  # a share of the panel's diagonal: even on a logarithmic axis too
            zorder=3,
            label=name,
        )
        handles.append(drawn)
    _set_step_scale(axes, scale)
    axes.set(xlim=(times[0], times[-1]) if times.size > 1 else None, xlabel="step", ylabel=label)
    for name, value in lines.items():
        style = styles[name]
        axes.axhline(value, **_reference_line(style), label=name)
        axes.annotate(
            name,
            (0, value),
            xycoords=axes.get_yaxis_transform(),
            xytext=(3, 1.5),
            textcoords="offset points",
            fontsize=_SMALL_TEXT,
            color=INK,  # the line has the style; a name in grey would be lost in print
            path_effects=HALO,
            zorder=4,
        )
    _legend_below(axes, handles)
    return axes


def interval_bars(
    axes: Axes,
    names: Sequence[str],
    means: ArrayLike,
    lows: ArrayLike,
    highs: ArrayLike,
    *,
    label: str,
    references: Mapping[str, float] | None = None,
    points: Sequence[ArrayLike] | None = None,
) -> Axes:
    """Draw one row a name, from the top: a dot, its interval, and faint individual values.

    Args:
        axes: The axes to draw on.
        names: Names of the rows, K of them, all different.
        means: Centres, shape (K,).
        lows: Lower ends, shape (K,), none above its centre.
        highs: Upper ends, shape (K,), none below its centre.
        label: What the horizontal axis shows.
        references: Name to value of the vertical lines, such as chance.
        points: Individual values of each row, K arrays of shape (seeds,), of any lengths.

    Returns:
        The axes given.

    Raises:
        TypeError: If `axes` is not an `Axes`.
        ValueError: If shapes do not fit, names repeat, a value is not finite, or a centre lies
            outside its interval.
    """
    check_axes(axes)
    rows = list(names)
    if not rows or len(set(rows)) != len(rows):
        raise ValueError(f"names: expected one or more different names, came {rows}")
    ends = {
        name: float_array(name, values, (len(rows),), "(len(names),)")
        for name, values in (("means", means), ("lows", lows), ("highs", highs))
    }
    for name, values in ends.items():
        _check_finite(name, values)
    _check_ordered("lows and means", ends["lows"], ends["means"])
    _check_ordered("means and highs", ends["means"], ends["highs"])
    lines = _references(references)
    seeds: list[FloatArray] = []
    if points is not None:
        if len(points) != len(rows):
            raise ValueError(f"points: expected {len(rows)} arrays, came {len(points)}")
        for name, values in zip(rows, points, strict=True):
            seeds.append(float_array(f"points of {name!r}", values, (None,), "(seeds,)"))
            _check_finite(f"points of {name!r}", seeds[-1])

    styles = dict(_styles([*rows, *lines]))
    for row, name in enumerate(rows):
        style = styles[name]
        if seeds:
            # A fixed spread, not a random one: the figure is the same on every run.
            offsets = 0.24 + 0.12 * np.resize((0.0, 1.0, -1.0), seeds[row].size)
            axes.plot(
                seeds[row],
                row + offsets,
                linestyle="none",
                marker="o",
                markersize=2.6,
                markeredgewidth=0,
                color=style["color"],
                alpha=0.4,
                zorder=2,
            )
        axes.errorbar(
            ends["means"][row],
            row,
            xerr=[
                [ends["means"][row] - ends["lows"][row]],
                [ends["highs"][row] - ends["means"][row]],
            ],
            color=style["color"],
            marker=style["marker"],
            markersize=5,
            capsize=2.5,
            linewidth=1.5,
            zorder=3,
            label=name,
        )
    # Each reference is named on a line of its own above the rows, so names never meet.
    top = -0.55 - 0.45 * len(lines)
    axes.set(ylim=(len(rows) - 0.4, top), xlabel=label)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(axis="y", length=0)
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=4)  # beside long names there is room for few
    axes.margins(x=0.08)
    for index, (name, value) in enumerate(lines.items()):
        style = styles[name]
        axes.axvline(value, **_reference_line(style), label=name)
        low, high = axes.get_xlim()
        in_left_half = value < (low + high) / 2
        axes.annotate(
            name,
            (value, -0.62 - 0.45 * index),
            xytext=(3 if in_left_half else -3, 0),
            textcoords="offset points",
            ha="left" if in_left_half else "right",
            va="center",
            fontsize=_SMALL_TEXT,
            color=INK,  # the line has the style; a name in grey would be lost in print
            path_effects=HALO,
        )
    return axes


def share_heat_map(
    axes: Axes,
    rows: Sequence[object],
    columns: Sequence[object],
    values: ArrayLike,
    *,
    row_label: str,
    column_label: str,
    label: str,
    format: str = "{:.2f}",
    limits: tuple[float, float] = (0.0, 1.0),
) -> Axes:
    """Draw a small grid of numbers, each written into its cell.

    Cells that are not a number are hatched and hold a dash.

    Args:
        axes: The axes to draw on; a colour bar is placed beside it.
        rows: What each row stands for, from the top.
        columns: What each column stands for, from the left.
        values: Numbers, shape (len(rows), len(columns)).
        row_label: Label of the vertical axis.
        column_label: Label of the horizontal axis.
        label: What the numbers are.
        format: How a number is written, as for `str.format`.
        limits: Values at the two ends of the colour scale.

    Returns:
        The axes given.

    Raises:
        TypeError: If `axes` is not an `Axes`.
        ValueError: If shapes do not fit, there is no cell, or the limits do not increase.
    """
    check_axes(axes)
    shape = (len(rows), len(columns))
    shown = float_array("values", values, shape, "(len(rows), len(columns))")
    if not shown.size:
        raise ValueError(f"values: expected at least one cell, came shape {shown.shape}")
    _check_limits(limits)

    missing = ~np.isfinite(shown)
    ends_x, ends_y = (-0.5, shape[1] - 0.5), (-0.5, shape[0] - 0.5)
    if missing.any():
        _hatched_background(axes, ends_x, ends_y, "not a number")
    mesh = axes.pcolormesh(
        np.arange(shape[1] + 1) - 0.5,
        np.arange(shape[0] + 1) - 0.5,
        np.ma.masked_array(shown, mask=missing),
        cmap=COLOUR_MAP,
        vmin=limits[0],
        vmax=limits[1],
        edgecolors="white",
        linewidth=0.8,
        zorder=1,
    )
    for (row, column), value in np.ndenumerate(shown):
        absent = missing[row, column]
        axes.text(
            column,
            row,
            "–" if absent else format.format(value),
            ha="center",
            va="center",
            fontsize=_SMALL_TEXT,
            color="black" if absent else _readable_on(mesh.to_rgba(value)),
            zorder=3,
        )
    bar = axes.get_figure(root=False).colorbar(mesh, ax=axes, label=label, pad=0.02)
    bar.outline.set_visible(False)
    axes.set_xticks(range(shape[1]), [str(name) for name in columns])
    axes.set_yticks(range(shape[0]), [str(name) for name in rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlim=ends_x, ylim=ends_y[::-1], xlabel=column_label, ylabel=row_label)
    return axes


def circuit(axes: Axes, *, relaxed: bool, depth_label: str = "T") -> Axes:
    """Draw the proposal's figure 1: the plain circuit (Eq. 1) or its relaxed twin (Eq. 2–4).

    Dashed arrows show how far the gradient reaches: through every layer from the one loss, or
    from each term of the relaxed loss into one layer. Text and lines grow with the panel, so
    the drawing stays the same when it is scaled; 3.4 inches is the least width it needs. The
    plain circuit is 0.35 times as high as it is wide, the relaxed one 0.57 times.

    Args:
        axes: The axes to draw on; its ticks and spines are hidden.
        relaxed: Whether to draw the relaxed twin.
        depth_label: The depth in mathematical text, without dollar signs.

    Returns:
        The axes given.

    Raises:
        TypeError: If `axes` is not an `Axes`.
        ValueError: If the depth label is empty.
    """
    check_axes(axes)
    if not depth_label.strip():
        raise ValueError(f"depth_label: expected a symbol such as 'T', came {depth_label!r}")
    drawing = _Drawing(axes, width=13.3, bottom=-1.6, top=5.95 if relaxed else 3.05)
    last = f"{depth_label}{{-}}1"  # braces: a sign, without the space of an operation
    if relaxed:
        _draw_relaxed(drawing, depth_label, last)
    else:
        _draw_plain(drawing, depth_label, last)
    return axes


def relation(
    axes: Axes,
    x: ArrayLike,
    curves_by_name: Mapping[str, ArrayLike],
    *,
    x_label: str,
    label: str,
    intervals_by_name: Mapping[str, ArrayLike] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    references: Mapping[str, float] | None = None,
    markers: bool = True,
) -> Axes:
    """Draw quantities against another, one line a name, with bands for intervals.

    A value that is not finite is a gap in its line.

    Args:
        axes: The axes to draw on.
        x: Positions, shape (n,), increasing.
        curves_by_name: Name to values, each of shape (n,).
        x_label: What the horizontal axis shows, with its unit.
        label: What the vertical axis shows, with its unit.
        intervals_by_name: Name to the ends of an interval, each of shape (2, n). Names may be
            left out.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical axis is logarithmic.
        references: Name to value of horizontal lines.
        markers: Whether each position gets a marker; else some along the line.

    Returns:
        The axes given.

    Raises:
        TypeError: If `axes` is not an `Axes`.
        ValueError: If shapes do not fit, positions do not increase, there is no curve, an
            interval belongs to no curve, or a reference is not finite.
    """
    check_axes(axes)
    positions = increasing("x", x, "(n,)")
    if not curves_by_name:
        raise ValueError("curves_by_name: expected at least one curve, came none")
    shape = (positions.size,)
    curves = {
        name: float_array(f"curves_by_name[{name!r}]", values, shape, "(len(x),)")
        for name, values in curves_by_name.items()
    }
    intervals = {
        name: float_array(f"intervals_by_name[{name!r}]", ends, (2, *shape), "(2, len(x))")
        for name, ends in (intervals_by_name or {}).items()
    }
    if unknown := sorted(intervals.keys() - curves.keys()):
        raise ValueError(f"intervals_by_name: expected names among {list(curves)}, came {unknown}")
    lines = _references(references)
    styles = dict(_styles([*curves, *lines]))
    handles: list[Artist] = []
    for index, (name, values) in enumerate(curves.items()):
        style = styles[name]
        if name in intervals:
            axes.fill_between(
                positions, *intervals[name], color=style["color"], alpha=0.2, linewidth=0
            )
        spacing = 1 if markers else (0.04 + 0.2 * index / len(curves), 0.2)
        (drawn,) = axes.plot(positions, values, **style, markevery=spacing, label=name)
        handles.append(drawn)
    for name, value in lines.items():
        handles.append(axes.axhline(value, **_reference_line(styles[name]), label=name))
    axes.set(
        xlabel=x_label,
        ylabel=label,
        xscale="log" if log_x else "linear",
        yscale="log" if log_y else "linear",
    )
    if log_y:
        label_powers(axes.yaxis)
    if log_x and positions.size <= 8:
        axes.set_xticks(positions, [f"{position:g}" for position in positions])
        axes.xaxis.set_minor_locator(NullLocator())
    _legend_below(axes, handles)
    return axes


def signed_heat_map(
    axes: Axes, values: ArrayLike, *, limit: float, title: str | None = None
) -> Axes:
    """Draw a small matrix of signed numbers, each in its cell, extremes framed.

    Positive numbers are orange and negative ones blue, the more so the greater; the sign is
    written too. The frame of the greatest entry is solid and that of the smallest dashed.

    Args:
        axes: The axes to draw on.
        values: Matrix, shape (rows, columns), finite; row 1 is at the top.
        limit: Absolute value of the strongest colours, the same for compared matrices.
        title: Title of the panel.

    Returns:
        The axes given.

    Raises:
        TypeError: If `axes` is not an `Axes`.
        ValueError: If the values are no finite matrix or the limit is not positive.
    """
    check_axes(axes)
    shown = float_array("values", values, (None, None), "(rows, columns)")
    _check_finite("values", shown)
    if not limit > 0:
        raise ValueError(f"limit: expected a positive value, came {limit}")
    mesh = axes.imshow(shown, cmap="PuOr_r", vmin=-limit, vmax=limit)
    for (row, column), value in np.ndenumerate(shown):
        text = f"{value:+.2f}" if abs(value) >= 0.005 else "0"
        axes.text(
            column,
            row,
            text.replace("-", "−").replace("0.", "."),
            ha="center",
            va="center",
            fontsize=_SMALL_TEXT,
            color=_readable_on(mesh.to_rgba(value)),
        )
    for extreme, dashes in ((shown.max(), "-"), (shown.min(), (0, (2, 1)))):
        for row, column in np.argwhere(np.isclose(shown, extreme, rtol=0, atol=1e-12)):
            axes.add_patch(
                Rectangle(
                    (column - 0.45, row - 0.45),
                    0.9,
                    0.9,
                    fill=False,
                    edgecolor=_readable_on(mesh.to_rgba(extreme)),
                    linewidth=1.2,
                    linestyle=dashes,
                )
            )
    rows, columns = shown.shape
    axes.set_xticks(range(columns), [str(i + 1) for i in range(columns)])
    axes.set_yticks(range(rows), [str(i + 1) for i in range(rows)])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="input $j$", ylabel="output $i$")
    if title is not None:
        axes.set_title(title)
    return axes


# Where the columns of both drawings stand, so that one can be read against the other.
_FIRST, _FIRST_LAYER, _SECOND, _BETWEEN = 0.75, 2.42, 4.09, 5.68
_BEFORE_LAST, _LAST_LAYER, _LAST, _BEHIND = 7.27, 8.94, 10.61, 12.28
_RADIUS = 0.6


def _draw_plain(drawing: _Drawing, depth: str, last: str) -> None:
    drawing.heading("Plain circuit", r"$z_{t{+}1} = f_t(z_t, \theta_t)$")
    drawing.node(_FIRST, 0, "$z_0$", "given")
    for x, name in ((_SECOND, "1"), (_BEFORE_LAST, last), (_LAST, depth)):
        drawing.node(x, 0, f"$z_{{{name}}}$", "computed")
    for x, name in ((_FIRST_LAYER, "0"), (_LAST_LAYER, last)):
        drawing.layer(x, 0, name)
    drawing.text(_BETWEEN, 0, "···")
    drawing.loss(_BEHIND, 0, "$L_y$")
    stations = (_FIRST, _FIRST_LAYER, _SECOND, _BETWEEN)
    stations += (_BEFORE_LAST, _LAST_LAYER, _LAST, _BEHIND)
    for start, end in pairwise(stations):
        drawing.arrow((start + _RADIUS, 0), (end - _RADIUS, 0))
    for start, end in pairwise((_BEHIND, _LAST_LAYER, _BETWEEN, _FIRST_LAYER)):
        drawing.gradient((start - 0.25, -0.7), (end + 0.25, -0.7), bend=-0.2)
    drawing.caption("one chain through every layer")


def _draw_relaxed(drawing: _Drawing, depth: str, last: str) -> None:
    upper, middle = 2.9, 1.48
    drawing.heading(
        "Relaxed twin",
        r"$\hat{z}_{t{+}1} = f_t(z_t, \theta_t)$,   $\hat{z}_t \approx z_t$",
    )
    drawing.node(_FIRST, 0, "$z_0$", "given")
    columns = (
        (_SECOND, "1", "trained", "$L_h$"),
        (_BEFORE_LAST, last, "trained", "$L_h$"),
        (_LAST, depth, "given", "$L_y$"),
    )
    for x, name, kind, loss in columns:
        drawing.node(x, upper, rf"$\hat{{z}}_{{{name}}}$", "computed")
        drawing.node(x, 0, f"$z_{{{name}}}$", kind)
        drawing.loss(x, middle, loss)
        drawing.arrow((x, upper - _RADIUS), (x, middle + 0.36))
        trained = kind == "trained"
        beside = 0.18 if trained else 0.0
        drawing.arrow((x + beside, _RADIUS - 0.05), (x + beside, middle - 0.36))
        if trained:
            drawing.gradient((x - 0.2, middle - 0.36), (x - 0.2, _RADIUS + 0.03), bend=0)
    for x, name in ((_FIRST_LAYER, "0"), (_LAST_LAYER, last)):
        drawing.layer(x, upper, name)
    for y in (upper, 0):
        drawing.text(_BETWEEN, y, "···")
    for start, layer, end in (
        (_FIRST, _FIRST_LAYER, _SECOND),
        (_SECOND, _BETWEEN, _BEFORE_LAST),
        (_BEFORE_LAST, _LAST_LAYER, _LAST),
    ):
        drawing.arrow((start + 0.42, 0.48), (layer - 0.45, upper - 0.66))
        drawing.arrow((layer + _RADIUS, upper), (end - _RADIUS, upper))
        drawing.gradient((end - 0.44, middle + 0.12), (layer + 0.1, upper - 0.7), bend=-0.3)
    # To the targets before a layer; the first layer's are the given input, without a gradient.
    for start, end in (
        ((_LAST - 0.44, middle - 0.15), (_BEFORE_LAST + 0.7, 0)),
        ((_BEFORE_LAST - 0.44, middle - 0.15), (_BETWEEN + 0.3, 0.25)),
        ((_BETWEEN - 0.1, 0.7), (_SECOND + 0.7, 0)),
    ):
        drawing.gradient(start, end, bend=-0.2)
    for y, meaning in ((upper, "estimates"), (0, "targets")):
        drawing.text(_LAST + 0.8, y, meaning, ha="left", size=0.38)
    drawing.caption("each term reaches one layer")


class _Drawing:
    """A panel in its own units, whose text and lines keep their size in those units."""

    _LOOKS: Mapping[str, Mapping[str, Any]] = {
        "given": {"facecolor": "#CFCFCF", "edgecolor": INK, "weight": 0.05},
        "trained": {"facecolor": "#D9ECF8", "edgecolor": _BLUE, "weight": 0.13},
        "computed": {"facecolor": "white", "edgecolor": INK, "weight": 0.05},
    }

    def __init__(self, axes: Axes, *, width: float, bottom: float, top: float) -> None:
        self.axes, self.width, self.bottom, self.top = axes, width, bottom, top
        axes.set_axis_off()
        axes.set(xlim=(0, width), ylim=(bottom, top), aspect="equal")
        # The layout has to be settled before a length in points can follow the panel's size.
        figure = axes.get_figure(root=True)
        figure.draw_without_rendering()
        self.unit = axes.get_window_extent().width / width * 72 / figure.dpi
        """Points a unit."""

    def text(self, x: float, y: float, text: str, *, size: float = 0.46, **settings: Any) -> None:
        settings = {"ha": "center", "va": "center", "color": INK, **settings}
        self.axes.text(x, y, text, fontsize=size * self.unit, zorder=4, **settings)

    def node(self, x: float, y: float, text: str, kind: str, *, radius: float = _RADIUS) -> None:
        """A value: square if given, round if not, with a heavy edge if it is trained."""
        look = self._LOOKS[kind]
        side = 1.8 * radius
        shape = (
            Rectangle((x - side / 2, y - side / 2), side, side)
            if kind == "given"
            else Circle((x, y), radius)
        )
        shape.set(
            facecolor=look["facecolor"],
            edgecolor=look["edgecolor"],
            linewidth=look["weight"] * self.unit * (radius / _RADIUS) ** 0.5,
            zorder=3,
        )
        self.axes.add_patch(shape)
        self.text(x, y, text, size=0.44)

    def layer(self, x: float, y: float, name: str) -> None:
        """A function f with its trained parameters θ above."""
        self._box(x, y, 1.1, 1.1, facecolor="white")
        self.text(x, y, f"$f_{{{name}}}$", size=0.44)
        self.node(x, y + 1.6, rf"$\theta_{{{name}}}$", "trained")
        self.arrow((x, y + 0.95), (x, y + 0.57))

    def loss(self, x: float, y: float, text: str) -> None:
        """A term of the loss."""
        self._box(x, y, 0.8, 0.66, facecolor="#FBE3D3", edgecolor=VERMILLION)
        self.text(x, y, text, size=0.42)

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self._arrow(start, end, arrowstyle="-|>", color=INK, linewidth=0.05 * self.unit)

    def gradient(
        self, start: tuple[float, float], end: tuple[float, float], *, bend: float
    ) -> None:
        self._arrow(
            start,
            end,
            arrowstyle="-|>",
            color=VERMILLION,
            linewidth=0.075 * self.unit,
            linestyle=(0, (2.5, 1.2)),
            connectionstyle=f"arc3,rad={bend}",
        )

    def heading(self, name: str, equation: str) -> None:
        y = self.top - 0.35
        self.text(0.2, y, name, ha="left", weight="bold", size=0.46)
        self.text(4.9, y, equation, ha="left", size=0.46)

    def caption(self, reach: str) -> None:
        """The last line: what the three kinds of value are and how far the gradient goes."""
        y = self.bottom + 0.3
        for x, kind in ((0.38, "given"), (2.15, "trained"), (4.25, "computed")):
            self.node(x, y, "", kind, radius=0.17)
            self.text(x + 0.3, y, kind, ha="left", size=0.37)
        self.gradient((7.6, y), (6.75, y), bend=0)
        self.text(7.75, y, reach, ha="left", size=0.37, color=VERMILLION)

    def _box(self, x: float, y: float, width: float, height: float, **settings: Any) -> None:
        self.axes.add_patch(
            Rectangle(
                (x - width / 2, y - height / 2),
                width,
                height,
                **{"edgecolor": INK, **settings},
                linewidth=0.05 * self.unit,
                joinstyle="round",
                zorder=3,
            )
        )

    def _arrow(self, start: tuple[float, float], end: tuple[float, float], **settings: Any) -> None:
        self.axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                mutation_scale=0.42 * self.unit,
                shrinkA=0,
                shrinkB=0,
                zorder=2,
                **settings,
            )
        )


def _styles(names: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pair each name of a figure with its style; the unnamed ones take the cycle in order."""
    others = 0
    for name in names:
        yield name, method_style(name, others)
        others += name not in _NAMED_STYLES


def _reference_line(style: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "color": style["color"],
        "linestyle": style["linestyle"],
        "linewidth": 1.1,
        "zorder": 1.5,
    }


def _hatched_background(
    axes: Axes, x_ends: Sequence[float], y_ends: Sequence[float], label: str
) -> Rectangle:
    """Hatch the whole extent, to be seen wherever the map drawn over it has a hole."""
    patch = Rectangle(
        (x_ends[0], y_ends[0]),
        x_ends[1] - x_ends[0],
        y_ends[1] - y_ends[0],
        **_HATCHED,
        zorder=0.5,
        label=label,
    )
    axes.add_patch(patch)
    return patch


def _legend_below(axes: Axes, handles: Sequence[Artist]) -> None:
    """Set the key under the axis label, where it covers no data and no title."""
    if not handles:
        return
    names = [str(handle.get_label()) for handle in handles]
    below = ScaledTranslation(0, -(_TEXT * 3.4) / 72, axes.get_figure(root=True).dpi_scale_trans)
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=axes.transAxes + below,
        ncols=_key_columns(names, _cell_width(axes) - 40),  # 40 points for the ticks on the left
        borderaxespad=0,
        **_KEY,
    )


def _key_columns(names: Collection[str], width: float) -> int:
    """How many columns of a key with these names fit into a width in points."""
    entry = _SMALL_TEXT * (0.56 * max(len(name) for name in names) + 4.4)
    return max(1, min(len(names), int(width / entry)))


def _cell_width(axes: Axes) -> float:
    """Width in points of the share of the figure that the axes and its labels have."""
    figure = axes.get_figure(root=False)
    width = 72 * figure.bbox.width / figure.get_figure(root=True).dpi
    cell = axes.get_subplotspec()
    if cell is None:
        return width
    return width * len(cell.colspan) / cell.get_gridspec().ncols


def _zero_rows(
    axes: Axes, profiles: Mapping[str, FloatArray], intervals: Mapping[str, FloatArray]
) -> dict[str, float]:
    """Make the vertical axis logarithmic with a band for exact zeros under it.

    Returns where in the band the zeros of each method stand; empty if there are no zeros.
    """
    axes.set_yscale("log")
    everything = np.concatenate([np.ravel(array) for array in profiles.values()])
    ends = np.concatenate([everything, *(np.ravel(array) for array in intervals.values())])
    positive = ends[ends > 0]
    with_zeros = [name for name, values in profiles.items() if np.any(values == 0)]
    if not with_zeros:
        return {}
    axes.minorticks_off()
    bottom, top = (
        (np.floor(np.log10(positive.min())), np.log10(positive.max()))
        if positive.size
        else (-1.0, 0.0)
    )
    decades = max(top - bottom, 1.0)
    row = 0.08 * decades
    depth = row * (len(with_zeros) + 0.5)
    axes.axhspan(10 ** (bottom - depth), 10**bottom, **_HATCHED, zorder=0.5)
    axes.set_ylim(10 ** (bottom - depth), 10 ** (bottom + 1.05 * decades))
    stride = int(np.ceil(decades / 6))
    # The power at the edge of the band has no label: it would stand on the band's own.
    exponents = range(int(bottom) + stride, int(np.floor(bottom + 1.05 * decades)) + 1, stride)
    axes.set_yticks(
        [10.0 ** (bottom - depth / 2), *(10.0**exponent for exponent in exponents)],
        ["0", *(f"$10^{{{exponent}}}$" for exponent in exponents)],
    )
    return {name: 10 ** (bottom - row * (index + 0.75)) for index, name in enumerate(with_zeros)}


class _LogTicks(LogLocator):
    """Ticks between the powers of ten too where an axis spans few of them."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        span = max(vmin, vmax) / min(vmin, vmax)
        self.set_params(subs=(1, 2, 5) if span <= 20 else (1, 3) if span <= _FEW else (1,))
        return super().tick_values(vmin, vmax)


class _LogLabels(LogFormatterMathtext):
    """Plain numbers where an axis spans few powers of ten, powers elsewhere."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        low, high = sorted(self.axis.get_view_interval())
        return f"{x:g}" if high / low <= _FEW else super().__call__(x, pos)


def label_powers(axis: Axis) -> None:
    """Give a logarithmic axis two labels or more, however few powers of ten it spans."""
    axis.set_major_locator(_LogTicks())
    axis.set_major_formatter(_LogLabels())
    axis.set_minor_formatter(NullFormatter())


def _edges(centres: FloatArray, scale: Scale) -> FloatArray:
    """Cell edges halfway between the centres as seen on the axis, shape (n,) to (n + 1,)."""
    symlog = SymmetricalLogTransform(base=10, linthresh=1, linscale=1)
    there, back = {
        "linear": (np.asarray, np.asarray),
        "log": (np.log10, lambda seen: 10.0**seen),
        "symlog": (symlog.transform, symlog.inverted().transform),
    }[scale]
    seen = there(centres)
    if seen.size == 1:
        return back(np.array([seen[0] - 0.5, seen[0] + 0.5]))
    middles = (seen[1:] + seen[:-1]) / 2
    first, last = 2 * seen[0] - middles[0], 2 * seen[-1] - middles[-1]
    return back(np.concatenate([[first], middles, [last]]))


def _set_step_scale(axes: Axes, scale: Scale) -> None:
    if scale == "symlog":
        axes.set_xscale("symlog", linthresh=1)
    else:
        axes.set_xscale(scale)


def _readable_on(colour: Any) -> str:
    """Black or white, whichever contrasts more with the colour (WCAG's relative luminance)."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def check_axes(axes: object) -> None:
    """Refuse with a TypeError what is no `Axes`."""
    if not isinstance(axes, Axes):
        raise TypeError(f"axes: expected a matplotlib Axes, came {type(axes).__name__}")


def float_array(
    name: str, values: ArrayLike, shape: tuple[int | None, ...], meaning: str
) -> FloatArray:
    """Copy to floats of the shape expected; None stands for any length."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers of shape {meaning}, came {error}") from error
    fits = array.ndim == len(shape) and all(
        wanted is None or wanted == came for wanted, came in zip(shape, array.shape, strict=True)
    )
    if not fits:
        lengths = ", ".join("any" if wanted is None else str(wanted) for wanted in shape)
        raise ValueError(
            f"{name}: expected shape {meaning}, here ({lengths}), came shape {array.shape}"
        )
    return array


def increasing(name: str, values: ArrayLike, meaning: str) -> FloatArray:
    """Copy to floats, one after another and each above the last; else a ValueError says where."""
    array = float_array(name, values, (None,), meaning)
    _check_finite(name, array)
    if not array.size:
        raise ValueError(f"{name}: expected at least one value, came none")
    if np.any(np.diff(array) <= 0):
        place = int(np.argmax(np.diff(array) <= 0))
        raise ValueError(
            f"{name}: expected increasing values, came {array[place]:g} before {array[place + 1]:g}"
        )
    return array


def _check_finite(name: str, values: FloatArray) -> None:
    if not np.all(np.isfinite(values)):
        count = int((~np.isfinite(values)).sum())
        raise ValueError(f"{name}: expected finite values, came {count} that are NaN or infinite")


def _check_not_negative(name: str, values: FloatArray) -> None:
    _check_finite(name, values)
    if np.any(values < 0):
        raise ValueError(f"{name}: expected values of 0 or more, came {values.min():g}")


def _check_ordered(name: str, low: FloatArray, high: FloatArray) -> None:
    if np.any(low > high):
        place = int(np.argmax(low > high))
        raise ValueError(
            f"{name}: expected the first not above the second, came {low[place]:g} and "
            f"{high[place]:g} at position {place}"
        )


def _check_limits(limits: tuple[float, float]) -> None:
    if len(limits) != 2 or not limits[0] < limits[1]:
        raise ValueError(f"colour limits: expected (low, high) with low < high, came {limits}")


def _check_step_scale(steps: FloatArray, scale: Scale) -> None:
    if scale == "log" and steps[0] <= 0:
        raise ValueError(f"steps: expected more than 0 on a log axis, came {steps[0]:g}")
    if scale == "symlog" and steps[0] < 0:
        raise ValueError(f"steps: expected 0 or more on a symlog axis, came {steps[0]:g}")


def _front(front: tuple[ArrayLike, ArrayLike]) -> tuple[FloatArray, FloatArray]:
    if len(front) != 2:
        raise ValueError(f"front: expected (steps, layers), came {len(front)} arrays")
    steps = float_array("front steps", front[0], (None,), "(K,)")
    return steps, float_array("front layers", front[1], (steps.size,), "one layer a front step")


def _references(references: Mapping[str, float] | None) -> dict[str, float]:
    lines = {name: float(value) for name, value in (references or {}).items()}
    for name, value in lines.items():
        _check_finite(f"references[{name!r}]", np.array(value))
    return lines

"""One look for every figure of the study.

Each function that draws takes the `Axes` to draw on first and returns it. It takes plain arrays,
computes no result, shows no window and writes no file, so whatever a figure says was decided
before it got here. What does not fit is refused before anything is drawn: with a TypeError what
is no `Axes`, with a ValueError an array of another shape than its line says, values that are not
finite where no gap is named, and those that do not increase, or lie out of range, where they must.

A method or an activation has one colour, line style and marker in the whole study. Exact zeros
have a class of their own, because on a logarithmic scale they would otherwise vanish or pass for
very small values.

Heat maps and palettes are seaborn's. Its curves and intervals are not used: `lineplot` draws
through gaps and takes the median over the seeds that are left, `pointplot` takes no interval that
was computed elsewhere, and `stripplot` scatters its points at random.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.rcsetup import cycler
from matplotlib.ticker import (
    FixedLocator,
    LogFormatterMathtext,
    LogLocator,
    MaxNLocator,
    NullFormatter,
)
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike, NDArray
from seaborn.utils import relative_luminance

from rai_utils.recording import drawing, recorded

FloatArray = NDArray[np.float64]
Style = dict[str, Any]
Scale = Literal["linear", "log", "symlog"]

HALF_PAGE = 3.25
"""Width of a printed figure in inches: a column of a page."""

PAGE = 6.75
"""Width of two such columns and what is between them: panels stand side by side on a screen."""

COLOUR_MAP = "viridis"
"""The proposal's map. Its lightness only grows, so a greyscale print keeps the order."""

INK = "#222222"
_TEXT, _SMALL_TEXT = 8.5, 7.5  # points
_LAYER, _ZERO = "layer (1 = nearest the input)", "exactly 0"
# Around what has to be seen on lines, and on every colour of a map.
HALO = [withStroke(linewidth=2.2, foreground="white")]
_DARK_HALO = [withStroke(linewidth=2.8, foreground="black")]
_HATCHED: Style = {
    "facecolor": "#DDDDDD",
    "edgecolor": "#888888",
    "hatch": "//////",
    "linewidth": 0.0,
}
# Handles long enough to tell the dashes apart.
_KEY: Style = {"handlelength": 2.7, "handletextpad": 0.6, "columnspacing": 1.0}
# A reference's line has its style; its name in grey would be lost in print.
_REFERENCE_NAME: Style = {"path_effects": HALO, "zorder": 4}

# Told apart with any of the common colour-vision deficiencies.
_BLUE, _, _GREEN, VERMILLION, _ROSE = seaborn.color_palette("colorblind").as_hex()[:5]
# The same palette's hues, darkened: a thin line must stand out from white in greyscale too.
_ORANGE, _PURPLE, _SKY, _BROWN = "#C98500", "#A8497F", "#3D93C4", "#8C5A2B"
_SOLID, _DASHED, _SHORT, _LONG = "-", (0, (4, 2)), (0, (2.5, 1.2)), (0, (8, 2))
_DOTTED, _SPARSE = (0, (1, 1.3)), (0, (1, 2.4))
_DASH_DOT, _DASH_DOT_DOT = (0, (6, 2, 1.2, 2)), (0, (4, 1, 1, 1, 1, 1))

# The one place that says how a method or an activation looks, under its key in the code and under
# what the figures call it. No pair of dash and marker comes twice: both are left in greyscale.
_LOOKS: dict[tuple[str, ...], tuple[str, Any, str]] = {
    ("RAI",): (_BLUE, _SOLID, "o"),
    ("backprop",): (VERMILLION, _DASHED, "s"),
    ("hand-over",): (_GREEN, _DASH_DOT, "D"),
    ("logistic regression",): ("#333333", _SHORT, "P"),
    ("chance",): ("#777777", _DOTTED, "X"),
    # Ways of RAI with minibatches.
    ("full batch",): (_BLUE, _LONG, "p"),
    ("fresh targets",): (_PURPLE, _SOLID, "v"),
    ("table",): ("#000000", _DASH_DOT_DOT, "X"),
    ("renewed table",): (_ORANGE, _SHORT, "d"),
    ("shared targets",): (_BROWN, _DOTTED, "*"),
    # Activations.
    ("identity", "linear", "none"): ("#777777", _DASH_DOT_DOT, "D"),
    ("sigmoid",): (_PURPLE, _DASHED, "o"),
    ("tanh",): (_SKY, _LONG, "s"),
    ("ReLU",): (_ORANGE, _SOLID, "^"),
    ("leaky_relu", "leaky ReLU", "leaky ReLU 0.01"): (_BROWN, _SHORT, "D"),
    ("leaky_relu_0.1", "leaky ReLU 0.1"): ("#5C3A1A", _DOTTED, "v"),
    ("PReLU", "PReLU (learned)"): ("#E0803A", _SPARSE, "*"),
    ("ELU",): ("#006B4D", _DASH_DOT_DOT, "p"),
    ("softplus",): ("#006374", _DASH_DOT, "P"),
    ("GELU",): ("#001C7F", _LONG, "d"),
    ("SiLU",): ("#8C0800", _SHORT, "X"),
    ("centred_sigmoid", "sigmoid − ½"): (_ROSE, _SOLID, "d"),
    ("sigmoid_flat", "sigmoid(4z/k)", "sigmoid, slope 1/k"): ("#5E2347", _DOTTED, "p"),
    ("softmax",): ("#000000", _DASH_DOT, "X"),
    ("softmax_times_width", "softmax × k", "k · softmax"): ("#444444", _SHORT, "s"),
    ("softmax_cold", "softmax(k z)", "softmax, T = 1/k"): ("#6A6A6A", _DASHED, "P"),
    ("softmax_layer_norm", "softmax, layer norm"): ("#909090", _LONG, "*"),
}
_NAMED = {name.lower(): look for names, look in _LOOKS.items() for name in names}
# For every other name: 7 hues, 5 dashes and 8 markers, numbers without a common factor.
_HUES = [seaborn.color_palette("dark").as_hex()[i] for i in (0, 1, 2, 4, 6, 8, 9)]
_DASHES, _MARKERS = (_SOLID, _SHORT, _LONG, _DASH_DOT, _DASH_DOT_DOT), "s^dX*vP<"
_OTHER_LOOKS = [
    (_HUES[i % 7], _DASHES[i % 5], _MARKERS[i % 8])
    for i in range(7 * 5 * 8)
    if (_DASHES[i % 5], _MARKERS[i % 8]) not in {look[1:] for look in _LOOKS.values()}
]
_NEUTRAL: Style = {"color": "#444444", "linestyle": _SOLID, "marker": "o"}
_SIGNED_COLOUR_MAP = "PuOr_r"


def use_style(width: float = HALF_PAGE) -> None:
    """Set matplotlib's defaults to the style of the study, for all figures made from now on.

    What a reader's own settings changed is undone first: a figure looks the same for everybody.
    They are ``width`` inches wide: `HALF_PAGE`, or `PAGE` to see panels side by side.
    """
    settings: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same everywhere
        "mathtext.fontset": "dejavusans",
        "text.usetex": False,
        "font.size": _TEXT,
        "axes.titlesize": _TEXT + 0.5,
        "axes.labelsize": _TEXT,
        "figure.labelsize": _TEXT,
        "legend.fontsize": _SMALL_TEXT,
        "legend.frameon": False,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": "#888888",
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(
            color=[_BLUE, VERMILLION, _GREEN, _ROSE, _ORANGE],
            linestyle=[_SOLID, _DASHED, _DASH_DOT, ":", _LONG],
        ),
        "lines.linewidth": 1.5,
        "lines.markersize": 4.0,
        "hatch.linewidth": 0.4,
        "image.cmap": COLOUR_MAP,
        "figure.figsize": (width, 2.5),
        "figure.constrained_layout.use": True,
        "figure.dpi": 150,
        "savefig.dpi": 200,
        "savefig.bbox": "standard",
        "pdf.fonttype": 42,  # text stays text
        "svg.fonttype": "none",
        "svg.hashsalt": "rai-study",  # the same bytes on every run
    }
    ticks: Style = {"color": "#888888", "labelcolor": INK, "labelsize": _SMALL_TEXT}
    ticks |= {"major.width": 0.6, "minor.width": 0.4}
    for axis in ("xtick", "ytick"):
        settings |= {f"{axis}.{name}": value for name, value in ticks.items()}
    mpl.rcdefaults()
    mpl.rcParams.update(settings)


def figure(
    columns: int = 1,
    rows: int = 1,
    *,
    panel_height: float = 2.4,
    share_x: bool = False,
    share_y: bool = False,
    height_ratios: Sequence[float] | None = None,
) -> tuple[Figure, Any]:
    """Make a figure of equal panels, as wide as the style says: half a page, and what is printed.

    The panels of a row share that width, so no more than two of them stand side by side. Where the
    style is wider, up to four do, and one alone is not stretched to it. What is drawn is written
    down, so that it can be drawn again (`rai_utils.recording`).

    Args:
        columns: Panels side by side on half a page, 1 or 2.
        rows: Panels on top of each other there, at least 1.
        panel_height: Height of one panel in inches.
        share_x: Whether the panels of a column have one horizontal scale.
        share_y: Whether the panels of a row have one vertical scale.
        height_ratios: How the rows share the height, one number a row, for a drawing that keeps
            its shape in whatever width; equally without.

    Returns:
        The figure, and its axes as `matplotlib.pyplot.subplots` gives them: one `Axes` for a single
            panel, an array (columns,) or (rows,) for one row or column, else (rows, columns).
    """
    if columns > 2:
        raise ValueError(f"columns must be 2 at most on half a page, got {columns}")
    made: Style = {"columns": columns, "rows": rows, "panel_height": panel_height}
    made |= {"share_x": share_x, "share_y": share_y, "height_ratios": height_ratios}
    width, _ = mpl.rcParams["figure.figsize"]
    across, share = columns, ("col" if share_x else False, "row" if share_y else False)
    key = 0.0
    if height_ratios is not None:
        panel_height *= width / HALF_PAGE
    elif width > 1.3 * HALF_PAGE:
        across = _side_by_side(columns, rows)
        share = (share_x, share_y and columns > 1) if across > columns else share
        if across == 1 and width == PAGE:
            width, panel_height = 0.75 * width, 1.15 * panel_height
        elif across > 1:  # wider panels may be higher; fewer rows share labels and a key
            panel_height *= min(1.4, max(1, width * columns / (across * HALF_PAGE)))
            key = 0.4 if across > columns else 0.0
    deep = -(-columns * rows // max(across, 1))
    drawn, grid = plt.subplots(
        deep,
        across,
        figsize=(width, deep * panel_height + key),
        layout="constrained",
        sharex=share[0],
        sharey=share[1],
        height_ratios=height_ratios,
        squeeze=False,
    )
    for empty in grid.flat[columns * rows :]:
        empty.remove()
    panels = grid.ravel()[: columns * rows].reshape(rows, columns).squeeze()
    panels = panels if panels.ndim else panels.item()
    return recorded(drawn, panels, {"call": f"{__name__}.figure", "named": made})


def _side_by_side(columns: int, rows: int) -> int:
    """How many of the panels of half a page stand side by side on a page."""
    panels = columns * rows
    if columns == 1:
        return panels if panels <= 3 else 2
    return panels if panels <= 4 else 3 if panels % 3 == 0 else 4


@drawing
def outer_labels(panels: Iterable[Axes]) -> None:
    """Keep axis labels only where a panel has no other below it, or at its left, with the same.

    Such panels have the label and the scale in common, by chance or not. They may stand in any
    grid; call it when all are drawn.
    """
    cells = [(axes, axes.get_subplotspec()) for axes in np.ravel(np.asarray(panels, dtype=object))]
    for axes, cell in cells:
        below = [
            other
            for other, place in cells
            if place.colspan == cell.colspan and place.rowspan.start > cell.rowspan.start
        ]
        left = [
            other
            for other, place in cells
            if place.rowspan == cell.rowspan and place.colspan.start < cell.colspan.start
        ]
        if any(other.get_xlim() == axes.get_xlim() for other in below):
            axes.tick_params(labelbottom=False)
            axes.set_xlabel("")
        same = (axes.get_ylim(), axes.get_ylabel())
        if any((other.get_ylim(), other.get_ylabel()) == same for other in left):
            axes.tick_params(labelleft=False)
            axes.set_ylabel("")


@drawing
def shared_key(figure: Figure, panels: Iterable[Axes]) -> Legend:
    """Set one key under a figure in place of the keys of its panels, and return it.

    The panels may have any shape, and one of them must have a key; entries of the same name are
    one, and must look the same: else a ValueError names the entry. Names that are in no table take
    looks by all the names of a panel, so panels with one key are given all of them.
    """
    handles: dict[str, Artist] = {}
    for axes in np.ravel(np.asarray(panels, dtype=object)):
        if (legend := axes.get_legend()) is not None:
            for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
                first = handles.setdefault(text.get_text(), handle)
                if _look(first) != _look(handle):
                    raise ValueError(
                        f"an entry of a shared key must look the same in all panels, got two looks "
                        f"for {text.get_text()!r}"
                    )
            legend.remove()
    if not handles:
        raise ValueError("panels must have one key or more, got none")
    columns = _key_columns(handles, 72 * figure.get_size_inches()[0])
    place = {"loc": "outside lower center", "ncols": columns}
    return figure.legend(handles.values(), handles, **place, **_KEY)


def _look(handle: Artist) -> tuple[Any, ...]:
    """What tells an entry of a key from others: of a line, or of an area."""
    if isinstance(handle, Line2D):
        return to_hex(handle.get_color()), handle.get_linestyle(), handle.get_marker()
    if isinstance(handle, Patch):
        return *handle.get_facecolor(), handle.get_hatch()
    return (type(handle),)


def method_style(name: str, position: int = 0) -> Style:
    """Give the colour, line style and marker of a method or an activation, for `Axes.plot`.

    The names of one table look the same in every figure, in capitals or not. A name such as
    "sigmoid, × 4" has the hue of what stands before the comma, and at position 0 all of its look.
    Any other name takes a look from a palette, which depends on nothing but the name, and shares
    dash and marker with none of the table. Where two such would look alike, `position` says how
    many steps to go on in the palette; a name of the table does not depend on it.
    """
    name = name.lower()
    head = _NAMED.get(name.partition(",")[0])
    look = _NAMED.get(name, head if position == 0 else None)
    if look is None:
        # Python's own hash of a text changes with the process.
        look = _OTHER_LOOKS[(zlib.crc32(name.encode()) + position) % len(_OTHER_LOOKS)]
        if head is not None:
            greyer, darker = (
                seaborn.desaturate(head[0], 0.3),
                seaborn.set_hls_values(head[0], l=0.2),
            )
            look = (to_hex(greyer if position % 2 else darker), *look[1:])
    return dict(zip(("color", "linestyle", "marker"), look, strict=True))


def method_styles(names: Iterable[str]) -> dict[str, Style]:
    """Give the styles of all lines of a figure, as `method_style`, no two alike without colour.

    The first name with the hue of a method has its whole look. What is left goes on in the palette
    until its pair of dash and marker is free and, as far as the palette reaches, its colour, and
    dash and marker each beside other names from the palette.
    """
    names = list(names)
    styles: dict[str, Style] = {}
    for name in sorted(names, key=lambda name: name.lower() not in _NAMED):
        if _in_table(name) and method_style(name) not in styles.values():
            styles[name] = method_style(name)
    for name in names:
        if name not in styles:
            # Beside methods of the table a new one keeps its look, so that it has one everywhere.
            rivals = [styles[other] for other in styles if _in_table(name) or not _in_table(other)]
            styles[name] = min(
                (method_style(name, position) for position in range(len(_OTHER_LOOKS))),
                key=lambda style: (
                    _alike(style, styles.values(), "linestyle", "marker"),
                    _alike(style, styles.values(), "color"),
                    _alike(style, rivals, "linestyle") + _alike(style, rivals, "marker"),
                ),
            )
    return {name: styles[name] for name in names}


def _alike(style: Style, others: Iterable[Style], *features: str) -> int:
    return sum(all(other[name] == style[name] for name in features) for other in others)


def _in_table(name: str) -> bool:
    return not _NAMED.keys().isdisjoint({name.lower(), name.lower().partition(",")[0]})


@drawing
def landscape(
    axes: Axes,
    grid_x: ArrayLike,
    grid_y: ArrayLike,
    probability: ArrayLike,
    points: ArrayLike,
    labels: ArrayLike,
    *,
    title: str = "",
    key: bool = True,
) -> Axes:
    """Draw a decision map with its 0.5 contour and the training points on top.

    Cells that are not a number are hatched. A map that does not cross 0.5 has no contour.

    Args:
        grid_x: Positions of the map's columns, shape (G_x,), increasing.
        grid_y: Positions of the map's rows, shape (G_y,), increasing.
        probability: P(class 1) at (grid_x[j], grid_y[i]), shape (G_y, G_x), in [0, 1] or NaN.
        points: Training points, shape (n, 2).
        labels: Their classes, shape (n,), each 0 or 1.
        key: Whether the meaning of the markers is written into the panel.
    """
    check_axes(axes)
    figure_of(axes).set_layout_engine("compressed")  # no gaps beside square maps
    x, y = _increasing("grid_x", grid_x, 2), _increasing("grid_y", grid_y, 2)
    values = _array("probability", probability, (y.size, x.size), least=0, most=1, finite=False)
    positions = _array("points", points, (None, 2))
    classes = _array("labels", labels, (len(positions),))
    if not np.all(np.isin(classes, (0, 1))):
        raise ValueError(f"labels must be 0 or 1, got {np.unique(classes).tolist()}")

    # Ten thousand cells would make a slow PDF with seams between them.
    drawn: Style = {"shading": "nearest", "rasterized": True, "zorder": 1}
    axes.pcolormesh(x, y, values, cmap=COLOUR_MAP, vmin=0, vmax=1, **drawn)
    if np.any(values < 0.5) and np.any(values > 0.5):
        boundary = axes.contour(x, y, values, levels=[0.5], colors="white", linewidths=1.4)
        boundary.set(path_effects=_DARK_HALO)
    # White with a black edge and black with a white edge are seen on every colour of the map.
    handles: list[Artist] = []
    for value, marker, face, edge in ((0, "o", "white", "black"), (1, "^", "black", "white")):
        look: Style = {
            "s": 15,
            "marker": marker,
            "facecolor": face,
            "edgecolor": edge,
            "linewidth": 0.7,
        }
        of_class = positions[classes == value].T
        handles.append(axes.scatter(*of_class, **look, zorder=4, label=f"class {value}"))
    if np.isnan(values).any():
        handles.append(_hatch_background(axes, "NaN"))
    if key:
        # On a grey in which neither the white nor the black markers get lost.
        box = {"frameon": True, "framealpha": 0.85, "edgecolor": "none", "facecolor": "#BBBBBB"}
        tight = {"handlelength": 1.0, "handletextpad": 0.25, "labelspacing": 0.2, "borderpad": 0.25}
        legend = axes.legend(handles=handles, loc="lower left", borderaxespad=0.3, **box, **tight)
        legend.set_in_layout(False)  # it lies inside: a small map must not shrink for it
    axes.set(xlim=x[[0, -1]], ylim=y[[0, -1]], xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    axes.set_title(title)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    return axes


@drawing
def landscape_colour_bar(figure: Figure, axes: Axes | Iterable[Axes]) -> Colorbar:
    """Draw the one colour bar of a landscape, or of an array or sequence of them, and return it.

    Axes without a landscape are refused with a ValueError.
    """
    panels = list(np.ravel(np.asarray(axes, dtype=object)))
    meshes = [mesh for panel in panels for mesh in panel.collections if isinstance(mesh, QuadMesh)]
    if not panels or len(meshes) != len(panels):
        raise ValueError(f"axes must hold a landscape each, got {len(meshes)} in {len(panels)}")
    look: Style = {"label": "P(class 1)", "aspect": 25, "pad": 0.02, "ticks": [0, 0.5, 1]}
    bar = figure.colorbar(meshes[0], ax=panels, **look)
    bar.outline.set_visible(False)
    bar.ax.axhline(0.5, color="white", linewidth=1.4, path_effects=_DARK_HALO)
    return bar


@drawing
def layer_step_map(
    axes: Axes,
    steps: ArrayLike,
    layers: ArrayLike,
    values: ArrayLike,
    *,
    label: str,
    floor: float,
    ceiling: float,
    front: tuple[ArrayLike, ArrayLike] | None = None,
    scale: Scale = "linear",
) -> Axes:
    """Draw a non-negative quantity against layer and step, in colours by its logarithm.

    Exact zeros are a hatched class with its own entry in the key. Compared maps have one colour
    scale, from `floor` to `ceiling`.

    Args:
        axes: The axes to draw on; a colour bar is placed beside it.
        steps: Recorded steps, shape (S,), increasing, unevenly spaced if need be; above 0 on a
            "log" scale, 0 or more on "symlog".
        layers: Layer numbers from input to output, shape (L,), increasing.
        values: Quantity at each step and layer, shape (S, L), not negative.
        label: What the colour bar shows, with its unit.
        floor: Value of the darkest colour, above 0; smaller positive values share it.
        ceiling: Value of the lightest colour, above `floor`; larger values share it.
        front: Steps (K,) and layers (K,) of a line to mark, the one-layer-a-step front.
        scale: Scale of the step axis. "symlog" is linear from 0 to 1.
    """
    check_axes(axes)
    times, depths = _increasing("steps", steps), _increasing("layers", layers)
    shown = _array("values", values, (times.size, depths.size), least=0)
    _check_steps(times, scale)
    if not 0 < floor < ceiling:
        raise ValueError(f"floor and ceiling must be above 0 and increase, got {(floor, ceiling)}")
    line = None if front is None else _array("front", front, (2, None))

    zero = shown == 0
    handles: list[Artist] = [_hatch_background(axes, _ZERO)] if zero.any() else []
    _set_step_scale(axes, scale)
    time_edges, depth_edges = _edges(axes.xaxis, times), _edges(axes.yaxis, depths)
    norm = LogNorm(floor, ceiling)
    drawn: Style = {"norm": norm, "cmap": COLOUR_MAP, "rasterized": True, "zorder": 1}
    mesh = axes.pcolormesh(time_edges, depth_edges, np.ma.masked_array(shown, mask=zero).T, **drawn)
    beyond = np.any(shown[~zero] < floor) + 2 * np.any(shown > ceiling)
    extend = ("neither", "min", "max", "both")[beyond]
    bar = figure_of(axes).colorbar(mesh, ax=axes, label=label, extend=extend, pad=0.02)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    if line is not None:
        look: Style = {"color": "white", "linestyle": _DASHED, "linewidth": 1.3, "zorder": 3}
        handles += axes.plot(*line, **look, path_effects=_DARK_HALO, label="one layer a step")
    axes.set(xlim=time_edges[[0, -1]], ylim=depth_edges[[0, -1]], xlabel="step", ylabel=_LAYER)
    _layer_ticks(axes.yaxis)
    _legend_below(axes, handles)
    return axes


@drawing
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
        layers: Layer numbers from input to output, shape (L,), increasing.
        values_by_name: Method to quantity per layer, each of shape (L,); not negative on a
            logarithmic axis.
        label: What the vertical axis shows, with its unit.
        log: Whether the vertical axis is logarithmic.
        intervals_by_name: Method to the ends of an interval, each of shape (2, L), drawn as a
            band. Methods may be left out.
    """
    check_axes(axes)
    depths, least = _increasing("layers", layers), 0 if log else None
    profiles = _by_name("values_by_name", values_by_name, (depths.size,), least=least)
    intervals = _intervals(intervals_by_name, profiles, least=least)
    rows = _zero_rows(axes, profiles, intervals) if log else {}
    relation(
        axes,
        depths,
        {name: np.where((y == 0) & log, np.nan, y) for name, y in profiles.items()},
        x_label=_LAYER,
        label=label,
        intervals_by_name=intervals,
        log_y=log and not rows,
        markers=False,
    )
    _layer_ticks(axes.xaxis)
    lines = [line for line in axes.lines if line.get_label() in profiles]
    for name, row in rows.items():
        style, zeros = method_styles(profiles)[name], depths[profiles[name] == 0]
        look: Style = {"marker": style["marker"], "markeredgecolor": style["color"]}
        look |= {"markerfacecolor": "white", "markeredgewidth": 0.8, "markersize": 3.2}
        axes.plot(zeros, np.full(zeros.size, row), linestyle="", **look, label=f"{name}, {_ZERO}")
    if rows:
        _legend_below(axes, [*lines, Patch(**_HATCHED, label=_ZERO)])
    return axes


@drawing
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
        steps: Recorded steps, shape (R,), increasing, not negative on a logarithmic axis.
        curves_by_name: Method to curves, each of shape (R, seeds).
        label: What the vertical axis shows.
        references: Name to value of the horizontal lines, such as chance.
        log_steps: Whether the step axis is logarithmic (linear from 0 to 1 if a step is 0).
    """
    check_axes(axes)
    times = _increasing("steps", steps)
    curves = _by_name("curves_by_name", curves_by_name, (times.size, None), finite=False)
    marks = _references(references)
    scale: Scale = ("symlog" if times[0] < 1 else "log") if log_steps else "linear"
    _check_steps(times, scale)

    handles: list[Artist] = []
    for name, style in method_styles(curves).items():
        axes.plot(times, curves[name], color=style["color"], ls="-", lw=0.5, alpha=0.35, zorder=2)
        # Markers at a share of the panel's diagonal: evenly on a logarithmic axis too.
        look: Style = {**style, "linewidth": 1.9, "markevery": 0.13, "zorder": 3, "label": name}
        handles += axes.plot(times, np.median(curves[name], axis=1), **look)
    _set_step_scale(axes, scale)
    axes.set(xlim=(times[0], times[-1]) if times.size > 1 else None, xlabel="step", ylabel=label)
    _draw_references(axes, marks)
    _legend_below(axes, handles)
    return axes


@drawing
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

    Rows of which none is a method or an activation, such as data sets, all look alike.

    Args:
        names: Names of the rows, K of them.
        means: Centres, shape (K,).
        lows: Lower ends, shape (K,), none above its centre.
        highs: Upper ends, shape (K,), none below its centre.
        label: What the horizontal axis shows.
        references: Name to value of the vertical lines, such as chance.
        points: Individual values of each row, K arrays of shape (seeds,), of any lengths.
    """
    check_axes(axes)
    rows = list(names)
    ends = {"lows": lows, "means": means, "highs": highs}
    ends = {name: _array(name, values, (len(rows),)) for name, values in ends.items()}
    for (low, lower), (high, higher) in pairwise(ends.items()):
        if np.any(lower > higher):
            raise ValueError(f"{low} must not be above {high}, got {lower} and {higher}")
    marks = _references(references)
    seeds = [_array(f"points[{row}]", values, (None,)) for row, values in enumerate(points or [])]
    if points is not None and len(seeds) != len(rows):
        raise ValueError(f"points must be {len(rows)} arrays, one a row, got {len(seeds)}")

    known = any(map(_in_table, rows))
    for row, name in enumerate(rows):
        style = method_style(name) if known else _NEUTRAL
        look: Style = {"color": style["color"], "markeredgewidth": 0, "alpha": 0.4, "zorder": 2}
        if seeds:
            # A fixed spread, not a random one: the figure is the same on every run.
            offsets = 0.24 + 0.12 * np.resize((0.0, 1.0, -1.0), seeds[row].size)
            axes.plot(seeds[row], row + offsets, "o", markersize=2.6, **look)
        low, mean, high = (values[row] for values in ends.values())
        look = {"color": style["color"], "marker": style["marker"], "markersize": 5, "zorder": 3}
        look |= {"capsize": 2.5, "linewidth": 1.5, "label": name}
        axes.errorbar(mean, row, xerr=[[mean - low], [high - mean]], **look)
    # Each reference is named on a line of its own above the rows, so names never meet.
    axes.set(ylim=(len(rows) - 0.4, -0.55 - 0.45 * len(marks)), xlabel=label)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(axis="y", length=0)
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=4)  # beside long names there is room for few
    axes.margins(x=0.08)
    for index, (name, (value, style)) in enumerate(marks.items()):
        axes.axvline(value, **style, label=name)
        ends = axes.xaxis.get_transform().transform(np.array([*axes.get_xlim(), value]))
        shift, side = (3, "left") if ends[2] < np.mean(ends[:2]) else (-3, "right")
        place: Style = {"xytext": (shift, 0), "textcoords": "offset points", "ha": side}
        height = -0.62 - 0.45 * index
        place |= {"va": "center", "fontsize": _points("legend.fontsize")}
        axes.annotate(name, (value, height), **place, **_REFERENCE_NAME)
    return axes


@drawing
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

    Cells that are not a number are hatched and hold a dash. Between limits of either sign the
    colours are of two hues, which meet at 0.

    Args:
        axes: The axes to draw on; a colour bar is placed beside it.
        rows: What each row stands for, from the top.
        columns: What each column stands for, from the left.
        values: Numbers, shape (len(rows), len(columns)), one or more.
        label: What the numbers are.
        format: How a number is written, as for `str.format`.
        limits: Values at the two ends of the colour scale, increasing.
    """
    check_axes(axes)
    shown = _array("values", values, (len(rows), len(columns)), finite=False)
    if not shown.size:
        raise ValueError(f"values must have one cell or more, got the shape {shown.shape}")
    if not limits[0] < limits[1]:
        raise ValueError(f"colour limits must be (low, high) with low < high, got {limits}")

    texts = [[format.format(value) for value in row] for row in shown]
    look: Style = {"vmin": limits[0], "vmax": limits[1], "linewidths": 0.8, "cmap": COLOUR_MAP}
    if limits[0] < 0 < limits[1]:
        look |= {"cmap": _SIGNED_COLOUR_MAP, "center": 0}
    bar = {"label": label, "pad": 0.02}
    _heat_map(axes, shown, texts, rows, columns, cbar_kws=bar, **look)
    missing = np.argwhere(~np.isfinite(shown))
    for row, column in missing:
        axes.text(column + 0.5, row + 0.5, "–", ha="center", va="center")
    if missing.size:
        _hatch_background(axes, "not a number")
    axes.set(xlabel=column_label, ylabel=row_label)
    return axes


@drawing
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
        x: Positions, shape (n,), increasing.
        curves_by_name: Name to values, each of shape (n,).
        x_label: What the horizontal axis shows, with its unit.
        label: What the vertical axis shows, with its unit.
        intervals_by_name: Name to the ends of an interval, each of shape (2, n). Names may be
            left out.
        references: Name to value of horizontal lines.
        markers: Whether each position gets a marker; else some along the line.
    """
    check_axes(axes)
    positions = _increasing("x", x)
    curves = _by_name("curves_by_name", curves_by_name, (positions.size,), finite=False)
    intervals = _intervals(intervals_by_name, curves, finite=False)
    marks = _references(references)

    every = 1 if markers else max(1, positions.size // 8)
    handles: list[Artist] = []
    for index, (name, style) in enumerate(method_styles(curves).items()):
        if name in intervals:
            band: Style = {"color": style["color"], "alpha": 0.2, "linewidth": 0}
            axes.fill_between(positions, *intervals[name], **band)
        # Markers of different lines are set at different positions, or they would hide each
        # other where the lines run together.
        places = (index * every // len(curves), every)
        handles += axes.plot(positions, curves[name], **style, markevery=places, label=name)
    axes.set(xlabel=x_label, ylabel=label)
    if log_y:
        axes.set_yscale("log")
        label_powers(axes.yaxis)
    if log_x:
        axes.set_xscale("log")
        if positions.size <= 8:
            axes.set_xticks(positions, [f"{position:g}" for position in positions])
            axes.xaxis.minorticks_off()
    _draw_references(axes, marks)
    _legend_below(axes, handles)
    return axes


@drawing
def signed_heat_map(axes: Axes, values: ArrayLike, *, limit: float, title: str = "") -> Axes:
    """Draw a small matrix of signed numbers, each in its cell, extremes framed.

    Positive numbers are orange and negative ones blue, the more so the greater; the sign is
    written too. The frame of the greatest entry is solid and that of the smallest dashed.

    Args:
        values: Matrix, shape (rows, columns); row 1 is at the top.
        limit: Absolute value of the strongest colours, above 0, the same for compared matrices.
    """
    check_axes(axes)
    shown = _array("values", values, (None, None))
    if not limit > 0:
        raise ValueError(f"limit must be positive, got {limit}")

    def text(value: float) -> str:
        return f"{value:+.2f}".replace("-", "−").replace("0.", ".") if abs(value) >= 0.005 else "0"

    rows, columns = (range(1, length + 1) for length in shown.shape)
    texts = [[text(value) for value in row] for row in shown]
    look: Style = {"vmin": -limit, "vmax": limit, "cbar": False, "square": True}
    look["cmap"] = _SIGNED_COLOUR_MAP
    _heat_map(axes, shown, texts, rows, columns, **look)
    inks = np.reshape([text.get_color() for text in axes.texts], shown.shape)
    for extreme, dashes in ((shown.max(), _SOLID), (shown.min(), (0, (2, 1)))):
        for row, column in np.argwhere(np.isclose(shown, extreme, rtol=0, atol=1e-12)):
            frame = Rectangle((column + 0.05, row + 0.05), 0.9, 0.9, fill=False, linewidth=1.2)
            frame.set(edgecolor=inks[row, column], linestyle=dashes)
            axes.add_patch(frame)
    axes.set(xlabel="input $j$", ylabel="output $i$", title=title)
    return axes


def _heat_map(
    axes: Axes,
    values: FloatArray,
    texts: ArrayLike,
    rows: Sequence[object],
    columns: Sequence[object],
    **settings: Any,
) -> None:
    """Draw a matrix from the top with a text in each cell that is a number."""
    names: Style = {"xticklabels": [*map(str, columns)], "yticklabels": [*map(str, rows)]}
    text = {"annot": texts, "fmt": "", "annot_kws": {"size": _points("legend.fontsize")}}
    seaborn.heatmap(values, ax=axes, **text, **names, **settings)
    # seaborn turns from white to black only at a luminance of 0.41, where white text has a
    # contrast of 2.3; at 0.18 both have 4.6 (WCAG 2.1, contrast ratio).
    colours = np.array(axes.collections[-1].get_facecolor())[np.isfinite(values).ravel()]
    for written, colour in zip(axes.texts, colours, strict=True):
        written.set_color("black" if relative_luminance(colour) > 0.18 else "white")
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)


def _references(references: Mapping[str, float] | None) -> dict[str, tuple[float, Style]]:
    """Give each reference its value and the look of its line: grey if it is no method."""
    marks = {}
    for name, value in (references or {}).items():
        style: Style = {
            "color": "#777777",
            "linestyle": (_DASHED, _DOTTED, _DASH_DOT)[len(marks) % 3],
        }
        if name.lower() in _NAMED:
            style = {key: method_style(name)[key] for key in style}
        style |= {"linewidth": 1.1, "zorder": 1.5}
        marks[name] = float(_array(f"references[{name!r}]", value, ())), style
    return marks


def _draw_references(axes: Axes, marks: Mapping[str, tuple[float, Style]]) -> None:
    """Draw horizontal lines, each with its name at its left end."""
    place: Style = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    place["fontsize"] = _points("legend.fontsize")
    for name, (value, style) in marks.items():
        axes.axhline(value, **style, label=name)
        axes.annotate(name, (0, value), xytext=(3, 1.5), **place, **_REFERENCE_NAME)


def _hatch_background(axes: Axes, label: str) -> Patch:
    """Hatch the panel, to be seen wherever the map on it has a hole; give the key's entry."""
    axes.patch.set(**_HATCHED)
    return Patch(**_HATCHED, label=label)


def _legend_below(axes: Axes, handles: Sequence[Artist]) -> None:
    """Set the key under the axis label, where it covers no data and no title."""
    if not handles:
        return
    figure, cell = figure_of(axes), axes.get_subplotspec()
    width = 72 * figure.get_size_inches()[0] / (cell.get_gridspec().ncols if cell else 1)
    columns = _key_columns([str(handle.get_label()) for handle in handles], width - 40)  # the ticks
    below = ScaledTranslation(0, -(_points("axes.labelsize") * 3.4) / 72, figure.dpi_scale_trans)
    place: Style = {"bbox_to_anchor": (0, 0), "bbox_transform": axes.transAxes + below}
    place |= {"loc": "upper left", "borderaxespad": 0, "ncols": columns}
    axes.legend(handles=handles, **place, **_KEY)


def _points(setting: Literal["legend.fontsize", "axes.labelsize"]) -> float:
    """The size in points that the style gives to a kind of text."""
    return FontProperties(size=mpl.rcParams[setting]).get_size_in_points()


def _key_columns(names: Collection[str], width: float) -> int:
    """How many columns of a key with these names fit into a width in points."""
    entry = _points("legend.fontsize") * (0.56 * max(len(name) for name in names) + 4.4)
    return max(1, min(len(names), int(width / entry)))


def _zero_rows(
    axes: Axes, profiles: Mapping[str, FloatArray], intervals: Mapping[str, FloatArray]
) -> dict[str, float]:
    """Make the vertical axis logarithmic with a band for exact zeros under it.

    Returns where in the band the zeros of each method stand; empty if there are no zeros.
    """
    axes.set_yscale("log")
    with_zeros = [name for name, values in profiles.items() if np.any(values == 0)]
    if not with_zeros:
        return {}
    axes.minorticks_off()
    drawn = np.concatenate([np.ravel(a) for a in (*profiles.values(), *intervals.values())])
    positive = np.log10(drawn[drawn > 0]) if np.any(drawn > 0) else np.array([-1.0, 0.0])
    bottom = np.floor(positive.min())
    decades = max(positive.max() - bottom, 1.0)
    row = 0.08 * decades
    depth, top = row * (len(with_zeros) + 0.5), bottom + 1.05 * decades
    axes.axhspan(10 ** (bottom - depth), 10**bottom, **_HATCHED, zorder=0.5)
    axes.set_ylim(10 ** (bottom - depth), 10**top)
    stride = int(np.ceil(decades / 6))
    # The power at the edge of the band has no label: it would stand on the band's own.
    exponents = np.arange(bottom + stride, np.floor(top) + 1, stride)
    powers = [f"$10^{{{exponent:.0f}}}$" for exponent in exponents]
    axes.set_yticks(10 ** np.array([bottom - depth / 2, *exponents]), ["0", *powers])
    return {name: 10 ** (bottom - row * (index + 0.75)) for index, name in enumerate(with_zeros)}


_MISSING = 1e-3
"""What may be missing to 1 before an error scale runs out: 1 itself stands there."""


@drawing
def error_scale(axis: Axis) -> None:
    """Set an axis of accuracies so that equal ratios of what is missing to 1 are equally far apart.

    y = −log10(1 − accuracy + 0.001): 0.9, 0.99 and 0.999 stand apart, and 1 has a place. Ends of
    intervals beyond 1 stand at 1. Call it before what is drawn, on an axis from about 0 to 1.
    """

    def forward(share: FloatArray) -> FloatArray:
        return -np.log10(np.maximum(1 - np.asarray(share), 0) + _MISSING)

    def backward(y: FloatArray) -> FloatArray:
        return 1 + _MISSING - 10.0 ** -np.asarray(y)

    rescale = axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale
    rescale("function", functions=(forward, backward))
    axis.set_major_locator(FixedLocator([0, 0.5, 0.7, 0.9, 0.97, 0.99, 0.997, 1]))
    axis.set_major_formatter(lambda share, _: f"{share:g}")


_FEW = 300
"""Up to this ratio of its ends an axis has too few powers of ten to be read by them alone."""


class _LogTicks(LogLocator):
    """Ticks between the powers of ten too where an axis spans few of them."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        span = max(vmin, vmax) / min(vmin, vmax)
        self.set_params(subs=(1, 2, 5) if span <= 20 else (1, 3) if span <= _FEW else (1,))
        return super().tick_values(vmin, vmax)


@drawing
def label_powers(axis: Axis) -> None:
    """Give a logarithmic axis two labels or more, however few powers of ten it spans."""
    powers = LogFormatterMathtext()
    powers.set_axis(axis)

    def label(x: float, _: float) -> str:
        low, high = sorted(axis.get_view_interval())
        return f"{x:g}" if high / low <= _FEW else powers(x)

    axis.set_major_locator(_LogTicks())
    axis.set_major_formatter(label)
    axis.set_minor_formatter(NullFormatter())


def _layer_ticks(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))


def _edges(axis: Axis, centres: FloatArray) -> FloatArray:
    """Cell edges halfway between the centres as seen on the axis, shape (n,) to (n + 1,)."""
    seen = axis.get_transform().transform(centres)
    half = np.diff(seen) / 2 if seen.size > 1 else np.array([0.5])
    edges = [[seen[0] - half[0]], seen[1:] - half[: seen.size - 1], [seen[-1] + half[-1]]]
    return axis.get_transform().inverted().transform(np.concatenate(edges))


def _set_step_scale(axes: Axes, scale: Scale) -> None:
    axes.set_xscale(scale, **{"linthresh": 1} if scale == "symlog" else {})


def figure_of(axes: Axes) -> Figure:
    """Return the figure that holds the axes, below whatever parts of it."""
    return cast(Figure, axes.get_figure(root=True))


def check_axes(axes: object) -> None:
    """Refuse with a TypeError what is no `Axes`."""
    if not isinstance(axes, Axes):
        raise TypeError(f"axes must be a matplotlib Axes, got {type(axes).__name__}")


def _array(
    name: str,
    values: Any,
    shape: tuple[int | None, ...],
    *,
    least: float | None = None,
    most: float | None = None,
    finite: bool = True,
) -> FloatArray:
    """Copy to floats of a shape, in which None stands for any length, and within limits."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers, got {error}") from error
    if array.ndim != len(shape) or not all(
        wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True)
    ):
        lengths = ", ".join("any" if wanted is None else str(wanted) for wanted in shape)
        raise ValueError(f"{name} must have the shape ({lengths}), got {array.shape}")
    if finite and not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)]}")
    if least is not None and np.any(array < least):
        raise ValueError(f"{name} must be at least {least:g}, got {np.nanmin(array):g}")
    if most is not None and np.any(array > most):
        raise ValueError(f"{name} must be at most {most:g}, got {np.nanmax(array):g}")
    return array


def _increasing(name: str, values: ArrayLike, least_length: int = 1) -> FloatArray:
    array = _array(name, values, (None,))
    if array.size < least_length:
        raise ValueError(f"{name} must hold {least_length} values or more, got {array.size}")
    if np.any(falls := np.diff(array) <= 0):
        first, second = array[np.argmax(falls) :][:2]
        raise ValueError(f"{name} must increase, got {first:g} before {second:g}")
    return array


def _by_name(
    name: str, arrays: Mapping[str, ArrayLike], shape: tuple[int | None, ...], **limits: Any
) -> dict[str, FloatArray]:
    """Copy the arrays of a mapping, one or more, none of them empty; limits as in `_array`."""
    found = {
        key: _array(f"{name}[{key!r}]", values, shape, **limits) for key, values in arrays.items()
    }
    if not (found and all(array.size for array in found.values())):
        raise ValueError(f"{name} must hold one line or more each, got {found or 'none'}")
    return found


def _intervals(
    intervals: Mapping[str, ArrayLike] | None, curves: Mapping[str, FloatArray], **limits: Any
) -> dict[str, FloatArray]:
    """Copy the ends of intervals, each (2, positions), of some of the curves; none for None."""
    if unknown := sorted((intervals or {}).keys() - curves.keys()):
        raise ValueError(f"intervals_by_name must name some of {list(curves)}, got {unknown}")
    shape = (2, next(iter(curves.values())).size)
    return _by_name("intervals_by_name", intervals, shape, **limits) if intervals else {}


def _check_steps(steps: FloatArray, scale: Scale) -> None:
    if scale not in ("linear", "log", "symlog"):
        raise ValueError(f"scale must be 'linear', 'log' or 'symlog', got {scale!r}")
    if scale != "linear" and (steps[0] < 0 or (scale == "log" and steps[0] == 0)):
        lowest = "above 0" if scale == "log" else "0 or more"
        raise ValueError(f"steps must be {lowest} on a {scale} axis, got {steps[0]:g}")

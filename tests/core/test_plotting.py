import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, rgb_to_hsv, to_rgb
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from rai_utils import plotting
from rai_utils.models import ACTIVATIONS, compared_activations
from rai_utils.publishing.legibility import HALF_PAGE, check_size, collisions, drawn_texts
from rai_utils.recording import bare

mpl.use("Agg")

NAMED = ("backprop", "RAI", "hand-over", "logistic regression", "chance")
LAYER_AXIS = "layer (1 = nearest the input)"


@pytest.fixture(autouse=True)
def clean_matplotlib(monkeypatch):
    """Fresh settings, and a failure if anything is shown or saved."""

    def refuse(*arguments, **settings):
        raise AssertionError("a plot function showed or saved a figure")

    monkeypatch.setattr(plt, "show", refuse)
    monkeypatch.setattr(Figure, "show", refuse)
    monkeypatch.setattr(Figure, "savefig", refuse)
    with mpl.rc_context():
        plotting.use_style()
        yield
    plt.close("all")


def figure_of(*args, **named):
    """A figure as `plotting.figure` makes it, without the stand-ins that write down."""
    figure, panels = plotting.figure(*args, **named)
    return bare(figure), np.vectorize(bare)(panels) if np.ndim(panels) else bare(panels)


@pytest.fixture
def axes():
    return figure_of()[1]


def mesh_of(axes: Axes) -> QuadMesh:
    (mesh,) = [artist for artist in axes.collections if isinstance(artist, QuadMesh)]
    return mesh


def line_called(axes: Axes, label: str):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return line


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def key(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def hatched(axes: Axes) -> list:
    return [patch for patch in (axes.patch, *axes.patches) if patch.get_hatch()]


def draw(axes: Axes) -> None:
    axes.figure.canvas.draw()


# --- one small valid call of every function ---------------------------------------------------


X, Y = np.linspace(-3, 3, 7), np.linspace(-2, 2, 5)
GRADIENTS = 10.0 ** -np.arange(12, dtype=float).reshape(4, 3)
GRADIENTS[0, :2] = 0
LINES = {"chance": 0.5, "logistic regression": 0.87}
CALLS = {
    "landscape": {
        "grid_x": X,
        "grid_y": Y,
        "probability": 1 / (1 + np.exp(-X[None, :] - 0.3 * Y[:, None])),
        "points": np.array([[0.0, 1.0], [1.0, 0.5], [-1.0, 0.2]]),
        "labels": np.array([0, 1, 0]),
    },
    "layer_step_map": {
        "steps": np.array([0, 1, 10, 100]),
        "layers": np.array([1, 2, 3]),
        "values": GRADIENTS,
        "label": "gradient norm",
        "floor": 1e-11,
        "ceiling": 1.0,
        "scale": "symlog",
    },
    "layer_profile": {
        "layers": np.array([1, 2, 3]),
        "values_by_name": {"backprop": np.array([0, 1e-6, 1e-2]), "RAI": np.array([0.1, 0.2, 0.3])},
        "label": "gradient norm",
    },
    "training_curves": {
        "steps": np.array([1, 10, 100]),
        "curves_by_name": {
            "RAI": np.array([[0.5, 0.4, 0.6], [0.7, 0.9, 0.6], [0.8, 0.9, 1.0]]),
            "backprop": np.full((3, 2), 0.5),
        },
        "label": "accuracy",
        "references": LINES,
    },
    "interval_bars": {
        "names": ["backprop", "RAI", "mine"],
        "means": np.array([0.5, 0.87, 0.9]),
        "lows": np.array([0.45, 0.85, 0.9]),
        "highs": np.array([0.55, 0.9, 0.95]),
        "label": "accuracy",
        "references": LINES,
        "points": [np.array([0.48, 0.52]), np.array([0.86, 0.88, 0.9]), np.array([])],
    },
    "share_heat_map": {
        "rows": ["1e-3", "1e-4"],
        "columns": [20, 50, 200],
        "values": np.array([[0.0, 0.5, 1.0], [0.25, 0.75, 0.9]]),
        "row_label": "learning rate",
        "column_label": "RAI steps",
        "label": "share",
    },
    "relation": {
        "x": np.array([4, 16, 64]),
        "curves_by_name": {"softmax": np.array([0.2, 0.06, np.nan]), "ReLU": np.ones(3)},
        "x_label": "width",
        "label": "gain",
        "intervals_by_name": {"ReLU": np.array([[0.9, 0.9, 0.9], [1.1, 1.1, 1.1]])},
        "references": {"chance": 0.5},
    },
    "signed_heat_map": {
        "values": np.array([[0.25, -0.25, 0.0], [-0.25, 0.25, 0.0]]),
        "limit": 0.25,
    },
}


def call(name: str, axes: Axes, **changes) -> Axes:
    return getattr(plotting, name)(axes, **{**CALLS[name], **changes})


def with_nan(values: np.ndarray, *place: int) -> np.ndarray:
    values = values.copy()
    values[place] = np.nan
    return values


@pytest.mark.parametrize("name", CALLS)
def test_draws_on_the_axes_given_legibly_and_the_same_each_time(name):
    pictures, before = [], repr(CALLS[name])
    for _ in range(2):
        figure, axes = figure_of()
        figures = plt.get_fignums()
        assert call(name, axes) is axes
        assert axes.has_data() or axes.patches
        assert plt.get_fignums() == figures
        check_size(figure)
        figure.canvas.draw()
        pictures.append(np.array(figure.canvas.buffer_rgba()))
    np.testing.assert_array_equal(*pictures)
    assert repr(CALLS[name]) == before  # the input is as it was


@pytest.mark.parametrize("name", CALLS)
def test_refuses_an_array_of_axes(name):
    with pytest.raises(TypeError, match="axes must be a matplotlib Axes, got ndarray"):
        call(name, figure_of(columns=2)[1])


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("landscape", ("$x_1$", "$x_2$")),
        ("layer_step_map", ("step", LAYER_AXIS)),
        ("layer_profile", (LAYER_AXIS, "gradient norm")),
        ("training_curves", ("step", "accuracy")),
        ("interval_bars", ("accuracy", "")),
        ("share_heat_map", ("RAI steps", "learning rate")),
        ("relation", ("width", "gain")),
        ("signed_heat_map", ("input $j$", "output $i$")),
    ],
)
def test_axes_are_labelled(name, labels, axes):
    call(name, axes)
    assert (axes.get_xlabel(), axes.get_ylabel()) == labels


BAD = [
    ("landscape", {"probability": np.full((7, 5), 0.5)}, r"shape \(5, 7\), got \(7, 5\)"),
    ("landscape", {"probability": np.full((5, 7), 1.5)}, "probability must be at most 1, got 1.5"),
    ("landscape", {"probability": np.full((5, 7), -1)}, "probability must be at least 0, got -1"),
    ("landscape", {"points": np.zeros((3, 3))}, r"points must have .*\(any, 2\), got \(3, 3\)"),
    ("landscape", {"points": np.full((3, 2), np.inf)}, "points must be finite"),
    ("landscape", {"labels": np.zeros(2)}, r"labels must have the shape \(3\), got \(2,\)"),
    ("landscape", {"labels": np.array([0, 1, 2])}, r"must be 0 or 1, got \[0.0, 1.0, 2.0\]"),
    ("landscape", {"grid_x": np.zeros(7)}, "grid_x must increase, got 0 before 0"),
    ("landscape", {"grid_x": [1.0]}, "grid_x must hold 2 values or more, got 1"),
    ("landscape", {"grid_x": "abc"}, "grid_x must be numbers"),
    ("layer_step_map", {"values": np.ones((3, 4))}, r"shape \(4, 3\), got \(3, 4\)"),
    ("layer_step_map", {"values": -np.ones((4, 3))}, "values must be at least 0, got -1"),
    ("layer_step_map", {"values": np.full((4, 3), np.nan)}, r"values must be finite, got \[nan"),
    ("layer_step_map", {"steps": [0, 2, 1, 3]}, "steps must increase, got 2 before 1"),
    ("layer_step_map", {"steps": [-1, 2, 4, 5]}, "0 or more on a symlog axis, got -1"),
    ("layer_step_map", {"scale": "log"}, "above 0 on a log axis, got 0"),
    ("layer_step_map", {"scale": "cubic"}, "'symlog', got 'cubic'"),
    ("layer_step_map", {"floor": 0.0}, r"above 0 and increase, got \(0.0, 1.0\)"),
    ("layer_step_map", {"ceiling": -1.0}, r"above 0 and increase, got \(1e-11, -1.0\)"),
    ("layer_step_map", {"floor": 2.0, "ceiling": 1.0}, r"increase, got \(2.0, 1.0\)"),
    ("layer_step_map", {"front": ([1, 2], [1])}, "front must be numbers"),
    ("layer_profile", {"values_by_name": {}}, "values_by_name must hold .* got none"),
    ("layer_profile", {"values_by_name": {"RAI": [1, 2]}}, r"\['RAI'\] .*shape \(3\), got \(2,\)"),
    ("layer_profile", {"values_by_name": {"RAI": [1, 2, -3]}}, "at least 0, got -3"),
    ("layer_profile", {"intervals_by_name": {"RAI": -np.ones((2, 3))}}, "at least 0, got -1"),
    ("layer_profile", {"intervals_by_name": {"x": np.ones((2, 3))}}, r"got \['x'\]"),
    ("training_curves", {"curves_by_name": {}}, "curves_by_name must hold .* got none"),
    ("training_curves", {"curves_by_name": {"RAI": np.ones(3)}}, r"\(3, any\), got \(3,\)"),
    ("training_curves", {"curves_by_name": {"RAI": np.ones((3, 0))}}, "must hold one line or more"),
    ("training_curves", {"references": {"chance": np.nan}}, r"references\['chance'\] must be fin"),
    ("training_curves", {"steps": [-1, 1, 2]}, "0 or more on a symlog axis, got -1"),
    ("interval_bars", {"means": [0.5, 0.87]}, r"means must have the shape \(3\), got \(2,\)"),
    ("interval_bars", {"lows": [0.6, 0.8, 0.9]}, "lows must not be above means, got .0.6"),
    ("interval_bars", {"highs": [0.5, 0.8, 0.9]}, "means must not be above highs, got .0.5"),
    ("interval_bars", {"points": [[1.0]]}, "points must be 3 arrays, one a row, got 1"),
    ("interval_bars", {"points": [[1.0], [np.nan], []]}, r"points\[1\] must be finite"),
    ("share_heat_map", {"values": np.ones((3, 2))}, r"shape \(2, 3\), got \(3, 2\)"),
    ("share_heat_map", {"rows": [], "values": np.ones((0, 3))}, "one cell or more"),
    ("share_heat_map", {"limits": (1, 0)}, r"low < high, got \(1, 0\)"),
    ("relation", {"curves_by_name": {}}, "curves_by_name must hold .* got none"),
    ("relation", {"curves_by_name": {"a": [1, 2]}}, r"\['a'\] .*shape \(3\), got \(2,\)"),
    ("relation", {"x": [4, 4, 5]}, "x must increase, got 4 before 4"),
    ("relation", {"x": []}, "x must hold 1 values or more, got 0"),
    ("relation", {"intervals_by_name": {"x": np.ones((2, 3))}}, r"got \['x'\]"),
    ("relation", {"intervals_by_name": {"ReLU": np.ones((3, 2))}}, r"\(2, 3\), got \(3, 2\)"),
    ("signed_heat_map", {"values": [1, 2]}, r"values must have .*got \(2,\)"),
    ("signed_heat_map", {"values": [[np.nan]]}, "values must be finite"),
    ("signed_heat_map", {"limit": 0}, "limit must be positive, got 0"),
]


@pytest.mark.parametrize(("name", "changes", "message"), BAD)
def test_refuses_wrong_input_before_drawing(name, changes, message, axes):
    with pytest.raises(ValueError, match=message):
        call(name, axes, **changes)
    assert not axes.has_data()
    assert not axes.patches


def test_relation_puts_its_values_where_they_belong(axes):
    call("relation", axes, log_x=True, log_y=True)
    np.testing.assert_array_equal(line_called(axes, "softmax").get_ydata(), [0.2, 0.06, np.nan])
    assert line_called(axes, "chance").get_ydata() == [0.5, 0.5]
    assert [(text.get_text(), text.xy[1]) for text in axes.texts] == [("chance", 0.5)]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4", "16", "64"]
    assert key(axes) == ["softmax", "ReLU"]
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    assert (corners[:, 0].min(), corners[:, 0].max()) == (4, 64)
    assert (corners[:, 1].min(), corners[:, 1].max()) == (0.9, 1.1)


def test_the_key_takes_as_many_columns_as_fit(axes):
    curves = {f"initialisation number {index}": np.ones(3) for index in range(4)}
    plotting.relation(axes, [1, 2, 3], curves, x_label="x", label="y")
    assert collisions(axes.figure) == []


@pytest.mark.parametrize(("markers", "shown"), [(True, 40), (False, 8)])
def test_relation_marks_every_position_or_some(markers, shown, axes):
    x = np.arange(1, 41)
    plotting.relation(axes, x, {"a": x, "b": x}, x_label="x", label="y", markers=markers)
    marked = [
        set(x[offset::every]) for offset, every in (line.get_markevery() for line in axes.lines)
    ]
    assert [len(positions) for positions in marked] == [shown, shown]
    assert markers or not marked[0] & marked[1]  # or the second line's would hide the first's


def test_signed_heat_map_frames_the_extremes_and_writes_the_signs(axes):
    call("signed_heat_map", axes)
    assert texts(axes) == ["+.25", "−.25", "0", "−.25", "+.25", "0"]
    frames = [(patch.get_x(), patch.get_y(), patch.get_linestyle()) for patch in axes.patches]
    assert [(int(x), int(y)) for x, y, _ in frames] == [(0, 0), (1, 1), (1, 0), (0, 1)]
    assert frames[0][2] == frames[1][2] == "-" != frames[2][2] == frames[3][2]
    assert axes.get_ylim() == (2, 0)  # row 1 stands on top
    assert mesh_of(axes).get_clim() == (-0.25, 0.25)


# --- style ------------------------------------------------------------------------------------


def test_the_style_undoes_what_a_reader_set():
    mpl.rcdefaults()
    plotting.use_style()
    plain = dict(mpl.rcParams)
    mpl.rcParams.update({"axes.grid": True, "font.weight": "bold", "savefig.bbox": "tight"})
    plotting.use_style()
    assert dict(mpl.rcParams) == plain


def test_style_is_legible_at_half_a_page_and_needs_no_latex():
    # What is drawn and what is judged are of one width, though neither imports the other.
    assert plt.rcParams["figure.figsize"][0] == plotting.HALF_PAGE == HALF_PAGE
    for name, size in {"font.size": 8, "legend.fontsize": 7, "xtick.labelsize": 7}.items():
        assert plt.rcParams[name] >= size
    assert not plt.rcParams["text.usetex"] and not plt.rcParams["axes.spines.top"]


@pytest.mark.parametrize("columns", [1, 2])
def test_a_figure_is_half_a_page_wide_whatever_it_holds(columns):
    figure, panels = figure_of(columns, 3, panel_height=1.5)
    np.testing.assert_allclose(figure.get_size_inches(), (HALF_PAGE, 4.5))
    assert np.shape(panels) == ((3, 2) if columns == 2 else (3,))
    assert figure.get_layout_engine() is not None
    assert isinstance(figure_of()[1], Axes)


def test_shared_scales_are_those_of_a_column_and_of_a_row():
    _, panels = figure_of(2, 2, share_x=True, share_y=True)
    panels[0, 0].set(xlim=(0, 7), ylim=(0, 9))
    assert panels[1, 0].get_xlim() == (0, 7) and panels[0, 1].get_xlim() == (0, 1)
    assert panels[0, 1].get_ylim() == (0, 9) and panels[1, 0].get_ylim() == (0, 1)


@pytest.mark.parametrize(
    "settings", [{"columns": 0}, {"columns": 3}, {"rows": 0}, {"panel_height": float("nan")}]
)
def test_figure_refuses_empty_and_unreadable_sizes(settings):
    with pytest.raises(ValueError, match="must be"):
        figure_of(**settings)


def test_outer_labels_leaves_them_under_and_beside_the_grid():
    _, panels = figure_of(2, 2, share_x=True, share_y=True)
    for axes in panels.flat:
        axes.set(xlabel="x", ylabel="y")
    plotting.outer_labels(panels)
    assert [axes.get_xlabel() for axes in panels.flat] == ["", "", "x", "x"]
    assert [axes.get_ylabel() for axes in panels.flat] == ["y", "", "y", ""]


def test_shared_key_names_each_line_once_and_takes_the_place_of_the_panels_keys():
    figure, panels = figure_of(rows=2)
    for axes, names in zip(panels, (("RAI", "other"), ("RAI", "chance")), strict=True):
        curves = {name: np.ones((3, 2)) for name in names}
        plotting.training_curves(axes, [1, 2, 3], curves, label="loss")
    shared = plotting.shared_key(figure, panels)
    assert [text.get_text() for text in shared.get_texts()] == ["RAI", "other", "chance"]
    assert [handle.get_color() for handle in shared.legend_handles] == [
        line_called(axes, name).get_color()
        for axes, name in ((panels[0], "RAI"), (panels[0], "other"), (panels[1], "chance"))
    ]
    assert key(panels[0]) == key(panels[1]) == []
    assert collisions(figure) == []


def test_shared_key_needs_a_key():
    figure, panels = figure_of(2)
    with pytest.raises(ValueError, match="panels must have one key or more, got none"):
        plotting.shared_key(figure, panels)


def test_shared_key_refuses_two_looks_for_one_name():
    figure, panels = figure_of(rows=2)
    every = {name: np.ones(3) for name in ("training, at the end", "test, at the end")}
    fewer = {"test, at the end": np.ones(3)}
    for axes, curves in zip(panels, (every, fewer), strict=True):
        plotting.relation(axes, [1, 2, 3], curves, x_label="units", label="loss")
    with pytest.raises(ValueError, match="all panels, got two looks for 'test, at the end'"):
        plotting.shared_key(figure, panels)
    figure, panels = figure_of(rows=2)
    for axes, colour in zip(panels, ("red", "blue"), strict=True):
        axes.fill_between([0, 1], 0, 1, color=colour, label="saturated")
        axes.legend()
    with pytest.raises(ValueError, match="two looks for 'saturated'"):
        plotting.shared_key(figure, panels)


def without_colour(style):
    return style["linestyle"], style["marker"]


def contrast_with_white(colour) -> float:
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return 1.05 / (float(linear @ (0.2126, 0.7152, 0.0722)) + 0.05)


# What the figures show side by side, each under the name that they give it.
TOGETHER = [
    NAMED,
    ("backprop", "fresh targets", "renewed table", "table", "full batch", "shared targets"),
    [*(a.label for a in compared_activations().values()), "PReLU"],
    ("ReLU", "tanh", "sigmoid", "softmax"),
    ("sigmoid", "sigmoid − ½", "tanh", "linear"),
    ("ReLU", "softmax", "k · softmax", "softmax, T = 1/k", "softmax, layer norm", "sigmoid(4z/k)"),
]


@pytest.mark.parametrize("names", TOGETHER, ids=", ".join)
def test_what_stands_side_by_side_differs_in_every_way(names):
    styles = plotting.method_styles(names)
    assert list(styles) == list(names)
    for feature in ("color", "marker"):
        assert len({styles[name][feature] for name in names}) == len(names)
    # A line may have no markers. There are eight dashes that can be told apart.
    assert len({styles[name]["linestyle"] for name in names}) >= min(len(names), 7)


def test_every_activation_has_a_look_of_its_own_under_its_key_and_its_label():
    for name, activation in ACTIVATIONS.items():
        style = plotting.method_style(name)
        assert style == plotting.method_style(name, 7), "must be in the table"
        assert style == plotting.method_style(activation.label)
    names = [*ACTIVATIONS, *NAMED, "PReLU", "full batch", "table"]
    assert len({without_colour(plotting.method_style(name)) for name in names}) == len(names)


def test_a_line_stands_out_from_white_in_greyscale_too():
    names = [*ACTIVATIONS, *NAMED, "sigmoid, × 4", "ReLU, placed", "tanh, × 4"]
    styles = [plotting.method_style(name, position) for name in names for position in range(3)]
    styles += [plotting.method_style("other", position) for position in range(200)]
    assert min(contrast_with_white(style["color"]) for style in styles) > 2.7


def test_a_new_name_looks_the_same_whatever_stands_beside_it_and_unlike_all_that_is_known():
    alone = plotting.method_style("mish")
    # Written out, because it must be the same in every process.
    assert alone == {"color": "#12711c", "linestyle": "-", "marker": "s"}
    assert plotting.method_styles(["ReLU", "Mish", "tanh", "sigmoid"])["Mish"] == alone
    known = {without_colour(plotting.method_style(name)) for name in (*ACTIVATIONS, *NAMED)}
    new = {without_colour(plotting.method_style("other", position)) for position in range(300)}
    assert not known & new


def test_lines_of_one_figure_differ_without_colour():
    names = [f"layer {layer}" for layer in range(25)]
    styles = plotting.method_styles(names)
    assert len({without_colour(style) for style in styles.values()}) == len(names)
    few = plotting.method_styles(names[:5])
    for feature in ("color", "linestyle", "marker"):
        assert len({style[feature] for style in few.values()}) == 5


def test_variants_of_a_method_share_its_hue_and_nothing_else():
    names = ["sigmoid, × 4", "sigmoid, × 16", "tanh, × 4", "sigmoid", "sigmoid, × 64"]
    styles = plotting.method_styles(names)
    assert styles["sigmoid"] == plotting.method_style("sigmoid")
    assert styles["tanh, × 4"] == plotting.method_style("tanh")  # the only one of its hue
    variants = [styles[name] for name in names if name.startswith("sigmoid")]
    hues = [rgb_to_hsv(to_rgb(style["color"]))[0] for style in variants]
    np.testing.assert_allclose(hues, hues[0], atol=0.02)
    for feature in ("linestyle", "marker"):
        assert len({style[feature] for style in variants}) == len(variants)


def test_a_style_is_the_callers_own():
    plotting.method_style("RAI")["color"] = "red"
    assert plotting.method_style("RAI")["color"] != "red"


@pytest.mark.parametrize("name", ["layer_profile", "training_curves"])
def test_lines_have_the_look_of_their_method(name, axes):
    line, style = line_called(call(name, axes), "RAI"), plotting.method_style("RAI")
    assert (line.get_color(), line.get_marker()) == (style["color"], style["marker"])


# --- landscape --------------------------------------------------------------------------------


def test_landscape_shows_the_map_the_contour_and_the_points(axes):
    given = CALLS["landscape"]
    call("landscape", axes, title="RAI")
    mesh = mesh_of(axes)
    np.testing.assert_array_equal(mesh.get_array(), given["probability"])
    # Cell centres are the grid positions: columns along x, rows along y.
    corners = mesh.get_coordinates()
    centres = (corners[:-1, :-1] + corners[1:, 1:]) / 2
    np.testing.assert_allclose(centres[0, :, 0], given["grid_x"])
    np.testing.assert_allclose(centres[:, 0, 1], given["grid_y"])
    assert (mesh.get_clim(), axes.get_xlim(), axes.get_ylim()) == ((0, 1), (-3, 3), (-2, 2))
    (contour,) = [artist for artist in axes.collections if isinstance(artist, ContourSet)]
    np.testing.assert_array_equal(contour.levels, [0.5])
    assert len(contour.get_paths()[0].vertices) > 0
    assert axes.get_title() == "RAI"


def test_landscape_marks_the_classes_by_shape(axes):
    given = CALLS["landscape"]
    call("landscape", axes)
    clouds = {artist.get_label(): artist for artist in axes.collections}
    for value in (0, 1):
        np.testing.assert_array_equal(
            clouds[f"class {value}"].get_offsets(), given["points"][given["labels"] == value]
        )
    shapes = [clouds[f"class {value}"].get_paths()[0].vertices.shape for value in (0, 1)]
    assert shapes[0] != shapes[1]
    assert key(axes) == ["class 0", "class 1"]
    _, bare = figure_of()
    assert key(call("landscape", bare, key=False)) == []


@pytest.mark.parametrize("flat", [0.5, 0.2])
def test_flat_landscape_has_no_contour(flat, axes):
    call("landscape", axes, probability=np.full((5, 7), flat))
    draw(axes)
    assert not [artist for artist in axes.collections if isinstance(artist, ContourSet)]


def test_landscape_hatches_what_is_not_a_number(axes):
    values = with_nan(CALLS["landscape"]["probability"], 1, 2)
    call("landscape", axes, probability=values)
    np.testing.assert_array_equal(np.ma.getmaskarray(mesh_of(axes).get_array()), np.isnan(values))
    assert hatched(axes) == [axes.patch] and "NaN" in key(axes)


def test_one_colour_bar_for_compared_landscapes():
    figure, panels = figure_of(columns=2)
    for panel in panels:
        call("landscape", panel)
    bar = plotting.landscape_colour_bar(figure, panels)
    assert len(figure.axes) == 3
    assert bar.ax.get_ylabel() == "P(class 1)"
    assert (bar.vmin, bar.vmax) == (0, 1)
    assert 0.5 in bar.get_ticks()


def test_colour_bar_needs_a_landscape_in_each_panel():
    figure, panels = figure_of(columns=2)
    call("landscape", panels[0])
    with pytest.raises(ValueError, match="got 1 in 2"):
        plotting.landscape_colour_bar(figure, panels)
    assert len(figure.axes) == 2


# --- layer × step map -------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["linear", "symlog"])
def test_map_puts_each_value_in_its_cell(scale, axes):
    given = CALLS["layer_step_map"]
    call("layer_step_map", axes, scale=scale)
    mesh = mesh_of(axes)
    shown, wanted = mesh.get_array(), given["values"].T
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), wanted == 0)
    np.testing.assert_array_equal(shown.compressed(), wanted[wanted > 0])
    assert isinstance(mesh.norm, LogNorm)
    corners = mesh.get_coordinates()
    times, depths = corners[0, :, 0], corners[:, 0, 1]
    np.testing.assert_allclose(depths, [0.5, 1.5, 2.5, 3.5])
    assert np.all((times[:-1] < given["steps"]) & (given["steps"] < times[1:]))
    assert axes.get_xscale() == scale
    assert axes.figure.axes[1].get_ylabel() == "gradient norm"


def test_map_edges_lie_halfway_on_a_logarithmic_axis(axes):
    steps = np.array([1.0, 10.0, 1000.0])
    call("layer_step_map", axes, steps=steps, values=np.ones((3, 3)), scale="log")
    times = mesh_of(axes).get_coordinates()[0, :, 0]
    np.testing.assert_allclose(np.log10(times), [-0.5, 0.5, 2.0, 4.0])


def test_map_gives_exact_zeros_a_class_of_their_own(axes):
    call("layer_step_map", axes)
    assert key(axes) == ["exactly 0"]
    assert hatched(axes) == [axes.patch]  # which stands behind the map


def test_map_without_zeros_has_no_such_class(axes):
    call("layer_step_map", axes, values=np.ones((4, 3)))
    assert not hatched(axes)
    assert axes.get_legend() is None
    draw(axes)


def test_map_of_zeros_only_is_all_hatched(axes):
    call("layer_step_map", axes, values=np.zeros((4, 3)))
    draw(axes)
    assert np.ma.getmaskarray(mesh_of(axes).get_array()).all()
    assert mesh_of(axes).colorbar.extend == "neither"


def test_map_takes_its_colour_limits(axes):
    call("layer_step_map", axes, floor=1e-5, ceiling=1e-3)
    assert mesh_of(axes).get_clim() == (1e-5, 1e-3)
    # A value below the floor is coloured, not counted as 0.
    assert np.ma.getmaskarray(mesh_of(axes).get_array()).sum() == 2
    limits = {"both": {"floor": 1e-5, "ceiling": 1e-3}, "min": {"floor": 1e-5}}
    limits |= {"max": {"ceiling": 1e-3}, "neither": {}}  # the call's, which hold every value
    for extend, ends in limits.items():
        bar = mesh_of(call("layer_step_map", figure_of()[1], **ends)).colorbar
        assert bar.extend == extend


@pytest.mark.parametrize("limits", [(10.0, 100.0), (1e-30, 1e-20)])
def test_map_with_every_value_beyond_a_limit_still_draws(limits, axes):
    floor, ceiling = limits
    call("layer_step_map", axes, floor=floor, ceiling=ceiling)
    draw(axes)
    assert mesh_of(axes).get_clim() == limits


def test_map_marks_the_front(axes):
    front = (np.array([1, 2, 3]), np.array([3, 2, 1]))
    call("layer_step_map", axes, front=front)
    np.testing.assert_array_equal(line_called(axes, "one layer a step").get_xydata().T, front)
    assert key(axes) == ["exactly 0", "one layer a step"]


def test_map_of_a_single_step(axes):
    call("layer_step_map", axes, steps=[5], values=np.ones((1, 3)))
    draw(axes)
    times = mesh_of(axes).get_coordinates()[0, :, 0]
    assert times[0] < 5 < times[1]


# --- layer profile ----------------------------------------------------------------------------


def test_profile_draws_every_method(axes):
    given = CALLS["layer_profile"]
    call("layer_profile", axes)
    np.testing.assert_array_equal(
        line_called(axes, "RAI").get_xydata().T,
        [given["layers"], given["values_by_name"]["RAI"]],
    )
    assert axes.get_yscale() == "log"
    assert key(axes) == ["backprop", "RAI", "exactly 0"]


def test_profile_stands_zeros_below_every_positive_value(axes):
    call("layer_profile", axes)
    draw(axes)
    line, zeros = line_called(axes, "backprop"), line_called(axes, "backprop, exactly 0")
    np.testing.assert_array_equal(np.isnan(line.get_ydata()), [True, False, False])
    np.testing.assert_array_equal(zeros.get_xdata(), [1])
    assert axes.get_ylim()[0] < zeros.get_ydata()[0] < 1e-6
    assert "0" in [text.get_text() for text in axes.get_yticklabels()]
    band = hatched(axes)[0].get_extents().transformed(axes.transData.inverted())
    assert zeros.get_ydata()[0] < band.y1 <= 1e-6 * (1 + 1e-9)


def test_profile_keeps_the_zeros_of_two_methods_apart(axes):
    values = {"backprop": [0, 0, 1], "RAI": [0, 1, 1]}
    call("layer_profile", axes, values_by_name=values)
    heights = {line_called(axes, f"{name}, exactly 0").get_ydata()[0] for name in values}
    assert len(heights) == 2


@pytest.mark.parametrize("decades", [1, 3, 9, 30])
def test_labels_of_a_profile_with_zeros_do_not_overlap(decades):
    figure, axes = figure_of(panel_height=2.0)
    values = np.array([0.0, 3 * 10.0**-decades, 1.0])
    plotting.layer_profile(axes, [1, 2, 3], {"RAI": values}, label="gradient norm")
    assert collisions(figure) == []
    shown = [text.get_text() for text in drawn_texts(figure)]
    assert "0" in shown and any("10^" in text for text in shown)


def test_profile_of_zeros_only(axes):
    call("layer_profile", axes, values_by_name={"backprop": np.zeros(3)})
    draw(axes)
    zeros = line_called(axes, "backprop, exactly 0").get_ydata()
    assert np.all((axes.get_ylim()[0] < zeros) & (zeros < axes.get_ylim()[1]))


def test_linear_profile_draws_zeros_and_negative_values_where_they_are(axes):
    call("layer_profile", axes, values_by_name={"RAI": [0, -1, 2]}, log=False)
    np.testing.assert_array_equal(line_called(axes, "RAI").get_ydata(), [0, -1, 2])
    assert axes.get_yscale() == "linear"
    assert not hatched(axes)


def test_profile_draws_intervals(axes):
    ends = np.array([[0.05, 0.1, 0.2], [0.2, 0.3, 0.4]])
    call("layer_profile", axes, intervals_by_name={"RAI": ends})
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    for layer in range(3):
        heights = corners[corners[:, 0] == layer + 1, 1]
        assert heights.min() == pytest.approx(ends[0, layer])
        assert heights.max() == pytest.approx(ends[1, layer])


# --- training curves --------------------------------------------------------------------------


def test_curves_show_every_seed_thin_and_the_median_thick(axes):
    given = CALLS["training_curves"]
    call("training_curves", axes)
    curves = given["curves_by_name"]["RAI"]
    median = line_called(axes, "RAI")
    np.testing.assert_array_equal(median.get_ydata(), [0.5, 0.7, 0.9])
    np.testing.assert_array_equal(median.get_xdata(), given["steps"])
    thin = [line for line in axes.lines if line.get_linewidth() < 1]
    assert len(thin) == 5
    for seed in range(3):
        np.testing.assert_array_equal(thin[seed].get_ydata(), curves[:, seed])
    assert median.get_linewidth() > 2 * thin[0].get_linewidth()
    assert {line.get_linestyle() for line in thin} == {"-"}
    assert key(axes) == ["RAI", "backprop"]


def test_median_has_a_gap_where_a_seed_is_missing(axes):
    curves = with_nan(CALLS["training_curves"]["curves_by_name"]["RAI"], 1, 0)
    call("training_curves", axes, curves_by_name={"RAI": curves})
    draw(axes)
    np.testing.assert_array_equal(line_called(axes, "RAI").get_ydata(), [0.5, np.nan, 0.9])


def test_curves_draw_and_name_the_references(axes):
    call("training_curves", axes)
    for name, value in LINES.items():
        assert set(line_called(axes, name).get_ydata()) == {value}
        (text,) = [text for text in axes.texts if text.get_text() == name]
        assert text.xy[1] == value


@pytest.mark.parametrize(
    ("steps", "log_steps", "scale"),
    [([1, 10, 100], True, "log"), ([0, 10, 100], True, "symlog"), ([0, 1, 2], False, "linear")],
)
def test_step_axis_shows_step_zero_too(steps, log_steps, scale, axes):
    call("training_curves", axes, steps=steps, log_steps=log_steps)
    assert axes.get_xscale() == scale
    assert axes.get_xlim() == (steps[0], steps[-1])


# --- interval bars ----------------------------------------------------------------------------


def test_bars_have_few_ticks_on_a_linear_axis_and_fit_a_logarithmic_one(axes):
    axes.set_xscale("log")
    call("interval_bars", axes)
    _, axes = plt.subplots(figsize=(2 * HALF_PAGE, 2))
    call("interval_bars", axes)
    axes.figure.draw_without_rendering()
    low, high = axes.get_xlim()
    assert sum(low <= tick <= high for tick in axes.get_xticks()) <= 4


def test_bars_show_means_intervals_and_seeds(axes):
    given = CALLS["interval_bars"]
    call("interval_bars", axes)
    assert [text.get_text() for text in axes.get_yticklabels()] == given["names"]
    assert len(axes.containers) == 3
    for row, (centre, _, (bar,)) in enumerate(axes.containers):
        assert tuple(centre.get_xydata()[0]) == (given["means"][row], row)
        np.testing.assert_allclose(
            bar.get_segments()[0], [[given["lows"][row], row], [given["highs"][row], row]]
        )
    seeds = [line.get_xdata() for line in axes.lines if line.get_markersize() == 2.6]
    for drawn, wanted in zip(seeds, given["points"], strict=True):
        np.testing.assert_array_equal(drawn, wanted)
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first name stands on top


def test_bars_draw_and_name_the_references(axes):
    call("interval_bars", axes)
    heights = []
    for name, value in LINES.items():
        assert set(line_called(axes, name).get_xdata()) == {value}
        (text,) = [text for text in axes.texts if text.get_text() == name]
        assert text.xy[0] == value
        heights.append(text.xy[1])
    assert len(set(heights)) == 2
    assert axes.get_ylim()[1] < min(heights) < max(heights) < -0.4  # in the panel, above row 1


def looks(axes):
    return [(bar[0].get_color(), bar[0].get_marker()) for bar in axes.containers]


def test_rows_have_the_look_of_their_method_and_others_have_one_look(axes):
    call("interval_bars", axes, names=["RAI, 3 layers", "backprop", "mine"])
    styles = [plotting.method_style(name) for name in ("RAI", "backprop", "mine")]
    assert looks(axes) == [(style["color"], style["marker"]) for style in styles]
    _, other = figure_of()
    call("interval_bars", other, names=["Iris", "Wine", "Digits"])
    assert len(set(looks(other))) == 1


def test_a_reference_that_is_a_method_has_its_look_and_others_are_grey(axes):
    references = {"chance": 0.4, "ReLU": 0.5, "margin": 0.6, "equal": 0.7}
    call("interval_bars", axes, references=references)
    lines = {name: line_called(axes, name) for name in references}
    assert lines["ReLU"].get_color() == plotting.method_style("ReLU")["color"]
    for name in ("margin", "equal"):
        assert len(set(to_rgb(lines[name].get_color()))) == 1


# --- heat map of shares -----------------------------------------------------------------------


def test_heat_map_writes_each_number_into_its_cell(axes):
    given = CALLS["share_heat_map"]
    call("share_heat_map", axes, format="{:.0%}")
    np.testing.assert_array_equal(mesh_of(axes).get_array(), given["values"])
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written[(2.5, 0.5)] == "100%"
    assert written[(0.5, 1.5)] == "25%"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["20", "50", "200"]
    rows = axes.get_yticklabels()
    assert [(text.get_text(), text.get_rotation()) for text in rows] == [("1e-3", 0), ("1e-4", 0)]
    assert axes.figure.axes[1].get_ylabel() == "share"
    assert mesh_of(axes).get_clim() == (0, 1)
    assert axes.get_ylim() == (2, 0)  # the first row stands on top


def test_heat_map_text_contrasts_with_its_cell(axes):
    values = np.linspace(0, 1, 40)[None, :]
    call("share_heat_map", axes, rows=["a"], columns=range(40), values=values)
    for text, value in zip(axes.texts, values[0], strict=True):
        contrast = contrast_with_white(mesh_of(axes).to_rgba(value)[:3])
        contrast = contrast if text.get_color() == "white" else 21 / contrast
        assert contrast > 4.5


def test_heat_map_of_signed_numbers_is_pale_at_zero_and_of_two_hues(axes):
    call("share_heat_map", axes, limits=(-0.6, 0.2))
    mesh = mesh_of(axes)
    assert mesh.get_clim() == (-0.6, 0.2)
    below, zero, above = (np.array(mesh.to_rgba(value)[:3]) for value in (-0.2, 0, 0.2))
    assert zero.min() > 0.93
    assert below[2] > below[0] and above[0] > above[2]  # bluish and orange
    assert mesh.to_rgba(-0.6)[2] < mesh.to_rgba(-0.2)[2]  # equal sizes look equally strong


def test_heat_map_hatches_missing_cells(axes):
    values = with_nan(CALLS["share_heat_map"]["values"], 1, 2)
    call("share_heat_map", axes, values=values)
    draw(axes)
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written[(2.5, 1.5)] == "–"
    assert len(written) == 6
    assert hatched(axes) == [axes.patch]


@pytest.mark.parametrize(
    ("limits", "labels"),
    [
        ((0.5, 6), ["0.5", "1", "2", "5"]),
        ((0.02, 2), ["0.03", "0.1", "0.3", "1"]),
        ((1e-4, 1), ["$\\mathdefault{10^{-4}}$", "$\\mathdefault{10^{0}}$"]),
    ],
)
def test_a_logarithmic_axis_has_labels_to_read_it_by_even_if_its_limits_come_later(
    limits, labels, axes
):
    plotting.layer_profile(axes, [1, 2, 3], {"a": [1, 1, 1]}, label="y")
    axes.set_ylim(limits)
    shown = [text.get_text() for text in drawn_texts(axes.figure)]
    assert set(labels) <= set(shown), shown


def test_an_error_scale_sets_equal_ratios_of_what_is_missing_equally_far_apart(axes):
    plotting.error_scale(axes.xaxis)
    axes.plot([0.5, 1.0, 1.2], [0, 1, 2])
    places = axes.transData.transform([[x, 0] for x in (0, 0.9, 0.99, 1.0, 1.2)])[:, 0]
    # −log10(missing + 0.001), by hand.
    expected = np.array([-0.000434, 0.995679, 1.958607, 3.0, 3.0])
    np.testing.assert_allclose(
        np.diff(places) / (places[3] - places[0]), np.diff(expected) / 3.000434, atol=1e-5
    )
    axes.figure.draw_without_rendering()
    shown = [text.get_text() for text in axes.get_xticklabels()]
    assert {"0.5", "0.9", "0.99", "1"} <= set(shown)


def test_panels_stand_side_by_side_on_a_page_and_keep_their_order():
    plotting.use_style(plotting.PAGE)
    for (columns, rows), grid in {
        (1, 2): (1, 2),
        (1, 3): (1, 3),
        (1, 4): (2, 2),
        (2, 2): (1, 4),
        (2, 3): (2, 3),
        (2, 1): (1, 2),
    }.items():
        figure, panels = figure_of(columns, rows, share_x=True, share_y=True)
        geometry = panels.flat[0].get_subplotspec().get_gridspec().get_geometry()
        assert geometry == grid
        assert panels.shape == ((rows, columns) if min(rows, columns) > 1 else (rows * columns,))
        places = [axes.get_subplotspec().num1 for axes in panels.flat]
        assert places == sorted(places)
        assert figure.get_figwidth() == plotting.PAGE
    assert figure_of()[0].get_figwidth() == 0.75 * plotting.PAGE
    drawing, _ = figure_of(rows=2, panel_height=1.0, height_ratios=(1, 2))
    assert drawing.get_size_inches() == pytest.approx([6.75, 2 * 6.75 / 3.25])


def test_panels_with_other_labels_keep_them_side_by_side():
    plotting.use_style(plotting.PAGE)
    _, panels = figure_of(rows=3, share_x=True)
    for axes, name in zip(panels, ("loss", "loss", "gain"), strict=True):
        axes.set(xlabel="step", ylabel=name)
    plotting.outer_labels(panels)
    assert [axes.get_xlabel() for axes in panels] == ["step"] * 3
    assert [axes.get_ylabel() for axes in panels] == ["loss", "", "gain"]

import io
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from rai_utils import plotting
from rai_utils.recording import as_json, bare, drawing, record_of, redraw


@pytest.fixture(autouse=True)
def style():
    plotting.use_style()
    yield
    plt.close("all")


def picture(figure) -> bytes:
    file = io.BytesIO()
    bare(figure).savefig(file, metadata={"Software": None})
    return file.getvalue()


def lines_and_bars():
    figure, panels = plotting.figure(columns=2, rows=2, panel_height=1.9)
    rng = np.random.default_rng(0)
    curves = {"RAI": np.array([0.3, np.nan, 0.9]), "backprop": [0.2, np.inf, torch.tensor(0.1)]}
    plotting.relation(panels[0, 0], range(1, 4), curves, x_label="x", label="y", log_x=True)
    panels[0, 0].axhline(0.5, linestyle=(0, (4, 2)), color="0.6")
    ends = {"lows": [1, 3], "highs": [3, 5], "points": [[2.0], [4.0]]}
    plotting.interval_bars(panels[0, 1], ["RAI", "tanh"], [2, 4], label="ms", **ends)
    plotting.label_powers(panels[0, 1].xaxis)
    grid = np.linspace(-1, 1, 5)
    for axes in panels[1]:
        plotting.landscape(axes, grid, grid, rng.random((5, 5)), rng.random((4, 2)), [0, 1, 1, 0])
    plotting.landscape_colour_bar(figure, panels[1]).set_label("share")
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    panels[0, 0].hist(rng.random((6, 2)), alpha=0.2)
    return figure


def one_curve():
    figure, axes = plotting.figure()
    steps, curves = torch.arange(3), {"RAI": torch.rand(3, 2).numpy().astype(np.float32)}
    plotting.training_curves(axes, steps, curves, label="loss", log_steps=False)
    (line,) = axes.plot([0, 2], [1 / 3, np.float64(1e-9)])
    line.set(linewidth=3)
    axes.annotate("low", (1, 1e-9), xytext=(3, 4), textcoords="offset points")
    return figure


def heat_map():
    figure, axes = plotting.figure(rows=2, height_ratios=(1, 2))
    values = np.array([[0.25, np.nan], [1.0, 0.5]])
    names = {"row_label": "width", "column_label": "depth", "label": "share"}
    plotting.share_heat_map(axes[0], (5, 10), [1e-3, np.int64(4)], values, **names)
    plotting.signed_heat_map(axes[1], torch.tensor([[0.1, -0.2]]), limit=0.3)
    return figure


@pytest.mark.parametrize("draw", [lines_and_bars, one_curve, heat_map])
def test_a_figure_drawn_from_its_record_is_the_same(draw):
    figure = draw()
    text = as_json(record_of(figure))
    assert "NaN" not in text
    assert "Infinity" not in text
    again = redraw(json.loads(text))
    assert picture(again) == picture(figure)
    assert as_json(record_of(again)) == text


def test_a_record_is_labelled_series_with_few_digits():
    figure, axes = plotting.figure()
    curves = {"RAI": np.array([1 / 3, 2 / 3]), "backprop": np.array([np.nan, 0.5])}
    plotting.relation(axes, [1, 2], curves, x_label="depth", label="accuracy")
    record = record_of(figure)
    assert record["figure"]["call"] == "rai_utils.plotting.figure"
    assert record["steps"] == [
        {
            "call": "rai_utils.plotting.relation",
            "named": {
                "axes": {"is": "panel 1"},
                "x": [1, 2],
                "curves_by_name": {
                    "RAI": [0.333333, 0.666667],
                    "backprop": {"array": [None, 0.5]},
                },
                "x_label": "depth",
                "label": "accuracy",
            },
        }
    ]
    # What was drawn is what is written, not what was computed.
    assert bare(axes).lines[0].get_ydata().tolist() == [0.333333, 0.666667]


def test_the_style_and_the_width_of_the_moment_count_and_the_colour_of_a_method_stays():
    figure = one_curve()
    plt.rcParams.update({"figure.figsize": (5.5, 2), "axes.grid": True, "font.size": 12})
    again = bare(redraw(record_of(figure)))
    assert again.get_size_inches()[0] == 5.5
    assert again.axes[0].xaxis.get_gridlines()[0].get_visible()
    assert again.axes[0].lines[0].get_color() == plotting.method_style("RAI")["color"]


def test_stand_ins_pass_for_what_they_stand_for():
    figure, axes = plotting.figure()
    assert isinstance(figure, Figure)
    assert isinstance(axes, Axes)
    assert repr(axes) == repr(bare(axes))
    assert axes.get_title() == ""
    (line,) = axes.plot([1, 2])
    assert list(axes.lines) == [line]
    assert plotting.relation(axes, [1], {"a": [1]}, x_label="", label="") is axes
    with pytest.raises(AttributeError, match="no attribute 'plott'"):
        axes.plott([1])


def test_what_only_asks_is_not_written_down():
    figure, axes = plotting.figure()
    axes.get_xlim(), axes.get_xscale(), figure.dpi
    assert record_of(figure)["steps"] == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda axes: axes.add_patch(Circle((0, 0), 1)), "add_patch was given a Circle"),
        (lambda axes: axes.set_title({1: "a"}), "a key 1 that is no text"),
        (lambda axes: axes.set(picker=print), "set was given a builtin_function"),
    ],
)
def test_a_figure_of_what_is_no_data_is_refused(given, words):
    figure, axes = plotting.figure()
    given(axes)
    with pytest.raises(ValueError, match=words):
        record_of(figure)


def test_a_figure_that_was_not_written_down_is_refused():
    with pytest.raises(TypeError, match=r"one of plotting\.figure, got Figure"):
        record_of(Figure())


def test_a_record_runs_no_code_but_the_project_s():
    figure, _ = plotting.figure()
    record = record_of(figure)
    record["steps"].append({"call": "os.getcwd"})
    with pytest.raises(ValueError, match=r"one of rai_utils, got os\.getcwd"):
        redraw(record)


def test_a_drawing_without_stand_ins_is_an_ordinary_function():
    @drawing
    def doubled(x: float) -> float:
        """Twice."""
        return 2 * x

    assert doubled(2) == 4
    assert doubled.__doc__ == "Twice."

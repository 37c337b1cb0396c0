"""The plots of network-basics."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch

from rai_utils import plotting
from rai_utils.experiments.network_basics.plots import (
    expression_graph,
    network_diagram,
    power_law,
)
from rai_utils.publishing.legibility import drawn_texts


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


GRAPH = {
    "positions": {"w": (0, 0), "g": (2, 1)},
    "labels": {"w": "$w$", "g": "$g = w^2$"},
    "values": {"w": 3, "g": 9},
}


def test_expression_graph_writes_values_and_gradients():
    _, axes = plotting.figure()
    assert expression_graph(axes, **GRAPH, edges=[("w", "g", 6)]) is axes
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["6", "3", "$w$", "9", "$g = w^2$"]
    assert sum(isinstance(patch, FancyArrowPatch) for patch in axes.patches) == 2


def test_expression_graph_refuses_what_it_cannot_place():
    _, axes = plotting.figure()
    with pytest.raises(ValueError, match="edges must join nodes"):
        expression_graph(axes, **GRAPH, edges=[("w", "h", 6)])
    with pytest.raises(ValueError, match="values must hold one for each node"):
        expression_graph(axes, **GRAPH | {"values": {"w": 3}}, edges=[])
    assert not axes.patches
    with pytest.raises(TypeError):
        expression_graph(None, **GRAPH, edges=[])


def test_power_law_is_straight_on_its_axes():
    _, axes = plotting.figure()
    sizes = np.array([4, 16, 64])
    power_law(axes, sizes, {"a": 1 / sizes[:, None]}, xlabel="units", ylabel="error")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["4", "16", "64"]
    with pytest.raises(ValueError, match="must be above 0, got"):
        power_law(axes, sizes, {"a": np.zeros((3, 1))}, xlabel="u", ylabel="e")


def test_a_power_law_has_labels_to_read_it_by_even_if_its_limits_come_later(axes):
    power_law(axes, [1, 2, 3], {"a": np.ones((3, 1))}, xlabel="x", ylabel="y")
    axes.set_ylim(0.5, 6)
    shown = [text.get_text() for text in drawn_texts(axes.figure)]
    assert {"0.5", "1", "2", "5"} <= set(shown), shown


def test_a_diagram_has_a_circle_a_unit_and_a_line_a_weight():
    _, axes = plotting.figure()
    assert network_diagram(axes, (2, 3, 1), ("$x_1$", "$x_2$"), ("y",), "small") is axes
    assert len(axes.patches) == 6 and len(axes.lines) == 2 * 3 + 3 * 1
    assert [text.get_text() for text in axes.texts] == ["$x_1$", "$x_2$", "y"]
    with pytest.raises(ValueError, match="outputs must be 1 labels, got 2"):
        network_diagram(axes, (2, 3, 1), ("a", "b"), ("y", "z"), "small")

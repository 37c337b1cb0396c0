"""The boundaries of several networks, and the circuits."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.contour import ContourSet

from rai_utils import plotting
from rai_utils.experiments.rai_demo import boundaries, circuit
from rai_utils.publishing.legibility import HALF_PAGE, check_size, collisions


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_boundaries_shows_the_vote_and_one_contour_a_network_that_has_one(axes):
    grid = np.linspace(-1, 1, 5)
    left, right, flat = (
        np.where(grid[None, :] < 0, 0.9, 0.1) * np.ones((5, 1)),
        np.where(grid[None, :] > 0, 0.9, 0.1) * np.ones((5, 1)),
        np.full((5, 5), 0.7),
    )
    points, labels = np.array([[0.0, 0.0], [0.5, 0.5]]), np.array([0, 1])
    maps = np.stack([left, right, flat])
    assert boundaries(axes, grid, grid, maps, points, labels, title="three") is axes
    np.testing.assert_allclose(axes.collections[0].get_array().reshape(5, 5), (maps > 0.5).mean(0))
    contours = [artist for artist in axes.collections if isinstance(artist, ContourSet)]
    assert len(contours) == 2
    assert all(contour.levels.tolist() == [0.5] for contour in contours)
    assert axes.get_title() == "three"


def test_boundaries_needs_a_network(axes):
    grid = np.linspace(-1, 1, 5)
    with pytest.raises(ValueError, match="one network or more, got none"):
        boundaries(axes, grid, grid, np.zeros((0, 5, 5)), np.zeros((1, 2)), [0])


def test_plain_circuit_has_one_loss_and_no_hidden_terms(axes):
    circuit(axes, relaxed=False)
    axes.figure.draw_without_rendering()
    written = [text.get_text() for text in axes.texts]
    for symbol in ("$z_0$", "$f_{0}$", r"$\theta_{0}$", "$z_{1}$", r"$f_{T{-}1}$", "$z_{T}$"):
        assert symbol in written
    assert written.count("$L_y$") == 1
    assert "$L_h$" not in written
    assert not any(text.startswith(r"$\hat{z}_{1}") for text in written)
    assert not axes.axison


def test_relaxed_circuit_compares_each_estimate_with_its_target(axes):
    circuit(axes, relaxed=True)
    axes.figure.draw_without_rendering()
    placed = {text.get_text(): text.get_position() for text in axes.texts}
    losses = [text.get_position() for text in axes.texts if text.get_text() in ("$L_h$", "$L_y$")]
    assert [text.get_text() for text in axes.texts].count("$L_h$") == 2
    for name, loss in zip(("1", "T{-}1", "T"), losses, strict=True):
        estimate, target = placed[rf"$\hat{{z}}_{{{name}}}$"], placed[f"$z_{{{name}}}$"]
        assert estimate[0] == target[0] == loss[0]
        assert target[1] < loss[1] < estimate[1]


def test_circuit_is_legible_at_half_a_page_and_grows_with_its_panel():
    sizes = []
    for width in (HALF_PAGE, 2 * HALF_PAGE):
        _, axes = plt.subplots(figsize=(width, 0.57 * width), layout="constrained")
        circuit(axes, relaxed=True)
        sizes.append(min(text.get_fontsize() for text in axes.texts if text.get_text()))
    assert sizes[0] > 6
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.1)


@pytest.mark.parametrize("relaxed", [False, True])
def test_circuit_text_stays_inside_the_panel_and_apart(relaxed):
    figure, axes = plotting.figure(panel_height=0.57 * HALF_PAGE)
    circuit(axes, relaxed=relaxed)
    assert collisions(figure) == []


def test_circuit_is_drawn_legibly_and_the_same_each_time_on_the_axes_given():
    pictures = []
    for _ in range(2):
        figure, axes = plotting.figure()
        assert circuit(axes, relaxed=True) is axes
        check_size(figure)
        figure.canvas.draw()
        pictures.append(np.array(figure.canvas.buffer_rgba()))
    np.testing.assert_array_equal(*pictures)
    with pytest.raises(TypeError, match="axes must be a matplotlib Axes, got ndarray"):
        circuit(np.array([axes]), relaxed=True)

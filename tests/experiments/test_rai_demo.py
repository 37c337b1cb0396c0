"""The boundaries of several networks."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.contour import ContourSet

from rai_utils.experiments.rai_demo import boundaries


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

"""The plot of the notebook rai-demo; as in `plotting`, it draws on the axes given."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from numpy.typing import ArrayLike

from rai_utils.plotting import Style, landscape


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

"""Whether a figure can be read where it is printed: at half the width of a page.

Half a page is 3.25 inches (8.3 cm) wide. A figure drawn wider is shrunk to it, and its text with
it, so what counts is not the size that a text was given but the size that is left.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

HALF_PAGE = 3.25
"""Width of half a page in inches."""

LEAST_TEXT = 6.0
"""Smallest text in points that a print may hold, before exponents and indices are set smaller."""

_TOUCHING = 0.75
"""Points by which two texts may meet: the box of a text is larger than its ink."""


def drawn_texts(figure: Figure) -> list[Text]:
    """Return each text that a figure shows: what is hidden, empty or beyond an axis is left out.

    The layout of the figure is settled by this, as drawing it would.
    """
    figure.draw_without_rendering()
    return [text for text in _texts_below(figure) if text.get_text().strip()]


def check_size(figure: Figure) -> None:
    """Check that no text of a figure is below `LEAST_TEXT` at half a page's width.

    Else a ValueError names the smallest one, with its size there: s · min(1, HALF_PAGE / figure
    width), as a narrower figure is not enlarged.
    """
    width = figure.get_size_inches()[0]
    shrunk = min(1.0, HALF_PAGE / width)
    sizes = {text: float(text.get_fontsize()) * shrunk for text in drawn_texts(figure)}
    smallest = min(sizes, key=sizes.__getitem__, default=None)
    # Sizes are set in decimal steps and a width may be one rounding off.
    if smallest is not None and sizes[smallest] < LEAST_TEXT - 1e-6:
        raise ValueError(
            f"text must be of {LEAST_TEXT:g} points or more at half a page's width "
            f"({HALF_PAGE:g} inches), got less: {smallest.get_text()!r} has "
            f"{sizes[smallest]:.2f} there: the figure is {width:g} inches wide"
        )


def collisions(figure: Figure) -> list[str]:
    """Return a line for each text that the figure's edge cuts off and each pair that overlaps."""
    texts, edge = drawn_texts(figure), figure.bbox
    extents = [(repr(text.get_text()), text.get_window_extent()) for text in texts]
    slack = _TOUCHING * figure.dpi / 72
    # Without a rim of that many pixels, but never turned inside out.
    boxes = [
        (name, box.padded(-min(slack, box.width / 2), -min(slack, box.height / 2)))
        for name, box in extents
    ]
    return [
        f"{name} is cut off by the edge of the figure"
        for name, box in extents
        if box.x0 < edge.x0 or box.y0 < edge.y0 or box.x1 > edge.x1 or box.y1 > edge.y1
    ] + [
        f"{name} overlaps {other}"
        for (name, box), (other, second) in combinations(boxes, 2)
        if box.overlaps(second)
    ]


def _texts_below(artist: Artist) -> Iterator[Text]:
    if not artist.get_visible():
        return
    if isinstance(artist, Text):
        yield artist
        return
    children = artist.get_children()
    if isinstance(artist, Axes) and not artist.axison:
        children = [child for child in children if not isinstance(child, Axis)]
    if isinstance(artist, Axis):
        ticks = [*artist.get_major_ticks(), *artist.get_minor_ticks()]
        shown = _within(artist, np.array([tick.get_loc() for tick in ticks], dtype=float))
        hidden = [tick for tick, inside in zip(ticks, shown, strict=True) if not inside]
        children = [child for child in children if child not in hidden]
    for child in children:
        yield from _texts_below(child)


def _within(axis: Axis, places: np.ndarray) -> np.ndarray:
    """Whether each place of a tick, shape (n,), lies on the part of the axis that is shown."""
    ends = axis.get_transform().transform(np.array(axis.get_view_interval(), dtype=float))
    seen = axis.get_transform().transform(places)
    slack = 1e-6 * abs(ends[1] - ends[0])
    return (min(ends) - slack <= seen) & (seen <= max(ends) + slack)

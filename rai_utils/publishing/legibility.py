"""Whether a figure can be read where it is printed: at half the width of a page.

Half a page is 3.25 inches (8.3 cm) wide. A figure drawn wider is shrunk to it, and its text with
it, so what counts is not the size that a text was given but the size that is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

HALF_PAGE = 3.25
"""Width of half a page in inches."""

LEAST_TEXT = 6.0
"""Smallest text in points that a print may hold, before exponents and indices are set smaller."""

_TOUCHING = 0.75
"""Points by which two texts may meet: the box of a text is larger than its ink."""


def drawn_texts(figure: Figure) -> list[Text]:
    """Return each text that a figure shows: what is hidden, empty or beyond an axis is left out.

    Args:
        figure: The figure; its layout is settled by this, as drawing it would.

    Raises:
        TypeError: If it is not a `Figure`.
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"figure: expected a matplotlib Figure, came {type(figure).__name__}")
    figure.draw_without_rendering()
    return [text for text in _texts_below(figure) if text.get_text().strip()]


def size_at_half_page(text: Text) -> float:
    """Return the size in points that a text of a figure has at half a page's width.

    s · min(1, HALF_PAGE / figure width): a narrower figure is not enlarged.
    """
    width = text.get_figure(root=True).get_size_inches()[0]
    return text.get_fontsize() * min(1.0, HALF_PAGE / width)


def check_size(figure: Figure) -> None:
    """Check that no text of a figure is below `LEAST_TEXT` at half a page's width.

    Raises:
        TypeError: If it is not a `Figure`.
        ValueError: If a text is; the smallest one is named, with its size there.
    """
    smallest = min(drawn_texts(figure), key=size_at_half_page, default=None)
    # Sizes are set in decimal steps and a width may be one rounding off.
    if smallest is not None and size_at_half_page(smallest) < LEAST_TEXT - 1e-6:
        raise ValueError(
            f"expected text of {LEAST_TEXT:g} points or more at half a page's width "
            f"({HALF_PAGE:g} inches), but {smallest.get_text()!r} has "
            f"{size_at_half_page(smallest):.2f} there: the figure is "
            f"{figure.get_size_inches()[0]:g} inches wide"
        )


def collisions(figure: Figure) -> list[str]:
    """Return a line for each text that the figure's edge cuts off and each pair that overlaps.

    Raises:
        TypeError: If it is not a `Figure`.
    """
    texts = drawn_texts(figure)
    slack = _TOUCHING * figure.dpi / 72
    extents = [text.get_window_extent() for text in texts]
    boxes = [_shrunk(extent, slack) for extent in extents]
    edge = figure.bbox
    lines = [
        f"{text.get_text()!r} is cut off by the edge of the figure"
        for text, box in zip(texts, extents, strict=True)
        if box.x0 < edge.x0 or box.y0 < edge.y0 or box.x1 > edge.x1 or box.y1 > edge.y1
    ]
    lines += [
        f"{texts[one].get_text()!r} overlaps {texts[other].get_text()!r}"
        for one, other in combinations(range(len(texts)), 2)
        if boxes[one].overlaps(boxes[other])
    ]
    return lines


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
        hidden = {id(tick) for tick, inside in zip(ticks, shown, strict=True) if not inside}
        children = [child for child in children if id(child) not in hidden]
    for child in children:
        yield from _texts_below(child)


def _within(axis: Axis, places: np.ndarray) -> np.ndarray:
    """Whether each place of a tick, shape (n,), lies on the part of the axis that is shown."""
    ends = axis.get_transform().transform(np.array(axis.get_view_interval(), dtype=float))
    seen = axis.get_transform().transform(places)
    slack = 1e-6 * abs(ends[1] - ends[0])
    return (min(ends) - slack <= seen) & (seen <= max(ends) + slack)


def _shrunk(box: Bbox, slack: float) -> Bbox:
    """The box without a rim of this many pixels, but never turned inside out."""
    rim_x, rim_y = min(slack, box.width / 2), min(slack, box.height / 2)
    return Bbox.from_extents(box.x0 + rim_x, box.y0 + rim_y, box.x1 - rim_x, box.y1 - rim_y)

"""Pictures with sliders, as HTML that needs neither a kernel nor a network.

Every frame is drawn beforehand, as SVG. A script of a few lines shows the one that the sliders
point at: in JupyterLab, in a notebook turned into HTML, and in the report. Where scripts do not run
the first frame stays, with its words.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

MARK_OF_A_WIDGET = 'class="rai-slider"'
_WIDTH, _HEIGHT, _LEFT, _TOP, _FOOT = 240, 170, 42, 22, 38  # of the axes, and around them
_INK = "#222222"
_POSITIVE, _NEGATIVE = "#C98500", "#9A8BD0"

Scale = Callable[[ArrayLike], Any]
Mark = Callable[[Scale, Scale], str]
"""(data to pixels from the left, data to pixels from the top) -> SVG."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes of a frame.

    Attributes:
        title: above it.
        limits: left, right, bottom and top end of the axes; what lies outside is cut off.
        marks: of ``line``, ``dots``, ``bars`` and ``cells``; later ones lie on top.
        x_label: under the horizontal axis.
    """

    title: str
    limits: tuple[float, float, float, float]
    marks: Sequence[Mark]
    x_label: str = ""


def line(x: ArrayLike, y: ArrayLike, colour: str, width: float = 2.0) -> Mark:
    """A line through points, (n,) each."""

    def draw(across: Scale, up: Scale) -> str:
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across(x), up(y), strict=True))
        look = f'fill="none" stroke="{colour}" stroke-width="{width:g}"'
        return f'<polyline {look} points="{points}"/>'

    return draw


def dots(x: ArrayLike, y: ArrayLike, colour: str) -> Mark:
    """Points, (n,) each."""

    def draw(across: Scale, up: Scale) -> str:
        places = zip(across(x), up(y), strict=True)
        circles = (f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4"/>' for a, b in places)
        return f'<g fill="{colour}">{"".join(circles)}</g>'

    return draw


def bars(x: ArrayLike, heights: ArrayLike, colour: str, width: float = 0.8) -> Mark:
    """Bars from 0, (n,) each, ``width`` wide in units of x and centred there."""

    def draw(across: Scale, up: Scale) -> str:
        left, right = across(np.asarray(x) - width / 2), across(np.asarray(x) + width / 2)
        ends = np.sort([up(heights), up(np.zeros_like(heights, dtype=float))], 0)
        boxes = zip(left, right - left, ends[0], ends[1] - ends[0], strict=True)
        return "".join(_box(*box, colour) for box in boxes)

    return draw


def cells(matrix: ArrayLike, limit: float) -> Mark:
    """A matrix, (rows, columns), row 1 on top, for a panel of limits 0, columns, 0, rows.

    Positive numbers are orange and negative ones violet, strongest at ``limit``, and written.
    """
    values = np.asarray(matrix, dtype=float)

    def draw(across: Scale, up: Scale) -> str:
        parts = []
        for (row, column), value in np.ndenumerate(values):
            (left, right), (top, bottom) = (
                across([column, column + 1]),
                up([len(values) - row, len(values) - row - 1]),
            )
            strength = min(1.0, abs(value) / limit)
            colour = _POSITIVE if value > 0 else _NEGATIVE
            parts.append(_box(left, right - left, top, bottom - top, colour, strength))
            text = f"{value:+.2f}".replace("-", "−") if abs(value) >= 0.005 else "0"
            parts.append(_text((left + right) / 2, (top + bottom) / 2 + 4, text))
        return "".join(parts)

    return draw


def slider_html(
    sliders: Mapping[str, Sequence[Any]],
    frame: Callable[..., tuple[Sequence[Panel], str]],
    *,
    start: Sequence[Any] = (),
) -> str:
    """Return HTML that shows a frame for every combination of the sliders' values.

    Show it with ``IPython.display.HTML``, in a cell tagged ``nbval-ignore-output``.

    Args:
        sliders: label -> values, one or more of one or more.
        frame: one value of each slider -> the panels, side by side, and a line of words below,
            which is also what is read out to who does not see the picture.
        start: the values that are shown first; none for the first of each slider.

    Raises:
        ValueError: a slider has no value, or the start is no combination of values.
    """
    if not sliders or not all(map(len, sliders.values())):
        raise ValueError(f"sliders must have one value or more each, got {dict(sliders)}")
    chosen = tuple(start) or tuple(values[0] for values in sliders.values())
    combinations = list(product(*sliders.values()))
    if chosen not in combinations:
        raise ValueError(f"start must be one value of each slider, got {chosen}")
    frames = [_frame(*frame(*values)) for values in combinations]
    picture, words = frames[combinations.index(chosen)]
    controls = "".join(
        _control(label, values, value)
        for (label, values), value in zip(sliders.items(), chosen, strict=True)
    )
    # An end of the script among the data would end it there.
    data = json.dumps(frames, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<div {MARK_OF_A_WIDGET} style="max-width:650px">{controls}'
        f'<div>{picture}</div><p aria-live="polite">{html.escape(words)}</p>'
        f"<script>(frames=>{{{_SCRIPT}}})({data})</script></div>"
    )


# One line: a blank one would end the HTML in Markdown.
_SCRIPT = (
    "const root=document.currentScript.parentElement,inputs=[...root.querySelectorAll('input')];"
    "const show=()=>{let index=0;for(const input of inputs){"
    "const names=JSON.parse(input.dataset.names);index=index*names.length+Number(input.value);"
    "input.nextElementSibling.textContent=names[input.value]}"
    "root.querySelector('div').innerHTML=frames[index][0];"
    "root.querySelector('p').textContent=frames[index][1]};"
    "for(const input of inputs)input.addEventListener('input',show)"
)


def _control(label: str, values: Sequence[Any], chosen: Any) -> str:
    names, at = [str(value) for value in values], list(values).index(chosen)
    data = f'data-names="{html.escape(json.dumps(names, ensure_ascii=False))}"'
    return (
        f'<label style="margin-right:1.5em">{html.escape(label)} <input type="range" min="0" '
        f'max="{len(names) - 1}" value="{at}" {data}/> '
        f"<output>{html.escape(names[at])}</output></label>"
    )


def _frame(panels: Sequence[Panel], words: str) -> tuple[str, str]:
    step = _LEFT + _WIDTH + 10
    size = f"0 0 {step * len(panels)} {_TOP + _HEIGHT + _FOOT}"
    drawn = "".join(
        f'<g transform="translate({step * position})">{_panel(panel)}</g>'
        for position, panel in enumerate(panels)
    )
    look = 'style="width:100%;background:#fff" font-family="sans-serif" font-size="12"'
    return (
        f'<svg viewBox="{size}" role="img" aria-label="{html.escape(words)}" {look}>{drawn}</svg>',
        words,
    )


def _panel(panel: Panel) -> str:
    left, right, bottom, top = panel.limits

    def across(x: ArrayLike) -> Any:
        return (np.asarray(x, dtype=float) - left) / (right - left) * _WIDTH

    def up(y: ArrayLike) -> Any:
        return (top - np.asarray(y, dtype=float)) / (top - bottom) * _HEIGHT

    place = f'x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}"'
    below, middle = _TOP + _HEIGHT + 14, _LEFT + _WIDTH / 2
    texts = [(middle, 14, panel.title), (middle, below + 16, panel.x_label)]
    texts += [(_LEFT + across(x), below, f"{x:g}") for x in (left, right)]
    texts += [(_LEFT - 18, _TOP + up(y) + 4, f"{y:g}") for y in (bottom, top)]
    return (
        f"<svg {place}>{''.join(mark(across, up) for mark in panel.marks)}</svg>"
        f'<rect {place} fill="none" stroke="#888"/>'
        + "".join(_text(*text) for text in texts if text[2])
    )


def _box(x: float, width: float, y: float, height: float, colour: str, opacity: float = 1.0) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{colour}" fill-opacity="{opacity:.2f}"/>'


def _text(x: float, y: float, words: str) -> str:
    place = f'x="{float(x):.0f}" y="{float(y):.0f}" text-anchor="middle"'
    return f'<text {place} fill="{_INK}">{html.escape(words)}</text>'

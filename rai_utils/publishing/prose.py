"""Numbers in Markdown text that are generated from ``metrics.json``.

A marker names a number and its format; what stands between its two comments is generated::

    RAI solves <!--=rai-grads/P8.measured:.0%-->100%<!--/--> of the seeds.

Names are a metric's (``share_solved``, ``share_solved.low``, ``share_solved.high``), a claim's
(``P8.measured``, ``P8.low``, ``P8.high``, ``P8.verdict``) or a parameter's that is a number
(``seeds``). Where several notebooks are given, the notebook's name stands before it
(``rai-grads/P8.measured``). The format is Python's and may be left out. A marker may not open a
line: Markdown would take the whole line for HTML.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "–"

_OPENING = re.compile(r"<!--=(?P<name>[^:\s]+?)(?::(?P<format>.*?))?-->")
_CLOSING = "<!--/-->"
_COMMENT = re.compile(r"<!--=.*?-->|<!--/-->", re.DOTALL)
_LINE_OPENING = re.compile(r"^ {0,3}<!--=", re.MULTILINE)


def fill(text: str, metrics: Mapping[str, Any]) -> str:
    """Return ``text`` with the generated part of each marker made anew; filling twice is the same.

    Args:
        text: Markdown.
        metrics: what :func:`rai_utils.publishing.claims.read_metrics` returns, or a mapping from
            the name of a notebook to that.

    Raises:
        ValueError: a marker that is not closed, is malformed, opens a line, names a number that
            does not exist (the nearest names are given), or has a format that does not fit.
    """
    values = _values(metrics)
    parts: list[str] = []
    position = 0
    for opening, end in _markers(text):
        parts += [text[position : opening.end()], _formatted(opening, values), _CLOSING]
        position = end
    return "".join([*parts, text[position:]])


def names(text: str) -> list[str]:
    """Return the names that the markers of ``text`` ask for, in order, known or not.

    Raises:
        ValueError: a marker that is not closed, is malformed, or opens a line.
    """
    return [opening["name"] for opening, _ in _markers(text)]


def fill_block(text: str, name: str, content: str) -> str:
    """Return ``text`` with ``content`` between ``<!--name-->`` and ``<!--/name-->``.

    Each of the two comments stands on a line of its own; blank lines keep them apart from
    ``content``, so that Markdown reads it as Markdown.

    Raises:
        ValueError: the two comments are not there once each, in this order.
    """
    opening, closing = f"<!--{name}-->\n", f"<!--/{name}-->"
    before, found, rest = text.partition(opening)
    _, ended, after = rest.partition(closing)
    if not (found and ended) or opening in rest or closing in before + after:
        raise ValueError(f"expected {opening.strip()} and {closing} once each, in this order")
    return f"{before}{opening}\n{content}\n\n{closing}{after}"


def without_markers(text: str) -> str:
    """Return ``text`` with the comments of its markers taken out and the numbers left."""
    return _COMMENT.sub("", text)


def _markers(text: str) -> list[tuple[re.Match[str], int]]:
    """Return each marker's opening comment and the position just after its closing one."""
    if found := _LINE_OPENING.search(text):
        raise ValueError(
            f"expected words before a marker, got one that opens a line, which Markdown takes "
            f"for HTML: {_line(text, found.start())!r}"
        )
    markers: list[tuple[re.Match[str], int]] = []
    opening: re.Match[str] | None = None
    for comment in _COMMENT.finditer(text):
        if comment.group() == _CLOSING:
            if opening is None:
                raise ValueError(
                    f"expected a marker before {_CLOSING}, got none in "
                    f"{_line(text, comment.start())!r}"
                )
            markers.append((opening, comment.end()))
            opening = None
            continue
        if opening is not None:
            break
        opening = _OPENING.fullmatch(text, comment.start(), comment.end())
        if opening is None:
            raise ValueError(f"expected <!--=NAME:FORMAT-->, got {comment.group()!r}")
    if opening is not None:
        raise ValueError(f"expected {_CLOSING} after {opening.group()!r}, got none")
    if text.count("<!--=") != len(markers):
        raise ValueError("expected --> at the end of each <!--=NAME:FORMAT, got one without")
    return markers


def _formatted(opening: re.Match[str], values: Mapping[str, Any]) -> str:
    name, form = opening["name"], opening["format"] or ""
    if name not in values:
        near = difflib.get_close_matches(name, values, n=3, cutoff=0.4)
        hint = f"; the nearest names are {', '.join(near)}" if near else ""
        raise ValueError(f"expected the name of a published number, got {name!r}{hint}")
    if values[name] is None:
        return MISSING
    try:
        return format(values[name], form)
    except ValueError as error:
        raise ValueError(
            f"expected a format that fits {values[name]!r}, got {form!r} for {name!r}: {error}"
        ) from error


def _values(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return each name that a marker may ask for, and its number."""
    if "metrics" in metrics and "claims" in metrics:
        own = named_values(metrics)
        return own | {f"{metrics['notebook']}/{name}": value for name, value in own.items()}
    return {
        f"{notebook}/{name}": value
        for notebook, record in metrics.items()
        for name, value in named_values(record).items()
    }


def named_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return each name that a marker may ask of one published set, and its number or verdict."""
    values: dict[str, Any] = {}
    for name, metric in record["metrics"].items():
        values[name] = metric["value"]
        values[f"{name}.low"], values[f"{name}.high"] = metric["interval"] or (None, None)
    for claim in record["claims"]:
        values[f"{claim['id']}.measured"] = claim["measured"]
        values[f"{claim['id']}.low"], values[f"{claim['id']}.high"] = claim["interval"] or (
            None,
            None,
        )
        values[f"{claim['id']}.verdict"] = claim["verdict"]
    for name, value in record["parameters"].items():
        if isinstance(value, int | float):
            values.setdefault(name, value)
    return values


def _line(text: str, position: int) -> str:
    start = text.rfind("\n", 0, position) + 1
    return text[start:].split("\n", 1)[0][:80]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table: the first column is text, the others are set flush right.

    Raises:
        ValueError: a row has another number of cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"expected {len(header)} cells in each row, got {len(row)}: {row}")
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ruler, *rows))

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

_MARKER = re.compile(
    r"(?P<opening><!--=(?P<name>[^:\s]+?)(?::(?P<format>(?:(?!<!--).)*?))?-->)"
    r"(?:(?!<!--[=/]).)*<!--/-->",
    re.DOTALL,
)
_COMMENT = re.compile(r"<!--=.*?-->|<!--/-->", re.DOTALL)
_AT_THE_START = re.compile(r"^ {0,3}<!--=", re.MULTILINE)


def fill(text: str, metrics: Mapping[str, Any]) -> str:
    """Return ``text`` with the generated part of each marker made anew; filling twice is the same.

    ``metrics`` is what `rai_utils.publishing.claims.read_metrics` returns, or a mapping from the
    name of a notebook to that. A marker that is not closed, is malformed, opens a line, names a
    number that does not exist (the nearest names are given), or has a format that does not fit, is
    a ValueError.
    """
    names(text)
    values: dict[str, Any] = {}
    if {"notebook", "metrics", "claims"} <= metrics.keys():
        values, metrics = named_values(metrics), {metrics["notebook"]: metrics}
    for notebook, record in metrics.items():
        values |= {f"{notebook}/{name}": value for name, value in named_values(record).items()}
    return _MARKER.sub(
        lambda marker: f"{marker['opening']}{_formatted(marker, values)}<!--/-->", text
    )


def names(text: str) -> list[str]:
    """Return the names that the markers of ``text`` ask for, in order; a ValueError as ``fill``."""
    # What is left of markers where each whole one is blotted out, is part of a wrong one.
    rest = _MARKER.sub(lambda marker: "x" * len(marker[0]), text)
    if wrong := _AT_THE_START.search(text) or re.search("<!--=|<!--/-->", rest):
        start = text.rfind("\n", 0, wrong.start() + 1) + 1
        raise ValueError(
            "a marker must be <!--=NAME:FORMAT-->TEXT<!--/--> after other words of its line, got "
            f"{text[start:].partition(chr(10))[0][:80]!r}"
        )
    return [marker["name"] for marker in _MARKER.finditer(text)]


def _formatted(marker: re.Match[str], values: Mapping[str, Any]) -> str:
    name, form = marker["name"], marker["format"] or ""
    if name not in values:
        near = difflib.get_close_matches(name, values, n=3, cutoff=0.4)
        hint = f"; the nearest names are {', '.join(near)}" if near else ""
        raise ValueError(f"a marker must name a published number, got {name!r}{hint}")
    try:
        return MISSING if values[name] is None else format(values[name], form)
    except ValueError as error:
        raise ValueError(
            f"the format of {name!r} must fit {values[name]!r}, got {form!r}: {error}"
        ) from error


def named_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return each name that a marker may ask of one published set, and its number or verdict."""
    values: dict[str, Any] = {}
    for name, metric in record["metrics"].items():
        values[name] = metric["value"]
        values[f"{name}.low"], values[f"{name}.high"] = metric["interval"] or (None, None)
    for claim in record["claims"]:
        name = claim["id"]
        values[f"{name}.measured"] = claim["measured"]
        values[f"{name}.low"], values[f"{name}.high"] = claim["interval"] or (None, None)
        values[f"{name}.verdict"] = claim["verdict"]
    for name, value in record["parameters"].items():
        if isinstance(value, int | float):
            values.setdefault(name, value)
    return values


def shown(value: Any, digits: int = 3) -> str:
    """Return a number, or a verdict, for a table: whole numbers are shown in full."""
    if value is None:
        return MISSING
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def without_markers(text: str) -> str:
    """Return ``text`` with the comments of its markers taken out and the numbers left."""
    return _COMMENT.sub("", text)


def fill_block(text: str, name: str, content: str) -> str:
    """Return ``text`` with ``content`` between ``<!--name-->`` and ``<!--/name-->``.

    Each of the two comments stands once, on a line of its own, or a ValueError says so; blank lines
    keep them apart from ``content``, so that Markdown reads it as Markdown.
    """
    opening, closing = f"<!--{name}-->\n", f"<!--/{name}-->"
    before, found, rest = text.partition(opening)
    _, ended, after = rest.partition(closing)
    if not (found and ended) or opening in rest or closing in before + after:
        raise ValueError(
            f"a text must have {opening.strip()} and {closing} once each, in this order"
        )
    return f"{before}{opening}\n{content}\n\n{closing}{after}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table: the first column is text, the others are set flush right.

    A row of another number of cells than the header is refused with a ValueError.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"each row must have {len(header)} cells, got {len(row)}: {row}")
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ruler, *rows))

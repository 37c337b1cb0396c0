"""Markdown with equations to HTML that needs no script: MathML, tables with header cells.

Equations become MathML, which browsers draw and screen readers speak. Long ones are cut at their
signs of relation, so that a narrow page can break them. Tables carry the name of its column in
each cell, so that a style sheet can stack the cells on a narrow page.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import mistune
from latex2mathml.converter import convert

from rai_utils.publishing import prose

MOST_COLUMNS_ON_A_NARROW_PAGE = 3
LONGEST_INLINE = 30

_MATHEMATICS = re.compile(r'<mi mathvariant="(script|double-struck)">(\w)</mi>')
_TAG = re.compile(r"\\tag\{([^}]*)\}")
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
_SPACES = (r"\qquad", r"\quad")
_RELATIONS = ("=", "+", "<", ">", r"\approx", r"\le", r"\ge")
_OPENING = ("{", "(", "[", r"\{", r"\left", r"\begin")
_CLOSING = ("}", ")", "]", r"\}", r"\right", r"\end")


def slug(text: str) -> str:
    """Return ``text`` as the part of an address: lower case, letters and digits, hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def attributes(**values: str) -> str:
    """Return HTML attributes, each with a space before it, empty ones left out."""
    return "".join(
        f' {name.strip("_").replace("_", "-")}="{html.escape(value)}"'
        for name, value in values.items()
        if value
    )


# --- equations ----------------------------------------------------------------------------------


def mathml(latex: str, display: str = "inline") -> str:
    """Return LaTeX as MathML; letters of another alphabet become the letters of Unicode."""
    made = convert(latex.strip(), display=display).replace("<mi>&</mi>", "<mi>&amp;</mi>")
    return _MATHEMATICS.sub(lambda found: f"<mi>{_letter(*found.groups())}</mi>", made)


def equation(latex: str) -> str:
    """Return a displayed equation in pieces that a narrow page may set below each other."""
    tag = _TAG.search(latex)
    pieces = "".join(mathml(piece, "block") for piece in _pieces(_TAG.sub("", latex)))
    number = f'<span class="number">({html.escape(tag[1])})</span>' if tag else ""
    return f'<div class="equation"><div>{pieces}</div>{number}</div>\n'


def _letter(alphabet: str, letter: str) -> str:
    for name in (f"MATHEMATICAL {alphabet} CAPITAL {letter}", f"{alphabet} CAPITAL {letter}"):
        try:
            return unicodedata.lookup(name.upper())
        except KeyError:
            continue
    return letter


def _pieces(latex: str) -> Iterator[str]:
    """Yield the parts of an equation between its wide spaces and before its relations."""
    piece, depth = "", 0
    for token in _TOKEN.findall(latex):
        depth += (token in _OPENING) - (token in _CLOSING)
        if depth == 0 and token in _SPACES:
            yield piece
            piece = ""
        elif depth == 0 and token in _RELATIONS and piece.strip(" {}"):
            yield piece
            # With nothing before it, the sign would be set like one of its own number.
            piece = "{}" + token
        else:
            piece += token
    if piece.strip(" {}"):
        yield piece


# --- Markdown -----------------------------------------------------------------------------------


class Renderer(mistune.HTMLRenderer):
    """HTML of one chapter.

    Args:
        chapter: what the addresses of its headings begin with; empty for none.
        deeper: how many levels its headings move down.
        image: makes the HTML of an image from its address and its words.
        link: changes the address of a link.

    ``headings`` lists the addresses of the headings that were made, in order.
    """

    def __init__(
        self,
        chapter: str,
        deeper: int,
        image: Callable[[str, str], str],
        link: Callable[[str], str],
    ) -> None:
        super().__init__(escape=True)
        self._chapter, self._deeper = chapter, deeper
        self._image, self._link = image, link
        self.headings: list[str] = []
        self._columns: list[str] = []
        self._column = 0

    def heading(self, text: str, level: int, **_: Any) -> str:
        """Return a heading with an address of its own."""
        address = slug(re.sub(r"<[^>]+>", "", text))
        address = f"{self._chapter}-{address}" if self._chapter else address
        while address in self.headings:
            address += "-again"
        self.headings.append(address)
        level = min(6, level + self._deeper)
        return f'<h{level} id="{address}">{text}</h{level}>\n'

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """Return an image as the chapter's owner makes it."""
        return self._image(url, text)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """Return a link, its address changed as the chapter's owner has it."""
        return super().link(text, self._link(url), title)

    def inline_math(self, text: str) -> str:
        """Return an equation in a line of text."""
        pieces = [text] if len(text) <= LONGEST_INLINE else _pieces(text)
        return "".join(mathml(piece) for piece in pieces)

    def block_math(self, text: str) -> str:
        """Return an equation on lines of its own."""
        return equation(text)

    def block_code(self, code: str, info: str | None = None) -> str:
        """Return code, which wraps instead of running off the page."""
        return f"<pre><code>{html.escape(code)}</code></pre>\n"

    def table(self, text: str) -> str:
        """Return a table; one of many columns is marked as one to stack."""
        stacked = "stacked" if len(self._columns) > MOST_COLUMNS_ON_A_NARROW_PAGE else ""
        self._columns = []
        return f'<table role="table"{attributes(class_=stacked)}>\n{text}</table>\n'

    def table_head(self, text: str) -> str:
        """Return the row of column names."""
        return f'<thead role="rowgroup">\n<tr role="row">\n{text}</tr>\n</thead>\n'

    def table_body(self, text: str) -> str:
        """Return the rows below it."""
        return f'<tbody role="rowgroup">\n{text}</tbody>\n'

    def table_row(self, text: str) -> str:
        """Return one row."""
        self._column = 0
        return f'<tr role="row">\n{text}</tr>\n'

    def table_cell(self, text: str, align: str | None = None, head: bool = False) -> str:
        """Return a cell: a column's name, a row's name (the first of its row), or a value."""
        if head:
            self._columns.append(html.unescape(re.sub(r"<[^>]+>", "", text)))
            return f'<th scope="col" role="columnheader"{_aligned(align)}>{text}</th>\n'
        name = self._columns[self._column]
        self._column += 1
        if self._column == 1:
            return f'<th scope="row" role="rowheader"{_aligned(align)}>{text}</th>\n'
        return f'<td role="cell"{attributes(data_label=name)}{_aligned(align)}>{text}</td>\n'


def _aligned(align: str | None) -> str:
    return attributes(class_=align or "")


def to_html(text: str, renderer: Renderer) -> str:
    """Return Markdown as HTML; the comments of its markers are left out."""
    markdown = mistune.create_markdown(renderer=renderer, plugins=["table", "math"])
    return str(markdown(prose.without_markers(text)))

"""A published notebook as one chapter of the report: its prose, figures and outputs, code folded.

A chapter shows the published figures in place of the pictures that the notebook holds, and makes
the numbers of its prose anew from the published record. It knows where each claim is judged.
"""

import ast
import base64
import html
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from rai_utils.publishing import prose
from rai_utils.publishing.claims import DOTS_PER_INCH
from rai_utils.publishing.markup import Renderer, attributes, to_html

PIXELS_PER_INCH = 144
"""CSS pixels that an inch of a figure gets: one and a half times its printed size."""

_FIGURE_ADDRESS = re.compile(r"(?:\.\./)?figures/([a-z0-9-]+)/([a-z0-9-]+)\.png")
_LEAD = re.compile(r"^[*_]+What (?:this|these|the) [^.]*\.[*_]+\s*")
_BULKY = ("image/", "application/")


@dataclass
class Chapter:
    """What the report takes from one notebook.

    ``question``, ``answer``, ``limits`` and ``captions`` are Markdown with their numbers filled
    in; ``body`` is HTML. ``headline`` is the name of the figure at the top, or empty. ``places``
    says for each claim under which heading it is judged and which figures stand there.
    """

    name: str
    title: str = ""
    question: str = ""
    answer: str = ""
    headline: str = ""
    limits: str = ""
    body: str = ""
    captions: dict[str, str] = field(default_factory=dict)
    places: dict[str, tuple[str, list[str]]] = field(default_factory=dict)


def data_address(media_type: str, content: bytes) -> str:
    """Return a picture as the address that holds all of it."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def picture(folder: Path, notebook: str, name: str, words: str) -> str:
    """Return a published figure as an image that the page itself holds.

    Raises:
        ValueError: no such figure, or not a PNG.
    """
    path = folder / "figures" / notebook / f"{name}.png"
    if not path.is_file():
        raise ValueError(f"expected a figure at {path.relative_to(folder)}, found none")
    content = path.read_bytes()
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"expected a PNG at {path.relative_to(folder)}, got something else")
    width, height = struct.unpack(">II", content[16:24])
    scale = PIXELS_PER_INCH / DOTS_PER_INCH
    size = attributes(width=f"{width * scale:.0f}", height=f"{height * scale:.0f}", alt=words)
    return f'<img src="{data_address("image/png", content)}"{size}>'


def alternative(record: Mapping[str, Any], name: str) -> str:
    """Return the words that stand for a figure: its description, or else its name."""
    return record["descriptions"].get(name) or f"Figure: {name.replace('-', ' ')}"


def link_between(chapters: set[str], address: str) -> str:
    """Return the address of a chapter of this page for a link to its notebook."""
    found = re.fullmatch(r"(?:notebooks/)?([a-z0-9-]+)\.ipynb", address)
    return f"#{found[1]}" if found and found[1] in chapters else address


def renderer_of(
    folder: Path, records: Mapping[str, Mapping[str, Any]], chapter: str, deeper: int
) -> Renderer:
    """Return what makes HTML of a text whose images are published figures."""

    def image(address: str, words: str) -> str:
        found = _FIGURE_ADDRESS.fullmatch(address)
        if not found or found[1] not in records:
            raise ValueError(f"expected the image of a published figure, got {address!r}")
        return picture(
            folder, found[1], found[2], words or alternative(records[found[1]], found[2])
        )

    return Renderer(chapter, deeper, image, lambda address: link_between(set(records), address))


def read_chapter(folder: Path, name: str, records: Mapping[str, Mapping[str, Any]]) -> Chapter:
    """Return the chapter of a committed notebook.

    Raises:
        ValueError: no such notebook, a marker that ``prose.fill`` refuses, or an image that is no
            published figure.
    """
    path = folder / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        raise ValueError(f"expected a notebook at {path.relative_to(folder)}, found none")
    record = records[name]
    cells = nbformat.read(path, as_version=4).cells
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = prose.without_markers(prose.fill(cell.source, record))
    chapter = Chapter(name)
    _open(chapter, cells[0].source)
    renderer = renderer_of(folder, records, name, 1)
    placed: set[str] = set()
    here: list[str] = []
    parts = []
    for position, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            known = len(renderer.headings)
            text = re.sub(r"\A# .*\n", "", cell.source) if position == 0 else cell.source
            parts.append(to_html(text, renderer))
            if len(renderer.headings) > known:
                here = []
            if limits := re.search(r"^## Limits\s*\n(.*)", cell.source, re.MULTILINE | re.DOTALL):
                chapter.limits = limits[1].strip()
            continue
        shown = [figure for figure in _figures_of(cell, record) if figure not in placed]
        placed |= set(shown)
        here += shown
        under = renderer.headings[-1] if renderer.headings else name
        for claim in _claims_of(cell, record):
            chapter.places.setdefault(claim, (under, here))
        caption = _caption(cells[position + 1 :])
        chapter.captions |= dict.fromkeys(shown, caption)
        parts.append(_code_cell(cell, bool(_figures_of(cell, record)), renderer))
        parts += [figure_with_name(folder, name, figure, record) for figure in shown]
    rest = [figure for figure in record["figures"] if figure not in placed]
    parts += [figure_with_name(folder, name, figure, record) for figure in rest]
    chapter.body = "\n".join(parts)
    return chapter


def figure_with_name(folder: Path, notebook: str, name: str, record: Mapping[str, Any]) -> str:
    """Return a figure in its chapter, with the name of its file below it."""
    return (
        f'<figure id="{notebook}-figure-{name}">'
        f"{picture(folder, notebook, name, alternative(record, name))}"
        f"<figcaption>Figure <code>{notebook}/{name}</code></figcaption></figure>\n"
    )


def _open(chapter: Chapter, text: str) -> None:
    """Take title, question, answer and headline figure from the first cell."""
    title = re.match(r"# (?:# )?(.*)", text)
    chapter.title = title[1] if title else chapter.name
    for paragraph in re.split(r"\n\s*\n", text)[1:]:
        kind = re.match(r"\*\*(?:The )?(question|answer)[^*]*\*\*\s*", paragraph, re.IGNORECASE)
        if kind and kind[1].lower() == "answer":
            chapter.answer = paragraph[kind.end() :]
        elif kind:
            chapter.question = paragraph[kind.end() :]
        elif not chapter.question and not chapter.answer:
            chapter.question = paragraph
    image = _FIGURE_ADDRESS.search(text)
    chapter.headline = image[2] if image else ""


def _tree(cell: NotebookNode) -> ast.Module:
    try:
        return ast.parse(cell.source)
    except SyntaxError:  # a line that only IPython reads
        return ast.Module([], [])


def _literals(tree: ast.Module) -> set[Any]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def _figures_of(cell: NotebookNode, record: Mapping[str, Any]) -> list[str]:
    """Return which published figures a cell hands to ``study.figure``, in published order.

    Where the name is no literal, as in a loop, each literal of the cell counts.
    """
    tree = _tree(cell)
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "study.figure"
    ]
    first = [call.args[0] for call in calls if call.args]
    names = {argument.value for argument in first if isinstance(argument, ast.Constant)}
    if any(not isinstance(argument, ast.Constant) for argument in first):
        names |= _literals(tree)
    return [name for name in record["figures"] if name in names]


def _claims_of(cell: NotebookNode, record: Mapping[str, Any]) -> list[str]:
    """Return which claims a cell names, on its own or through a helper of the notebook."""
    literals = _literals(_tree(cell))
    return [claim["id"] for claim in record["claims"] if claim["id"] in literals]


def _caption(following: list[NotebookNode]) -> str:
    """Return the paragraph that says what a figure shows: the next one, unless it is a heading."""
    for cell in following:
        if cell.cell_type == "markdown":
            first = cell.source.strip().split("\n\n")[0]
            return "" if first.startswith("#") else _LEAD.sub("", first)
    return ""


def _code_cell(cell: NotebookNode, is_figure: bool, renderer: Renderer) -> str:
    parts = []
    if cell.source.strip():
        parts.append(
            '<details class="code"><summary>Code</summary>'
            f"<pre><code>{html.escape(cell.source)}</code></pre></details>"
        )
    for output in cell.outputs:
        if output.output_type == "stream":
            parts.append(f'<pre class="output">{html.escape(output.text.rstrip())}</pre>')
            continue
        data = output.get("data", {})
        if "text/markdown" in data:
            parts.append(to_html(data["text/markdown"], renderer))
        elif "image/png" in data:
            if not is_figure:
                source = data_address("image/png", base64.b64decode(data["image/png"]))
                parts.append(f'<p><img src="{source}" alt="Picture that the code above draws"></p>')
        elif "text/plain" in data and not any(key.startswith(_BULKY) for key in data):
            parts.append(f'<pre class="output">{html.escape(data["text/plain"])}</pre>')
    return "\n".join(parts)

"""The report: one HTML page that holds all it shows, and its print as PDF.

``python -m rai_utils.publishing.report`` builds ``build/report/report.html`` from the committed
notebooks and from ``figures/*/metrics.json``, and ``report.pdf`` where a Chromium browser is found.
The page is Markdown that pandoc sets, with ``report.lua`` and ``report.css``; it needs no network,
and scripts for nothing but sliders.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pypandoc
from nbformat import NotebookNode

from rai_utils.publishing import prose
from rai_utils.publishing.catalogue import (
    Records,
    claims_by_source,
    claims_table,
    notebook_order,
    published_sets,
    verdict_table,
)
from rai_utils.publishing.claims import root
from rai_utils.publishing.widgets import MARK_OF_A_WIDGET

PROPOSAL_FIGURES = {
    "Figure 1": ("rai-demo", ["circuit"]),
    "Figures 2 and 3": ("rai-demo", ["shallow-mlp-landscape", "shallow-rai-mlp-landscape"]),
    "Figures 4 and 5": ("rai-grads", ["deep-mlp-landscape", "deep-rai-mlp-landscape"]),
}
"""Where the proposal's figures are, those together that one paragraph speaks of."""

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
PRINTING_SECONDS = 120

HIDDEN_OUTPUT = "hide-output"
"""Tag of a cell whose output says again what the reader has seen."""

# What Jupyter reads as Markdown, and addresses of our own.
_MARKDOWN = "commonmark+pipe_tables+tex_math_dollars+raw_html+gfm_auto_identifiers+attributes"
_OPTIONS = (
    *("--standalone", "--embed-resources", "--mathml", "--section-divs", "--fail-if-warnings"),
    *("--toc", "--toc-depth=2", "--shift-heading-level-by=1", "--syntax-highlighting=none"),
    *("--metadata=title:RAI study: report", "--metadata=lang:en"),
    f"--resource-path=.{os.pathsep}notebooks",
    f"--css={Path(__file__).with_suffix('.css')}",
    f"--lua-filter={Path(__file__).with_suffix('.lua')}",
)
_IMAGE = re.compile(r"!\[([^\]]*)\]\((?:\.\./)?([^)\s]+)\)")
_NOTEBOOK_LINK = re.compile(r"\]\((?:notebooks/)?([a-z0-9-]+)\.ipynb(?:#[^)]*)?\)")
_OWN_LINK = re.compile(r"\[([^\[\]]+)\]\(#(?:[^()\s]|\([^()]*\))*\)")
_CODE_OPENS = '<details class="code"><summary>Code</summary>\n\n~~~~~~~~ \n'
_CODE_ENDS = "\n~~~~~~~~\n\n</details>"
_LEAD = re.compile(r"^[*_]+What (?:this|these|the) [^.]*\.[*_]+\s*")


# --- a notebook as a chapter ----------------------------------------------------------------------


@dataclass(frozen=True)
class Chapter:
    """What the report takes from one notebook: Markdown with its numbers made anew.

    ``captions`` says of each figure what the notebook says below it.
    """

    title: str
    question: str
    answer: str
    limits: str
    body: str
    captions: Mapping[str, str]


def read_chapter(folder: Path, name: str, records: Records) -> Chapter:
    """Return the chapter of a committed notebook.

    It shows each published figure once: on the first screen if it stands there, else at the cell
    that makes it, in place of the notebook's picture, and the others at the end. Code is folded,
    that of cells with nothing between them together; outputs of cells that hide them stay out.
    ``#<notebook>-<claim>`` leads to where a claim is judged, ``#<notebook>-figure-<figure>`` to a
    figure. No such notebook, a marker that ``prose.fill`` refuses, or an image that is no published
    figure, is a ValueError.
    """
    path, record = folder / "notebooks" / f"{name}.ipynb", records[name]
    if not path.is_file():
        raise ValueError(f"a published set must have its notebook, got no {path.name}")
    cells = nbformat.read(path, as_version=4).cells
    texts = [cell for cell in cells if cell.cell_type == "markdown"]
    for cell in texts:
        cell.source = _text(cell.source, record, records)
    heading, _, opening = cells[0].source.partition("\n")
    first = re.findall(rf"\(figures/{name}/([^)]+)\.png\)", opening)
    opening = _IMAGE.sub(lambda found: _figure(name, Path(found[2]).stem, record), opening)
    cells[0].source = f"The notebook `notebooks/{name}.ipynb`\n\n{opening}"
    claims = [claim["id"] for claim in record["claims"]]
    captions: dict[str, str] = {}
    parts = []
    for position, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        judged = _named(cell, claims)
        claims = [claim for claim in claims if claim not in judged]
        parts += [f'<a id="{name}-{claim}"></a>' for claim in judged]
        drawn = _named(cell, record["figures"]) if "study.figure(" in cell.source else []
        parts += _code(cell, pictures=not drawn)
        shown = [figure for figure in drawn if figure not in captions]
        parts += [_figure(name, figure, record) for figure in shown if figure not in first]
        captions |= dict.fromkeys(shown, _caption(cells[position + 1 :]))
    rest = [figure for figure in record["figures"] if figure not in {*captions, *first}]
    parts += [_figure(name, figure, record) for figure in rest]
    limits = [text.source.partition("\n")[2] for text in texts if text.source[:9] == "## Limits"]
    return Chapter(
        title=heading.lstrip("# "),
        question=_led("question", opening) or opening.strip().partition("\n\n")[0],
        answer=_led("answer", opening),
        limits="\n\n".join(text.partition("\n## ")[0].strip() for text in limits),
        body="\n\n".join(parts).replace(f"{_CODE_ENDS}\n\n{_CODE_OPENS}", "\n\n\n"),
        captions=captions,
    )


def _text(text: str, metrics: Mapping[str, Any], records: Records) -> str:
    """Return Markdown with its numbers filled in; its links and images stay on the page.

    Links to a part of the same notebook become plain words: headings have other names here.
    """

    def image(found: re.Match[str]) -> str:
        words, address = found.groups()
        notebook = Path(address).parent
        if notebook.parent != Path("figures") or notebook.name not in records:
            raise ValueError(f"an image must be a published figure, got {address!r}")
        return f"![{words or _words(records[notebook.name], Path(address).stem)}]({address})"

    def link(found: re.Match[str]) -> str:
        return f"](#{found[1]})" if found[1] in records else found[0]

    text = _OWN_LINK.sub(r"\1", prose.without_markers(prose.fill(text, metrics)))
    return _NOTEBOOK_LINK.sub(link, _IMAGE.sub(image, text))


def _words(record: Mapping[str, Any], figure: str) -> str:
    """Return the words that stand for a figure: its description, or else its name."""
    words = record["descriptions"].get(figure) or f"Figure: {figure.replace('-', ' ')}"
    return re.sub(r"([\\\[\]])", r"\\\1", words)


def _led(lead: str, text: str) -> str:
    """Return the paragraph that opens with a lead like ``**The answer.**``, without it."""
    found = re.search(
        rf"^\*\*(?:The )?{lead}[^*]*\*\*\s*(.*(?:\n.+)*)", text, re.MULTILINE | re.IGNORECASE
    )
    return found[1] if found else ""


def _named(cell: NotebookNode, names: Sequence[str]) -> list[str]:
    return [name for name in names if re.search(rf"""["']{re.escape(name)}["']""", cell.source)]


def _caption(following: Sequence[NotebookNode]) -> str:
    """Return the paragraph that says what a figure shows: the next one, unless it is a heading."""
    texts = [cell.source.strip() for cell in following if cell.cell_type == "markdown"]
    first = texts[0].partition("\n\n")[0] if texts else ""
    return "" if first.startswith("#") else _LEAD.sub("", first)


def _image(notebook: str, figure: str, record: Mapping[str, Any]) -> str:
    return f"![{_words(record, figure)}](figures/{notebook}/{figure}.png)"


def _figure(notebook: str, figure: str, record: Mapping[str, Any]) -> str:
    caption = f"<figcaption>Figure <code>{notebook}/{figure}</code></figcaption>"
    image = _image(notebook, figure, record)
    return f'<figure id="{notebook}-figure-{figure}">\n\n{image}\n\n{caption}\n</figure>'


def _code(cell: NotebookNode, pictures: bool) -> Iterator[str]:
    """Yield a code cell, folded, and its outputs, if they are not hidden."""
    if cell.source.strip():
        yield f"{_CODE_OPENS}{cell.source}{_CODE_ENDS}"
    for output in [] if HIDDEN_OUTPUT in cell.metadata.get("tags", []) else cell.outputs:
        data = output.get("data", {"text/plain": output.get("text", "")})
        if "text/markdown" in data:
            yield data["text/markdown"]
        elif MARK_OF_A_WIDGET in data.get("text/html", ""):
            yield data["text/html"]
        elif "image/png" in data:
            content = data["image/png"].replace("\n", "")
            if pictures:
                yield f"![Picture that the code above draws](data:image/png;base64,{content})"
        elif "text/plain" in data and not any(kind.startswith("application/") for kind in data):
            yield f"~~~~~~~~ output\n{data['text/plain'].rstrip()}\n~~~~~~~~"


# --- the other parts ------------------------------------------------------------------------------


def _summary(folder: Path, records: Records, chapters: Mapping[str, Chapter]) -> str:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    # What moves says nothing in print; its maps are figures of the chapters.
    readme = re.sub("<!--moving-->.*?<!--/moving-->\n\n", "", readme, flags=re.DOTALL)
    opening = _text(readme, records, records).split("\n## ")[0].partition("\n")[2]
    answers = [
        f"### [{chapter.title}](#{name})\n\n{chapter.question}\n\n{chapter.answer}"
        for name, chapter in chapters.items()
    ]
    return "\n\n".join([opening, verdict_table(records), "## Question and answer", *answers])


def _claims(records: Records) -> str:
    tables = [
        f"## {title}\n\n{claims_table(claims, '#{notebook}-{id}')}"
        for title, claims in claims_by_source(records)
    ]
    note = (
        "Every accuracy is that of the ordinary forward pass. An empty interval belongs to a "
        "number that involves no draw. The name of a claim leads to where it is judged."
    )
    return "\n\n".join([note, *tables])


def _proposal_figures(records: Records, chapters: Mapping[str, Chapter]) -> Iterator[str]:
    for title, (notebook, figures) in PROPOSAL_FIGURES.items():
        if notebook in chapters:
            yield " ".join(_image(notebook, figure, records[notebook]) for figure in figures)
            caption = chapters[notebook].captions.get(figures[0], "")
            yield f"**{title}.** {caption} From [{notebook}](#{notebook})."


def _methods(records: Records) -> str:
    """Return how all numbers were made, and the rule behind each verdict."""
    text = Path(__file__).with_name("methods.md").read_text(encoding="utf-8")
    rules = [
        f"- **{claim['id']}**: {claim['rule']}"
        for _, claims in claims_by_source(records)
        for claim in claims
    ]
    return f"{text}\n\n## Rules\n\n" + "\n".join(rules)


def _environment(records: Records) -> str:
    """Return where each set was made and with which parameters."""
    lines = [
        "Every package, transitive ones too, is pinned in `requirements.txt`. `make figures` makes "
        "every number and figure again, `make report` this page, and `make docs` the pages of all "
        "functions.\n"
    ]
    places: dict[str, list[str]] = {}
    chosen = ["\n## Parameters\n"]
    for name, record in records.items():
        place = ", ".join(f"{kind} {value}" for kind, value in record["environment"].items())
        places.setdefault(place, []).append(name)
        given = ", ".join(f"`{key} = {value!r}`" for key, value in record["parameters"].items())
        chosen.append(f"- **{name}**: {given}")
    lines += [f"- {place}: {', '.join(names)}." for place, names in places.items()]
    return "\n".join(lines + chosen)


def report_page(folder: Path) -> str:
    """Return the whole report as one HTML page; a ValueError where notebook and set do not fit."""
    records = published_sets(folder)
    names = [name for name in notebook_order(folder) if name in records]
    if not names:
        raise ValueError("figures/ must hold published notebooks, got none: run make figures")
    # In the order in which the claims lead to them.
    claimed = [claim["notebook"] for _, claims in claims_by_source(records) for claim in claims]
    names.sort(key=lambda name: [*claimed, name].index(name))
    chapters = {name: read_chapter(folder, name, records) for name in names}
    limits = [
        f"## {chapter.title}\n\n{chapter.limits}" for chapter in chapters.values() if chapter.limits
    ]
    parts = {
        "Summary": _summary(folder, records, chapters),
        "What was claimed, what was measured": _claims(records),
        "The proposal's five figures": "\n\n".join(_proposal_figures(records, chapters)),
        "Methods": _methods(records),
        "Limits": "\n\n".join(limits),
        "Environment": _environment(records),
    }
    sections = [f"# {title}\n\n{text}" for title, text in parts.items()]
    sections += [
        f"# {chapter.title} {{#{name}}}\n\n{chapter.body}" for name, chapter in chapters.items()
    ]
    try:
        page = pypandoc.convert_text(
            "\n\n".join(sections),
            "html5",
            format=_MARKDOWN,
            extra_args=_OPTIONS,
            cworkdir=str(folder),
        )
    except RuntimeError as error:
        raise ValueError(f"the report must be text that pandoc can set, got: {error}") from error
    return page.replace("</nav>", "</nav>\n<main>", 1).replace("</body>", "</main>\n</body>")


# --- printing -----------------------------------------------------------------------------------


def find_browser() -> str | None:
    """Return the command of a Chromium browser, or ``None``."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def browser_command(browser: str, profile: str) -> list[str]:
    """Return how to start ``browser`` without a window, with a profile of its own."""
    command = [browser, "--headless=new", "--disable-gpu", "--disable-background-networking"]
    command += ["--no-first-run", f"--user-data-dir={profile}"]
    # Chromium refuses to run as root inside its sandbox; what it opens is this project's own page.
    return [*command, "--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else command


def print_page(page: Path, target: Path) -> None:
    """Print an HTML page as PDF; an OSError without a browser, or if it does not write in time."""
    browser = find_browser()
    if browser is None:
        raise OSError("no Chromium or Chrome was found to print the page with")
    # Its child processes may outlive it for a moment, and still write to its profile.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = browser_command(browser, profile)
        command += ["--no-pdf-header-footer", f"--print-to-pdf={target}", page.resolve().as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PRINTING_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{browser} did not print in {PRINTING_SECONDS} s") from error
    if done.returncode != 0 or not target.is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise OSError(f"{browser} did not print the page: {last}")


def main(folder: Path) -> int:
    """Build the report in ``build/report``; return 0, or 2 where it was refused."""
    start = time.monotonic()
    page = folder / "build" / "report" / "report.html"
    made = [page, page.with_suffix(".pdf")]
    try:
        text = report_page(folder)
    except ValueError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
    made[1].unlink(missing_ok=True)
    try:
        print_page(*made)
    except OSError as error:
        print(f"report  no PDF: {error}. The HTML is whole; any browser can print it.")
        made.pop()
    for path in made:
        print(f"report  {path.relative_to(folder)}  {path.stat().st_size / 1e6:.1f} MB")
    print(f"report  done in {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(root()))

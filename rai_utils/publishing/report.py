"""The report: one HTML page that holds all it shows, and its print as PDF.

``python -m rai_utils.publishing.report`` builds ``build/report/report.html`` from the committed
notebooks and from ``figures/*/metrics.json``, and ``report.pdf`` where a Chromium browser is found.
The page needs no network and no script.
"""

import html
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from rai_utils.publishing import prose
from rai_utils.publishing.catalogue import (
    VERDICTS,
    PublishedClaim,
    claims_by_source,
    notebook_order,
    published_sets,
    shown,
    shown_interval,
    verdict_counts,
)
from rai_utils.publishing.chapters import (
    Chapter,
    alternative,
    picture,
    read_chapter,
    renderer_of,
)
from rai_utils.publishing.claims import root
from rai_utils.publishing.markup import to_html
from rai_utils.publishing.reference import reference

PROPOSAL_FIGURES = (
    ("rai-demo", "circuit"),
    ("rai-demo", "shallow-mlp-landscape"),
    ("rai-demo", "shallow-rai-mlp-landscape"),
    ("rai-grads", "deep-mlp-landscape"),
    ("rai-grads", "deep-rai-mlp-landscape"),
)
"""The proposal's figures 1 to 5, in its order."""

NEW_RESULTS = ("rai-grads", "rai-questions")
"""What the names of the notebooks begin with whose results go past the proposal."""

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

Records = Mapping[str, Mapping[str, Any]]


# --- parts of the page --------------------------------------------------------------------------


def summary(folder: Path, records: Records, chapters: Mapping[str, Chapter]) -> str:
    """Return the opening of the README, the verdicts in numbers, and the notebooks' questions."""
    readme = prose.fill((folder / "README.md").read_text(encoding="utf-8"), records)
    opening = readme.split("\n## ")[0].partition("\n")[2]
    rows = [
        [title, str(len(claims)), *map(str, verdict_counts(claims))]
        for title, claims in claims_by_source(records)
    ]
    questions = [
        f"- [{name}](#{name}): {chapter.question or chapter.title}"
        for name, chapter in chapters.items()
    ]
    text = "\n\n".join(
        [
            opening.strip(),
            prose.markdown_table(["source", "claims", *VERDICTS], rows),
            "What each notebook asks:",
            "\n".join(questions),
        ]
    )
    return to_html(text, renderer_of(folder, records, "summary", 1))


def claims_section(records: Records, chapters: Mapping[str, Chapter]) -> str:
    """Return a table for each source: claim, measured, interval, verdict, and where to read it."""
    parts = [
        "<p>Every accuracy is that of the ordinary forward pass. An empty interval belongs to a "
        "number that involves no draw.</p>\n"
    ]
    for title, claims in claims_by_source(records):
        rows = "".join(_claim_row(claim, chapters) for claim in claims)
        heads = ("id", "claim", "measured", "95 % interval", "verdict", "where")
        cells = "".join(f'<th scope="col" role="columnheader">{head}</th>' for head in heads)
        parts.append(
            f'<h3 id="claims-{claims[0].source}">{html.escape(title)}</h3>\n'
            f'<table role="table" class="claims stacked"><thead role="rowgroup">'
            f'<tr role="row">{cells}</tr></thead>\n<tbody role="rowgroup">{rows}</tbody></table>\n'
        )
    return "".join(parts)


def _claim_row(claim: PublishedClaim, chapters: Mapping[str, Chapter]) -> str:
    record, notebook = claim.record, claim.notebook
    where = f'<a href="#{notebook}">{notebook}</a>'
    place = chapters[notebook].places.get(claim.id) if notebook in chapters else None
    if place is not None:
        section, figures = place
        where = f'<a href="#{section}">{notebook}</a>'
        where += "".join(
            f', <a href="#{notebook}-figure-{figure}">{figure}</a>' for figure in figures
        )
    cells = {
        "claim": html.escape(record["statement"]),
        "measured": shown(record["measured"]),
        "95 % interval": shown_interval(record["interval"]),
        "verdict": f'<span class="verdict">{record["verdict"]}</span>',
        "where": where,
    }
    columns = "".join(
        f'<td role="cell" data-label="{label}">{content}</td>' for label, content in cells.items()
    )
    return f'<tr role="row"><th scope="row" role="rowheader">{claim.id}</th>{columns}</tr>\n'


def proposal_figures(folder: Path, records: Records, chapters: Mapping[str, Chapter]) -> str:
    """Return the proposal's five figures, each with what its notebook says of it."""
    numbered = [
        (number, notebook, name)
        for number, (notebook, name) in enumerate(PROPOSAL_FIGURES, start=1)
        if notebook in chapters and name in records[notebook]["figures"]
    ]
    parts = []
    # Figures that one paragraph speaks of stand side by side above it.
    for (notebook, caption), group in groupby(
        numbered, key=lambda one: (one[1], chapters[one[1]].captions.get(one[2], ""))
    ):
        shown_here = list(group)
        numbers = " and ".join(str(number) for number, _, _ in shown_here)
        images = "".join(
            picture(folder, notebook, name, alternative(records[notebook], name))
            for _, _, name in shown_here
        )
        title = f"**Figure{'s' if len(shown_here) > 1 else ''} {numbers}.**"
        text = to_html(f"{title} {caption}", renderer_of(folder, records, "figures", 2))
        parts.append(
            f'<figure><div class="side-by-side">{images}</div><figcaption>{text}<p>From '
            f'<a href="#{notebook}">{notebook}</a>.</p></figcaption></figure>\n'
        )
    return "".join(parts)


def answers(folder: Path, records: Records, chapters: Sequence[Chapter]) -> str:
    """Return each chapter's question, answer and deciding figure."""
    parts = []
    for chapter in chapters:
        renderer = renderer_of(folder, records, f"answer-{chapter.name}", 2)
        parts.append(f'<h3 id="answer-{chapter.name}">{html.escape(chapter.title)}</h3>\n')
        parts.append(to_html(f"*{chapter.question}*\n\n{chapter.answer}", renderer))
        if chapter.headline:
            words = alternative(records[chapter.name], chapter.headline)
            image = picture(folder, chapter.name, chapter.headline, words)
            parts.append(
                f'<figure>{image}<figcaption>From <a href="#{chapter.name}">{chapter.name}</a>, '
                f"figure {chapter.headline}.</figcaption></figure>\n"
            )
    return "".join(parts)


def methods(folder: Path, records: Records) -> str:
    """Return how all numbers were obtained, and the rule behind each verdict."""
    text = (resources.files(__package__) / "methods.md").read_text(encoding="utf-8")
    rows = "\n".join(
        f"| {claim.id} | {claim.record['rule'].replace('|', chr(92) + '|')} |"
        for _, claims in claims_by_source(records)
        for claim in claims
    )
    rules = f"### Rules\n\n| claim | rule |\n|---|---|\n{rows}"
    return to_html(f"{text}\n\n{rules}", renderer_of(folder, records, "methods", 0))


def limits(folder: Path, records: Records, chapters: Mapping[str, Chapter]) -> str:
    """Return what each notebook says that its numbers do not show."""
    text = "\n\n".join(
        f"### {name}\n\n{chapter.limits}" for name, chapter in chapters.items() if chapter.limits
    )
    return to_html(text, renderer_of(folder, records, "limits", 0))


def environment(folder: Path, records: Records) -> str:
    """Return where each set was made and with which parameters."""
    kinds = list(
        dict.fromkeys(kind for record in records.values() for kind in record["environment"])
    )
    rows = [
        [name, *(str(record["environment"].get(kind, prose.MISSING)) for kind in kinds)]
        for name, record in records.items()
    ]
    parameters = [
        f"- **{name}**: "
        + ", ".join(f"`{key} = {value!r}`" for key, value in record["parameters"].items())
        for name, record in records.items()
    ]
    text = "\n\n".join(
        [
            "Every package, transitive ones too, is pinned in `requirements.txt`. `make figures` "
            "makes every number and figure again, `make report` this page.",
            prose.markdown_table(["set", *kinds], rows),
            "### Parameters\n\n" + "\n".join(parameters),
        ]
    )
    return to_html(text, renderer_of(folder, records, "environment", 0))


# --- the page -----------------------------------------------------------------------------------


def report_page(folder: Path) -> str:
    """Return the whole report as one HTML page.

    Raises:
        ValueError: nothing is published, or a notebook, figure or marker that does not fit what
            is published.
    """
    records = published_sets(folder)
    order = [name for name in notebook_order(folder) if name in records]
    if not order:
        raise ValueError("expected published notebooks in figures/, found none: run make figures")
    chapters = {name: read_chapter(folder, name, records) for name in order}
    new = [chapter for name, chapter in chapters.items() if name.startswith(NEW_RESULTS)]
    other = [chapter for name, chapter in chapters.items() if not name.startswith(NEW_RESULTS)]
    parts = {
        "summary": ("Summary", summary(folder, records, chapters)),
        "claims": ("What was claimed, what was measured", claims_section(records, chapters)),
        "figures": ("The proposal's five figures", proposal_figures(folder, records, chapters)),
        "new": ("Past the proposal", answers(folder, records, new)),
        "answers": ("What the other notebooks answer", answers(folder, records, other)),
        "methods": ("Methods", methods(folder, records)),
        "limits": ("Limits", limits(folder, records, chapters)),
        "environment": ("Environment", environment(folder, records)),
    }
    for name, chapter in chapters.items():
        path = f'<p class="part">The notebook <code>notebooks/{name}.ipynb</code></p>\n'
        parts[name] = (chapter.title, path + chapter.body)
    parts["api"] = ("The functions", reference())
    contents = "".join(
        f'<li><a href="#{key}">{html.escape(title)}</a></li>\n' for key, (title, _) in parts.items()
    )
    sections = "\n".join(
        f'<section class="{"api" if key == "api" else "chapter"}" aria-labelledby="{key}">\n'
        f'<h2 id="{key}">{html.escape(title)}</h2>\n{content}\n</section>'
        for key, (title, content) in parts.items()
    )
    style = (resources.files(__package__) / "report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>RAI study: report</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        "<header>\n<h1>RAI study: report</h1>\n</header>\n"
        f'<nav aria-label="Contents">\n<ol>\n{contents}</ol>\n</nav>\n'
        f"<main>\n{sections}\n</main>\n</body>\n</html>\n"
    )


# --- printing -----------------------------------------------------------------------------------


def find_browser() -> str | None:
    """Return the command of a Chromium browser, or ``None``."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def browser_command(browser: str, profile: Path) -> list[str]:
    """Return how to start ``browser`` without a window, with a profile of its own."""
    command = [
        browser,
        "--headless=new",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={profile}",
    ]
    # Chromium refuses to run as root inside its sandbox; what it opens is this project's own page.
    return [*command, "--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else command


def browser_profile() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for a browser to keep its state in, which goes when the context ends.

    The browser's child processes may outlive it for a moment and still write there; a folder that
    cannot be emptied because of that is left to the operating system.
    """
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


def print_page(page: Path, target: Path, browser: str) -> None:
    """Print an HTML page as PDF.

    Raises:
        OSError: the browser did not write it, or not in time.
    """
    with browser_profile() as profile:
        command = [
            *browser_command(browser, Path(profile)),
            "--no-pdf-header-footer",
            f"--print-to-pdf={target}",
            page.resolve().as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PRINTING_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{browser} did not print in {PRINTING_SECONDS} s") from error
    if done.returncode != 0 or not target.is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise OSError(f"{browser} did not print the page: {last}")


def build(folder: Path, target: Path) -> list[Path]:
    """Write ``report.html``, and ``report.pdf`` where a browser can print it; return what is there.

    Raises:
        ValueError: as :func:`report_page`.
    """
    text = report_page(folder)
    target.mkdir(parents=True, exist_ok=True)
    page, paper = target / "report.html", target / "report.pdf"
    page.write_text(text, encoding="utf-8")
    paper.unlink(missing_ok=True)
    browser = find_browser()
    if browser is None:
        print(
            "report  no PDF: no Chromium or Chrome was found to print the page with. "
            "The HTML is whole; any browser can print it."
        )
        return [page]
    try:
        print_page(page, paper, browser)
    except OSError as error:
        print(f"report  no PDF: {error}. The HTML is whole; any browser can print it.")
        return [page]
    return [page, paper]


def main(folder: Path | None = None) -> int:
    """Build the report in ``build/report``; return 0, or 2 where it was refused."""
    folder = root() if folder is None else folder
    start = time.monotonic()
    try:
        made = build(folder, folder / "build" / "report")
    except ValueError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    for path in made:
        print(f"report  {path.relative_to(folder)}  {path.stat().st_size / 1e6:.1f} MB")
    print(f"report  done in {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What is generated from all published sets together.

``CLAIMS.md`` and its summary in the README, ``figures/README.md`` (which figure comes from where)
and ``figures/numbers.tex`` (one LaTeX macro a number) are functions of ``figures/*/metrics.json``
alone: the same sets give the same bytes.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rai_utils.publishing import prose
from rai_utils.publishing.claims import (
    FIGURE_SUFFIXES,
    METRICS_FILE,
    read_metrics,
    rule_shown,
    write_whole,
)
from rai_utils.publishing.prose import shown

SOURCES = {
    "P": "The proposal",
    "Q": "The proposal's open questions",
    "H": "The hand-over, which no source has",
    "M": "Why RAI stops at a straight line, which no source has",
    "G": "Guided starts of the targets, which no source has",
    "O": "First-order optimisers",
    "N": "RAI and its neighbours",
    "R": "`relax` on networks of other kinds, which no source has",
    "L": "A lecture on networks and activation functions",
    "S": "A question and answer on softmax hidden layers",
}
"""The sources of the claims by the letters of their ids, in the order of every table."""

Records = Mapping[str, Mapping[str, Any]]
"""What ``metrics.json`` holds, by the name of the set."""
Claim = Mapping[str, Any]
"""A claim as ``metrics.json`` holds it, with the ``notebook`` that it is judged in."""

# Sets that no notebook publishes.
_MADE_BY = {
    "bench": "`make bench`",
    "bench-cuda": "`python -m rai_utils.experiments.bench_cuda`, where there is a GPU",
}
_DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


# --- the sets -----------------------------------------------------------------------------------


def notebook_order(folder: Path) -> list[str]:
    """Return the notebooks as ``NOTEBOOKS`` of the Makefile has them; none without a Makefile."""
    makefile = folder / "Makefile"
    text = makefile.read_text(encoding="utf-8") if makefile.is_file() else ""
    found = re.search(r"^NOTEBOOKS := ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return found[1].replace("\\\n", " ").split() if found else []


def published_sets(folder: Path) -> dict[str, dict[str, Any]]:
    """Return each published set by its name: notebooks in their order, then all others.

    A set that is being swapped is waited for, and one whose swap was cut short is repaired first.
    One that ``claims.read_metrics`` refuses is a ValueError.
    """
    # Where nothing can be written, nothing is being swapped.
    writable = os.access(folder / "figures", os.W_OK)
    with sets_to_itself(folder) if writable else contextlib.nullcontext():
        return _read_sets(folder)


def _read_sets(folder: Path) -> dict[str, dict[str, Any]]:
    order = notebook_order(folder)
    files = sorted((folder / "figures").glob(f"[!.]*/{METRICS_FILE}"))
    names = [file.parent.name for file in files]
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    return {name: read_metrics(folder / "figures" / name) for name in names}


@contextlib.contextmanager
def sets_to_itself(folder: Path) -> Generator[None]:
    """Hold the lock under which sets are swapped and read, with every cut swap repaired."""
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    with (figures / ".index.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in {*figures.glob(".*.old"), *figures.glob(".*.new")}:
            repair(figures / leftover.stem[1:])
        yield


def repair(figures: Path) -> None:
    """Undo what a kill in the middle of a swap left: the last good set stands again."""
    new, old = aside(figures)
    if old.exists() and not figures.exists():
        old.rename(figures)
    for leftover in (new, old):
        if leftover.exists():
            shutil.rmtree(leftover)


def aside(figures: Path) -> tuple[Path, Path]:
    """Return where the new and the old set of ``figures`` stand during a swap."""
    return figures.with_name(f".{figures.name}.new"), figures.with_name(f".{figures.name}.old")


def claims_by_source(records: Records) -> Iterator[tuple[str, list[Claim]]]:
    """Yield the title of each source that has claims, and its claims by number."""
    claims: dict[str, list[tuple[int, str, Claim]]] = {source: [] for source in SOURCES}
    for notebook, record in records.items():
        for claim in record["claims"]:
            source, number = re.findall("[A-Z]+|[0-9]+", claim["id"])[:2]
            own = claims.setdefault(source, [])
            own.append((int(number), claim["id"], {**claim, "notebook": notebook}))
    for source in (*SOURCES, *sorted(claims.keys() - SOURCES.keys())):
        if claims[source]:
            ordered = sorted(claims[source], key=lambda each: each[:2])
            yield SOURCES.get(source, f"Claims {source}"), [claim for *_, claim in ordered]


# --- Markdown -----------------------------------------------------------------------------------


def verdict_table(records: Records) -> str:
    """Return Markdown: how many claims of each source have which verdict."""
    lines = ["| source | claims | verdicts |", "|---|---:|---|"]
    for title, claims in claims_by_source(records):
        counts = Counter(claim["verdict"] for claim in claims)
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        lines.append(f"| {title} | {len(claims)} | {verdicts} |")
    return "\n".join(lines)


def claims_table(claims: Sequence[Claim], address: str, *, rules: bool = False) -> str:
    """Return Markdown: one line a claim, with its rule and its null if asked.

    Its id is a link to the address, ``{notebook}`` and ``{id}`` of which are the claim's.
    """
    header, ruler = ("rule | null | ", "---|---|") if rules else ("", "")
    lines = [f"| | claim | measured | 95 % interval | {header}verdict |"]
    lines.append(f"|---|---|---:|---|{ruler}---|")
    for claim in claims:
        cells = [f"[{claim['id']}]({address.format(**claim)})", claim["statement"]]
        cells += [shown(claim["measured"]), " to ".join(map(shown, claim["interval"] or ()))]
        if rules:
            null = claim["null"]
            words = f"{null['text']}: {shown(null['measured'])}" if null else ""
            cells += [rule_shown(claim), words]
        lines.append("| " + " | ".join(map(_cell, [*cells, claim["verdict"]])) + " |")
    return "\n".join(lines)


def claims_page(records: Records) -> str:
    """Return ``CLAIMS.md``: every claim with what was measured, its rule, its null and verdict."""
    parts = [
        "# Claims\n\nEvery claim that this study judges. A verdict follows from the number and "
        "its interval by the rule beside it, in code; the *null* is what would be measured if the "
        "claim were false, and a test holds that no rule is met by its null, not even in part. "
        "Numbers in brackets were measured for the rule. This page is generated from the "
        "published sets: `make notebooks`.",
        verdict_table(records),
    ]
    for title, claims in claims_by_source(records):
        table = claims_table(claims, "notebooks/{notebook}.ipynb", rules=True)
        parts.append(f"## {title}\n\n{table}")
    return "\n\n".join(parts) + "\n"


def badges(folder: Path) -> str:
    """Return the badges that start the study on Binder and on Colab, as Markdown.

    They need the public address, which is told once, as ``repository-code`` in ``CITATION.cff`` (a
    repository on GitHub). Without one, the text says so.
    """
    citation = yaml.safe_load((folder / "CITATION.cff").read_text(encoding="utf-8"))
    address = str(citation.get("repository-code", ""))
    if not (found := re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", address)):
        return (
            "*Badges for Binder and Colab appear here when `CITATION.cff` names the public "
            "repository: `repository-code: https://github.com/…`, then `make notebooks`.*"
        )
    first = next(iter(notebook_order(folder)))
    return (
        f"[![Binder](https://mybinder.org/badge_logo.svg)]"
        f"(https://mybinder.org/v2/gh/{found[1]}/HEAD?labpath=notebooks%2F{first}.ipynb) "
        f"[![Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"(https://colab.research.google.com/github/{found[1]}/blob/HEAD/notebooks/{first}.ipynb)"
    )


def figures_index(records: Records) -> str:
    """Return ``figures/README.md``: each figure file and each number once, with what makes it."""
    parts = [
        "# Figures\n\nEach figure as PNG (200 dpi), PDF, and JSON: what is drawn in it, from which "
        "`make restyle` draws it in another style, width or format. Each number in `metrics.json` "
        "and as a LaTeX macro in [numbers.tex](numbers.tex): the folded tables below have the "
        "names, and `Low` or `High` behind one means an end of the interval. This page is "
        "generated from the published sets."
    ]
    for name, record in records.items():
        origin = f"[the notebook {name}](../notebooks/{name}.ipynb): `make {name}`"
        origin = _MADE_BY.get(name, origin)
        numbers = f"Numbers: [{METRICS_FILE}]({name}/{METRICS_FILE})."
        lines = [f"## {name}\n\nMade by {origin}. {numbers}\n"]
        lines += ["| figure | files | what is drawn |", "|---|---|---|"]
        for figure in record["figures"]:
            files = " ".join(
                f"[{suffix[1:].upper()}]({name}/{figure}{suffix})" for suffix in FIGURE_SUFFIXES
            )
            words = _cell(record["descriptions"].get(figure, ""))
            lines.append(f"| {figure} | {files} | {words} |")
        lines.append("\nParameters:\n")
        for parameter, value in record["parameters"].items():
            lines.append(f"- `{parameter} = {json.dumps(value, ensure_ascii=False)}`")
        values = prose.named_values(record)
        lines.append("\n<details><summary>Numbers by name, with their LaTeX macros</summary>\n")
        lines += ["| number | value | macro |", "|---|---:|---|"]
        for number in sorted(values, key=str.lower):
            if not number.endswith((".low", ".high")):
                macro = macro_name(name, number)
                lines.append(f"| {number} | {shown(values[number])} | `\\{macro}` |")
        lines.append("\n</details>")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- LaTeX --------------------------------------------------------------------------------------


def macro_name(notebook: str, name: str) -> str:
    """Return the macro of a number, in letters only: ``RaiGradsPEightLow`` for ``P8.low``.

    Names are those of `rai_utils.publishing.prose`; each digit is spelled.
    """
    words = re.split(r"[-_.]", f"{notebook}.{name}")
    spelled = [re.sub("[0-9]", lambda digit: _DIGITS[int(digit[0])], word) for word in words]
    return "".join(word[:1].upper() + word[1:] for word in spelled)


def numbers_tex(records: Records) -> str:
    r"""Return ``figures/numbers.tex``: ``\newcommand{\RaiGradsPEightLow}{0.874}`` and so on.

    A number has four significant digits, ``1.234e-05``, as ``\num`` sets and ``\fpeval`` calculates
    with; one that does not exist is a dash. Each line ends with the name that it has in this study.
    Two numbers whose names give the same macro are refused with a ValueError.
    """
    lines = [
        "% Generated from figures/*/metrics.json: \\input this file, and siunitx for \\num. Write",
        "% \\num{\\RaiGradsPEightMeasured} for claim P8 of rai-grads, or calculate:",
        "% \\num{\\fpeval{round(\\RaiGradsHandoverHeldOut - \\RaiGradsRaiHeldOut, 3)}}. ...Low and",
        "% ...High are the ends of the interval, ...Verdict is the verdict, a text. The name of a",
        "% number stands behind it. example.tex is a document that does all this.",
    ]
    taken: dict[str, str] = {}
    for notebook, record in records.items():
        lines.append(f"% --- {notebook}")
        for name, value in prose.named_values(record).items():
            if value is None and name.endswith((".low", ".high")):
                continue
            macro, number = macro_name(notebook, name), f"{notebook}/{name}"
            if macro in taken:
                raise ValueError(
                    f"names must differ as LaTeX macros, got {taken[macro]} and {number}, both "
                    f"\\{macro}"
                )
            taken[macro] = number
            digits = r"\textendash{}" if value is None else shown(value, 4)
            lines.append(rf"\newcommand{{\{macro}}}{{{digits}}} % {number}")
    return "\n".join(lines) + "\n"


# --- writing ------------------------------------------------------------------------------------


def write_index(folder: Path) -> None:
    """Write ``figures/README.md`` and ``figures/numbers.tex``; `sets_to_itself` is held."""
    records = _read_sets(folder)
    texts = {"README.md": figures_index(records), "numbers.tex": numbers_tex(records)}
    for name, text in texts.items():
        write_whole(folder / "figures" / name, text)

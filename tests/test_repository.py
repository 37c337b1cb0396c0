"""Holds the repository to its own rules; each rule is also broken on purpose."""

import ast
import copy
import importlib.metadata
import json
import operator
import os
import re
import shutil
import subprocess
import sys
import tomllib

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from PIL import Image

import rai_utils
from rai_utils.publishing import prose
from rai_utils.publishing.catalogue import (
    claims_page,
    figures_index,
    numbers_tex,
    published_sets,
)
from rai_utils.publishing.claims import FIGURE_SUFFIXES, METRICS_FILE, read_metrics
from rai_utils.publishing.intervals import Estimate
from rai_utils.publishing.pipeline import (
    NOTEBOOK_METADATA,
    ROOT,
    checked_parameters,
    declared_parameters,
    filled_readme,
    read_profile,
)
from rai_utils.publishing.report import HIDDEN_OUTPUT
from rai_utils.publishing.rules import (
    ANSWERS,
    WIDEST,
    Measured,
    all_of,
    at_least,
    at_most,
    compare,
    identity,
)
from rai_utils.publishing.strip import PICTURE, STRIPS

NOTEBOOK_FOLDER = ROOT / "notebooks"
LONGEST_CELL = 25
LONGEST_HIDDEN_CELL = 70
MOST_CELLS = 45
MOST_BOOKKEEPING = 0.15
HIDDEN = "hide-input"
IGNORED_BY_NBVAL = {"nbval-ignore-output", "nbval-skip"}
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/<])/(?:home|Users|root|tmp|work|mnt|opt|usr|var|private|content)/\w"
    r"|\b[A-Z]:\\\\?\w"
)
# An author, or some, and a year; what a link calls itself and a list of references have their own.
_AUTHOR = r"[A-Z][\w'’-]*[a-zøñé]"
CITED = re.compile(
    rf"\b{_AUTHOR}(?:(?:, {_AUTHOR})* (?:&|and) {_AUTHOR}| et al\.)? \(?(?:19|20)\d\d\b"
)
LINKED = re.compile(r"\[[^\]]*\]\([^()\s]*(?:\([^()]*\)[^()\s]*)*\)|^- .*\]\(http.*$", re.MULTILINE)
# The three rooms, and the rooms that a module of each may import from.
ROOMS = {
    "core": {"core"},
    "publishing": {"publishing"},
    "experiments": {"core", "publishing", "experiments"},
}
# What brings the checkout where a notebook comes alone, and the notebooks that lack it.
COLAB = """\
import os
import subprocess
import sys

if "google.colab" in sys.modules:  # there a notebook comes alone: put in the address
    subprocess.run(["git", "clone", "-q", "ADDRESS", "rai-study"], check=True)
    os.chdir("rai-study")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "."], check=True)"""
# What draws is all that they have in common.
DRAWING = {"recording", "plotting"}
# What several experiments share, and the commands that run them; all else serves one notebook.
SHARED = {"sweep", "timing"}
COMMANDS = {"bench", "bench_cuda", "peers", "peers_jax", "study"}


# --- published numbers ---


def published_numbers():
    """Every number of every published set, with its name."""
    for name, record in published_sets(ROOT).items():
        for metric, number in record["metrics"].items():
            yield f"{name}/{metric}", number | {"measured": number["value"]}
        for claim in record["claims"]:
            yield f"{name}/{claim['id']}", claim


def test_no_published_tolerance_is_wider_than_half_of_its_effect():
    wide = [
        (name, number["tolerance"], number["effect"])
        for name, number in published_numbers()
        if number["measured"] is not None
        and number["tolerance"] > WIDEST * number["effect"] * (1 + 1e-9)
    ]
    assert wide == []


def test_the_effect_of_a_number_is_its_size_unless_it_is_named():
    numbers = [number for _, number in published_numbers() if number["measured"] is not None]
    own = [number for number in numbers if number["effect"] == abs(number["measured"])]
    assert len(own) > 0.9 * len(numbers)


def test_every_claim_says_what_its_number_is():
    claims = [claim for record in published_sets(ROOT).values() for claim in record["claims"]]
    silent = [claim["id"] for claim in claims if not re.search(r"\bmeasured: ", claim["statement"])]
    assert claims and silent == []


def test_no_interval_of_an_accuracy_or_a_share_leaves_0_to_1():
    kinds = re.compile(r"(^|_)(accuracy|held_out|train|share)(_|$)")
    outside = [
        (name, number["interval"])
        for name, number in published_numbers()
        if number["interval"] and kinds.search(name.split("/")[1]) and "gain" not in name
        if not 0 <= number["interval"][0] <= number["interval"][1] <= 1
    ]
    assert outside == []


def test_no_interval_of_a_claim_about_an_accuracy_or_a_share_leaves_0_to_1(notebook_name):
    differs = r"−|\b(less|lead|adds?|behind|gain|over|more)\b"
    plain = re.compile(rf"\(measured: (?!.*({differs})).*(accuracy|share)")
    for claim in read_metrics(ROOT / "figures" / notebook_name)["claims"]:
        if claim["interval"] and plain.search(claim["statement"]):
            low, high = claim["interval"]
            assert 0 <= low <= high <= 1, claim["id"]


# --- published rules ---


SIGNS = {"≥": operator.ge, "≤": operator.le, ">": operator.gt, "<": operator.lt, "=": operator.eq}


def judged_by_its_words(rule, measured, interval, numbers):
    """Return the verdict that the words of a published rule give for numbers."""
    ends = [measured, measured] if interval is None or measured is None else interval
    if identity := re.fullmatch(r"\|deviation\| (≤ [^ ,]+)(?: at \d+ points)?(, derived)?", rule):
        held = [holds(None if end is None else abs(end), identity[1], {}) for end in ends]
        word = "proved" if identity[2] else "verified"
        return "not measured" if None in held else word if all(held) else "not reproduced"
    if bounded := re.fullmatch(
        r"(.*) \((lower|upper) end of the interval\)(?:; contradicted: \w+ end (.*))?", rule
    ):
        near, far = ends if bounded[2] == "lower" else ends[::-1]
        bounds = bounded[1].split("; partly: ")
        held, could = ([holds(end, bound, numbers) for bound in bounds] for end in (near, far))
        if None in held:
            return "not measured"
        if any(held):
            return "reproduced" if held[0] else "partly"
        if any(could):
            return "undecided"
        beyond = bounded[3] is not None and holds(far, bounded[3], {})
        return "contradicted" if beyond else "not reproduced"
    text, _, few = rule.partition("; partly: ")
    pairs = {
        name.removesuffix(", lower end"): (number, numbers.get(name.replace(", lower", ", upper")))
        for name, number in numbers.items()
        if name.endswith(", lower end")
    }
    names = "|".join(map(re.escape, [*numbers, *pairs]))
    _, *parts = re.split(rf"(?:^| and )({names}) (?=[≥≤><=] )", text)
    states = [state(*part, numbers, pairs) for part in zip(parts[::2], parts[1::2], strict=True)]
    if "missing" in states:
        return "not measured"
    least = int(few.split()[0]) if few else len(states)
    if (met := states.count("met")) >= least:
        return "reproduced" if met == len(states) else "partly"
    if met + states.count("open") >= least:
        return "undecided"
    return "contradicted" if "against" in states else "not reproduced"


def state(name, words, numbers, pairs):
    """Return what one condition of a rule comes to: met, open, against, failed or missing."""
    words, near, limit = re.fullmatch(
        r"(.*?)(?: \((?:(lower|upper) end)?(?:; )?(?:against: (?:\w+ end )?([<>] \S+))?\))?", words
    ).groups()
    ends = (numbers[name],) * 2 if near is None else pairs[name][:: 1 if near == "lower" else -1]
    met, could = (holds(end, words, numbers) for end in ends)
    if None in (met, could):
        return "missing"
    if limit is not None and holds(ends[1], limit, {}):
        return "against"
    return "met" if met else "open" if could else "failed"


def holds(number, words, numbers):
    """Return whether a number keeps to words like ``> line + 0.02``; None if one is missing."""
    sign, limit = words.split(" ", 1)
    if limit in numbers:
        bound = numbers[limit]
    elif plus := re.fullmatch(r"(.*) ([+−]) (\S+)", limit):
        line = numbers[plus[1]]
        bound = None if line is None else line + float(plus[3]) * (1 if plus[2] == "+" else -1)
    else:
        bound = float(limit)
    return None if None in (number, bound) else bool(SIGNS[sign](number, bound))


@pytest.mark.parametrize("value", [-0.3, 0.2, 0.5, 0.52, 0.9, 0.95, 1.2])
@pytest.mark.parametrize(
    "make",
    [
        lambda x: at_least(0.9),
        lambda x: at_most(0.52, partly=0.95),
        lambda x: at_least(Measured("a line, upper end", 0.5, plus=0.02), partly=-0.2),
        lambda x: at_least(0.95, partly=Measured("line (mean)", 0.5)),
        lambda x: at_least(0.9, partly=0.52, against=0.5),
        lambda x: at_most(0.2, against=0.5),
        lambda x: identity(0.4),
        lambda x: identity(0.4, 3),
        lambda x: identity(0.4, 3, derived=True),
        lambda x: all_of(compare("x", x, ">=", -0.1), compare("x and y", x, "<", 0.6), partly=1),
        lambda x: all_of(compare("x", x, ">", Measured("z", 0.54, plus=-0.04))),
        lambda x: all_of(compare("x", x, "==", 0.5), compare("w", 1, "<=", Measured("z", x))),
        lambda x: all_of(compare("x", (x - 0.3, x), ">=", 0.5, against=0.2)),
        lambda x: all_of(compare("x", Estimate(x, (x, x + 0.3)), "<", 0.4)),
        lambda x: all_of(
            compare("x", (x, x + 0.3), "<=", Measured("z (mean)", 0.4), against=0.6),
            compare("x", (x, x + 0.3), ">", 0.3),
            compare("y", x, ">", 0.5, against=0.0),
            partly=2,
        ),
    ],
)
def test_the_words_of_a_rule_give_its_verdict(make, value):
    rule = make(value)
    numbers = {name: number for name, (number, _) in rule.numbers.items()}
    for interval in (None, (value - 0.1, value + 0.1)):
        expected = rule.decide(value, interval)
        assert judged_by_its_words(rule.text, value, interval, numbers) == expected


def test_the_words_of_a_rule_ask_for_what_is_missing():
    line = Measured("line", None, plus=0.1)
    for rule in (at_least(0.5), at_most(line), all_of(compare("x", None, ">", 0))):
        numbers = {name: number for name, (number, _) in rule.numbers.items()}
        assert judged_by_its_words(rule.text, None, None, numbers) == "not measured"


def accepted_nulls(claims):
    """Return the claims whose rule takes the number of their null for a success, if in part."""
    return [
        claim["id"]
        for claim in claims
        if (null := claim.get("null"))
        and judged_by_its_words(
            claim["rule"],
            null["measured"],
            null["interval"],
            {name: number["value"] for name, number in claim["numbers"].items()} | null["numbers"],
        )
        in ("proved", "verified", "reproduced", "partly")
    ]


def test_a_null_that_its_rule_accepts_is_found():
    numbers = {"x": {"value": 0.8}, "y": {"value": 0.9}}
    null = {"measured": 0.6, "interval": [0.5, 0.7], "numbers": {"x": 0.1}}
    for rule, found in (
        ("≥ 0.5 (lower end of the interval)", ["P1"]),
        ("≥ 0.6; partly: ≥ 0.5 (lower end of the interval)", ["P1"]),
        ("≥ 0.6 (lower end of the interval)", []),
        ("x > 0.5 and y > 0.5; partly: 1 of them", ["P1"]),
        ("x > 0.5 and y > 0.5", []),
        ("y > 0.5", ["P1"]),
        ("|deviation| ≤ 0.7", ["P1"]),
    ):
        claim = {"id": "P1", "rule": rule, "numbers": numbers}
        assert accepted_nulls([claim | {"null": null}]) == found
        assert accepted_nulls([claim | {"null": None}, claim]) == []


def test_every_published_verdict_follows_from_the_words_of_its_rule(notebook_name):
    for claim in read_metrics(ROOT / "figures" / notebook_name)["claims"]:
        numbers = {name: number["value"] for name, number in claim["numbers"].items()}
        found = judged_by_its_words(claim["rule"], claim["measured"], claim["interval"], numbers)
        word = ANSWERS.get(claim["id"][0], {}).get(found, found)
        assert claim["verdict"].partition(" on ")[0] == word, claim["id"]


def test_no_rule_accepts_what_would_be_measured_if_the_claim_were_false(notebook_name):
    claims = read_metrics(ROOT / "figures" / notebook_name)["claims"]
    assert [claim["id"] for claim in claims if claim["null"] is None] == []
    assert accepted_nulls(claims) == []


# --- notebooks, the Makefile and the profiles ---


def test_the_makefile_names_every_notebook(makefile_notebooks):
    files = {path.stem for path in NOTEBOOK_FOLDER.glob("*.ipynb")}
    assert set(makefile_notebooks) == files
    assert len(makefile_notebooks) == len(files)


def test_the_hours_of_the_study_are_half_of_those_that_its_cells_took():
    cells = [
        cell
        for file in (ROOT / "figures" / "study").glob("*.json")
        for cell in json.loads(file.read_text())["cells"]
    ]
    hours = sum(cell["seconds"] for cell in cells) / 3600 / 2  # two at a time
    said = [
        re.search(pattern, (ROOT / name).read_text())[1]
        for name, pattern in (
            ("README.md", r"`make study`.*about (\d+) hours \|"),
            ("Makefile", r"study:.*\(about (\d+) hours\)"),
        )
    ]
    assert said[0] == said[1]
    assert abs(int(said[0]) - hours) < 1


def test_nbval_runs_what_the_makefile_names():
    recipe = (ROOT / "Makefile").read_text().partition("\ntest:")[2].partition("\n\n")[0]
    assert "--nbval --nbval-current-env $(NOTEBOOKS:%=notebooks/%.ipynb)" in recipe
    assert "--nbval-lax" not in recipe


def test_a_notebook_has_a_quick_profile_with_declared_parameters(notebook_name, notebook):
    declared = declared_parameters(notebook)
    path = NOTEBOOK_FOLDER / "profiles" / "quick" / f"{notebook_name}.yaml"
    profile = read_profile(path)
    assert profile
    assert checked_parameters(declared, profile, path.name).keys() == profile.keys()


def test_every_profile_has_a_notebook(makefile_notebooks):
    profiles = (NOTEBOOK_FOLDER / "profiles").rglob("*.yaml")
    assert {path.stem for path in profiles} <= set(makefile_notebooks)


def test_a_notebook_publishes_to_its_scratch_folder_by_default(notebook_name, notebook):
    assert declared_parameters(notebook)["publish_to"] == f"build/scratch/{notebook_name}"


# --- the notebooks themselves ---


def faults(notebook):
    """Return a line for each thing that a committed notebook must not have."""
    lines = []
    compared = 0
    number = 0
    for cell in notebook.cells:
        where = f"cell {cell.id}"
        for added in {"papermill", "execution", "ExecuteTime"} & set(cell.metadata):
            lines.append(f"{where}: holds the metadata {added!r} of a run")
        if any(ABSOLUTE_PATH.search(text) for text in texts(cell)):
            lines.append(f"{where}: holds an absolute path")
        if cell.cell_type != "code":
            cited = CITED.findall(LINKED.sub("", cell.source))
            lines += [f"{where}: cites {source} without a link" for source in cited]
            continue
        number += 1
        if cell.execution_count != number:
            lines.append(f"{where}: has execution count {cell.execution_count}, not {number}")
        longest = LONGEST_HIDDEN_CELL if is_hidden(cell) else LONGEST_CELL
        if len(cell.source.splitlines()) > longest:
            lines.append(f"{where}: is longer than {longest} lines")
        if is_hidden(cell) != cell.metadata.get("jupyter", {}).get("source_hidden", False):
            lines.append(f"{where}: is hidden in JupyterLab or in Jupyter Book, not in both")
        shown_again = HIDDEN_OUTPUT in cell.metadata.get("tags", [])
        if shown_again != cell.metadata.get("jupyter", {}).get("outputs_hidden", False):
            lines.append(f"{where}: hides its output in JupyterLab or in the report, not in both")
        for output in cell.outputs:
            if output.get("name") == "stderr":
                lines.append(f"{where}: holds stderr")
            if output.output_type == "error":
                lines.append(f"{where}: holds an error")
        if not IGNORED_BY_NBVAL & set(cell.metadata.get("tags", [])):
            compared += any(compared_text(output) for output in cell.outputs)
    if not compared:
        lines.append("no output that nbval compares")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        lines.append("the kernel is not python3")
    if set(notebook.metadata) - {"kernelspec", "language_info"}:
        lines.append("metadata of a run")
    return lines


def test_the_figure_of_the_first_screen_is_shown_once(notebook_name):
    cells = nbformat.read(NOTEBOOK_FOLDER / f"{notebook_name}.ipynb", as_version=4).cells
    first = set(re.findall(r"\.\./figures/[^/]+/([^)]+)\.png", cells[0].source))
    drawn = [
        set(re.findall(r"study\.figure\(\s*\"([^\"]+)\"", cell.source))
        for cell in cells
        if HIDDEN_OUTPUT in cell.metadata.get("tags", [])
    ]
    assert drawn == [first]


def is_hidden(cell):
    return HIDDEN in cell.metadata.get("tags", [])


def texts(node):
    """Yield each text in a cell, pictures left out."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            if not key.startswith("image/"):
                yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)


def compared_text(output):
    """Return the text of an output that says something of the result; a figure's repr does not."""
    if output.output_type == "stream":
        return output.text.strip()
    text = output.get("data", {}).get("text/plain", "").strip()
    return "" if text.startswith("<Figure") else text


def test_a_notebook_is_as_make_notebooks_writes_it(notebook):
    assert faults(notebook) == []


def good_notebook():
    cells = [
        new_markdown_cell("# Title, see `/figures` and https://example.org/usr/x", id="title"),
        new_code_cell(
            "1 + 1",
            id="sum",
            execution_count=1,
            outputs=[new_output("execute_result", {"text/plain": "2"}, execution_count=1)],
        ),
        new_code_cell("x = 1", id="x", execution_count=2),
    ]
    return new_notebook(cells=cells, metadata=copy.deepcopy(NOTEBOOK_METADATA))


def test_a_good_notebook_has_no_faults():
    assert faults(good_notebook()) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda n: n.cells[1].update(execution_count=None), "cell sum: has execution count None"),
        (lambda n: n.cells[2].update(execution_count=5), "cell x: has execution count 5, not 2"),
        (lambda n: n.cells[2].update(source="x = 1\n" * 26), "cell x: is longer than 25 lines"),
        (lambda n: n.cells[2].metadata.update(tags=[HIDDEN]), "cell x: is hidden in JupyterLab or"),
        (
            lambda n: n.cells[2].metadata.update(jupyter={"source_hidden": True}),
            "cell x: is hidden",
        ),
        (
            lambda n: n.cells[2].metadata.update(jupyter={"outputs_hidden": True}),
            "cell x: hides its output",
        ),
        (
            lambda n: n.cells[2].outputs.append(new_output("stream", name="stderr", text="w")),
            "cell x: holds stderr",
        ),
        (
            lambda n: n.cells[2].outputs.append(new_output("error", ename="E", evalue="")),
            "cell x: holds an error",
        ),
        (
            lambda n: n.cells[1].metadata.update(tags=["nbval-ignore-output"]),
            "no output that nbval compares",
        ),
        (
            lambda n: n.cells[1].outputs[0].data.update({"text/plain": "<Figure size 1x1>"}),
            "no output that nbval compares",
        ),
        (lambda n: n.cells[1].update(source="open('/home/me/x')"), "sum: holds an absolute path"),
        (
            lambda n: n.cells[1].outputs[0].data.update({"text/plain": "PosixPath('/tmp/x')"}),
            "cell sum: holds an absolute path",
        ),
        (lambda n: n.cells[0].update(source="a\n/usr/lib"), "title: holds an absolute path"),
        (
            lambda n: n.cells[0].update(source="[A & Bee 1990](x), by Dee, Eff & Gee (2001)"),
            "title: cites Dee, Eff & Gee (2001 without a link",
        ),
        (lambda n: n.cells[0].update(source="He et al. 2015"), "title: cites He et al. 2015"),
        (lambda n: n.cells[2].update(source="p = 'C:\\\\data'"), "x: holds an absolute path"),
        (lambda n: n.cells[1].metadata.update(papermill={}), "'papermill' of a run"),
        (lambda n: n.metadata.update(papermill={}), "metadata of a run"),
        (lambda n: n.metadata.kernelspec.update(name="mine"), "the kernel is not python3"),
    ],
)
def test_each_fault_is_found(change, fault):
    notebook = good_notebook()
    change(notebook)
    (found,) = faults(notebook)
    assert fault in found


# --- what a reader has to skip ---


def code_lines(notebook):
    """Return how many lines of code a reader sees, and how many of them are bookkeeping.

    Cells with hidden input and the parameters are left out. Bookkeeping is an import, and each
    statement that calls the study, sets something up or draws: of a loop or a function its head.
    """
    seen, books = 0, 0
    for cell in notebook.cells:
        hidden = {HIDDEN, "parameters"} & set(cell.metadata.get("tags", []))
        if cell.cell_type != "code" or hidden:
            continue
        lines = cell.source.splitlines()
        code = {number for number, line in enumerate(lines, 1) if line.split("#")[0].strip()}
        seen += len(code)
        tree = ast.parse(cell.source)
        statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
        books += len(code & set().union(*map(own_lines, filter(is_bookkeeping, statements))))
    return seen, books


def own_lines(statement):
    body = getattr(statement, "body", [])
    return set(range(statement.lineno, body[0].lineno if body else statement.end_lineno + 1))


def is_bookkeeping(statement):
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return True
    own = [node for node in ast.iter_child_nodes(statement) if not isinstance(node, ast.stmt)]
    calls = [node for each in own for node in ast.walk(each) if isinstance(node, ast.Call)]
    return any(BOOKKEEPING.fullmatch(ast.unparse(call.func)) for call in calls)


BOOKKEEPING = re.compile(
    r"study\.(record|claim|figure|publish)|(\w+\.)?(Study|configure)|plotting\..*", re.DOTALL
)


def test_bookkeeping_is_counted():
    code = """\
from rai_utils import plotting, Study

# a comment
x = 1
for name in names:
    x += 1
    study.record(
        within=0.1, x=x
    )
with plotting.style():
    x = [
        plotting.figure(),
    ]
def f(figure):
    return study.figure("f", figure)
"""
    hidden = new_code_cell("study.publish()", metadata={"tags": [HIDDEN]})
    cells = [new_code_cell("seeds = 3", metadata={"tags": ["parameters"]}), hidden]
    seen = new_notebook(cells=[*cells, new_code_cell(code), new_markdown_cell("study.publish()")])
    assert code_lines(seen) == (13, 9)


def test_a_notebook_keeps_its_bookkeeping_out_of_sight(notebook):
    seen, books = code_lines(notebook)
    assert books <= MOST_BOOKKEEPING * seen, f"{books} of {seen} lines"


def test_a_notebook_is_not_cut_into_crumbs(notebook):
    assert len(notebook.cells) <= MOST_CELLS


def repeated_parameters(notebook):
    """Return the literals of a notebook that name four of its parameters or more, and no more."""
    names = set(declared_parameters(notebook))
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    lists = []
    for node in (node for source in code for node in ast.walk(ast.parse(source))):
        match node:
            case ast.Dict(keys=entries) | ast.List(elts=entries) | ast.Tuple(elts=entries):
                words = [getattr(entry, "value", getattr(entry, "id", None)) for entry in entries]
            case ast.Constant(value=str(text)):
                words = text.split()
            case _:
                continue
        if len(words) >= 4 and all(isinstance(w, str) and w in names for w in words):
            lists.append(words)
    return lists


@pytest.mark.parametrize(
    "again",
    [
        "{'seeds': seeds, 'steps': steps, 'rate': rate, 'width': width}",
        "('seeds', 'steps', 'rate', 'width')",
        "[seeds, steps, rate, width]",
        "'seeds steps\\nrate width'.split()",
    ],
)
def test_a_list_of_the_parameters_is_found(again):
    cell = "seeds = 1\nsteps = 2\nrate = 0.1\nwidth = 3\npublish_to = 'build/scratch/x'"
    cells = [new_code_cell(cell, metadata={"tags": ["parameters"]})]
    assert repeated_parameters(new_notebook(cells=cells)) == []
    cells += [new_code_cell(f"known = {again}"), new_code_cell("f(seeds, [steps, rate, width])")]
    assert repeated_parameters(new_notebook(cells=cells)) == [["seeds", "steps", "rate", "width"]]


def test_no_list_of_parameters_stands_twice(notebook):
    assert repeated_parameters(notebook) == []


# --- what is published ---


def test_a_notebook_shows_the_published_numbers(notebook_name, notebook):
    record = read_metrics(ROOT / "figures" / notebook_name)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert prose.fill(cell.source, record) == cell.source


def test_the_readme_shows_the_published_numbers():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert prose.names(text)
    assert "<!--claims-->" in text
    assert "<!--badges-->" in text
    assert filled_readme() == text
    claims = (ROOT / "CLAIMS.md").read_text(encoding="utf-8")
    assert claims == claims_page(published_sets(ROOT))


def test_the_lists_of_figures_and_numbers_are_current():
    records = published_sets(ROOT)
    index = (ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    assert index == figures_index(records)
    assert (ROOT / "figures" / "numbers.tex").read_text(encoding="utf-8") == numbers_tex(records)


def test_every_figure_file_is_listed_once():
    index = (ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([a-z0-9-]+/[^)]+)\)", index)
    figures = ROOT / "figures"
    sets = (path for path in figures.glob("*/*") if path.parent.name != "study")  # data of sweeps
    sets = [path for path in sets if path.stem != "peers"]  # of a command of its own
    files = [str(path.relative_to(figures)) for path in sets if path.is_file()]
    assert sorted(links) == sorted(file for file in files if not file.startswith("."))


def test_every_figure_that_a_text_shows_is_published():
    texts = {"README.md": (ROOT / "README.md").read_text(encoding="utf-8")}
    for path in NOTEBOOK_FOLDER.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        texts[path.name] = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    for name, text in texts.items():
        for figure in re.findall(r"figures/[a-z0-9-]+/[a-z0-9-]+\.(?:png|pdf)", text):
            assert (ROOT / figure).is_file(), f"{name} shows {figure}"


PAGES = ("README.md", "CLAIMS.md", "CONTRIBUTING.md", "CHANGELOG.md", "figures/README.md")
LINK = re.compile(r"""\]\(<?((?:[^()\s>]|\([^()\s]*\))+)>?\)|(?:src|href)=["']([^"']+)["']""")


def anchors(text):
    """Return the anchors of a page's headings: those of GitHub, and those of Jupyter."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in (*plain, *headings)}


def broken_links(text, folder):
    """Return the relative links and pictures of a page that lead nowhere."""
    broken = []
    for link in (
        "".join(found) for found in LINK.findall(re.sub("```.*?```", "", text, flags=re.S))
    ):
        path, _, anchor = link.partition("#")
        target = folder / path
        if re.match("[a-z]+:", link):
            continue
        page = text if not path else None
        if path.endswith(".md") and target.is_file():
            page = target.read_text(encoding="utf-8")
        if not (target.exists() and (not anchor or page is None or anchor in anchors(page))):
            broken.append(link)
    return broken


def test_broken_links_are_found():
    text = (
        "# One, two\n[a](#one-two) [b](#three) [c](https://x.org/y) ![d](no.png)\n```\n[e](no)\n```"
    )
    assert broken_links(text, ROOT) == ["#three", "no.png"]
    assert broken_links('[a](README.md#two-commands) <img src="no.gif">', ROOT) == ["no.gif"]


@pytest.mark.parametrize("page", PAGES)
def test_no_link_of_a_page_is_broken(page):
    path = ROOT / page
    assert broken_links(path.read_text(encoding="utf-8"), path.parent) == []


def test_no_link_of_a_notebook_is_broken(notebook):
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert broken_links("\n\n".join(texts), NOTEBOOK_FOLDER) == []


def test_no_filled_number_stands_inside_a_formula(notebook):
    """There its marks would be taken for TeX."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            formulas = re.sub("`[^`]*`", "", cell.source).split("$")[1::2]
            assert [formula for formula in formulas if "<!--" in formula] == []


def test_the_moving_picture_is_small_and_shows_each_map():
    files = [ROOT / "figures" / f"{name}.json" for name in STRIPS]
    maps = sum(file.read_text(encoding="utf-8").count('plotting.landscape"') for file in files)
    picture = ROOT / PICTURE
    assert picture.stat().st_size < 1e6
    with Image.open(picture) as moving:
        assert moving.n_frames == maps > 5


def test_the_citation_names_this_version_and_whole_references():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["version"] == project["version"]
    assert citation["license"] == (ROOT / "LICENSE").read_text(encoding="utf-8").split()[0]
    for reference in citation["references"]:
        assert {"type", "title", "authors", "url"} <= set(reference), reference["title"]


def test_a_notebook_was_published_with_its_own_parameters(notebook_name, notebook):
    declared = declared_parameters(notebook)
    del declared["publish_to"]
    # As JSON holds them: a tuple is a list.
    expected = json.loads(json.dumps(declared))
    assert read_metrics(ROOT / "figures" / notebook_name)["parameters"] == expected


def test_every_figure_is_told_in_words():
    for name, record in published_sets(ROOT).items():
        words = record["descriptions"]
        assert list(words) == record["figures"]
        for figure, text in words.items():
            assert text.endswith(".") and len(text.split()) >= 8, f"{name}/{figure}: {text}"


def test_the_published_files_are_those_that_are_listed(notebook_name):
    folder = ROOT / "figures" / notebook_name
    listed = read_metrics(folder)["figures"]
    expected = {f"{name}{suffix}" for name in listed for suffix in FIGURE_SUFFIXES}
    assert {path.name for path in folder.iterdir()} == expected | {METRICS_FILE}


# --- the package ---


MODULES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "rai_utils").rglob("*.py*")
    if path.suffix in (".py", ".pyi")
)


def imported_names(source, package="rai_utils"):
    """Return the dotted names below rai_utils that code in ``package`` imports, wherever."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            names |= {f"{origin}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.partition(".")[0] == "rai_utils"}


def room_of(name):
    parts = name.split(".")
    return parts[1] if parts[1:] and parts[1] in ROOMS else "core"


def experiment_of(name):
    """Return the notebook that a dotted name serves; None for what several share, and others."""
    _, *parts = name.split(".")
    alone = parts[:1] == ["experiments"] and not {*parts[1:2]} <= SHARED | COMMANDS
    return parts[1].replace("_", "-") if alone else None


def dotted(path):
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize(
    ("source", "package", "names"),
    [
        ("import rai_utils.models", "", {"models"}),
        ("import rai_utils.models as m, torch", "", {"models"}),
        ("from rai_utils import models, relax", "", {"models", "relax"}),
        ("from rai_utils.training import fit", "", {"training.fit"}),
        ("from .training import fit", "", {"training.fit"}),
        ("from . import training", ".experiments", {"experiments.training"}),
        ("from .. import training", ".experiments", {"training"}),
        ("from ..claims import x", ".experiments.demo", {"experiments.claims.x"}),
        ("from ...publishing import claims", ".experiments.demo", {"publishing.claims"}),
        ("def f():\n    from rai_utils.experiments.bench import g", "", {"experiments.bench.g"}),
        ("import torch\nfrom torch import models", "", set()),
    ],
)
def test_imports_are_found(source, package, names):
    found = imported_names(source, f"rai_utils{package}")
    assert found == {f"rai_utils.{name}" for name in names}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_module_imports_only_from_the_rooms_that_its_own_may(path):
    package = ".".join(path.parent.parts)
    imported = imported_names((ROOT / path).read_text(encoding="utf-8"), package)
    room = room_of(package)
    shared = {name for name in imported if name.split(".")[1] in DRAWING}
    assert {room_of(name) for name in imported - shared} <= ROOMS[room]
    if path.stem in DRAWING:  # a plot takes arrays: it knows nothing of what made them
        assert {name.split(".")[1] for name in imported} <= DRAWING - {path.stem}
    if room == "experiments" and path.stem not in COMMANDS:
        others = {experiment_of(name) for name in imported} - {None}
        assert others <= {experiment_of(dotted(path))}


def test_every_folder_is_a_room_and_every_experiment_has_its_notebook(makefile_notebooks):
    folders = {path.parts[1] for path in MODULES if len(path.parts) > 2}
    assert folders == set(ROOMS) - {"core"}
    assert {experiment_of(dotted(path)) for path in MODULES} - {None} <= set(makefile_notebooks)


def test_a_notebook_imports_no_other_notebooks_experiment(notebook_name, notebook):
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    imported = set().union(*map(imported_names, code))
    assert {experiment_of(name) for name in imported} <= {None, notebook_name}


BLOCKED = ("IPython", "joblib", "matplotlib", "pandas", "scipy", "seaborn", "sklearn")
BLOCKED += ("threadpoolctl", "tqdm")


def run_alone(program):
    blocker = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocker())
"""
    command = [sys.executable, "-c", blocker + program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_what_the_package_offers_needs_torch_and_numpy_alone():
    done = run_alone(
        "import rai_utils, torch\n"
        "import rai_utils.diagnostics\n"
        "offered = [getattr(rai_utils, name) for name in rai_utils.__all__]\n"
        "from rai_utils import *\n"
        "assert 20 <= len(set(map(id, offered))) == len(rai_utils.__all__) <= 30\n"
        "assert set(rai_utils.__all__) <= set(dir(rai_utils))\n"
        "x = torch.ones(3, 2)\n"
        "model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))\n"
        "with relax(model, x) as relaxed:\n"
        "    assert relaxed.targets\n"
    )
    assert done.returncode == 0, done.stderr
    blocked = run_alone("import sklearn")
    assert "ModuleNotFoundError: sklearn" in blocked.stderr


def test_the_package_offers_nothing_else():
    with pytest.raises(AttributeError, match="module 'rai_utils' has no attribute 'nothing'"):
        rai_utils.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from rai_utils import nothing  # noqa: F401


@pytest.mark.slow
def test_a_wrong_parameter_is_refused_before_torch_is_loaded():
    program = "import sys, rai_utils.publishing.pipeline\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def training_loops(source):
    """Return the lines of the loops that take gradient steps."""
    return [
        loop.lineno
        for loop in ast.walk(ast.parse(source))
        if isinstance(loop, ast.For | ast.While)
        for call in ast.walk(loop)
        if isinstance(call, ast.Attribute) and call.attr in ("backward", "zero_grad")
    ]


# Loops that a reader is meant to copy; the last three are those of relax-your-own.
TO_COPY = {"rai-demo-plain", "recipe", "loop", "batches"}


def test_a_notebook_defines_no_training_loop_but_those_to_copy(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.id not in TO_COPY:
            assert training_loops(cell.source) == []


def test_training_loops_are_found():
    assert training_loops("x = 1\nfor step in range(9):\n    loss().backward()") == [2]
    assert training_loops("loss().backward()\nfor layer in layers:\n    layer.grad") == []


# --- the lock ---


def lock():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_the_lock_is_exact_and_free_of_places():
    for requirement in lock():
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
        assert requirement.url is None


def test_the_lock_is_what_is_installed():
    different = []
    for requirement in lock():
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = "none"
        # A build tag (+cpu) satisfies a pin without one.
        if not requirement.specifier.contains(version, prereleases=True):
            different.append(f"{requirement}: {version} is installed")
    assert different == []


def test_the_lock_fits_the_oldest_python_that_the_project_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (oldest,) = [specifier.version for specifier in SpecifierSet(project["requires-python"])]
    refused = {
        requirement.name: needs
        for requirement in lock()
        if (needs := importlib.metadata.metadata(requirement.name).get("Requires-Python"))
        and not SpecifierSet(needs).contains(f"{oldest}.0")
    }
    assert refused == {}


def test_the_lock_holds_every_direct_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = [
        Requirement(line)
        for line in project["dependencies"] + project["optional-dependencies"]["study"]
    ]
    pinned = {canonicalize_name(pin.name): pin for pin in lock()}
    for requirement in direct:
        pin = pinned[canonicalize_name(requirement.name)]
        (version,) = [specifier.version for specifier in pin.specifier]
        assert requirement.specifier.contains(version), requirement


def test_only_the_lock_pins():
    """Who installs the package keeps the torch that is there; the numbers are the lock's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in project["dependencies"]:
        operators = {each.operator for each in Requirement(line).specifier}
        assert operators & {">="}, line
        assert not operators & {"==", "===", "~="}, line
    (torch,) = [pin for pin in lock() if pin.name == "torch"]
    assert f"pip install {torch} --index-url" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_notebook_brings_its_checkout_to_colab(notebook_name, notebook):
    (cell,) = [cell for cell in notebook.cells if "google.colab" in cell.source]
    assert cell.source == COLAB
    assert is_hidden(cell)


@pytest.mark.slow
def test_what_is_installed_on_colab_finds_the_published_data(tmp_path):
    """With copies for the clone and for the installed package."""
    packages, clone = tmp_path / "packages", tmp_path / "rai-study"
    shutil.copytree(ROOT / "rai_utils", packages / "rai_utils")
    shutil.copytree(ROOT / "figures" / "study", clone / "figures" / "study")
    shutil.copytree(ROOT / "notebooks" / "profiles", clone / "notebooks" / "profiles")
    shutil.copy(ROOT / "pyproject.toml", clone)
    read = "import os\nfrom rai_utils.experiments import sweep\n"
    read += "from rai_utils.publishing import claims\n"
    read += "print(claims.__file__, sweep.read('handover').command)\n"
    read += "os.chdir('..')\nsweep.read('handover')"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", read],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    installed = packages / "rai_utils" / "publishing" / "claims.py"
    assert ran.stdout == f"{installed} make study SWEEPS=handover\n"
    assert ran.returncode != 0
    assert "run this in a clone of the repository" in ran.stderr


def test_conda_installs_the_same_lock():
    assert "- -r requirements.txt" in (ROOT / "environment.yml").read_text(encoding="utf-8")


def test_binder_takes_a_python_that_the_lock_fits():
    """It reads no range of versions."""
    assert "- python=3.11\n" in (ROOT / "environment.yml").read_text(encoding="utf-8")


def test_continuous_integration_runs_make_test():
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    (job,) = yaml.safe_load(workflow)["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert any(step.get("run") == ".ci/run" for step in job["steps"])
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o100
    assert script.read_text(encoding="utf-8").rstrip().endswith("\nmake test")
    assert "\nmake test" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_notebook_is_a_valid_notebook(notebook):
    nbformat.validate(notebook)

import base64
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from browser import Page
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rai_utils.publishing import report
from rai_utils.publishing.catalogue import claims_page, published_sets
from rai_utils.publishing.claims import read_metrics
from rai_utils.publishing.pipeline import ROOT, filled_readme
from rai_utils.publishing.report import read_chapter, report_page
from rai_utils.publishing.widgets import slider_html

BROWSER = report.find_browser()
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome was found")


@pytest.fixture(scope="module")
def page():
    return report_page(ROOT)


@pytest.fixture(scope="module")
def page_file(page, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture
def copy(tmp_path):
    """A copy of what the report and the README are made from."""
    for name in ("notebooks", "figures"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("README.md", "Makefile", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


# --- a small project ---

OPENING = """\
# A *title*

**Question.** Does it hold?

**Answer.** It does: <!--=steps:d-->7<!--/-->.

![words](../figures/demo/curve.png)
"""
EQUATIONS = r"""*What this figure says.* It falls, see [it](demo.ipynb#part), [other](other.ipynb).

More: $\mathcal L = \mathbb E[x < y]$, $\exp(-(x - 1)^2 / (2 \cdot 0.15^2)) = y$.

## Second part

$$a_{i+1} = f(b + c), \qquad 0 \le t < T + 1 \tag{3}$$

$$-a \left(a = b\right)$$

| a | b & c | d | e |
|---|---:|---|---|
| x | 1 | 2 | 3 |

| f | g |
|---|---|
| 4 | 5 |
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A project with one notebook, three published figures and one claim."""
    folder = tmp_path_factory.mktemp("small")
    record = {
        "notebook": "demo",
        "parameters": {"size": 3},
        "environment": {"python": "3.11"},
        "metrics": {"steps": {"value": 200, "tolerance": 0, "interval": None, "seeds": None}},
        "claims": [
            {"id": "P8", "measured": 1, "interval": None, "verdict": "proved"}
            | {"statement": "It holds", "rule": "≥ 1"}
        ],
        "figures": ["curve", "map", "left-over"],
        "descriptions": {"curve": "loss [nats]."},
    }
    figures = folder / "figures" / "demo"
    figures.mkdir(parents=True)
    (figures / "metrics.json").write_text(json.dumps(record))
    for name in record["figures"]:
        Figure(figsize=(1, 0.5)).savefig(figures / f"{name}.png", dpi=200)
    image = base64.b64encode((figures / "map.png").read_bytes()).decode()
    shown = new_output("display_data", {"image/png": image, "text/plain": "<Figure>"})
    table = new_output("display_data", {"text/markdown": "| h | i |\n|---|---|\n| 1 | 2 |"})
    page = slider_html({"k": [1, 2]}, lambda k: ([], f"k is {k}"))
    slider = new_output("display_data", {"text/html": page, "text/plain": "<HTML object>"})
    cells = [
        new_markdown_cell(OPENING),
        new_code_cell("study.figure('curve', figure)", outputs=[shown]),
        new_markdown_cell(EQUATIONS),
        new_code_cell(
            "for n in ['map']:\n    study.figure(n, figure)",
            outputs=[shown, new_output("stream", text="a < b\n")],
        ),
        new_code_cell("%matplotlib inline", outputs=[table, slider]),
        new_code_cell("prove('P8', 'It holds', 0)"),
        new_markdown_cell(
            "## Second part\n\n<details><summary>Try first</summary>\n\nSo.\n</details>"
        ),
        new_code_cell("draw('curve')", outputs=[shown]),
        new_code_cell(
            "print('again')",
            outputs=[new_output("stream", text="again\n")],
            metadata={"tags": ["hide-input", "hide-output"]},
        ),
        new_code_cell("again = figure"),
        new_code_cell("study.figure('curve', again)"),
        new_markdown_cell("## Limits\n\nOne machine, <!--=steps-->7<!--/--> steps.\n\n## Books"),
    ]
    (folder / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), folder / "notebooks" / "demo.ipynb")
    (folder / "Makefile").write_text("NOTEBOOKS := demo\n")
    (folder / "README.md").write_text("# Study\n\nThe opening.\n\n## Commands\n")
    return folder


@pytest.fixture(scope="module")
def tree(small):
    """The page of the small project, which is also well-formed XML."""
    page = re.sub(r' xmlns="[^"]*"', "", report_page(small).removeprefix("<!DOCTYPE html>"))
    return ElementTree.fromstring(page)


def words(element):
    """Return the text of an element; equations without the LaTeX that they hold too."""
    copy = ElementTree.fromstring(re.sub("<annotation.*?</annotation>", "", html_of(element)))
    return " ".join("".join(copy.itertext()).split())


def html_of(element):
    return ElementTree.tostring(element, encoding="unicode").rpartition(">")[0] + ">"


def test_a_chapter_takes_what_the_notebook_opens_and_closes_with(small):
    chapter = read_chapter(small, "demo", {"demo": read_metrics(small / "figures" / "demo")})
    assert chapter.title == "A *title*"
    assert chapter.question == "Does it hold?"
    assert chapter.answer == "It does: 200."
    assert chapter.limits == "One machine, 200 steps."
    assert chapter.captions["curve"].startswith("It falls")
    assert chapter.captions["map"] == ""


def test_the_summary_has_question_answer_and_verdicts(tree):
    summary = tree.find(".//section[@id='summary']")
    assert "The opening. source claims verdicts The proposal 1 1 proved" in words(summary)
    assert "Commands" not in words(summary)
    assert "A title Does it hold? It does: 200." in words(summary)
    assert summary.find(".//a[@href='#demo']") is not None


def test_the_environment_says_where_each_set_was_made_and_how(tree):
    environment = words(tree.find(".//section[@id='environment']"))
    assert environment.endswith("python 3.11: demo. Parameters demo: size = 3")


def test_figures_and_claims_stand_where_their_cells_are(tree):
    chapter = tree.find(".//section[@id='demo']")
    marks = [each.get("id") for each in chapter.iter() if each.get("id")]
    assert marks == [
        "demo",
        "demo-figure-curve",
        "second-part",
        "demo-figure-map",
        "demo-P8",
        "second-part-1",
        "limits-1",
        "books",
        "demo-figure-left-over",
    ]
    # Each figure once, that of the first screen there, and the picture of a cell without a figure.
    alternatives = [image.get("alt") for image in chapter.iter("img")]
    assert alternatives == [
        "loss [nats].",
        "Figure: map",
        "Picture that the code above draws",
        "Figure: left over",
    ]
    (row,) = [row for row in tree.iter("tr") if "It holds" in words(row)]
    assert row.find(".//a[@href='#demo-P8']") is not None
    assert words(row) == "P8 It holds 1 proved"


def test_pictures_are_held_by_the_page_at_one_scale(small, tree):
    image = tree.find(".//figure[@id='demo-figure-map']//img")
    content = (small / "figures" / "demo" / "map.png").read_bytes()
    assert image.get("src") == f"data:image/png;base64,{base64.b64encode(content).decode()}"
    assert image.get("width") == "144"


def test_outputs_are_shown_and_code_is_folded(tree):
    chapter = tree.find(".//section[@id='demo']")
    folded = [words(each) for each in chapter.findall(".//details[@class='code']")]
    assert len(folded) == 6
    assert folded[0] == "Code study.figure('curve', figure)"
    assert folded[-1] == "Code print('again') again = figure study.figure('curve', again)"
    (output,) = chapter.findall(".//pre[@class='output']")
    assert words(output) == "a < b"
    assert "h i 1 2" in words(chapter)
    assert "<Figure>" not in words(tree)
    assert "<HTML object>" not in words(tree)
    assert "k is 2" in words(chapter.find(".//div[@class='rai-slider']/script"))
    assert "Try first" in [words(each) for each in chapter.iter("summary")]


def test_links_between_notebooks_stay_on_the_page(tree):
    links = {words(link): link.get("href") for link in tree.iter("a")}
    assert links["it"] == "#demo"
    assert links["other"] == "other.ipynb"


def test_equations_are_mathml_that_breaks_before_relations(tree):
    chapter = tree.find(".//section[@id='demo']")
    inline = [words(math) for math in chapter.findall(".//math[@display='inline']")]
    assert inline == ["ℒ=𝔼[x<y]", "exp⁡(−(x−1)2/(2⋅0.152))", "=y"]
    numbered, bracketed = chapter.findall(".//span[@class='equation']")
    assert [words(math) for math in numbered.iter("math")] == [
        "ai+1",
        "=f(b+c),",
        "0",
        "≤t",
        "<T",
        "+1",
    ]
    assert "<mrow /><mo>+</mo>" in html_of(numbered)  # a sign between, and not that of a number
    assert words(numbered).endswith("(3)")
    # A sign at the start and one in brackets are no place to break.
    assert [words(math) for math in bracketed.iter("math")] == ["−a(a=b)"]


def test_tables_name_columns_and_rows_and_wide_ones_are_stacked(tree):
    wide, narrow, _ = tree.findall(".//section[@id='demo']//table")
    assert [head.get("scope") for head in wide.iter("th")] == ["col"] * 4 + ["row"]
    assert [cell.get("data-label") for cell in wide.iter("td")] == ["b & c", "d", "e"]
    assert [cell.get("role") for cell in wide.iter("td")] == ["cell"] * 3
    # In one order, or the page would have other bytes in each run.
    assert all([*cell.keys()][-2:] == ["role", "data-label"] for cell in wide.iter("td"))
    assert wide.get("class") == "stacked"
    assert narrow.get("class") is None
    assert [cell.get("data-label") for cell in narrow.iter("td")] == ["g"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("demo/curve.png", "demo/gone.png"), "gone.png not found"),
        (lambda text: text.replace("figures/demo/curve", "curve"), r"got 'curve.png'"),
        (
            lambda text: text.replace("mathcal L", "nothing L"),
            r"unexpected control sequence .nothing",
        ),
        (lambda text: text.replace("=steps:d", "=step:d"), "got 'step'"),
        (None, "must have its notebook, got no demo.ipynb"),
    ],
)
def test_what_does_not_fit_what_is_published_is_refused(small, tmp_path, change, message):
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    notebook = tmp_path / "notebooks" / "demo.ipynb"
    notebook.write_text(change(notebook.read_text())) if change else notebook.unlink()
    with pytest.raises(ValueError, match=message):
        report_page(tmp_path)


def test_a_figure_that_is_no_picture_is_refused(small, tmp_path):
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    (tmp_path / "figures" / "demo" / "curve.png").write_text("no picture")
    with pytest.raises(ValueError, match="pandoc can set"):
        report_page(tmp_path)


# --- the page of the study ---


def test_each_figure_and_claim_of_the_study_has_its_place(notebook_name):
    record = read_metrics(ROOT / "figures" / notebook_name)
    chapter = read_chapter(ROOT, notebook_name, {notebook_name: record})
    assert set(chapter.captions) == set(record["figures"])
    for claim in record["claims"]:
        assert chapter.body.count(f'<a id="{notebook_name}-{claim["id"]}">') == 1
    assert chapter.question
    assert chapter.answer
    assert chapter.limits


@pytest.mark.slow
def test_the_page_holds_all_it_shows_and_no_script_but_the_sliders(page):
    addresses = re.findall(r'src="([^"]*)"', page)
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    # Sliders bring their own; nothing else moves.
    assert page.count("<script") == page.count('class="rai-slider"')
    for outside in ("<link", "<iframe", "@import", "url(", "javascript:", "onclick"):
        assert outside not in page
    prose = re.sub(
        "<pre.*?</pre>|<annotation.*?</annotation>|<img[^>]*>", "", page, flags=re.DOTALL
    )
    assert not re.search(r"<!--|\$[a-zA-Z\\]", prose)


@pytest.mark.slow
def test_every_published_claim_and_figure_is_on_the_page(page, makefile_notebooks):
    for name in makefile_notebooks:
        record = read_metrics(ROOT / "figures" / name)
        assert f'<section id="{name}"' in page
        for figure in record["figures"]:
            assert page.count(f'id="{name}-figure-{figure}"') == 1
        for claim in record["claims"]:
            place = re.escape(f'href="#{name}-{claim["id"]}"')
            (row,) = re.findall(rf"<th[^>]*><a\s+{place}>.*?</tr>", page, re.DOTALL)
            assert claim["verdict"] in " ".join(row.split())
    assert re.findall(r"Figures? \d(?: and \d)?\.", page) == [
        "Figure 1.",
        "Figures 2 and 3.",
        "Figures 4 and 5.",
    ]
    section = page.partition('id="the-proposals-five-figures"')[2].partition("</section>")[0]
    record = read_metrics(ROOT / "figures" / "rai-demo")
    caption = read_chapter(ROOT, "rai-demo", {"rai-demo": record}).captions["circuit"]
    assert caption.partition(":")[0] in " ".join(section.split())
    # In the order in which the claims lead to them.
    assert page.index('<section id="rai-demo"') < page.index('<section id="rai-grads"')


@pytest.mark.slow
def test_a_reader_who_hears_the_page_finds_the_way(page):
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(words.strip() for words in re.findall(r'<img[^>]* alt="([^"]*)"', page))
    assert page.count("<img") == len(re.findall(r"<img[^>]* alt=", page))
    assert page.count("<th") - page.count("<thead") == len(
        re.findall(r'<th\s[^>]*scope="(?:col|row)"', page)
    )
    assert 'lang="en"' in page
    assert page.count("<main>") == page.count("</main>") == page.count("<nav ") == 1
    addresses = re.findall(r'\sid="([^"]*)"', page)
    assert len(set(addresses)) == len(addresses)


@pytest.mark.slow
def test_a_changed_number_changes_readme_and_report(copy, page):
    path = copy / "figures" / "rai-grads" / "metrics.json"
    record = json.loads(path.read_text())
    record["metrics"]["handover_held_out"]["value"] = 98.76543
    claim = next(claim for claim in record["claims"] if claim["id"] == "P8")
    claim |= {"measured": 0.654321, "interval": [0.61, 0.7], "verdict": "contradicted"}
    path.write_text(json.dumps(record))
    (copy / "README.md").write_text(filled_readme(copy))
    claims = claims_page(published_sets(copy))
    for text, before, numbers in (
        ((copy / "README.md").read_text(), README, ("98.765",)),
        (claims, claims_page(published_sets(ROOT)), ("0.654", "0.61 to 0.7")),
        (report_page(copy), page, ("98.765", "0.654", "0.61 to 0.7")),
    ):
        for number in numbers:
            assert number not in before
            assert number in text
        assert text.count("contradicted") > before.count("contradicted")


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_without_a_published_set_the_report_is_refused_in_one_line(tmp_path, capsys):
    assert report.main(tmp_path) == 2
    errors = capsys.readouterr().err
    assert "must hold published notebooks, got none" in errors
    assert errors.count("\n") == 1


# --- printing ---


@pytest.fixture
def small_page(monkeypatch):
    monkeypatch.setattr(report, "report_page", lambda folder: "<!DOCTYPE html><title>t</title>p")


def printed(folder):
    """Build the report; return which files are there."""
    assert report.main(folder) == 0
    return sorted(path.name for path in (folder / "build" / "report").iterdir())


def test_without_a_browser_the_html_stands_alone(tmp_path, capsys, monkeypatch, small_page):
    monkeypatch.setattr(report, "find_browser", lambda: None)
    (tmp_path / "build" / "report").mkdir(parents=True)
    (tmp_path / "build" / "report" / "report.pdf").write_text("of an earlier report")
    assert printed(tmp_path) == ["report.html"]
    output = capsys.readouterr().out
    assert "no Chromium or Chrome was found" in output
    assert "report  build/report/report.html" in output


def test_a_browser_that_fails_leaves_the_html(tmp_path, capsys, monkeypatch, small_page):
    monkeypatch.setattr(report, "find_browser", lambda: shutil.which("false"))
    assert printed(tmp_path) == ["report.html"]
    assert "did not print the page: no message" in capsys.readouterr().out


# Prints, and keeps something in its profile.
PRINTING_BROWSER = """#!/bin/sh
for option; do case $option in
  --user-data-dir=*) mkdir "${option#*=}/Default" ;;
  --print-to-pdf=*) echo %PDF > "${option#*=}" ;;
esac; done
"""


def test_a_browser_that_still_fills_its_profile_has_printed(tmp_path, monkeypatch, small_page):
    def still_filled(path, **_):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)

    browser = tmp_path / "browser"
    browser.write_text(PRINTING_BROWSER)
    browser.chmod(0o755)
    monkeypatch.setattr(report, "find_browser", lambda: str(browser))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where what stays behind is removed
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", still_filled)
        assert printed(tmp_path) == ["report.html", "report.pdf"]


@pytest.mark.slow
@needs_browser
def test_the_page_is_printed(tmp_path, capsys, small_page):
    assert printed(tmp_path) == ["report.html", "report.pdf"]
    assert (tmp_path / "build" / "report" / "report.pdf").read_bytes().startswith(b"%PDF")
    assert "build/report/report.pdf" in capsys.readouterr().out


# --- in a browser ---


@pytest.mark.slow
@needs_browser
def test_a_browser_shows_the_whole_page(page_file):
    with Page(BROWSER, page_file) as opened:
        for width in (360, 1280):
            faults = opened.open_at(width)
            assert faults["width"] == width
            assert faults["page"] <= 0
            for fault in ("wide", "missing", "dead"):
                assert faults[fault] == []
            assert faults["images"] > 10
            assert faults["equations"] > 10
            assert faults["unnamed"] == 0
        assert opened.messages == []


@pytest.mark.slow
@needs_browser
def test_a_browser_finds_each_fault(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(
        '<!DOCTYPE html><img src="gone.png" alt="gone"><img src="data:," alt="">'
        '<p style="width: 500px">wide</p><a href="#nowhere">x</a>'
        "<script>console.log('hello'); missing()</script>"
    )
    with Page(BROWSER, path) as opened:
        faults = opened.open_at(360)
        assert faults["page"] > 0
        assert any("width: 500px" in element for element in faults["wide"])
        assert "gone" in faults["missing"]
        assert faults["unnamed"] == 1
        assert faults["dead"] == ["nowhere"]
        messages = " ".join(opened.messages)
        for trace in ("gone.png", "hello", "missing is not defined"):
            assert trace in messages


# --- the package on its own ---

PACKAGED = (
    "py.typed",
    "__init__.pyi",
    "publishing/report.css",
    "publishing/report.lua",
    "publishing/methods.md",
    "publishing/slides.mplstyle",
    "experiments/network_basics/calculus.py",
)


@pytest.mark.slow
def test_the_wheel_runs_the_five_lines_of_the_readme(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "rai_utils", source / "rai_utils")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    run([*wheel, "--wheel-dir", tmp_path, source])
    empty = tmp_path / "empty"
    run([sys.executable, "-m", "venv", "--without-pip", empty])
    python = empty / "bin" / "python"
    (made,) = tmp_path.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", python]
    # PYTHONPATH, which `make` sets, would show pip the package of this checkout as installed.
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run([*pip, "install", "--no-deps", "--no-index", made], env=alone)
    # The packages that it needs are seen, so that nothing is downloaded; this checkout is not.
    site = run([python, "-c", "import site; print(site.getsitepackages()[0])"]).strip()
    ours = [path for path in sys.path if path.endswith("site-packages")]
    Path(site, "needed.pth").write_text("\n".join(ours))
    five_lines, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    program = (
        "import torch\n"
        "from torch import nn\n"
        "x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))\n"
        "y = (x[:, :1] > x[:, 1:]).float()\n"
        "model = nn.Sequential()\n"
        "model.add_module('features', nn.Sequential(nn.Linear(2, 8), nn.Tanh()))\n"
        "model.add_module('head', nn.Linear(8, 1))\n"
        "loss_function = nn.functional.binary_cross_entropy_with_logits\n"
        "before = loss_function(model(x), y).item()\n"
        f"{five_lines}\n"
        "assert loss_function(model(x), y).item() < before\n"
        "import rai_utils\n"
        "from importlib import resources\n"
        "top = resources.files('rai_utils')\n"
        f"for name in {PACKAGED}:\n"
        "    assert top.joinpath(name).is_file(), name\n"
        "print(rai_utils.__file__)\n"
    )
    where = run([python, "-I", "-c", program], cwd=tmp_path).strip()
    assert where.startswith(str(empty))


def run(command, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

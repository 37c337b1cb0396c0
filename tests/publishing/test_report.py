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

import pytest
from browser import Page

from rai_utils.publishing import report
from rai_utils.publishing.claims import read_metrics
from rai_utils.publishing.pipeline import ROOT, fill_readme

BROWSER = report.find_browser()
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome was found")


@pytest.fixture(scope="module")
def page():
    return report.report_page(ROOT)


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


# --- what is on the page ---


@pytest.mark.slow
def test_the_page_holds_all_it_shows_and_runs_no_script(page):
    addresses = re.findall(r'src="([^"]*)"', page)
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    for outside in ("<script", "<link", "<iframe", "@import", "url(", "javascript:", "onclick"):
        assert outside not in page


@pytest.mark.slow
def test_every_published_claim_and_figure_is_on_the_page(page, makefile_notebooks):
    for name in makefile_notebooks:
        record = read_metrics(ROOT / "figures" / name)
        assert f'<h2 id="{name}">' in page
        for figure in record["figures"]:
            assert page.count(f'id="{name}-figure-{figure}"') == 1
        for claim in record["claims"]:
            rows = re.findall(rf'<th scope="row"[^>]*>{claim["id"]}</th>.*?</tr>', page, re.DOTALL)
            assert claim["verdict"] in rows[0]
            assert f'href="#{name}' in rows[0]
    assert re.findall(r"Figures? \d(?: and \d)?\.", page) == [
        "Figure 1.",
        "Figures 2 and 3.",
        "Figures 4 and 5.",
    ]


@pytest.mark.slow
def test_a_reader_who_hears_the_page_finds_the_way(page):
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(words.strip() for words in re.findall(r'<img[^>]* alt="([^"]*)"', page))
    assert page.count("<img") == len(re.findall(r"<img[^>]* alt=", page))
    assert page.count("<th ") == len(re.findall(r'<th scope="(?:col|row)"', page))
    assert '<html lang="en">' in page
    addresses = re.findall(r' id="([^"]*)"', page)
    assert len(set(addresses)) == len(addresses)


@pytest.mark.slow
def test_a_changed_number_changes_readme_and_report(copy, page):
    path = copy / "figures" / "rai-grads" / "metrics.json"
    record = json.loads(path.read_text())
    record["metrics"]["handover_held_out"]["value"] = 98.76543
    claim = next(claim for claim in record["claims"] if claim["id"] == "P8")
    claim |= {"measured": 0.654321, "interval": [0.61, 0.7], "verdict": "not reproduced"}
    path.write_text(json.dumps(record))
    fill_readme(copy)
    changed = report.report_page(copy)
    for text, before in (((copy / "README.md").read_text(), README), (changed, page)):
        for number in ("98.765", "0.654", "0.61 to 0.7"):
            assert number not in before
            assert number in text
        assert text.count("not reproduced") > before.count("not reproduced")


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_without_a_published_set_the_report_is_refused_in_one_line(tmp_path, capsys):
    assert report.main(tmp_path) == 2
    errors = capsys.readouterr().err
    assert "expected published notebooks" in errors
    assert errors.count("\n") == 1


# --- printing ---


@pytest.fixture
def small_page(monkeypatch):
    monkeypatch.setattr(report, "report_page", lambda folder: "<!DOCTYPE html><title>t</title>p")


def test_without_a_browser_the_html_stands_alone(tmp_path, capsys, monkeypatch, small_page):
    monkeypatch.setattr(report, "find_browser", lambda: None)
    (tmp_path / "report.pdf").write_text("of an earlier report")
    assert report.build(tmp_path, tmp_path) == [tmp_path / "report.html"]
    assert not (tmp_path / "report.pdf").exists()
    assert "no Chromium or Chrome was found" in capsys.readouterr().out


def test_a_browser_that_fails_leaves_the_html(tmp_path, capsys, monkeypatch, small_page):
    monkeypatch.setattr(report, "find_browser", lambda: shutil.which("false"))
    assert report.build(tmp_path, tmp_path) == [tmp_path / "report.html"]
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
        made = report.build(tmp_path, tmp_path)
    assert made == [tmp_path / "report.html", tmp_path / "report.pdf"]


@pytest.mark.slow
@needs_browser
def test_the_page_is_printed(tmp_path, capsys, small_page):
    assert report.main(tmp_path) == 0
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
    "publishing/methods.md",
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
    (five_lines,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    program = (
        "import torch\n"
        "from torch import nn\n"
        "x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))\n"
        "y = (x[:, :1] > x[:, 1:]).float()\n"
        "model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))\n"
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

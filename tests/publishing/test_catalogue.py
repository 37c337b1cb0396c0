import fcntl
import json
import re
import shutil
import subprocess

import pytest

from rai_utils.publishing.catalogue import (
    badges,
    claims_by_source,
    claims_page,
    claims_table,
    figures_index,
    macro_name,
    notebook_order,
    numbers_tex,
    published_sets,
    sets_to_itself,
    write_index,
)
from rai_utils.publishing.claims import read_metrics
from rai_utils.publishing.pipeline import ROOT, filled_readme
from rai_utils.publishing.prose import shown
from rai_utils.publishing.report import report_page

LAST = {"id": "P10", "verdict": "partly", "interval": None, "null": None}


def record(notebook="rai-demo", **changes):
    claim = {
        "id": "P8",
        "statement": "It holds beyond |x| = 4",
        "measured": 0.98765,
        "interval": [0.9, 1.0],
        "seeds": 5,
        "rule": "≥ 0.5",
        "numbers": {},
        "null": {"text": "chance", "measured": 0.5},
        "verdict": "reproduced",
        "tolerance": 0.05,
    }
    metric = {"value": 0.95, "tolerance": 0, "interval": [0.9, 1.0], "seeds": 5}
    return {
        "notebook": notebook,
        "parameters": {"seeds": 5, "rates": [0.1, 1e-3], "name": "relu"},
        "environment": {},
        "metrics": {
            "share_1": metric,
            "steps": {"value": 200, "tolerance": 0, "interval": None, "seeds": None},
        },
        "claims": [claim, claim | LAST],
        "figures": ["curve", "map"],
        "descriptions": {"curve": "loss against |x|."},
    } | changes


@pytest.fixture
def project(tmp_path):
    (tmp_path / "Makefile").write_text("A := b\nNOTEBOOKS := zeta rai-demo \\\n\tlast\nX := y\n")
    for name in ("alpha", "last", "rai-demo", "zeta", ".zeta.old", ".last.new"):
        folder = tmp_path / "figures" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(record(name)))
    return tmp_path


def test_sets_come_in_the_order_of_the_makefile(project):
    assert notebook_order(project) == ["zeta", "rai-demo", "last"]
    assert list(published_sets(project)) == ["zeta", "rai-demo", "last", "alpha"]
    (project / "Makefile").unlink()
    assert list(published_sets(project)) == ["alpha", "last", "rai-demo", "zeta"]


def test_a_swap_that_was_cut_short_drops_no_set(project):
    whole = published_sets(project)
    figures = project / "figures"
    assert not (figures / ".zeta.old").exists()
    assert not (figures / ".last.new").exists()
    # The first of two renames was the last thing that happened.
    (figures / "alpha").rename(figures / ".alpha.old")
    assert published_sets(project) == whole
    (figures / "alpha").rename(figures / ".alpha.old")
    with sets_to_itself(project):
        write_index(project)
    assert "## alpha" in (figures / "README.md").read_text()


@pytest.mark.parametrize("reader", [published_sets, filled_readme, report_page])
def test_nobody_reads_while_a_set_is_swapped(project, monkeypatch, reader):
    (project / "README.md").touch()
    flock = fcntl.flock
    monkeypatch.setattr(
        "rai_utils.publishing.catalogue.fcntl.flock",
        lambda lock, how: flock(lock, how | fcntl.LOCK_NB),
    )
    with (project / "figures" / ".index.lock").open("w") as swapping:
        flock(swapping, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            reader(project)


def test_sets_are_read_where_nothing_can_be_written(project, monkeypatch):
    whole = published_sets(project)
    shutil.copytree(project / "figures" / "zeta", project / "figures" / ".zeta.old")
    monkeypatch.setattr("rai_utils.publishing.catalogue.os.access", lambda path, how: False)
    monkeypatch.setattr("rai_utils.publishing.catalogue.sets_to_itself", None)
    assert published_sets(project) == whole


def test_claims_come_by_source_and_number():
    claims = [{"id": id, "verdict": "partly"} for id in ("S2", "P10", "P9", "Z1", "L1", "Q3")]
    found = list(claims_by_source({"one": {"claims": claims[:3]}, "two": {"claims": claims[3:]}}))
    assert [[claim["id"] for claim in own] for _, own in found] == [
        ["P9", "P10"],
        ["Q3"],
        ["L1"],
        ["S2"],
        ["Z1"],
    ]
    assert found[0][0] == "The proposal"
    assert found[-1][0] == "Claims Z"


def test_the_page_of_claims_says_each_with_rule_and_null_and_counts_the_verdicts():
    text = claims_page({"rai-demo": record()})
    assert "| The proposal | 2 | 1 reproduced, 1 partly |" in text
    first, second = (line for line in text.splitlines() if line.startswith("| [P"))
    assert first == (
        r"| [P8](notebooks/rai-demo.ipynb) | It holds beyond \|x\| = 4 | 0.988 | 0.9 to 1 "
        "| ≥ 0.5 | chance: 0.5 | reproduced |"
    )
    assert second.startswith("| [P10](notebooks/rai-demo.ipynb)")
    assert second.endswith("|  | partly |")


def test_numbers_are_short_and_missing_ones_are_marked():
    assert [shown(value) for value in (0.98765, 2.8e-17, 10000, None)] == [
        "0.988",
        "2.8e-17",
        "10000",
        "–",
    ]
    claim = record()["claims"][0] | {"interval": (0.12345, 2.0)}
    rows = claims_table([claim, claim | {"interval": None}], "#{id}").splitlines()[2:]
    assert [row.split(" | ")[3] for row in rows] == ["0.123 to 2", ""]


def test_the_index_names_each_file_once_with_what_makes_it():
    text = figures_index({"rai-demo": record(), "bench": record("bench")})
    for file in ("curve.png", "curve.pdf", "map.png", "map.pdf", "metrics.json"):
        assert text.count(f"(rai-demo/{file})") == 1
    assert "`make rai-demo`" in text
    assert "notebooks/bench" not in text
    assert "`make bench`" in text
    assert "- `rates = [0.1, 0.001]`" in text
    assert r"loss against \|x\|." in text
    assert r"| share_1 | 0.95 | `\RaiDemoShareOne` |" in text
    assert r"| P8.verdict | reproduced | `\RaiDemoPEightVerdict` |" in text
    names = re.findall(r"^\| ([^|]+) \| [^|]* \| `\\RaiDemo", text, re.MULTILINE)
    assert names == sorted(names, key=str.lower) and not any(".low" in name for name in names)


# --- LaTeX ---


def test_macros_have_letters_only():
    assert macro_name("rai-demo", "share_1") == "RaiDemoShareOne"
    assert macro_name("rai-grads", "P10.low") == "RaiGradsPOneZeroLow"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (200, "200"),
        (-3, "-3"),
        (0.98765, "0.9877"),
        (-0.5, "-0.5"),
        (2.776e-17, "2.776e-17"),
        (None, r"\textendash{}"),
        ("not reproduced", "not reproduced"),
        (True, "True"),
    ],
)
def test_values_are_latex(value, text):
    metrics = {"number": {"value": value, "interval": None}}
    made = numbers_tex({"rai-demo": {"metrics": metrics, "claims": [], "parameters": {}}})
    assert rf"\newcommand{{\RaiDemoNumber}}{{{text}}}" in made


def test_each_number_is_one_macro():
    lines = numbers_tex({"rai-demo": record()}).splitlines()
    macros = [line for line in lines if not line.startswith("%")]
    assert macros[:4] == [
        r"\newcommand{\RaiDemoShareOne}{0.95} % rai-demo/share_1",
        r"\newcommand{\RaiDemoShareOneLow}{0.9} % rai-demo/share_1.low",
        r"\newcommand{\RaiDemoShareOneHigh}{1} % rai-demo/share_1.high",
        r"\newcommand{\RaiDemoSteps}{200} % rai-demo/steps",
    ]
    assert r"\newcommand{\RaiDemoPEightVerdict}{reproduced} % rai-demo/P8.verdict" in macros
    assert macros[-1] == r"\newcommand{\RaiDemoSeeds}{5} % rai-demo/seeds"  # of its parameters
    assert not any("StepsLow" in line for line in macros)


def test_two_names_for_one_macro_are_refused():
    metric = {"value": 1, "tolerance": 0, "interval": None, "seeds": None}
    twice = record(metrics={"rate_0_1": metric, "rate_01": metric})
    with pytest.raises(ValueError, match=r"rai-demo/rate_0_1 and rai-demo/rate_01, both \\RaiDemo"):
        numbers_tex({"rai-demo": twice})


def test_the_published_macros_are_safe_names_and_values():
    text = (ROOT / "figures" / "numbers.tex").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    value = r"-?[0-9.]+(e-?\+?\d+)?|[a-zA-Z ]+|\\textendash\{\}"
    for line in lines:
        assert re.fullmatch(rf"\\newcommand\{{\\[A-Za-z]+\}}\{{({value})\}} % [\w./-]+", line), line
    names = [line.split("}")[0] for line in lines]
    assert len(set(names)) == len(names)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX was found")
def test_latex_sets_the_example_and_calculates(tmp_path):
    for name in ("numbers.tex", "example.tex"):
        shutil.copy(ROOT / "figures" / name, tmp_path)
    figures = re.findall(r"includegraphics[^{]*\{([^}]+)\}", (tmp_path / "example.tex").read_text())
    for name in figures:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy((ROOT / "figures" / name).with_suffix(".pdf"), (tmp_path / name).parent)
    end = r"\end{document}"
    told = rf"\typeout{{SUM \fpeval{{\RaiGradsHandoverHeldOut + 1}}}}{end}"
    text = (tmp_path / "example.tex").read_text().replace(end, told)
    (tmp_path / "page.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    handover = read_metrics(ROOT / "figures" / "rai-grads")["metrics"]["handover_held_out"]
    (total,) = re.findall(r"SUM ([0-9.]+)", done.stdout)
    assert float(total) == pytest.approx(1 + handover["value"], abs=1e-4)
    assert (tmp_path / "page.pdf").stat().st_size > 10_000


# --- badges and writing ---


def test_badges_need_the_address_that_the_citation_names(project):
    citation = project / "CITATION.cff"
    citation.write_text("cff-version: 1.2.0\n")
    assert "repository-code" in badges(project)
    assert "mybinder" not in badges(project)
    citation.write_text("repository-code: https://github.com/someone/rai-study.git\n")
    text = badges(project)
    assert "https://mybinder.org/v2/gh/someone/rai-study/HEAD?labpath=notebooks%2Fzeta" in text
    assert "/github/someone/rai-study/blob/HEAD/notebooks/zeta.ipynb" in text


def test_the_same_sets_give_the_same_bytes(project):
    write_index(project)
    files = [project / "figures" / name for name in ("README.md", "numbers.tex")]
    before = [path.read_bytes() for path in files]
    write_index(project)
    assert [path.read_bytes() for path in files] == before
    assert not list((project / "figures").glob(".*partial"))
    changed = record("zeta")
    changed["metrics"]["steps"]["value"] = 201
    (project / "figures" / "zeta" / "metrics.json").write_text(json.dumps(changed))
    write_index(project)
    assert r"\newcommand{\ZetaSteps}{201}" in files[1].read_text()

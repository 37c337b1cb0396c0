"""What depends on what, in this checkout and in made-up ones."""

import os
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from rai_utils import sources
from rai_utils.pipeline import ROOT
from rai_utils.sources import fingerprint, module_sources, notebook_sources

MODULES = {
    "__init__": '"""A package."""\n',
    "ground": "import json\n",
    "middle": "from rai_utils.ground import x\n",
    "late": "def f():\n    from rai_utils import ground\n",
    "relative": "from . import middle\nfrom .late import f\n",
    "circle": "import rai_utils.other\n",
    "other": "import rai_utils.circle as circle\n",
    "typed": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rai_utils import ground\n"
        "else:\n    from rai_utils import late\n"
    ),
    "dynamic": "import importlib\nimportlib.import_module('rai_utils.middle')\n",
    "sweep": "def read(name):\n    return name\n",
}
DATA = ("study/one.json", "study/two.json", "bench/metrics.json", "rai-demo/metrics.json")


@pytest.fixture
def project(tmp_path):
    for name, text in MODULES.items():
        path = tmp_path / "rai_utils" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for name in DATA:
        path = tmp_path / "figures" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("{}")
    (tmp_path / "notebooks").mkdir()
    sources._imports.cache_clear()
    yield tmp_path
    sources._imports.cache_clear()


def notebook(project, *cells):
    path = project / "notebooks" / "made-up.ipynb"
    text = new_markdown_cell("import rai_utils.ground and figures/bench")
    nbformat.write(new_notebook(cells=[text, *map(new_code_cell, cells)]), path)
    return path


def found(project, *cells):
    paths = notebook_sources(notebook(project, *cells), project)
    assert paths == sorted(set(paths))
    return {str(path.relative_to(project)) for path in paths} - {"rai_utils/__init__.py"}


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import numpy", ""),
        ("import rai_utils.ground", "ground"),
        ("from rai_utils import middle as m, ground", "middle ground"),
        ("from rai_utils.middle import x", "middle ground"),
        ("from rai_utils import late", "late ground"),
        ("from rai_utils import relative", "relative middle late ground"),
        ("from rai_utils import circle", "circle other"),
        ("from rai_utils import typed", "typed late ground"),
        ("from rai_utils import dynamic", "dynamic middle ground"),
        ("from rai_utils import nothing_there", ""),
        ("%matplotlib inline\n!echo import\nimport rai_utils.ground", "ground"),
        ("%%bash\nfor x in", ""),
        ("await f()", ""),
    ],
)
def test_a_notebook_depends_on_what_it_imports(project, code, modules):
    assert found(project, "x = 1", code) == {f"rai_utils/{name}.py" for name in modules.split()}


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ('from rai_utils.sweep import read\nread("one")', "study/one.json"),
        ('from rai_utils.sweep import read as r\nr(name="two")', "study/two.json"),
        ('from rai_utils import sweep\nsweep.read("one"), sweep.read("two")', DATA[:2]),
        ('import rai_utils.sweep\nrai_utils.sweep.read("two")', "study/two.json"),
        ('import rai_utils.sweep as s\nfor name in ("one",):\n    s.read(name)', "study/one.json"),
        ("from rai_utils import sweep\nsweep.read(name)", DATA[:2]),
        ('from rai_utils import sweep\nsweep.read("three")', ()),
        ('import pandas\npandas.read("one")', ()),
        ('bench = "figures/bench"', "bench/metrics.json"),
        ('bench = "figures/nothing"', ()),
    ],
)
def test_a_notebook_depends_on_the_data_that_it_reads(project, code, data):
    names = {data} if isinstance(data, str) else set(data)
    assert {path for path in found(project, code) if path.startswith("figures/")} == {
        f"figures/{name}" for name in names
    }


def test_a_package_that_imports_its_modules_is_followed(project):
    (project / "rai_utils" / "__init__.py").write_text("from rai_utils.middle import x\n")
    assert found(project, "from rai_utils import x") == {
        "rai_utils/middle.py",
        "rai_utils/ground.py",
    }


# --- the fingerprint ---


CODE = '''"""What it is."""
import json

def work(a):
    """What it does."""
    return {"value": a * 10}  # ten times
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("a * 10", "a*10", True),
        ("  # ten times", "", True),
        ('"""What it does."""', '"""Another text."""', True),
        ('    """What it does."""\n', "", True),
        ('"""What it is."""\n', "", True),
        ("a * 10", "a * 1000", False),
        ('"value"', '"worth"', False),
        ("import json", "import math", False),
    ],
)
def test_a_fingerprint_is_of_what_code_does(tmp_path, old, new, same):
    path = tmp_path / "work.py"
    path.write_text(CODE)
    before = fingerprint({path})
    assert old in CODE
    path.write_text(CODE.replace(old, new))
    assert (fingerprint({path}) == before) is same


def test_a_fingerprint_holds_for_any_checkout(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("x = 1\n")
        (tmp_path / name / "b.py").write_text("y = 2\n")
    one, two = ({tmp_path / name / file for file in ("a.py", "b.py")} for name in ("one", "two"))
    assert fingerprint(one) == fingerprint(two)


# --- this checkout ---


def test_each_notebook_of_the_study_has_sources_and_the_commands_are_none(notebook_name):
    paths = notebook_sources(ROOT / "notebooks" / f"{notebook_name}.ipynb", ROOT)
    modules = {path.stem for path in paths if path.suffix == ".py"}
    assert {"claims", "plotting", "legibility", "training", "data"} <= modules
    assert not {"pipeline", "bench", "study", "catalogue", "report", "reference"} & modules


def test_modules_of_this_checkout_are_what_python_loads():
    """The finder's list is what an import of the module brings in."""
    script = (
        "import sys, rai_utils.limits\n"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] == 'rai_utils'))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )
    listed = module_sources({ROOT / "rai_utils" / "limits.py"}, [ROOT])
    names = {f"rai_utils.{path.stem}".removesuffix(".__init__") for path in listed}
    assert names >= set(ran.stdout.split())


# --- make ---


def listed_by_make(project, *options):
    ran = subprocess.run(
        ["make", "-n", "figures", "ENV=active", *options],
        cwd=project,
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"},  # noqa: PTH120
    )
    return [line.split()[4] for line in ran.stdout.splitlines() if "pipeline execute" in line]


@pytest.fixture
def up_to_date(tmp_path, makefile_notebooks):
    """A copy of this checkout in which every notebook has just been run."""
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("rai_utils", "notebooks"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    for path in (ROOT / "figures").rglob("*.json"):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for profile in ("full", "quick"):
        for name in makefile_notebooks:
            path = tmp_path / "build" / profile / f"{name}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return tmp_path


def touch_newer(path):
    """Set the time of a file after that of all others."""
    time = 4_000_000_000
    os.utime(path, (time, time))


@pytest.mark.parametrize("options", [(), ("PROFILE=quick",)])
@pytest.mark.parametrize(
    ("changed", "rerun"),
    [
        (None, ""),
        ("rai_utils/report.py", ""),
        ("rai_utils/bench.py", ""),
        ("rai_utils/neighbours.py", "rai-questions-minibatches"),
        ("rai_utils/calculus.py", "network-basics"),
        ("figures/bench/metrics.json", "network-basics activation-saturation"),
        ("figures/study/regularisers.json", "rai-questions-generalisation"),
        ("figures/study/handover.json", "rai-questions-initialisation"),
        ("notebooks/rai-demo.ipynb", "rai-demo"),
    ],
)
def test_make_runs_the_notebooks_that_depend_on_a_change(up_to_date, options, changed, rerun):
    if changed is not None:
        touch_newer(up_to_date / changed)
    assert listed_by_make(up_to_date, *options) == rerun.split()


def test_make_runs_all_notebooks_for_a_module_that_all_import(up_to_date, makefile_notebooks):
    touch_newer(up_to_date / "rai_utils" / "claims.py")
    assert listed_by_make(up_to_date) == makefile_notebooks


def test_make_takes_every_module_where_no_python_can_list_them(up_to_date, makefile_notebooks):
    (up_to_date / "rai_utils" / "sources.py").write_text("raise SystemExit(1)\n")
    touch_newer(up_to_date / "rai_utils" / "neighbours.py")
    assert listed_by_make(up_to_date) == makefile_notebooks

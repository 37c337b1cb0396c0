"""What depends on what, in this checkout and in made-up ones."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from rai_utils.publishing.pipeline import ROOT
from rai_utils.publishing.sources import fingerprint, module_sources, notebook_sources

MODULES = {
    "__init__": '"""A package."""\n',
    "ground": "import json\n",
    "middle": "from rai_utils.ground import x\n",
    "late": "def f():\n    from rai_utils import ground\n",
    "circle": "import rai_utils.other\n",
    "other": "import rai_utils.circle as circle\n",
    "typed": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rai_utils import circle\n"
        "else:\n    from rai_utils import late\n"
    ),
    "experiments/__init__": "",
    "experiments/sweep": "def read(name):\n    return name\n",
    "experiments/demo/__init__": "",
    "experiments/demo/near": (
        "from rai_utils.experiments.demo.far import f\nfrom rai_utils import middle\n"
        "from rai_utils.experiments.sweep import read\n"
    ),
    "experiments/demo/far": "f = 1\n",
}
DATA = ("study/one.json", "study/two.json", "bench/metrics.json", "rai-demo/metrics.json")


@pytest.fixture
def project(tmp_path):
    for name, text in MODULES.items():
        path = tmp_path / "rai_utils" / f"{name}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    for name in DATA:
        path = tmp_path / "figures" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("{}")
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def notebook(project, *cells):
    path = project / "notebooks" / "made-up.ipynb"
    text = new_markdown_cell("import rai_utils.ground and figures/bench")
    nbformat.write(new_notebook(cells=[text, *map(new_code_cell, cells)]), path)
    return path


def found(project, *cells):
    paths = notebook_sources(notebook(project, *cells), project)
    assert paths == sorted(set(paths))
    names = {str(path.relative_to(project)) for path in paths}
    return {name for name in names if not name.endswith("/__init__.py")}


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import numpy", ""),
        ("import rai_utils.ground", "ground"),
        ("from rai_utils import middle as m, ground", "middle ground"),
        ("from rai_utils.middle import x", "middle ground"),
        ("from rai_utils import late", "late ground"),
        ("from rai_utils import circle", "circle other"),
        ("from rai_utils import typed", "typed late ground"),
        ("from rai_utils import nothing_there", ""),
        ("from rai_utils.experiments.demo import far", "experiments/demo/far"),
        (
            "from rai_utils.experiments.demo import near",
            "experiments/demo/near experiments/demo/far experiments/sweep middle ground",
        ),
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
        ('from rai_utils.experiments.sweep import read\nread("one")', "study/one.json"),
        ('from rai_utils.experiments.sweep import read as r\nr(name="two")', "study/two.json"),
        ('from rai_utils.experiments import sweep\nsweep.read("one"), sweep.read("two")', DATA[:2]),
        (
            'import rai_utils.experiments.sweep\nrai_utils.experiments.sweep.read("two")',
            "study/two.json",
        ),
        (
            'import rai_utils.experiments.sweep as s\nfor name in ("one",):\n    s.read(name)',
            "study/one.json",
        ),
        ("from rai_utils.experiments import sweep\nsweep.read(name)", DATA[:2]),
        ('from rai_utils.experiments import sweep\nsweep.read("three")', ()),
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


def test_a_relative_import_is_refused(project):
    with pytest.raises(ValueError, match=r"must be absolute, got 'from \. import ground'"):
        found(project, "from . import ground")


@pytest.fixture
def passing_on(project):
    (project / "rai_utils" / "__init__.pyi").write_text(
        "from rai_utils.middle import x as x\nfrom rai_utils.late import f as f\n"
    )
    return project


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("from rai_utils import x", "middle ground"),
        ("from rai_utils import f as g", "late ground"),
        ("from rai_utils import x, f", "late middle ground"),
        ("from rai_utils import *", "late middle ground"),
        ("import rai_utils", "late middle ground"),
        ("import rai_utils as r", "late middle ground"),
        ("import rai_utils.ground", "late middle ground"),
    ],
)
def test_a_name_that_a_package_passes_on_stands_for_its_module(passing_on, code, modules):
    names = {f"rai_utils/{name}.py" for name in modules.split()}
    assert found(passing_on, code) == names | {"rai_utils/__init__.pyi"}


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import rai_utils.ground as g", "ground"),
        ("from rai_utils.experiments.demo import far", "experiments/demo/far"),
    ],
)
def test_a_name_that_is_not_asked_for_counts_nowhere(passing_on, code, modules):
    assert found(passing_on, code) == {f"rai_utils/{name}.py" for name in modules.split()}


def test_a_package_that_imports_its_modules_is_followed(project):
    (project / "rai_utils" / "__init__.py").write_text("from rai_utils.middle import x\n")
    assert found(project, "from rai_utils import x") == {
        "rai_utils/middle.py",
        "rai_utils/ground.py",
    }


def test_files_that_have_come_since_are_seen(project):
    code = "import late_comer\nfrom rai_utils import given"
    assert found(project, code) == set()
    (project / "late_comer.py").touch()
    stub = project / "rai_utils" / "__init__.pyi"
    stub.write_text("from rai_utils.ground import given as given\n")
    names = {"late_comer.py", "rai_utils/__init__.pyi", "rai_utils/ground.py"}
    assert found(project, code) == names
    (project / "late_comer.py").write_text("import rai_utils.experiments.demo.far\n")
    assert found(project, code) >= names | {"rai_utils/experiments/demo/far.py"}


# --- the fingerprint ---


CODE = {
    "package/__init__.py": "",
    "package/work.py": '''"""What it is."""
import json
from math import floor as down

from package import tools as kit
from package.base import Base, unused
from package import late

SCALE = 10  # ten times
OTHER = 3


def work(a):
    """What it does."""
    return {"value": _inner(a), "kit": kit.used(a), "down": down(a)}


def _inner(a):
    def innermost():
        return a * SCALE

    return innermost() + late.shift(a)


def apart(a):
    return OTHER * a


class Heir(Base):
    pass


SWEEP = [a + 1 for a in range(OTHER)]


def kept(function):
    return function


@kept
def registered():
    return 9
''',
    "package/tools.py": (
        "import package.base\n\ndef used(a):\n    return package.base.deep(a)\n\n"
        "def idle():\n    return 7\n"
    ),
    "package/base.py": (
        "REGISTER = {}\n\nclass Base:\n    size = 5\n\ndef unused():\n    return 8\n\n"
        "def deep(a):\n    return REGISTER['deep'](a)\n\nREGISTER['deep'] = abs\n"
    ),
    "package/late.py": "def shift(a):\n    from package.far import STEP\n    return a + STEP\n",
    "package/far.py": "STEP, SIDE = 2, 4\n\ndef nobody():\n    return 6\n",
}


def fingerprint_of(folder, name="work"):
    return fingerprint(folder / "package" / "work.py", name, (folder,))


def written(folder, code):
    for name, text in code.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("work", "a * SCALE", "(a*SCALE)", True),
        ("work", "  # ten times", "", True),
        ("work", '"""What it does."""', '"""Another text."""', True),
        ("work", '    """What it does."""\n', "", True),
        ("work", '"""What it is."""\n', "", True),
        ("work", "import json", "import csv", True),
        ("work", "OTHER = 3", "OTHER = 30", True),
        ("work", "OTHER * a", "OTHER + a", True),
        ("work", "class Heir(Base)", "class Heir", True),
        ("work", "a + 1 for", "a + 2 for", True),
        ("work", "return 9", "return 90", False),
        ("tools", "return 7", "return 70", True),
        ("base", "return 8", "return 80", True),
        ("far", "return 6", "return 60", True),
        ("work", "SCALE = 10", "SCALE = 1000", False),
        ("work", "a * SCALE", "a + SCALE", False),
        ("work", '"value"', '"worth"', False),
        ("work", "floor as down", "ceil as down", False),
        ("tools", "base.deep(a)", "base.deep(-a)", False),
        ("base", "['deep'](a)", "['deep'](2 * a)", False),
        ("base", "= abs", "= float", False),
        ("late", "a + STEP", "a - STEP", False),
        ("far", "= 2, 4", "= 3, 4", False),
    ],
)
def test_a_fingerprint_is_of_what_a_function_does(tmp_path, file, old, new, same):
    before = fingerprint_of(written(tmp_path, CODE))
    assert old in CODE[f"package/{file}.py"]
    changed = CODE[f"package/{file}.py"].replace(old, new)
    (tmp_path / "package" / f"{file}.py").write_text(changed)
    assert (fingerprint_of(tmp_path) == before) is same


def test_a_fingerprint_holds_for_any_checkout_and_one_function(tmp_path):
    one, two = (fingerprint_of(written(tmp_path / name, CODE)) for name in ("one", "two"))
    assert one == two
    assert fingerprint_of(tmp_path / "one", "apart") != one


MOVED = {
    "package/work.py": "package/rooms/inner/labour.py",
    "package/tools.py": "package/rooms/tools.py",
    "package/far.py": "package/rooms/far.py",
}
MOVED_IMPORTS = {
    "from package import tools as kit": "from package.rooms import tools as kit",
    "from package.far import STEP": "from package.rooms.far import STEP",
}


def moved(code):
    """The same code with modules in other places, and imports that say so."""
    packages = {f"package/rooms/{name}__init__.py": "" for name in ("", "inner/")}
    changed = {MOVED.get(name, name): text for name, text in code.items()}
    for old, new in MOVED_IMPORTS.items():
        changed = {name: text.replace(old, new) for name, text in changed.items()}
    return packages | changed


def test_a_fingerprint_goes_with_code_that_moves(tmp_path):
    before = fingerprint_of(written(tmp_path / "before", CODE))
    place = written(tmp_path / "after", moved(CODE))
    work = place / "package" / "rooms" / "inner" / "labour.py"
    assert fingerprint(work, "work", (place,)) == before
    far = place / "package" / "rooms" / "far.py"
    far.write_text(far.read_text().replace("= 2, 4", "= 3, 4"))
    assert fingerprint(work, "work", (place,)) != before


def test_a_fingerprint_sees_two_names_change_places(tmp_path):
    """The same definitions are reached, by the other name each."""
    code = {
        "package/__init__.py": "",
        "package/work.py": (
            "from package.one import turn as first\nfrom package.two import turn as second\n\n"
            "def work(a):\n    return first(a) - second(a)\n"
        ),
        "package/one.py": "def turn(a):\n    return 2 * a\n",
        "package/two.py": "def turn(a):\n    return 3 * a\n",
    }
    before = fingerprint_of(written(tmp_path, code))
    one, two = code["package/one.py"], code["package/two.py"]
    swapped = code | {"package/one.py": two, "package/two.py": one}
    assert fingerprint_of(written(tmp_path, swapped)) != before


def test_a_fingerprint_follows_a_name_that_a_package_passes_on(tmp_path):
    code = CODE | {
        "package/__init__.pyi": "from package.far import SIDE as SIDE\n",
        "package/work.py": "import package\nfrom package import SIDE as side\n\n"
        "def work(a):\n    return a + side\n\ndef whole(a):\n    return a + package.SIDE\n",
    }
    before = {name: fingerprint_of(written(tmp_path, code), name) for name in ("work", "whole")}
    (tmp_path / "package" / "far.py").write_text("STEP, SIDE = 2, 5\n")
    for name, earlier in before.items():
        assert fingerprint_of(tmp_path, name) != earlier


# --- this checkout ---


def test_each_notebook_of_the_study_has_sources_and_the_commands_are_none(notebook_name):
    paths = notebook_sources(ROOT / "notebooks" / f"{notebook_name}.ipynb", ROOT)
    modules = {path.stem for path in paths if path.suffix == ".py"}
    assert {"claims", "plotting", "legibility", "training", "data"} <= modules
    assert not {"pipeline", "bench", "study", "catalogue", "report", "docs"} & modules


@pytest.mark.slow
def test_modules_of_this_checkout_are_what_python_loads():
    """The finder's list is what an import of the module brings in."""
    script = (
        "import sys, rai_utils.experiments.rai_questions_initialisation\n"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] == 'rai_utils'))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )
    experiment = ROOT / "rai_utils" / "experiments" / "rai_questions_initialisation.py"
    listed = module_sources({experiment}, (ROOT,))
    paths = [path.relative_to(ROOT).with_suffix("") for path in listed]
    names = {".".join(path.parts).removesuffix(".__init__") for path in paths}
    assert names >= set(ran.stdout.split())


# --- make ---


@pytest.fixture(scope="module")
def up_to_date(tmp_path_factory, makefile_notebooks):
    """A copy of this checkout in which every notebook has just been run."""
    place = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", ".*", "*.png", "*.pdf", "*.gif")
    for name in ("rai_utils", "notebooks", "figures"):
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, place)
    for profile in ("full", "quick"):
        for name in makefile_notebooks:
            path = place / "build" / profile / f"{name}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return place


LISTER = "rai_utils/publishing/sources.py"


@pytest.fixture(scope="module")
def quick_python(up_to_date):
    """Where a `python` is that gives the list of this one without making it again."""
    listed = subprocess.run(
        [sys.executable, LISTER], cwd=up_to_date, check=True, capture_output=True, text=True
    )
    place = up_to_date / "bin"
    place.mkdir()
    (place / "listed").write_text(listed.stdout)
    (place / "python").write_text(f'#!/bin/sh\n[ "$*" = {LISTER} ] && cat bin/listed\n')
    (place / "python").chmod(0o755)
    return place


def listed_by_make(project, *options, python=None):
    path = python or Path(sys.executable).parent
    ran = subprocess.run(
        ["make", "-n", "figures", "ENV=active", *options],
        cwd=project,
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": f"{path}:{os.environ['PATH']}"},
    )
    return [line.split()[4] for line in ran.stdout.splitlines() if "pipeline execute" in line]


@contextlib.contextmanager
def newer(path):
    """Let the time of a file be after that of all others."""
    times = path.stat()
    os.utime(path, (4_000_000_000, 4_000_000_000))
    yield
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


EXPERIMENTS = "rai_utils/experiments"


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("PROFILE=quick",)])
@pytest.mark.parametrize(
    ("changed", "rerun"),
    [
        ("rai_utils/publishing/report.py", ""),
        ("rai_utils/experiments/bench.py", ""),
        ("rai_utils/experiments/study.py", ""),
        (f"{EXPERIMENTS}/rai_questions_minibatches/neighbours.py", "rai-questions-minibatches"),
        (
            f"{EXPERIMENTS}/rai_questions_generalisation/benchmarks.py",
            "rai-questions-generalisation",
        ),
        (f"{EXPERIMENTS}/rai_questions_initialisation.py", "rai-questions-initialisation"),
        (f"{EXPERIMENTS}/network_basics/calculus.py", "network-basics"),
        (f"{EXPERIMENTS}/rai_demo.py", "rai-demo"),
        (f"{EXPERIMENTS}/rai_grads.py", "rai-grads"),
        (f"{EXPERIMENTS}/rai_mechanism.py", "rai-mechanism"),
        (f"{EXPERIMENTS}/rai_optimizers.py", "rai-optimizers"),
        (f"{EXPERIMENTS}/softmax_hidden_layer.py", "softmax-hidden-layer"),
        ("rai_utils/modules.py", "relax-your-own"),
        (
            "rai_utils/tuning.py",
            "rai-grads softmax-hidden-layer rai-demo network-basics rai-optimizers relax-your-own "
            "rai-questions-initialisation rai-questions-generalisation",
        ),
        (f"{EXPERIMENTS}/activation_saturation/descent.py", "activation-saturation"),
        ("figures/bench/metrics.json", "network-basics"),
        ("figures/study/regularisers.json", "rai-questions-generalisation"),
        ("figures/study/handover.json", "rai-questions-initialisation"),
        ("notebooks/rai-demo.ipynb", "rai-demo"),
    ],
)
def test_make_runs_the_notebooks_that_depend_on_a_change(
    up_to_date, quick_python, options, changed, rerun
):
    with newer(up_to_date / changed):
        found = listed_by_make(up_to_date, *options, python=quick_python)
    assert sorted(found) == sorted(rerun.split())


@pytest.mark.slow
def test_make_asks_python_what_a_notebook_is_made_from(up_to_date, makefile_notebooks):
    assert listed_by_make(up_to_date) == []
    with newer(up_to_date / EXPERIMENTS / "rai_questions_minibatches" / "neighbours.py"):
        assert listed_by_make(up_to_date, "PROFILE=quick") == ["rai-questions-minibatches"]
    with newer(up_to_date / "rai_utils" / "publishing" / "claims.py"):
        assert listed_by_make(up_to_date) == makefile_notebooks


@pytest.mark.slow
def test_make_takes_every_module_where_no_python_can_list_them(
    up_to_date, makefile_notebooks, tmp_path
):
    project = shutil.copytree(up_to_date, tmp_path / "copy")
    (project / LISTER).write_text("raise SystemExit(1)\n")
    with newer(project / EXPERIMENTS / "rai_questions_minibatches" / "neighbours.py"):
        assert listed_by_make(project) == makefile_notebooks

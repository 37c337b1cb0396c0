"""The comparison of arithmetic settings: what it runs, and what it calls a difference."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rai_utils.publishing import arithmetic
from rai_utils.publishing.arithmetic import (
    SETTINGS,
    Setting,
    available,
    check_notebooks,
    check_tests,
    compared_outputs,
    differences,
    run_notebook,
    run_tests,
)
from rai_utils.publishing.pipeline import NOTEBOOK_METADATA


def executed(text="P5  reproduced\n", ignored="0.5", picture="iVBOR"):
    """A notebook as it stands after a run."""
    stream = new_output("stream", name="stdout", text=text)
    table = new_output("display_data", {"text/markdown": ignored})
    figure = new_output("display_data", {"image/png": picture, "text/plain": "<Figure>"})
    return new_notebook(
        cells=[
            new_markdown_cell("text"),
            new_code_cell("print(1)", outputs=[stream, figure]),
            new_code_cell("table", outputs=[table], metadata={"tags": ["nbval-ignore-output"]}),
        ]
    )


def record(verdict="reproduced", value=0.9):
    claim = {"id": "P5", "statement": "s", "measured": value, "interval": None, "seeds": None}
    claim |= {"rule": "≥ 0.5", "verdict": verdict, "tolerance": 0.05, "numbers": {}}
    return {"parameters": {}, "metrics": {}, "claims": [claim], "figures": []}


def test_a_setting_that_the_processor_lacks_is_left_out():
    names = [setting.name for setting in available(SETTINGS, ["avx2"])]
    assert "mkl avx512" not in names and "mkl avx2" in names
    assert len(available(SETTINGS, ["avx2", "avx512f"])) == len(SETTINGS)


def test_texts_are_compared_and_pictures_and_ignored_cells_are_not():
    assert differences((executed(), record()), (executed(picture="x", ignored="1"), record())) == []
    assert list(compared_outputs(executed())) == [0]
    (line,) = differences((executed(), record()), (executed("P5  partly\n"), record()))
    assert line.startswith("code cell 1: ") and "P5  partly" in line
    pieces = executed()
    code = next(cell for cell in pieces.cells if cell.cell_type == "code")
    code.outputs[:1] = [new_output("stream", text=text) for text in ("P5  rep", "roduced\n")]
    assert not differences((executed(), record()), (pieces, record()))


def test_verdicts_and_numbers_beyond_their_tolerance_are_differences():
    (line,) = differences((executed(), record()), (executed(), record("partly")))
    assert "verdict" in line
    (line,) = differences((executed(), record()), (executed(), record(value=0.8)))
    assert "published 0.9, computed 0.8" in line


@pytest.fixture
def project(tmp_path):
    """A folder with one test that passes, one that hangs on a setting, and a slow one."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(
        "import os, pytest\n"
        "def test_always(): pass\n"
        "def test_here_only(): assert 'OTHER_KERNELS' not in os.environ\n"
        "@pytest.mark.slow\n"
        "def test_slow(): assert False\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -q\nmarkers = slow\n")
    return tmp_path


@pytest.mark.slow
def test_fast_tests_run_under_a_setting(project):
    assert run_tests(Setting("default", {}), project) == ("2 passed, 1 deselected", [])
    summary, (failed,) = run_tests(Setting("old", {"OTHER_KERNELS": "yes"}), project)
    assert summary == "1 failed, 1 passed, 1 deselected"
    assert "test_here_only" in failed


@pytest.mark.slow
def test_the_table_names_every_setting_and_the_lines_every_failure(project, capsys):
    wrong = check_tests([Setting("default", {}), Setting("old", {"OTHER_KERNELS": "yes"})], project)
    assert len(wrong) == 1 and wrong[0].startswith("old: FAILED")
    table = capsys.readouterr().out
    assert "| default | 2 passed, 1 deselected |" in table
    assert "| old | 1 failed, 1 passed, 1 deselected |" in table


@pytest.mark.slow
def test_tests_that_cannot_be_collected_are_no_success(project):
    (project / "tests" / "test_it.py").write_text("import nothing_of_this_name\n")
    summary, failed = run_tests(Setting("default", {}), project)
    assert "error" in summary and failed


def test_quick_runs_are_compared_with_the_first_and_full_ones_with_what_is_published(
    monkeypatch, tmp_path, capsys
):
    runs = []

    def run(setting, notebook, profile, folder):
        runs.append((setting.name, notebook, profile))
        if setting.name == "broken":
            raise RuntimeError("broken: the kernel died")
        return executed(f"{setting.name if notebook == 'b' else 'same'}\n"), record()

    monkeypatch.setattr(arithmetic, "run_notebook", run)
    monkeypatch.setattr(arithmetic, "published", lambda *_: (executed("same\n"), record()))
    settings = [Setting("one", {}), Setting("two", {}), Setting("broken", {})]
    wrong = check_notebooks(settings, ["a", "b"], ["a", "b"], tmp_path)
    assert len(runs) == 12
    assert {line.partition(":")[0] for line in wrong} == {
        "a, full, broken",
        "a, quick, broken",
        "b, full, one",  # the published output is neither
        "b, full, two",
        "b, full, broken",
        "b, quick, two",
        "b, quick, broken",
    }
    assert "| a, quick | agrees | agrees | 1 differ |" in capsys.readouterr().out


@pytest.fixture
def small_study(tmp_path):
    """A project with one notebook that prints a variable of its environment, and fails on "X"."""
    source = """
import json, os, pathlib
setting = os.environ.get("OTHER_KERNELS", "none")
assert setting != "X", "no such setting"
record = {"notebook": "hangs", "parameters": {"size": size}, "environment": {}, "metrics": {}}
record |= {"claims": [], "figures": [], "descriptions": {}}
pathlib.Path(publish_to).mkdir(parents=True)
pathlib.Path(publish_to, "metrics.json").write_text(json.dumps(record))
print(setting)
"""
    notebook = new_notebook(
        cells=[
            new_code_cell(
                "size = 3  # [1, 9] of it\npublish_to = 'build/scratch/hangs'",
                metadata={"tags": ["parameters"]},
            ),
            new_code_cell(source),
        ],
        metadata=NOTEBOOK_METADATA,
    )
    (tmp_path / "notebooks" / "profiles" / "quick").mkdir(parents=True)
    nbformat.write(notebook, tmp_path / "notebooks" / "hangs.ipynb")
    (tmp_path / "notebooks" / "profiles" / "quick" / "hangs.yaml").write_text("size: 2\n")
    return tmp_path


@pytest.mark.slow
def test_a_notebook_runs_under_a_setting_with_its_profile(small_study):
    notebook, found = run_notebook(
        Setting("mkl", {"OTHER_KERNELS": "yes"}), "hangs", "quick", small_study
    )
    # The cell of the injected parameters, which a run has more than its notebook, is left out.
    assert compared_outputs(notebook) == {0: [], 1: ["yes\n"]}
    assert len([cell for cell in notebook.cells if cell.cell_type == "code"]) == 3
    assert found["parameters"] == {"size": 2}
    with pytest.raises(RuntimeError, match="exit 1: AssertionError: no such setting"):
        run_notebook(Setting("mkl", {"OTHER_KERNELS": "X"}), "hangs", "quick", small_study)
    assert not list((small_study / "notebooks").glob("*/hangs*.ipynb"))

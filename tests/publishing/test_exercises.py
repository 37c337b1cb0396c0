import copy
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rai_utils.publishing.exercises import main, without_solutions
from rai_utils.publishing.pipeline import ROOT

FOLDED = [
    p for p in sorted(ROOT.glob("notebooks/*.ipynb")) if "Try first: " in p.read_text("utf-8")
]
FOLD = "<details><summary>Try first: why $1 + 1$?</summary>\n\nBecause $2$.\n</details>"


def write(folder, *sources):
    """A project whose one notebook has a text and a code cell by turns."""
    shown = new_output("stream", text="2\n")
    cells = [
        new_code_cell(source, outputs=[shown], execution_count=1)
        if place % 2
        else new_markdown_cell(source)
        for place, source in enumerate(sources)
    ]
    path = folder / "notebooks" / "small.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.mark.parametrize("path", FOLDED, ids=lambda path: path.stem)
def test_no_solution_is_left_and_nothing_else_changed(path, tmp_path):
    made = without_solutions(path, tmp_path / "build" / "exercises" / path.name)
    nbformat.validate(made)
    committed = nbformat.read(path, as_version=4)
    assert [cell.id for cell in made.cells] == [cell.id for cell in committed.cells]
    answers = []
    for cell, before in zip(made.cells, committed.cells, strict=True):
        if cell.cell_type == "code":
            assert cell.source == before.source
            continue
        # By lines and not by the pattern of the module.
        solution, kept = False, []
        for line in before.source.splitlines():
            solution = solution or line.startswith("<details>")
            (answers if solution and "<summary>" not in line else kept).append(line)
            solution = solution and line != "</details>"
        kept = [line for line in kept if "<summary>" not in line]
        unlinked = re.sub(r"\]\([^)]*\)", "]", cell.source).splitlines()
        assert all(re.sub(r"\]\([^)]*\)", "]", line) in unlinked for line in kept)
    text = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    answers = [answer for answer in answers if answer]
    assert len(answers) > 2
    assert not [answer for answer in answers if answer in text]
    assert text.count("**Try first:**") == path.read_text("utf-8").count("<summary>Try first: ")


def test_question_and_code_stay_and_what_gives_the_answer_away_is_folded(tmp_path):
    path = write(tmp_path, "[it](other.ipynb)", "a = 1", f"So:\n\n{FOLD}", "1 + 1", "Then", "b = 2")
    before = copy.deepcopy(nbformat.read(path, as_version=4).cells)
    assert main(tmp_path) == 0
    made = nbformat.read(tmp_path / "build" / "exercises" / "small.ipynb", as_version=4).cells
    assert made[0].source == "[it](../../notebooks/other.ipynb)"
    assert made[2].source == (
        "So:\n\n**Try first:** why $1 + 1$? *(Solution: [small](../../notebooks/small.ipynb), "
        "folded at this place.)*"
    )
    for place in (1, 4, 5):
        assert made[place] == before[place]
    assert made[3].source == "1 + 1"
    assert made[3].outputs == []
    assert made[3].metadata.jupyter.source_hidden


def test_without_an_exercise_nothing_is_written_and_another_fold_is_refused(tmp_path, capsys):
    write(tmp_path, "Nothing to try.")
    assert main(tmp_path) == 0
    assert not [*(tmp_path / "build" / "exercises").iterdir()]
    write(tmp_path, f"{FOLD}\n\n<details><summary>More</summary>\n\n$3$\n</details>")
    assert main(tmp_path) == 2
    assert "must be one of Try first, got another in small.ipynb" in capsys.readouterr().err

"""Notebooks for a class: the derivations that they fold behind *Try first* are left out.

``python -m rai_utils.publishing.exercises`` writes ``build/exercises/<notebook>.ipynb`` for every
notebook that has such a fold. The question stays, with a line that says where its solution is. The
code stays too, but up to the next text it may check the answer: it is folded there, and has no
output until it is run.
"""

import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from rai_utils.publishing.claims import root
from rai_utils.publishing.pipeline import moved_links

_FOLD = re.compile(r"<details><summary>Try first: (.*?)</summary>\n.*?</details>", re.DOTALL)
_LEFT = re.compile(r"</?details\b")


def without_solutions(source: Path, target: Path) -> NotebookNode | None:
    """Return the notebook of the file ``source`` as it may stand in ``target``, without solutions.

    Its relative links lead where they led. None where nothing is folded; a ValueError where
    something is that has not the form ``<details><summary>Try first: …</summary> … </details>``.
    """
    notebook = nbformat.read(source, as_version=4)
    line = f"**Try first:** \\1 *(Solution: [{source.stem}]({source.name}), folded at this place.)*"
    asked, exercises = False, 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text, found = _FOLD.subn(line, cell.source)
            if _LEFT.search(text):
                raise ValueError(f"a fold must be one of Try first, got another in {source.name}")
            cell.source = moved_links(text, source, target)
            asked, exercises = found > 0, exercises + found
        elif asked and cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.setdefault("jupyter", {})["source_hidden"] = True
    return notebook if exercises else None


def main(folder: Path) -> int:
    """Write every exercise notebook; return 0, or 2 where a notebook was refused."""
    place = folder / "build" / "exercises"
    place.mkdir(parents=True, exist_ok=True)
    for source in sorted((folder / "notebooks").glob("*.ipynb")):
        target = place / source.name
        try:
            notebook = without_solutions(source, target)
        except ValueError as error:
            print(f"exercises: {error}", file=sys.stderr)
            return 2
        if notebook is not None:
            nbformat.write(notebook, target)
            print(f"exercises  {target.relative_to(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(root()))

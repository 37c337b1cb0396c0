"""What the tests of the repository and of the published numbers share."""

import re

import nbformat
import pytest

from rai_utils.publishing.pipeline import ROOT

NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def pytest_generate_tests(metafunc):
    """Run a test that asks for a notebook's name once for each notebook."""
    if "notebook_name" in metafunc.fixturenames:
        metafunc.parametrize("notebook_name", NOTEBOOKS)


def pytest_collection_modifyitems(items):
    """Put the files with slow tests first: no processor then waits for the last file."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def notebook(notebook_name):
    return nbformat.read(ROOT / "notebooks" / f"{notebook_name}.ipynb", as_version=4)


@pytest.fixture(scope="session")
def makefile_notebooks():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return re.search(r"^NOTEBOOKS := (.*)$", text, re.MULTILINE)[1].split()

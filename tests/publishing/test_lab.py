"""A notebook in JupyterLab, as `make lab` serves it, in a real browser."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from browser import Page, wait_for

from rai_utils.publishing.pipeline import ROOT
from rai_utils.publishing.report import find_browser

NOTEBOOK = "rai-mechanism"
PICTURES = "[...document.querySelectorAll('.jp-Notebook .jp-MarkdownOutput img')]"


@pytest.fixture
def served(tmp_path):
    """A server on a copy of one notebook and its figures; its address."""
    place, state = tmp_path / "checkout", tmp_path / "state"
    (place / "notebooks").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / f"{NOTEBOOK}.ipynb", place / "notebooks")
    shutil.copytree(ROOT / "figures" / NOTEBOOK, place / "figures" / NOTEBOOK)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--port=0"]
    command += [f"--ServerApp.root_dir={place}", "--IdentityProvider.token="]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    folders = {f"JUPYTER_{name}_DIR": str(state) for name in ("RUNTIME", "CONFIG", "DATA")}
    server = subprocess.Popen(
        command,
        env={**os.environ, **folders, "IPYTHONDIR": str(state)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield place, wait_for(lambda: json.loads(note_of(state).read_text())["url"])
    finally:
        server.terminate()
        server.wait()


def note_of(state):
    """Return the file in which the server says where it is; an OSError before that."""
    for note in state.glob("jpserver-*.json"):
        return note
    raise FileNotFoundError(state)


def widths_of_pictures(page):
    """Return the widths of the pictures in the texts that are shown; an OSError until loaded."""
    widths = page.evaluate(f"{PICTURES}.map(image => image.naturalWidth)")
    if not widths or not all(widths):
        raise OSError("not yet")
    return widths


@pytest.mark.slow
@pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome was found")
def test_a_notebook_shows_its_headline_picture_and_is_not_changed_by_a_look(served):
    place, address = served
    before = (place / "notebooks" / f"{NOTEBOOK}.ipynb").read_bytes()
    with Page(find_browser(), f"{address}lab/tree/notebooks/{NOTEBOOK}.ipynb") as page:
        page.open_at(1280)
        widths = wait_for(lambda: widths_of_pictures(page), 150)
        assert widths[0] == 1350
        assert page.evaluate(f"{PICTURES}.every(image => image.alt.length > 20)")
    assert (place / "notebooks" / f"{NOTEBOOK}.ipynb").read_bytes() == before

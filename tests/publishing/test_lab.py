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
WITH_A_SLIDER = "softmax-hidden-layer"
PICTURES = "[...document.querySelectorAll('.jp-Notebook .jp-MarkdownOutput img')]"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server on a copy of two notebooks and their figures, one trusted; its address."""
    folder = tmp_path_factory.mktemp("lab")
    place, state = folder / "checkout", folder / "state"
    (place / "notebooks").mkdir(parents=True)
    for name in (NOTEBOOK, WITH_A_SLIDER):
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", place / "notebooks")
        shutil.copytree(ROOT / "figures" / name, place / "figures" / name)
    folders = {f"JUPYTER_{name}_DIR": str(state) for name in ("RUNTIME", "CONFIG", "DATA")}
    environment = {**os.environ, **folders, "IPYTHONDIR": str(state)}
    trusted = [sys.executable, "-m", "jupyter", "trust", f"notebooks/{WITH_A_SLIDER}.ipynb"]
    subprocess.run(trusted, cwd=place, env=environment, check=True, capture_output=True)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--port=0"]
    command += [f"--ServerApp.root_dir={place}", "--IdentityProvider.token="]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    server = subprocess.Popen(
        command,
        env=environment,
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


@pytest.mark.slow
@pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome was found")
def test_a_slider_of_a_notebook_that_was_not_run_yet_moves(served):
    place, address = served
    before = (place / "notebooks" / f"{WITH_A_SLIDER}.ipynb").read_bytes()
    slider = "document.querySelector('.rai-slider input')"
    words = "document.querySelector('.rai-slider p').textContent"
    with Page(find_browser(), f"{address}lab/tree/notebooks/{WITH_A_SLIDER}.ipynb") as page:
        page.open_at(1280, height=30_000)  # cells are made when they come into view
        wait_for(lambda: seen(page, slider), 150)
        first = page.evaluate(words)
        page.evaluate(f"{slider}.value = {slider}.max")
        page.evaluate(f"{slider}.dispatchEvent(new Event('input'))")
        assert page.evaluate(words) != first
    assert (place / "notebooks" / f"{WITH_A_SLIDER}.ipynb").read_bytes() == before


def seen(page, expression):
    """Return an element's kind; an OSError where there is none yet."""
    kind = page.evaluate(f"{expression}?.tagName ?? ''")
    if not kind:
        raise OSError("not yet")
    return kind

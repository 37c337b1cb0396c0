import base64
import json
import re
from types import SimpleNamespace

import nbformat
import pytest
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rai_utils.publishing.chapters import alternative, link_between, picture, read_chapter
from rai_utils.publishing.pipeline import ROOT

OPENING = """\
# A title

**Question.** Does it hold?

**Answer.** It does: <!--=steps:d-->7<!--/-->.

![words](../figures/demo/curve.png)
"""
PIXEL = "image/png"


@pytest.fixture
def project(tmp_path):
    """A project with one notebook, two published figures and one claim."""
    record = {
        "notebook": "demo",
        "parameters": {},
        "environment": {},
        "metrics": {"steps": {"value": 200, "tolerance": 0, "interval": None, "seeds": None}},
        "claims": [{"id": "P8", "measured": 1, "interval": None, "verdict": "proved"}],
        "figures": ["curve", "map", "left-over"],
        "descriptions": {"curve": "loss against step."},
    }
    folder = tmp_path / "figures" / "demo"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(record))
    for name in record["figures"]:
        Figure(figsize=(1, 0.5)).savefig(folder / f"{name}.png", dpi=200)
    image = base64.b64encode((folder / "map.png").read_bytes()).decode()
    shown = new_output("display_data", {PIXEL: image, "text/plain": "<Figure>"})
    table = new_output("display_data", {"text/markdown": "| a | b |\n|---|---|\n| 1 | 2 |"})
    line = new_output("stream", text="a < b\n")
    cells = [
        new_markdown_cell(OPENING),
        new_code_cell("study.figure('curve', figure)", outputs=[shown]),
        new_markdown_cell("*What this figure says.* It falls.\n\nMore.\n\n## Second part"),
        new_code_cell("for n in ['map']:\n    study.figure(n, figure)", outputs=[shown, line]),
        new_code_cell("%matplotlib inline", outputs=[table]),
        new_code_cell("prove('P8', 'It holds', 0)"),
        new_markdown_cell("## Third part"),
        new_code_cell("draw()", outputs=[shown]),
        new_markdown_cell("## Limits\n\nOne machine, <!--=steps-->7<!--/--> steps."),
    ]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "demo.ipynb")
    return SimpleNamespace(folder=tmp_path, records={"demo": record}, image=image)


def test_a_chapter_takes_what_the_notebook_opens_and_closes_with(project):
    chapter = read_chapter(project.folder, "demo", project.records)
    assert chapter.title == "A title"
    assert chapter.question == "Does it hold?"
    assert chapter.answer == "It does: 200."
    assert chapter.headline == "curve"
    assert chapter.limits == "One machine, 200 steps."
    assert "<h1" not in chapter.body


def test_each_published_figure_stands_where_its_cell_is(project):
    chapter = read_chapter(project.folder, "demo", project.records)
    places = [chapter.body.index(f'id="demo-figure-{name}"') for name in ("curve", "map")]
    parts = [chapter.body.index(f'id="demo-{part}-part"') for part in ("second", "third")]
    assert places[0] < parts[0] < places[1] < parts[1]
    assert chapter.body.index('id="demo-figure-left-over"') > parts[1]
    # The headline, three figures, and the picture of the cell that publishes none.
    assert chapter.body.count("<img") == 5
    assert chapter.body.count("Picture that the code above draws") == 1
    assert chapter.captions == {"curve": "It falls.", "map": ""}


def test_a_claim_is_found_where_it_is_judged(project):
    chapter = read_chapter(project.folder, "demo", project.records)
    assert chapter.places == {"P8": ("demo-second-part", ["map"])}


def test_outputs_are_shown_and_code_is_folded(project):
    body = read_chapter(project.folder, "demo", project.records).body
    assert '<pre class="output">a &lt; b</pre>' in body
    assert '<th scope="col" role="columnheader">a</th>' in body
    assert body.count('<details class="code">') == 5
    assert "&lt;Figure&gt;" not in body


def test_an_image_that_is_not_published_is_refused(project):
    (project.folder / "figures" / "demo" / "curve.png").unlink()
    with pytest.raises(ValueError, match=r"a figure at figures/demo/curve\.png, found none"):
        read_chapter(project.folder, "demo", project.records)
    (project.folder / "figures" / "demo" / "curve.png").write_text("no picture")
    with pytest.raises(ValueError, match="expected a PNG"):
        read_chapter(project.folder, "demo", project.records)
    path = project.folder / "notebooks" / "demo.ipynb"
    path.write_text(path.read_text().replace("figures/demo/curve.png", "elsewhere.png"))
    with pytest.raises(ValueError, match=r"a published figure, got '\.\./elsewhere\.png'"):
        read_chapter(project.folder, "demo", project.records)
    with pytest.raises(ValueError, match="expected a notebook at notebooks/other"):
        read_chapter(project.folder, "other", project.records)


def test_a_picture_holds_its_bytes_its_size_and_its_words(project):
    made = picture(project.folder, "demo", "map", 'a "map"')
    assert f"data:image/png;base64,{project.image}" in made
    assert ' width="144" height="72" alt="a &quot;map&quot;"' in made
    record = project.records["demo"]
    assert alternative(record, "curve") == "loss against step."
    assert alternative(record, "left-over") == "Figure: left over"


def test_links_between_notebooks_stay_on_the_page():
    assert link_between({"demo"}, "demo.ipynb") == "#demo"
    assert link_between({"demo"}, "notebooks/demo.ipynb") == "#demo"
    assert link_between({"demo"}, "other.ipynb") == "other.ipynb"
    assert link_between({"demo"}, "https://example.org/demo.ipynb").startswith("https")


def test_each_figure_and_claim_of_the_study_has_its_place(notebook_name):
    record = json.loads((ROOT / "figures" / notebook_name / "metrics.json").read_text())
    records = {notebook_name: {"descriptions": {}} | record}
    chapter = read_chapter(ROOT, notebook_name, records)
    assert set(chapter.captions) == set(record["figures"])
    assert set(chapter.places) == {claim["id"] for claim in record["claims"]}
    assert chapter.question
    assert chapter.answer
    assert chapter.limits
    assert chapter.headline in record["figures"]
    prose = re.sub("<pre.*?</pre>|<img[^>]*>", "", chapter.body, flags=re.DOTALL)
    assert not re.search(r"<!--=|\$[a-zA-Z\\]", prose)

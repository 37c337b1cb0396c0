import io
import json

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from rai_utils import plotting, training
from rai_utils.publishing import restyle as restyling
from rai_utils.publishing.claims import read_metrics, save_figure
from rai_utils.publishing.legibility import collisions
from rai_utils.publishing.pipeline import ROOT
from rai_utils.publishing.restyle import main, restyle
from rai_utils.recording import as_json, bare, record_of, redraw

DRAWN = [
    f"{path.parent.name}/{name}"
    for path in sorted(ROOT.glob("figures/*/metrics.json"))
    for name in read_metrics(path.parent)["figures"]
    if path.with_name(f"{name}.json").is_file()
]


@pytest.fixture(autouse=True)
def settings():
    with mpl.rc_context():
        yield
    plt.close("all")


@pytest.fixture
def folder(tmp_path):
    """A checkout with one set of two figures."""
    plotting.use_style()
    made = tmp_path / "figures" / "tiny"
    made.mkdir(parents=True)
    record = json.loads((ROOT / "figures" / "rai-demo" / "metrics.json").read_text())
    record |= {"notebook": "tiny", "figures": ["curve", "other"]}
    (made / "metrics.json").write_text(json.dumps(record))
    for name in record["figures"]:
        figure, axes = plotting.figure()
        plotting.relation(axes, [1, 2], {"RAI": [0.1, 1 / 3]}, x_label="x", label="y")
        (made / f"{name}.json").write_text(as_json(record_of(figure)))
        save_figure(figure, made / f"{name}.pdf")
    return tmp_path


def test_a_figure_without_a_change_has_the_bytes_of_the_published_one(folder):
    (file,) = restyle(["tiny/curve"], folder=folder)
    assert file == folder / "build" / "restyled" / "tiny" / "curve.pdf"
    assert file.read_bytes() == (folder / "figures" / "tiny" / "curve.pdf").read_bytes()


def test_style_width_and_format_are_those_asked_for(folder, tmp_path, capsys):
    style = tmp_path / "my.mplstyle"
    style.write_text("axes.facecolor: 00ff00\naxes.grid: True\n")
    asked = ["tiny", "--style", str(style), "--width", "5.5", "--format", "png"]
    assert main(asked, folder) == 0
    assert capsys.readouterr().out.startswith("restyle  2 figures in ")
    files = sorted((folder / "build" / "restyled" / "tiny").iterdir())
    assert [file.name for file in files] == ["curve.png", "other.png"]
    pixels = (plt.imread(files[0])[..., :3] * 255).round().astype(int)
    assert pixels.shape[1] == 1100
    assert (pixels == (0, 255, 0)).all(-1).mean() > 0.5
    assert main(["tiny/curve", "--style", "ggplot", "--format", "svg"], folder) == 0
    assert "<svg" in (files[0].with_suffix(".svg")).read_text()


def test_a_style_gives_its_shape_to_what_needs_no_more_height(folder, tmp_path):
    (slide,) = restyle(["tiny/curve"], style="slides", format="png", folder=folder)
    assert plt.imread(slide).shape[1::-1] == (1440, 810)
    flat = tmp_path / "flat.mplstyle"
    flat.write_text("figure.figsize: 6, 1\nsavefig.dpi: 100\n")
    (file,) = restyle(["tiny/curve"], style=str(flat), format="png", folder=folder)
    assert plt.imread(file).shape[1::-1] == (600, 240)


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_on_slides_texts_stay_apart_and_whole(name, monkeypatch):
    drawn = []
    monkeypatch.setattr(restyling, "save_figure", lambda figure, *_: drawn.append(figure))
    list(restyle([name], style="slides"))
    assert collisions(drawn[0]) == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["tinny/curve"], "FIGURES must name sets or set/figure, got 'tinny/curve'; the nearest"),
        (["--style", "none.mplstyle"], "STYLE must be a file or a style of matplotlib, got 'none"),
        (["--width", "50"], "WIDTH must be 2 to 12 inches, got '50'"),
        (["--width", "wide"], "WIDTH must be 2 to 12 inches, got 'wide'"),
        (["--format", "jpg"], "FORMAT must be pdf, png, svg, got 'jpg'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(asked, message, folder, capsys):
    assert main(asked, folder) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"restyle: {message}")
    assert printed.err.count("\n") == 1
    assert not (folder / "build").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_the_data_of_a_published_figure_give_its_picture_without_training(name, monkeypatch):
    """In pixels: the bytes of a picture hang on the machine that made it."""

    def refuse(*given, **named):
        raise AssertionError("a figure was drawn by training")

    for loop in ("steps", "module_steps", "_fit"):
        monkeypatch.setattr(training, loop, refuse)
    stem = ROOT / "figures" / name
    published = plt.imread(stem.with_suffix(".png"))
    on_a_page = published.shape[1] > 200 * plotting.HALF_PAGE
    plotting.use_style(plotting.PAGE if on_a_page else plotting.HALF_PAGE)
    figure = redraw(json.loads(stem.with_suffix(".json").read_text(encoding="utf-8")))
    assert {label: found for label, found in looks(figure).items() if len(found) > 1} == {}
    file = io.BytesIO()
    bare(figure).savefig(file, dpi=200)
    file.seek(0)
    drawn = plt.imread(file)
    assert drawn.shape == published.shape
    assert np.abs(drawn - published).mean() < 0.002


def looks(figure):
    """Return the colours, dashes and markers of the lines of each label, in all panels."""
    found = {}
    for line in (line for axes in bare(figure).axes for line in axes.get_lines()):
        if not str(line.get_label()).startswith("_"):
            look = to_hex(line.get_color()), line.get_linestyle(), line.get_marker()
            found.setdefault(line.get_label(), set()).add(look)
    return found


def test_two_looks_of_one_label_are_found():
    figure, panels = plotting.figure(rows=2)
    for axes, marker in zip(panels, "os", strict=True):
        axes.plot([0, 1], [0, 1], color="black", linestyle="-", marker=marker, label="loss")
        axes.plot([0, 1], [1, 0], color="red", label="error")
    assert looks(figure)["loss"] == {("#000000", "-", "o"), ("#000000", "-", "s")}
    assert len(looks(figure)["error"]) == 1

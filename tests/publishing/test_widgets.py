"""Sliders: every combination has its frame, and what is drawn stands where the data says."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from rai_utils.publishing.widgets import Panel, bars, cells, dots, line, slider_html


def one_frame(*marks, limits=(0, 1, 0, 1)):
    page = slider_html({"k": [1]}, lambda k: ([Panel("title", limits, marks, "dose")], "words"))
    return ElementTree.fromstring(re.search(r"<svg.*</svg>(?=</div>)", page)[0])


def frames_of(page):
    return json.loads(re.search(r"\}\)\((\[.*\])\)</script>", page)[1])


def test_every_combination_has_its_frame_in_the_order_that_the_script_counts():
    sliders = {"kind": ["softmax", "tanh"], "k": [1, 2, 3]}
    page = slider_html(
        sliders, lambda kind, k: ([Panel(kind, (0, 1, 0, 1), [])], f"{kind} {k}"), start=("tanh", 2)
    )
    expected = [f"{kind} {k}" for kind in sliders["kind"] for k in sliders["k"]]
    assert [words for _, words in frames_of(page)] == expected
    assert "index=index*names.length+Number(input.value)" in page  # the last slider fastest
    assert '<p aria-live="polite">tanh 2</p>' in page
    assert re.findall(r'max="(\d)" value="(\d)"', page) == [("1", "1"), ("2", "1")]
    assert "\n" not in page  # a blank line would end the HTML in Markdown


def test_a_frame_stands_alone_and_says_what_it_shows():
    page = slider_html(
        {"a<b": ["</script>"]}, lambda value: ([Panel(value, (0, 1, 0, 1), [])], "x")
    )
    assert page.count("</script>") == 1
    assert "http" not in page
    picture = one_frame()
    assert picture.attrib["role"] == "img"
    assert picture.attrib["aria-label"] == "words"
    assert {"title", "dose", "0", "1"} == {text.text for text in picture.iter("text")}


def test_marks_stand_at_their_places():
    x, y = np.array([0.0, 5.0, 10.0]), np.array([-1.0, 0.0, 1.0])
    limits = (0, 10, -1, 1)
    (drawn,) = one_frame(line(x, y, "black"), limits=limits).iter("polyline")
    assert drawn.attrib["points"] == "0.0,170.0 120.0,85.0 240.0,0.0"
    circles = list(one_frame(dots(x, y, "black"), limits=limits).iter("circle"))
    assert [(c.attrib["cx"], c.attrib["cy"]) for c in circles][1] == ("120.0", "85.0")
    down, none, up = list(one_frame(bars(x, y, "black", 2.0), limits=limits).iter("rect"))[:3]
    assert [float(down.attrib[name]) for name in ("y", "height")] == [85, 85]
    assert [float(none.attrib[name]) for name in ("x", "width", "height")] == [96, 48, 0]
    assert [float(up.attrib[name]) for name in ("y", "height")] == [0, 85]


def test_a_matrix_has_its_first_row_on_top_and_its_numbers_written():
    picture = one_frame(cells([[0.25, -0.1], [0.0, 0.5]], 0.25), limits=(0, 2, 0, 2))
    boxes = list(picture.iter("rect"))[:4]
    assert [(b.attrib["x"], b.attrib["y"]) for b in boxes[:2]] == [("0.0", "0.0"), ("120.0", "0.0")]
    assert [float(b.attrib["fill-opacity"]) for b in boxes] == [1, 0.4, 0, 1]
    assert [t.text for t in picture.iter("text")][:4] == ["+0.25", "−0.10", "0", "+0.50"]


def test_sliders_without_values_or_with_another_start_are_refused():
    def frame(*values):
        raise AssertionError("no frame may be drawn")

    for sliders in ({}, {"k": []}):
        with pytest.raises(ValueError, match="one value or more each, got"):
            slider_html(sliders, frame)
    with pytest.raises(ValueError, match=r"start must be one value of each slider, got \(4,\)"):
        slider_html({"k": [1, 2]}, frame, start=[4])

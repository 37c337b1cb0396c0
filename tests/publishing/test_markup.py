import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from rai_utils.publishing.markup import Renderer, equation, mathml, slug, to_html


def renderer(chapter="c", deeper=2):
    return Renderer(chapter, deeper, lambda url, words: f'<img alt="{words}" src="{url}">', str)


class Outline(HTMLParser):
    """Collects the tags of a page and checks that each that opens also closes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self._open = [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "br", "mspace"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


def test_an_equation_is_mathml_that_a_browser_draws():
    made = mathml(r"\mathcal L = \mathbb E[x < y]")
    tree = ElementTree.fromstring(made)
    letters = "".join(tree.itertext())
    assert letters == "ℒ=𝔼[x<y]"
    assert "script" not in made
    assert tree.get("display") == "inline"


def test_a_displayed_equation_breaks_before_relations_and_keeps_its_number():
    made = equation(r"a_{i+1} = f(b + c), \qquad 0 \le t < T \tag{3}")
    pieces = [
        "".join(ElementTree.fromstring(piece).itertext())
        for piece in re.findall(r"<math.*?</math>", made)
    ]
    assert pieces == ["ai+1", "=f(b+c),", "0", "≤t", "<T"]
    assert '<span class="number">(3)</span>' in made
    assert "number" not in equation("a = b")


def test_a_sign_at_the_start_is_no_place_to_break():
    assert equation("-a").count("<math") == 1
    assert equation(r"\left(a = b\right)").count("<math") == 1


def test_long_inline_equations_may_break_and_short_ones_stay():
    assert to_html("so $a = b$.", renderer()).count("<math") == 1
    assert to_html(r"so $\exp(-(x - 1)^2 / (2 \cdot 0.15^2)) = y$.", renderer()).count("<math") == 2


def test_headings_move_down_and_have_addresses_of_their_own():
    made = renderer("demo")
    text = to_html("# One: *two*\n\n## Same\n\n## Same\n\n##### Deep", made)
    assert [tag for tag, _ in Outline(text).tags if tag[0] == "h"] == ["h3", "h4", "h4", "h6"]
    assert made.headings == ["demo-one-two", "demo-same", "demo-same-again", "demo-deep"]
    assert all(f'id="{address}"' in text for address in made.headings)


def test_a_table_names_its_columns_and_rows():
    text = to_html("| a | b & c |\n|---|---:|\n| x | 1 |\n| y | 2 |", renderer())
    tags = Outline(text).tags
    heads = [attrs["scope"] for tag, attrs in tags if tag == "th"]
    assert heads == ["col", "col", "row", "row"]
    cells = [attrs for tag, attrs in tags if tag == "td"]
    assert [cell["data-label"] for cell in cells] == ["b & c", "b & c"]
    assert cells[0]["class"] == "right"
    assert "stacked" not in text


def test_only_a_wide_table_is_stacked_and_the_next_starts_anew():
    wide = "| a | b | c | d |\n|---|---|---|---|\n| 1 | 2 | 3 | 4 |\n"
    narrow = "| e | f |\n|---|---|\n| 5 | 6 |\n"
    text = to_html(f"{wide}\n{narrow}", renderer())
    assert text.count('class="stacked"') == 1
    assert 'data-label="f"' in text


def test_markers_are_left_out_and_html_is_text():
    text = to_html("It is <!--=steps-->200<!--/-->, <b>so</b>.\n\n```\na < b\n```", renderer())
    assert "It is 200, &lt;b&gt;so" in text
    assert "<pre><code>a &lt; b" in text


def test_links_and_images_pass_through_the_chapter():
    made = Renderer("", 0, lambda url, words: f"[{url}|{words}]", lambda url: f"#{url[:-6]}")
    text = to_html("[see](demo.ipynb) ![words](a.png)", made)
    assert '<a href="#demo">see</a>' in text
    assert "[a.png|words]" in text


@pytest.mark.parametrize(("text", "address"), [("P1: a, b!", "p1-a-b"), ("λ = 0", "0")])
def test_slug(text, address):
    assert slug(text) == address

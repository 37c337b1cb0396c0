import pytest

from rai_utils.publishing.prose import (
    fill,
    fill_block,
    markdown_table,
    names,
    without_markers,
)

RECORD = {
    "notebook": "rai-grads",
    "parameters": {"seeds": 16, "rate": 0.001, "rates": [0.1], "problem": "wine", "steps": 99},
    "metrics": {
        "share_solved": {"value": 0.95, "tolerance": 0, "interval": [0.9, 1.0], "seeds": 5},
        "steps": {"value": 200, "tolerance": 0, "interval": None, "seeds": None},
        "dead_layer": {"value": None, "tolerance": 0, "interval": None, "seeds": None},
    },
    "claims": [
        {
            "id": "P8",
            "measured": 0.98765,
            "interval": [0.9, 1.0],
            "verdict": "reproduced",
        },
        {"id": "P10", "measured": 1, "interval": None, "verdict": "partly"},
    ],
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("share_solved:.0%", "95%"),
        ("share_solved.low:.2f", "0.90"),
        ("share_solved.high:.2f", "1.00"),
        ("steps", "200"),
        ("steps:", "200"),
        ("steps:>5", "  200"),
        ("steps:,", "200"),
        ("steps.low:.1f", "–"),
        ("dead_layer:.1f", "–"),
        ("P8.measured:.3f", "0.988"),
        ("P8.low:.1f", "0.9"),
        ("P8.high:.1f", "1.0"),
        ("P8.verdict", "reproduced"),
        ("P10.low", "–"),
        ("rai-grads/steps", "200"),
        ("seeds:d", "16"),
        ("rai-grads/rate:g", "0.001"),
        ("rai-grads/P8.verdict", "reproduced"),
    ],
)
def test_a_marker_is_filled(name, text):
    before = f"It is <!--={name}-->old\n**text**<!--/-->, so."
    after = f"It is <!--={name}-->{text}<!--/-->, so."
    assert fill(before, RECORD) == after
    assert fill(after, RECORD) == after


def test_all_else_stays():
    text = "# Title\n\n<!-- a comment -->\n$a < b$ -- > `x`\n\n"
    assert fill(text, RECORD) == text
    two = "a <!--=steps--><!--/--> b <!--=P8.verdict-->?<!--/--> c\n"
    filled = "a <!--=steps-->200<!--/--> b <!--=P8.verdict-->reproduced<!--/--> c\n"
    assert fill(two, RECORD) == filled
    assert names(two) == ["steps", "P8.verdict"]


def test_several_notebooks_are_told_apart_by_a_prefix():
    other = {**RECORD, "notebook": "rai-demo", "claims": []}
    both = {"rai-grads": RECORD, "rai-demo": other}
    text = "It is <!--=rai-demo/steps-->?<!--/--> and <!--=rai-grads/P8.measured:.0%-->?<!--/-->."
    assert ">200<" in fill(text, both)
    assert ">99%<" in fill(text, both)
    with pytest.raises(ValueError, match=r"'rai-demo/P8\.measured'"):
        fill("It is <!--=rai-demo/P8.measured-->?<!--/-->.", both)
    with pytest.raises(ValueError, match="'steps'"):
        fill("It is <!--=steps-->?<!--/-->.", both)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a <!--=share_solve-->1<!--/-->", "'share_solve'; the nearest names are .*share_solved"),
        ("a <!--=zzzzqqqq-->1<!--/-->", "got 'zzzzqqqq'$"),
        ("a <!--=steps-->1", "after other words of its line, got 'a <!--=steps-->1'$"),
        ("a <!--=steps-->1 <!--=steps-->1<!--/-->", "got 'a <!--=steps-->1 "),
        ("b\na <!--=steps-->1<!--/--> b <!--/-->\nc", "got 'a <!--=steps-->1<!--/--> b <!--/-->'$"),
        ("a <!--= steps-->1<!--/-->", "must be <!--=NAME:FORMAT-->"),
        ("a <!--=-->1<!--/-->", "must be <!--=NAME:FORMAT-->"),
        ("a <!--=steps", "got 'a <!--=steps'$"),
        ("a <!--=steps:.1f 3.1<!--/-->", "got 'a <!--=steps:.1f 3.1"),
        ("a <!--=steps:.1f <!--=steps-->1<!--/-->", "got 'a <!--=steps:.1f "),
        ("a\n<!--=steps-->1<!--/-->", "got '<!--=steps-->1<!--/-->'$"),
        ("a\n  <!--=steps-->1<!--/-->", "got '  <!--=steps-->1<!--/-->'$"),
        ("a <!--=steps:.3q-->1<!--/-->", "format of 'steps' must fit 200, got '.3q'"),
        ("a <!--=P8.verdict:.3f-->1<!--/-->", "must fit 'reproduced', got '.3f'"),
    ],
)
def test_a_wrong_marker_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        fill(text, RECORD)


def test_wrong_markers_are_found_before_there_are_numbers():
    assert names("a <!--=not_there:.1f-->1<!--/-->") == ["not_there"]
    with pytest.raises(ValueError, match="a marker must be"):
        names("a <!--=steps-->1")


def test_a_table_has_one_line_a_row_and_refuses_a_row_that_does_not_fit():
    table = markdown_table(["name", "value"], [["a", "1"], ["b", "2"]])
    assert table.splitlines() == ["| name | value |", "| --- | ---: |", "| a | 1 |", "| b | 2 |"]
    with pytest.raises(ValueError, match="each row must have 2 cells, got 1"):
        markdown_table(["name", "value"], [["a"]])


def test_a_block_is_filled_and_the_rest_stays():
    text = "a\n\n<!--claims-->\nold\n<!--/claims-->\n\nz <!--=steps-->1<!--/-->\n"
    filled = fill_block(text, "claims", "| new |")
    assert filled == text.replace("\nold\n", "\n\n| new |\n\n")
    assert fill_block(filled, "claims", "| new |") == filled
    assert fill(filled, RECORD) == filled.replace(">1<", ">200<")


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "<!--claims-->\nopen",
        "<!--/claims-->\n<!--claims-->\n",
        "<!--claims-->\n<!--claims-->\n<!--/claims-->",
        "<!--claims-->\n<!--/claims-->\n<!--/claims-->",
    ],
)
def test_a_block_that_is_not_there_once_is_refused(text):
    with pytest.raises(ValueError, match="once each, in this order"):
        fill_block(text, "claims", "new")


def test_markers_can_be_taken_out():
    assert without_markers("It is <!--=steps:d-->200<!--/-->.") == "It is 200."

"""What a notebook's parameters may be, and that every notebook says so and is held to it."""

import json

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from rai_utils.publishing import claims
from rai_utils.publishing.claims import Study
from rai_utils.publishing.parameters import (
    check_ranges,
    checked_parameters,
    declared_parameters,
    declared_ranges,
    parse_assignments,
    study_parameters,
)
from rai_utils.publishing.pipeline import PROFILES, ROOT, main, run_parameters

FOLDER = 'publish_to = "build/scratch/tiny"'


def tiny(*lines, folder=FOLDER):
    source = "\n".join([*lines, folder])
    return new_notebook(cells=[new_code_cell(source, metadata={"tags": ["parameters"]})])


def check(line, value, **others):
    """Check a value of the first parameter of ``line`` against the range that is written there."""
    given = tiny(line, "steps = 9")
    declared = declared_parameters(given)
    name = next(iter(declared))
    check_ranges(declared | others | {name: value}, declared_ranges(given))


# --- what is declared ---


@pytest.mark.parametrize(
    "cell",
    [
        "half = steps / 2",
        "x = )",
        "steps, rate = 1, 2",
        "import torch",
        "steps += 1",
        "steps: int = 3",
        "f(1)",
    ],
)
def test_a_parameters_cell_holds_only_literals(cell):
    with pytest.raises(ValueError, match="must be name = literal, got"):
        declared_parameters(tiny(cell))


def test_declared_parameters():
    cell = "lr = 1e-3  # a comment\nwidths = (-1, 2)\nname = 'a'\n"
    assert declared_parameters(tiny(cell)) == {
        "publish_to": "build/scratch/tiny",
        "lr": 1e-3,
        "widths": (-1, 2),
        "name": "a",
    }
    with pytest.raises(ValueError, match="parameters must have publish_to"):
        declared_parameters(tiny("steps = 1", folder=""))
    with pytest.raises(ValueError, match="'parameters' must be one code cell, got 0"):
        declared_parameters(new_notebook())


def test_values_take_the_type_of_their_default():
    declared = {"rate": 0.5, "steps": 3, "sizes": (1,), "empty": [], "name": "a"}
    given = {"rate": 1, "steps": 4, "sizes": [2, 3], "empty": ["x"], "name": "b"}
    checked = checked_parameters(declared, given, "here")
    assert checked == given
    assert isinstance(checked["rate"], float)


# --- ranges ---


@pytest.mark.parametrize(
    ("line", "inside", "outside"),
    [
        ("n = 3  # [1, 5] of them", [1, 5], [0, 6, -1]),
        ("n = 3  # (1, 5) of them", [2, 4], [1, 5]),
        ("x = 0.5  # (0, 1e-1] of it", [1e-300, 0.1], [0.0, 0.2, -0.1]),
        ("x = 0.5  #   (-1, 0.5): no words are needed", [0.4, -0.9], [-1.0, 0.5]),
        ("n = 3  # [1, steps] of all", [1, 9], [0, 10]),
        ("n = 3  # (steps, 99] of all", [10, 99], [9, 100]),
        ("n = [3]  # [1, 5] each", [[1], [5, 5, 1]], [[], [0], [1, 6]]),
        ("n = [3]  # 2 or more of [1, 5] each", [[1, 1]], [[1], []]),
        ("n = [3]  # [1, 5], ascending; each", [[1, 5], [2]], [[5, 1], [2, 2], [0, 1]]),
        ("n = [3]  # 2 or more of [1, 5], ascending: each", [[1, 5]], [[2], [2, 2], []]),
        ("n = [3]  # 1 or more of [1, 5], distinct: each", [[5, 1]], [[2, 2], []]),
        (
            't = ["a"]  # {a, b}, distinct; to take',
            [["a", "b"], ["b", "a"]],
            [["c"], [], ["a", "a"]],
        ),
        ('t = "a"  # {a, b_c} to take', ["a", "b_c"], ["b", "", "a, b_c", "{a}"]),
        ('t = ["a"]  # {a, b}, ascending; to take', [["a", "b"]], [["c"], [], ["a", "a"]]),
        ('t = "a"  # {a,\n# b} in two lines', ["a", "b"], ["c"]),
        ("n = [\n    3,\n]  # [1, 5] each", [[1]], [[6]]),
        ("n = 3  # of [1, 5]: words before a range make it none", [9], []),
    ],
)
def test_a_range_holds_its_values_and_no_others(line, inside, outside):
    for value in inside:
        check(line, value)
    for value in outside:
        with pytest.raises(ValueError, match=r"^[ntx] must be "):
            check(line, value)


def test_the_message_names_the_range_and_what_its_bounds_are():
    with pytest.raises(ValueError) as refused:
        check("n = 3  # [1, steps) before the end", 7, steps=7)
    assert str(refused.value) == "n must be in [1, steps) with steps = 7, got 7"
    with pytest.raises(ValueError) as refused:
        check("n = [3]  # [1, 5], ascending; sizes", [])
    assert str(refused.value) == "n must be 1 or more of [1, 5], ascending, got []"
    with pytest.raises(ValueError) as refused:
        check('t = "a"  # {a, b} of them', "c" * 200)
    assert str(refused.value) == f"t must be one of {{a, b}}, got '{'c' * 78}…"


@pytest.mark.parametrize(
    "line",
    [
        "n = 3  # [1 5]",
        "n = 3  # [1, 5",
        "n = 3  # [1, step]",
        "n = 3  # [1, n]",
        "n = 3  # [1, grid]\ngrid = [2, 5]",
        "n = 3  # 2 or more",
    ],
)
def test_a_comment_that_only_looks_like_a_range_is_refused(line):
    with pytest.raises(ValueError, match="of n must be"):
        declared_ranges(tiny(line))


# --- the notebooks ---


def test_every_parameter_but_a_folder_has_a_range(notebook):
    declared, ranges = declared_parameters(notebook), declared_ranges(notebook)
    assert declared.keys() - ranges.keys() <= {"publish_to", "bench"}


def test_the_profiles_are_in_the_ranges(notebook_name):
    for profile in PROFILES:
        run_parameters(ROOT / "notebooks" / f"{notebook_name}.ipynb", profile, {})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rai-grads", "depth=3"),
        ("rai-grads", "depth=0"),
        ("rai-grads", "depth=-1"),
        ("rai-grads", "depth=8"),
        ("rai-grads", "depth='||>pwned||'"),
        ("rai-grads", "depth=it's"),
        ("rai-grads", "depth=True"),
        ("activation-saturation", "seeds=0"),
        ("activation-saturation", "seeds=1"),
        ("activation-saturation", "seeds=2"),
        ("rai-grads", "learning_rate=nan"),
        ("rai-grads", "learning_rate=1e999"),
        ("rai-grads", "relaxed_steps=400"),
        ("rai-grads", "steps=200"),
        ("rai-mechanism", "strip=[60, 20]"),
        ("rai-mechanism", "hidden_layers=3"),
        ("rai-guided-starts", "enough=0.5"),
        ("rai-grads", "second_rate=1e-13"),
        ("rai-grads", "threads=0"),
        ("rai-demo", "seeds=2"),
        ("rai-demo", "noise=-0.1"),
        ("network-basics", "learning_rates=[]"),
        ("network-basics", "learning_rates=[0.1, 51.0]"),
        ("rai-questions-generalisation", "live_problem=nosuch"),
        ("rai-questions-generalisation", "live_splits=0"),
        ("rai-questions-generalisation", "live_splits=6"),
        ("rai-questions-initialisation", "seed=-1"),
        ("rai-questions-minibatches", "table_examples=[]"),
        ("rai-questions-minibatches", "table_examples=[0]"),
        ("relax-your-own", "passes=0"),
        ("network-basics", "widths=[8]"),
        ("activation-saturation", "goal=0"),
        ("softmax-hidden-layer", "deepest=4"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name_before_the_run(name, text, capfd, monkeypatch):
    monkeypatch.setattr("rai_utils.publishing.pipeline._run_papermill", None)
    assert main(["execute", name, "--parameters", text]) == 2
    output, errors = capfd.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert text.partition("=")[0] in errors or "steps" in errors
    assert "YAML" not in errors


# --- a run by hand ---


@pytest.fixture
def by_hand(tmp_path, monkeypatch):
    """A folder with one notebook, as papermill alone or JupyterLab run it."""
    monkeypatch.setattr(claims, "root", lambda: tmp_path)
    (tmp_path / "notebooks").mkdir()
    cells = tiny("steps = 3  # [1, 9] to take", "rate = 0.5  # (0, steps]")
    (tmp_path / "notebooks" / "tiny.ipynb").write_text(json.dumps(cells))
    return tmp_path


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"steps": 0}, ValueError, r"steps must be in \[1, 9\], got 0"),
        ({"steps": 2, "rate": 3.0}, ValueError, "with steps = 2, got 3.0"),
        ({"rate": 4.0}, ValueError, "with steps = 3, got 4.0"),
        ({"steps": True}, TypeError, "steps in tiny.ipynb must be int, got bool True"),
        ({"steps": "3"}, TypeError, "steps in tiny.ipynb must be int, got str '3'"),
    ],
)
def test_a_study_refuses_what_its_notebook_does_not_allow(by_hand, values, error, message):
    with pytest.raises(error, match=message):
        Study("tiny", {"steps": 3, "rate": 0.5, "publish_to": "out", **values})
    assert not (by_hand / "out").exists()


def test_a_study_takes_its_parameters_from_the_namespace_of_the_notebook(by_hand):
    namespace = {"np": json, "steps": 9, "more": object(), "rate": 1, "publish_to": "out"}
    study = Study("tiny", namespace)
    assert study.parameters == {"steps": 9, "rate": 1}
    assert study.publish_to == by_hand / "out"
    assert namespace["publish_to"] == "out"
    del namespace["rate"]
    with pytest.raises(ValueError, match=r"rate must be set .* tiny\.ipynb, got none"):
        Study("tiny", namespace)


def test_without_a_notebook_the_whole_namespace_is_taken(by_hand):
    given = {"steps": 0, "publish_to": "out"}
    assert study_parameters(by_hand / "nowhere.ipynb", given) == given
    assert Study("other", given).parameters == {"steps": 0}
    with pytest.raises(ValueError, match="publish_to must be a folder to write to, got none"):
        Study("other", {"steps": 0})


# --- the command ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning_rates=[0.1, 0.01] depth=50", {"learning_rates": [0.1, 0.01], "depth": 50}),
        ("depth = 50\tseeds=3\n", {"depth": 50, "seeds": 3}),
        ("name='a b=1' depth=2", {"name": "a b=1", "depth": 2}),
        ("rate=1e-3 flag=True text=a=b", {"rate": 1e-3, "flag": True, "text": "a=b"}),
        ("rate=nan other=it's", {"rate": "nan", "other": "it's"}),
        ("depth=$(touch x)", {"depth": "$(touch x)"}),
        ("depth=", {"depth": ""}),
        ("", {}),
    ],
)
def test_assignments(text, expected):
    assert parse_assignments(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("depth", "got 'depth'"),
        ("5 depth=1", "got '5'"),
        ("a=1 a=2", "a twice"),
        ("=1", "got '=1'"),
    ],
)
def test_what_is_no_assignment_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_assignments(text)

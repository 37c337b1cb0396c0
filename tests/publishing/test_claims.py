import json
import math
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from rai_utils import plotting
from rai_utils.publishing import claims
from rai_utils.publishing.claims import Null, Study, read_metrics, rule_shown
from rai_utils.publishing.intervals import Estimate
from rai_utils.publishing.pipeline import ROOT
from rai_utils.publishing.rules import (
    Measured,
    Rule,
    all_of,
    at_least,
    at_most,
    compare,
    ends,
    identity,
)

INSTALLED = "packages/rai_utils/publishing/claims.py"


@pytest.fixture
def study(tmp_path):
    return Study("no-notebook", {"seeds": 3, "publish_to": tmp_path / "set"})


@pytest.fixture
def figure():
    plotting.use_style()
    figure, axes = plotting.figure(panel_height=2)
    axes.plot([0, 1], [1, 0], label="falling")
    axes.set_title("a title")
    yield figure
    plt.close("all")


# --- the study ---


def test_publish_writes_what_was_collected(study, figure, tmp_path):
    study.record(tolerance=0.01, share_solved=Estimate(1 / 3, (0.1, 0.7), 3))
    study.record(tolerance=0, steps=np.int64(200), first_dead_layer=None)
    study.record(within=0.2, loss=torch.tensor(0.5), held_out=np.array([0.25, 0.75]))
    chance = Null("the nets stay at chance", [0.5, 0.5])
    deep = Estimate(0.98, (0.95, 1.0), 5)
    study.claim("P8", "RAI trains the deep net.", deep, at_least(0.9), tolerance=0.05, null=chance)
    study.figure("deep-landscape", figure, alt="It falls.")
    study.publish()
    path = study.publish_to / "metrics.json"

    record = json.loads(path.read_text())
    assert list(record) == list(claims.METRICS_KEYS)
    assert record["notebook"] == "no-notebook"
    assert record["parameters"] == {"seeds": 3}
    assert set(record["environment"]) == {
        "python",
        "torch",
        "numpy",
        "scikit-learn",
        "matplotlib",
        "machine",
        "cpu_capability",
        "threads",
    }
    assert record["metrics"] == {
        "share_solved": {
            "value": 0.3333333333,
            "tolerance": 0.01,
            "effect": 0.3333333333,
            "interval": [0.1, 0.7],
            "seeds": 3,
        },
        "steps": {"value": 200, "tolerance": 0, "effect": 200, "interval": None, "seeds": None},
        "first_dead_layer": {
            "value": None,
            "tolerance": 0,
            "effect": None,
            "interval": None,
            "seeds": None,
        },
        "loss": {"value": 0.5, "tolerance": 0.1, "effect": 0.5, "interval": None, "seeds": None},
        "held_out": {
            "value": 0.5,
            "tolerance": 0.1,
            "effect": 0.5,
            "interval": pytest.approx([0.5 - 0.25 * 12.7062047, 0.5 + 0.25 * 12.7062047]),
            "seeds": 2,
        },
    }
    assert record["claims"] == [
        {
            "id": "P8",
            "statement": "RAI trains the deep net.",
            "measured": 0.98,
            "interval": [0.95, 1.0],
            "seeds": 5,
            "rule": "≥ 0.9 (lower end of the interval)",
            "verdict": "reproduced",
            "tolerance": 0.05,
            "effect": 0.98,
            "numbers": {},
            "null": {
                "text": "the nets stay at chance",
                "measured": 0.5,
                "interval": [0.5, 0.5],
                "seeds": 2,
                "numbers": {},
            },
        }
    ]
    assert record["figures"] == ["deep-landscape"]
    assert record["descriptions"] == {"deep-landscape": "It falls."}
    assert {file.name for file in path.parent.iterdir()} == {
        "metrics.json",
        "deep-landscape.png",
        "deep-landscape.pdf",
        "deep-landscape.json",
    }
    assert read_metrics(path.parent) == record
    assert str(tmp_path) not in path.read_text()


def test_the_set_has_the_same_bytes_in_each_run(study, figure, tmp_path):
    other = Study("no-notebook", {"seeds": 3, "publish_to": tmp_path / "other"})
    for one in (study, other):
        one.record(tolerance=0, loss=0.1 + 0.2)
        one.figure("curve", figure, alt="It falls.")
        one.publish()
    files = sorted(path.name for path in study.publish_to.iterdir())
    assert len(files) == 4
    for name in files:
        ours, theirs = study.publish_to / name, other.publish_to / name
        assert ours.read_bytes() == theirs.read_bytes()
        assert b"CreationDate" not in ours.read_bytes()
        assert b"Software" not in ours.read_bytes()


def test_a_figure_is_saved_at_200_dots_per_inch(study, figure):
    study.figure("curve", figure, alt="It falls.")
    height, width, _ = plt.imread(study.publish_to / "curve.png").shape
    assert (width, height) == (650, 400)


def test_a_figure_that_half_a_page_makes_illegible_is_refused(study, figure):
    figure.set_size_inches(8, 4)
    with pytest.raises(ValueError, match=r"'.*' has .* there: the figure is 8 inches wide"):
        study.figure("wide", figure, alt="It falls.")
    assert list(study.publish_to.glob("wide*")) == []


def test_text_that_overlaps_is_warned_of(study, figure):
    figure.text(0.3, 0.5, "under")
    figure.text(0.3, 0.5, "over")
    with pytest.warns(UserWarning, match="figure crowded: 'under' overlaps 'over'"):
        study.figure("crowded", figure, alt="It falls.")


def test_a_new_study_removes_the_set_that_stood_there(study, figure):
    study.figure("curve", figure, alt="It falls.")
    study.publish()
    (study.publish_to / "notes.txt").write_text("not ours")
    Study("no-notebook", {"publish_to": study.publish_to})
    assert [path.name for path in study.publish_to.iterdir()] == ["notes.txt"]


def test_a_relative_folder_starts_at_the_root(monkeypatch, tmp_path):
    monkeypatch.setattr(claims, "root", lambda: tmp_path)
    made = Study("rai-demo", {"publish_to": "build/scratch"})
    assert made.publish_to == tmp_path / "build" / "scratch"


def test_without_a_checkout_the_root_is_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert claims.root() != tmp_path
    monkeypatch.setattr(claims, "__file__", str(tmp_path / INSTALLED))
    assert claims.root() == tmp_path


def test_a_package_that_is_installed_elsewhere_finds_the_clone_it_is_run_in(monkeypatch, tmp_path):
    monkeypatch.setattr(claims, "__file__", str(tmp_path / INSTALLED))
    clone = tmp_path / "clone"
    (clone / "notebooks" / "profiles").mkdir(parents=True)
    monkeypatch.chdir(clone / "notebooks" / "profiles")
    assert claims.root() == clone / "notebooks" / "profiles"
    # Another project that has notebooks too.
    (clone / "pyproject.toml").write_text('[project]\nname = "other"\n')
    assert claims.root() == clone / "notebooks" / "profiles"
    shutil.copy(ROOT / "pyproject.toml", clone)
    assert claims.root() == clone


def test_verdict_lines_and_table(study):
    study.claim("P5", "a | b", 1.0, at_least(1), tolerance=0)
    study.claim("P10", "c", Estimate(None, (0, 2), 4), at_most(1), tolerance=0)
    assert study.verdict_lines() == "P5   reproduced\nP10  not measured"
    opening, _, *table, _, closing = study.claims_table().splitlines()
    assert opening.startswith("<details><summary>") and closing == "</details>"
    assert len(table) == 4
    assert table[2] == (
        "| P5 | a \\| b | 1 | – | – | ≥ 1 (lower end of the interval) | reproduced |"
    )
    assert table[3].startswith("| P10 | c | – | [0, 2] | 4 | ≤ 1 ")


def test_the_numbers_of_a_rule_are_published_and_shown(study):
    line = Measured("line", 0.8, plus=0.02, within=0.1)
    null = Null("no more than the line", 0.5, {"least": 0.2})
    study.claim("P8", **claim(rule=all_of(compare("least", 1 / 3, ">", line)), null=null))
    study.publish()
    (record,) = read_metrics(study.publish_to)["claims"]
    assert record["rule"] == "least > line + 0.02"
    assert record["numbers"] == {
        "least": {"value": 0.3333333333, "tolerance": 0.2433333333},
        "line": {"value": 0.8, "tolerance": 0.08},
    }
    assert record["null"]["numbers"] == {"least": 0.2}
    assert rule_shown(record) == "least > line + 0.02 [least: 0.3333, line: 0.8]"
    assert rule_shown(record) in study.claims_table()


# --- tolerances ---


@pytest.mark.parametrize(
    ("value", "given", "tolerance"),
    [
        (1.0, {"tolerance": 0.5}, 0.5),
        (-0.2, {"tolerance": 0.1}, 0.1),
        (0.0, {"tolerance": 0}, 0),
        (5, {"tolerance": 0}, 0),
        (0.001, {"tolerance": 0.01, "effect": 0.02}, 0.01),
        (0.0, {"tolerance": 1e-13, "effect": 1e-12}, 1e-13),
        (-0.4, {"within": 0.25}, 0.1),
        (0.0, {"within": 0.25}, 0),
        (0.001, {"within": 0.25, "effect": 0.4}, 0.1),
        (None, {"within": 0.25}, 0),
        (None, {"tolerance": 0.1}, 0.1),
    ],
)
def test_a_tolerance_is_at_most_half_of_the_effect(study, value, given, tolerance):
    study.record(number=value, **given)
    assert study._metrics["number"]["tolerance"] == pytest.approx(tolerance)
    study.claim("P1", **claim(measured=value, tolerance=None) | given)
    assert study._claims["P1"]["tolerance"] == pytest.approx(tolerance)


@pytest.mark.parametrize(
    ("value", "given", "error", "message"),
    [
        (1.0, {"tolerance": 0.51}, ValueError, "at most 0.5 of its effect 1, got 0.51"),
        (-0.2, {"tolerance": 0.2}, ValueError, "at most 0.5 of its effect 0.2"),
        (0.0, {"tolerance": 1e-9}, ValueError, "at most 0.5 of its effect 0"),
        (5.0, {"tolerance": 0.2, "effect": 0.3}, ValueError, "at most 0.5 of its effect 0.3"),
        (1.0, {"within": 0.51}, ValueError, "from 0 to 0.5, got 0.51"),
        (1.0, {"within": -0.1}, ValueError, "from 0 to 0.5, got -0.1"),
        (1.0, {"within": 0.1, "effect": -1.0}, ValueError, "effect of .* got -1.0"),
        (1.0, {"within": 0.1, "effect": math.inf}, ValueError, "effect of .* got inf"),
        (1.0, {"within": 0.1, "tolerance": 0.1}, TypeError, "not both, got 0.1 and 0.1"),
        (1.0, {}, TypeError, "tolerance or within must be given for .*, got None and None"),
    ],
)
def test_a_wider_tolerance_is_refused(study, value, given, error, message):
    with pytest.raises(error, match=message):
        study.record(number=value, **given)
    with pytest.raises(error, match=message):
        study.claim("P1", **claim(measured=value, tolerance=None) | given)


def test_a_deviation_stands_for_the_limit_of_its_identity(study):
    study.claim("P1", **claim(measured=1e-16, rule=identity(1e-12), tolerance=5e-13))
    made = study._claims["P1"]
    assert (made["verdict"], made["tolerance"]) == ("verified", 5e-13)
    with pytest.raises(ValueError, match=r"at most 0\.5 of its effect 1e-12"):
        study.claim("P2", **claim(measured=1e-16, rule=identity(1e-12), tolerance=1e-12))


def claim(**changes):
    return {
        "statement": "s",
        "measured": 1.0,
        "rule": at_least(1),
        "tolerance": 0.0,
        **changes,
    }


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.record(tolerance=0, Share=1), ValueError, "must be snake_case, like"),
        (lambda s: s.record(tolerance=-1, loss=1), ValueError, "tolerance must be 0 or above"),
        (lambda s: s.record(tolerance=math.inf, loss=1), ValueError, "tolerance must be 0"),
        (lambda s: s.record(tolerance=0, loss=math.nan), ValueError, "or None where it does not"),
        (lambda s: s.record(tolerance=0, loss=math.inf), ValueError, "loss must be finite"),
        (lambda s: s.record(tolerance=0, loss="1"), TypeError, "loss must be a number, got str"),
        (lambda s: s.record(tolerance=0, loss={}), TypeError, "loss must be a number, got dict"),
        (lambda s: s.record(tolerance=0, a=np.ones((2, 2))), ValueError, "a must be one axis"),
        (lambda s: s.record(tolerance=0, a=Estimate(1, (2, 1))), ValueError, r"be \(low, high\)"),
        (lambda s: s.record(tolerance=0, a=Estimate(1, (1,))), ValueError, "interval of a"),
        (lambda s: s.record(tolerance=0, a=Estimate(1, (None, 1))), ValueError, "interval of a"),
        (lambda s: s.record(tolerance=0, a=Estimate(1, None, 0)), ValueError, "seeds of a"),
        (lambda s: s.claim("p8", **claim()), ValueError, "like P8"),
        (lambda s: s.claim("P8", **claim(statement=" ")), ValueError, "must be a sentence"),
        (lambda s: s.claim("P8", **claim(rule="≥ 1")), TypeError, "must be a Rule, got str"),
        (lambda s: s.claim("P8", **claim(measured="1")), TypeError, "got str"),
        (lambda s: s.claim("P8", **claim(tolerance=-1)), ValueError, "tolerance must be 0"),
        (
            lambda s: s.claim("P8", **claim(null=Null("n", 0, {"other": 1}))),
            ValueError,
            "numbers of the null of P8 must be of none, got 'other'",
        ),
        (lambda s: s.figure("Deep", None, alt=""), ValueError, "kebab-case"),
        (
            lambda s: s.figure("metrics", None, alt="It falls."),
            ValueError,
            "must be new, got 'metrics'",
        ),
        (lambda s: s.figure("deep", None, alt=" "), ValueError, "alt of figure deep must be"),
        (
            lambda s: s.figure("deep", None, alt="It falls."),
            TypeError,
            "deep: .* of plotting.figure, got NoneType",
        ),
    ],
)
def test_what_cannot_be_published_is_refused(study, call, error, message):
    with pytest.raises(error, match=message):
        call(study)


def test_nothing_is_recorded_of_a_call_that_is_refused(study):
    with pytest.raises(ValueError, match="finite"):
        study.record(tolerance=0, loss=1, other=math.nan)
    study.record(tolerance=0, loss=1, other=2)
    assert list(study._metrics) == ["loss", "other"]


def test_a_name_is_used_once(study, figure):
    study.record(tolerance=0, loss=1)
    study.claim("P8", **claim())
    study.figure("curve", figure, alt="It falls.")
    for again in (
        lambda: study.record(tolerance=0, loss=1),
        lambda: study.claim("P8", **claim()),
        lambda: study.figure("curve", figure, alt="It falls."),
    ):
        with pytest.raises(ValueError, match=r"must be new, got '(?:loss|P8|curve)' again"):
            again()


def test_a_study_with_a_wrong_name_or_parameter_is_refused(tmp_path):
    def made(name="no-notebook", **parameters):
        return Study(name, {**parameters, "publish_to": tmp_path})

    with pytest.raises(ValueError, match="kebab-case"):
        made("rai_demo")
    with pytest.raises(TypeError, match="parameter model must be a number"):
        made(model=object())
    with pytest.raises(ValueError, match="parameter rates must be finite"):
        made(rates=[0.1, math.nan])
    nested = made(rates=(0.1, 1), sizes={"width": np.int64(2)})
    assert nested.parameters == {"rates": [0.1, 1], "sizes": {"width": 2}}


def test_a_rule_of_ones_own(study):
    rule = Rule("always", lambda measured, interval: "proved")
    study.claim("P1", **claim(rule=rule))
    assert study.verdict_lines() == "P1  proved"


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("P1", ("reproduced", "partly", "not reproduced", "contradicted")),
        ("Q1", ("yes", "it depends on depth", "no", "no")),
        ("H1", ("confirmed", "partly confirmed", "not confirmed", "contradicted")),
        ("M1", ("confirmed", "partly confirmed", "not confirmed", "contradicted")),
    ],
)
def test_a_question_is_answered_and_a_finding_is_confirmed(study, id, words):
    rule = at_least(0.9, partly=0.7, against=0.2)
    for number, letter in zip((0.95, 0.8, 0.5, 0.1), "abcd", strict=True):
        study.claim(f"{id}{letter}", **claim(measured=number, rule=rule), depends="depth")
    study.claim(f"{id}e", **claim(measured=Estimate(0.8, (0.6, 0.95)), rule=rule))
    assert [line.split(maxsplit=1)[1] for line in study.verdict_lines().splitlines()] == [
        *words,
        "undecided",
    ]


def test_a_null_of_an_interval_is_named_whole_or_by_an_end(study):
    rule = all_of(compare("gap", (0.2, 0.3), ">=", 0.1), compare("steps", 3, ">", 2))
    low, high = ends("gap")
    for id, numbers, kept in (
        ("P1", {"gap": Estimate(0.0, (-0.1, 0.1)), "steps": 1}, {low: -0.1, high: 0.1, "steps": 1}),
        ("P2", {"gap": 0.0}, {low: 0.0, high: 0.0}),
        ("P3", {low: 0.0}, {low: 0.0}),
    ):
        study.claim(id, **claim(rule=rule, null=Null("there is no gap", 0, numbers)))
        assert study._claims[id]["null"]["numbers"] == kept


def test_the_interval_of_a_share_ends_at_0_and_1(study):
    values = {"inside": [0.4, 0.5, 0.6], "high": [0.99, 1.0, 1.0], "low": [0.0, 0.0, 0.01]}
    study.record(within=0.1, **{f"{name}_free": each for name, each in values.items()})
    study.record(within=0.1, share=True, **values)
    study.claim("P8", **claim(measured=values["high"], share=True))
    free, cut = (
        {name: study._metrics[name + tail]["interval"] for name in values} for tail in ("_free", "")
    )
    assert cut["inside"] == free["inside"]
    assert free["high"][1] > 1 and cut["high"] == (free["high"][0], 1)
    assert free["low"][0] < 0 and cut["low"] == (0, free["low"][1])
    assert study._claims["P8"]["interval"] == cut["high"]
    for wrong in (1.01, [-0.3, 0.1]):
        with pytest.raises(ValueError, match="other must be a share, from 0 to 1"):
            study.record(within=0.1, share=True, other=wrong)


def test_a_file_that_is_no_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be a metrics file, got no such file"):
        read_metrics(tmp_path)
    path = tmp_path / "metrics.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="must be JSON"):
        read_metrics(tmp_path)
    path.write_text('{"metrics": {}}')
    with pytest.raises(ValueError, match=r"keys of .* must be notebook, parameters"):
        read_metrics(tmp_path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="got list"):
        read_metrics(tmp_path)
    # A broken set does not keep the next run from starting.
    Study("no-notebook", {"publish_to": tmp_path})
    assert not path.exists()


def test_the_release_of_torch_is_recorded_whatever_its_build(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.8.7+cpu")
    assert {claims.environment()[name] for name in ("torch", "numpy", "matplotlib")} == {"9.8.7"}

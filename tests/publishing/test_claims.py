import json
import math
import shutil
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy import stats

from rai_utils.publishing import claims
from rai_utils.publishing.claims import (
    Condition,
    Measured,
    Rule,
    Study,
    all_of,
    at_least,
    at_most,
    between,
    bootstrap_interval,
    compare,
    described,
    identity,
    mean_interval,
    read_metrics,
    rule_shown,
    share_interval,
)
from rai_utils.publishing.pipeline import ROOT

INSTALLED = "packages/rai_utils/publishing/claims.py"


@pytest.fixture
def study(tmp_path):
    return Study("rai-demo", {"seeds": 3, "publish_to": "somewhere"}, tmp_path / "set")


@pytest.fixture
def figure():
    figure, axes = plt.subplots(figsize=(3, 2))
    figure.subplots_adjust(left=0.2, bottom=0.15)
    axes.plot([0, 1], [1, 0], label="falling")
    axes.set_title("a title")
    yield figure
    plt.close(figure)


# --- rules ---


@pytest.mark.parametrize(
    ("rule", "measured", "interval", "verdict"),
    [
        (at_least(0.9), 0.9, None, "reproduced"),
        (at_least(0.9), 0.89, None, "not reproduced"),
        (at_least(0.9), 0.95, (0.89, 0.99), "not reproduced"),
        (at_least(0.9, 0.5), 0.95, (0.89, 0.99), "partly"),
        (at_least(0.9, 0.5), 0.95, (0.9, 0.99), "reproduced"),
        (at_least(0.9, 0.5), 0.4, None, "not reproduced"),
        (at_least(0.9, 0.5), None, None, "not measured"),
        (at_most(0.1), 0.1, None, "reproduced"),
        (at_most(0.1), 0.05, (0.0, 0.11), "not reproduced"),
        (at_most(0.1, 0.2), 0.05, (0.0, 0.11), "partly"),
        (at_most(0.1, 0.2), 0.3, None, "not reproduced"),
        (at_most(0.1, 0.2), None, None, "not measured"),
        (between(0.4, 0.6), 0.5, (0.4, 0.6), "reproduced"),
        (between(0.4, 0.6), 0.5, (0.39, 0.6), "partly"),
        (between(0.4, 0.6), 0.4, (0.3, 0.5), "partly"),
        (between(0.4, 0.6), 0.6, (0.5, 0.7), "partly"),
        (between(0.4, 0.6), 0.7, (0.5, 0.9), "not reproduced"),
        (between(0.4, 0.6), None, None, "not measured"),
        (identity(1e-9), -1e-9, None, "proved"),
        (identity(1e-9), -2e-9, None, "not reproduced"),
        (identity(1e-9), 0.0, (-2e-9, 0.0), "not reproduced"),
        (identity(1e-9), None, None, "not measured"),
        (at_least(0.9), math.nan, None, "not measured"),
        (at_most(0.1), None, (0.0, 0.05), "not measured"),
        (at_least(Measured("line", 0.8)), 0.81, (0.79, 0.83), "not reproduced"),
        (at_least(Measured("line", 0.8)), 0.82, (0.8, 0.83), "reproduced"),
        (at_least(0.95, Measured("line", 0.8, plus=0.02)), 0.84, (0.83, 0.85), "partly"),
        (at_least(0.95, Measured("line", 0.8, plus=0.02)), 0.84, (0.81, 0.85), "not reproduced"),
        (at_most(Measured("line", 0.75, plus=-0.25)), 0.5, None, "reproduced"),
        (at_most(Measured("line", None)), 0.7, None, "not measured"),
    ],
)
def test_a_rule_judges_the_conservative_end(rule, measured, interval, verdict):
    assert rule.decide(measured, interval) == verdict


def test_the_text_of_a_rule_holds_the_limits_that_decide():
    assert at_least(0.9, 0.5).text == "≥ 0.9; partly: ≥ 0.5 (lower end of the interval)"
    assert at_most(0.1).text == "≤ 0.1 (upper end of the interval)"
    assert identity(1e-9).text == "|deviation| ≤ 1e-09"
    assert between(0.4, 0.6).text == "whole interval in [0.4, 0.6]; partly: the value in it"


@pytest.mark.parametrize(
    ("relation", "below", "equal", "above", "sign"),
    [
        (">=", False, True, True, "≥"),
        ("<=", True, True, False, "≤"),
        (">", False, False, True, ">"),
        ("<", True, False, False, "<"),
        ("==", False, True, False, "="),
    ],
)
def test_compare(relation, below, equal, above, sign):
    assert [compare("gap", value, relation, 2).holds for value in (1, 2, 3)] == [
        below,
        equal,
        above,
    ]
    assert compare("gap", 1, relation, 2).text == f"gap {sign} 2"


def test_a_measured_limit_is_named_in_the_text_and_its_number_stands_beside_it():
    line = Measured("logistic regression", 0.8795, plus=0.02, within=0.1)
    condition = compare("accuracy, lower end", 0.91, ">", line)
    assert condition.text == "accuracy, lower end > logistic regression + 0.02"
    assert condition.holds
    assert not compare("accuracy", 0.89, ">", line).holds
    assert condition.numbers == {
        "accuracy, lower end": (0.91, pytest.approx((0.91 - 0.8995) / 2)),
        "logistic regression": (0.8795, pytest.approx(0.08795)),
    }
    assert all_of(condition, compare("steps", 3, "==", 4)).numbers.keys() == {
        "accuracy, lower end",
        "logistic regression",
        "steps",
    }
    rule = at_least(0.95, partly=Measured("logistic regression", 0.8795, plus=-0.01))
    assert rule.text == "≥ 0.95; partly: ≥ logistic regression − 0.01 (lower end of the interval)"
    assert rule.numbers == {"logistic regression": (0.8795, pytest.approx(0.02 * 0.8795))}
    # On a machine where the line comes out elsewhere, the text is the same.
    assert compare("accuracy, lower end", 0.91, ">", replace(line, value=0.88)).text == (
        condition.text
    )


@pytest.mark.parametrize("missing", [None, math.nan, np.float64("nan")])
def test_a_missing_number_neither_holds_nor_fails(missing):
    for condition in (
        compare("gap", missing, ">", 0),
        compare("gap", 1.0, ">", Measured("line", missing)),
    ):
        assert condition.holds is None
    assert compare("gap", missing, ">", 0).numbers == {"gap": (None, 0.0)}


def test_a_value_without_bound_decides_and_is_published_as_missing():
    condition = compare("steps", math.inf, "<=", 3)
    assert condition.holds is False
    assert condition.numbers == {"steps": (None, 0.0)}


def test_all_of_counts_the_conditions_that_hold():
    yes, no = compare("share", 1.0, ">=", 0.9), Condition("the front moves", False)
    assert all_of(yes, yes).decide(None, None) == "reproduced"
    assert all_of(yes, no).decide(1.0, None) == "not reproduced"
    assert all_of(yes, no, partly=1).decide(1.0, None) == "partly"
    assert all_of(no, no, partly=1).decide(1.0, None) == "not reproduced"
    missing = compare("loss", None, "<", 0.1)
    assert all_of(yes, missing).decide(1.0, None) == "not measured"
    assert all_of(no, missing, partly=1).decide(1.0, None) == "not measured"
    assert all_of(yes, no, partly=1).text == "share ≥ 0.9 and the front moves; partly: 1 of them"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: at_least(0.5, 0.5), "below reproduced"),
        (lambda: at_most(0.5, 0.5), "above reproduced"),
        (lambda: between(1, 1), "low below high"),
        (lambda: at_least(math.nan), "finite limit, got nan"),
        (lambda: at_most(1.0, math.inf), "finite limit, got inf"),
        (lambda: between(-math.inf, 1), "finite limit, got -inf"),
        (lambda: at_least(Measured("line", 0.5, plus=math.nan)), "finite limit, got nan"),
        (lambda: identity(-1), "tolerance of 0 or above"),
        (lambda: Measured("line", 1.0, within=0.6), "within of line must be from 0 to 0.5"),
        (lambda: identity(math.nan), "tolerance of 0 or above"),
        (lambda: compare("gap", 1, "≥", 2), "expected a relation"),
        (lambda: all_of(), "one condition or more"),
        (lambda: all_of(Condition("a", True), partly=1), "partly from 1 to 0"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- intervals ---


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_mean_interval_is_students(level):
    values = np.random.default_rng(0).normal(3, 2, size=7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert mean_interval(values, level) == pytest.approx(tuple(expected), rel=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (3, 10), (1, 1), (99, 100)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_share_interval_is_wilsons(successes, trials, level):
    test = stats.binomtest(successes, trials)
    expected = test.proportion_ci(level, method="wilson")
    assert share_interval(successes, trials, level) == pytest.approx(tuple(expected), abs=1e-12)


def test_bootstrap_interval_is_the_percentile_bootstrap():
    values = np.random.default_rng(1).exponential(size=30)
    ours = bootstrap_interval(values, np.median, 0.9, np.random.default_rng(2), resamples=5000)
    reference = stats.bootstrap(
        (values,),
        np.median,
        confidence_level=0.9,
        n_resamples=5000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert ours == pytest.approx(tuple(reference), abs=0.05)
    again = bootstrap_interval(values, np.median, 0.9, np.random.default_rng(2), resamples=5000)
    assert ours == again


@pytest.mark.parametrize(("level", "expected"), [(0.9, (5, 95)), (0.5, (25, 75))])
def test_bootstrap_interval_has_the_level_asked_for(level, expected):
    class OneValueEach:
        """Draws resample k as nothing but value k."""

        def integers(self, high, size):
            assert (high, size) == (101, (101, 101))
            return np.repeat(np.arange(101)[:, None], 101, axis=1)

    found = bootstrap_interval(np.arange(101.0), np.mean, level, OneValueEach(), resamples=101)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mean_interval([1.0]), "2 values or more"),
        (lambda: mean_interval([[1.0, 2.0]]), "one axis"),
        (lambda: mean_interval([1.0, math.nan]), "finite"),
        (lambda: mean_interval([1.0, 2.0], 95), "level between 0 and 1"),
        (lambda: share_interval(3, 2), "got 3 of 2"),
        (lambda: share_interval(0, 0), "got 0 of 0"),
        (lambda: share_interval(1, 2, 0), "level between 0 and 1"),
        (lambda: bootstrap_interval([1, 2], np.mean, 1, np.random.default_rng(0)), "level"),
        (
            lambda: bootstrap_interval([1, 2], np.mean, 0.9, np.random.default_rng(0), 0),
            "one resample or more",
        ),
    ],
)
def test_an_interval_that_cannot_be_had_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- the study ---


def test_publish_writes_what_was_collected(study, figure, tmp_path):
    assert (
        study.metric("share_solved", 1 / 3, tolerance=0.01, interval=(0.1, 0.7), seeds=3) == 1 / 3
    )
    study.metric("steps", np.int64(200), tolerance=0)
    study.metric("first_dead_layer", None, tolerance=0)
    study.metric("loss", torch.tensor(0.5), tolerance=0.1)
    study.claim(
        "P8",
        statement="RAI trains the deep net.",
        measured=0.98,
        interval=(0.95, 1.0),
        seeds=5,
        rule=at_least(0.9),
        tolerance=0.05,
    )
    study.figure("deep-landscape", figure)
    study.publish()
    path = study.publish_to / "metrics.json"

    record = json.loads(path.read_text())
    assert list(record) == list(claims.METRICS_KEYS)
    assert record["notebook"] == "rai-demo"
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
        }
    ]
    assert record["figures"] == ["deep-landscape"]
    assert list(record["descriptions"]) == ["deep-landscape"]
    assert {file.name for file in path.parent.iterdir()} == {
        "metrics.json",
        "deep-landscape.png",
        "deep-landscape.pdf",
    }
    assert read_metrics(path) == read_metrics(path.parent) == record
    assert str(tmp_path) not in path.read_text()


def test_the_set_has_the_same_bytes_in_each_run(study, figure, tmp_path):
    other = Study("rai-demo", {"seeds": 3}, tmp_path / "other")
    for one in (study, other):
        one.metric("loss", 0.1 + 0.2, tolerance=0)
        one.figure("curve", figure)
        one.publish()
    files = sorted(path.name for path in study.publish_to.iterdir())
    assert len(files) == 3
    for name in files:
        ours, theirs = study.publish_to / name, other.publish_to / name
        assert ours.read_bytes() == theirs.read_bytes()
        assert b"CreationDate" not in ours.read_bytes()
        assert b"Software" not in ours.read_bytes()


def test_a_figure_is_saved_at_200_dots_per_inch(study, figure):
    study.figure("curve", figure)
    height, width, _ = plt.imread(study.publish_to / "curve.png").shape
    assert (width, height) == (600, 400)


def test_a_figure_that_half_a_page_makes_illegible_is_refused(study, figure):
    figure.set_size_inches(8, 4)
    with pytest.raises(ValueError, match=r"'.*' has .* there: the figure is 8 inches wide"):
        study.figure("wide", figure)
    assert list(study.publish_to.glob("wide*")) == []


def test_text_that_overlaps_is_warned_of(study, figure):
    figure.text(0.3, 0.5, "under")
    figure.text(0.3, 0.5, "over")
    with pytest.warns(UserWarning, match="figure crowded: 'under' overlaps 'over'"):
        study.figure("crowded", figure)


def test_a_new_study_removes_the_set_that_stood_there(study, figure):
    study.figure("curve", figure)
    study.publish()
    (study.publish_to / "notes.txt").write_text("not ours")
    Study("rai-demo", {}, study.publish_to)
    assert [path.name for path in study.publish_to.iterdir()] == ["notes.txt"]


def test_a_relative_folder_starts_at_the_root(monkeypatch, tmp_path):
    monkeypatch.setattr(claims, "root", lambda: tmp_path)
    assert Study("rai-demo", {}, "build/scratch").publish_to == tmp_path / "build" / "scratch"


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
    study.claim("P5", statement="a | b", measured=1.0, rule=at_least(1), tolerance=0)
    study.claim(
        "P10", statement="c", measured=None, rule=at_most(1), tolerance=0, interval=(0, 2), seeds=4
    )
    assert study.verdict_lines() == "P5   reproduced\nP10  not measured"
    table = study.claims_table().splitlines()
    assert len(table) == 4
    assert table[2] == (
        "| P5 | a \\| b | 1 | – | – | ≥ 1 (lower end of the interval) | reproduced |"
    )
    assert table[3].startswith("| P10 | c | – | [0, 2] | 4 | ≤ 1 ")


def test_the_numbers_of_a_rule_are_published_and_shown(study):
    line = Measured("line", 0.8, plus=0.02, within=0.1)
    study.claim("P8", **claim(rule=all_of(compare("least", 1 / 3, ">", line))))
    study.publish()
    (record,) = read_metrics(study.publish_to)["claims"]
    assert record["rule"] == "least > line + 0.02"
    assert record["numbers"] == {
        "least": {"value": 0.3333333333, "tolerance": 0.2433333333},
        "line": {"value": 0.8, "tolerance": 0.08},
    }
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
    study.metric("number", value, **given)
    assert study._metrics["number"]["tolerance"] == pytest.approx(tolerance)
    made = study.claim("P1", **claim(measured=value, tolerance=None) | given)
    assert made.tolerance == pytest.approx(tolerance)


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
        (1.0, {"within": 0.1, "tolerance": 0.1}, TypeError, "one of tolerance and within"),
        (1.0, {}, TypeError, "one of tolerance and within"),
    ],
)
def test_a_wider_tolerance_is_refused(study, value, given, error, message):
    with pytest.raises(error, match=message):
        study.metric("number", value, **given)
    with pytest.raises(error, match=message):
        study.claim("P1", **claim(measured=value, tolerance=None) | given)


def test_a_deviation_stands_for_the_limit_of_its_identity(study):
    made = study.claim("P1", **claim(measured=1e-16, rule=identity(1e-12), tolerance=5e-13))
    assert (made.verdict, made.tolerance) == ("proved", 5e-13)
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
        (lambda s: s.metric("Share", 1, tolerance=0), ValueError, "snake_case"),
        (lambda s: s.metric("loss", 1, tolerance=-1), ValueError, "tolerance of 0 or above"),
        (lambda s: s.metric("loss", 1, tolerance=math.inf), ValueError, "tolerance of 0"),
        (lambda s: s.metric("loss", math.nan, tolerance=0), ValueError, "give None"),
        (lambda s: s.metric("loss", math.inf, tolerance=0), ValueError, "finite"),
        (lambda s: s.metric("loss", "1", tolerance=0), TypeError, "got str"),
        (lambda s: s.metric("loss", np.ones(2), tolerance=0), TypeError, "got ndarray"),
        (lambda s: s.metric("a", 1, tolerance=0, interval=(2, 1)), ValueError, "low ≤ high"),
        (lambda s: s.metric("a", 1, tolerance=0, interval=(1,)), ValueError, "interval"),
        (lambda s: s.metric("a", 1, tolerance=0, interval=(None, 1)), ValueError, "low ≤ high"),
        (lambda s: s.metric("a", 1, tolerance=0, seeds=0), ValueError, "number of seeds"),
        (lambda s: s.claim("p8", **claim()), ValueError, "like P8"),
        (lambda s: s.claim("P8", **claim(statement=" ")), ValueError, "in a sentence"),
        (lambda s: s.claim("P8", **claim(rule="≥ 1")), TypeError, "expected a Rule"),
        (lambda s: s.claim("P8", **claim(measured="1")), TypeError, "got str"),
        (lambda s: s.claim("P8", **claim(tolerance=-1)), ValueError, "tolerance of 0"),
        (lambda s: s.figure("Deep", None), ValueError, "kebab-case"),
        (lambda s: s.figure("deep", None), TypeError, "matplotlib Figure"),
    ],
)
def test_what_cannot_be_published_is_refused(study, call, error, message):
    with pytest.raises(error, match=message):
        call(study)


def test_a_name_is_used_once(study, figure):
    study.metric("loss", 1, tolerance=0)
    study.claim("P8", **claim())
    study.figure("curve", figure)
    for again in (
        lambda: study.metric("loss", 1, tolerance=0),
        lambda: study.claim("P8", **claim()),
        lambda: study.figure("curve", figure),
    ):
        with pytest.raises(ValueError, match="exists already"):
            again()


def test_a_study_with_a_wrong_name_or_parameter_is_refused(tmp_path):
    with pytest.raises(ValueError, match="kebab-case"):
        Study("rai_demo", {}, tmp_path)
    with pytest.raises(TypeError, match="parameter model"):
        Study("rai-demo", {"model": object()}, tmp_path)
    with pytest.raises(ValueError, match="parameter rates"):
        Study("rai-demo", {"rates": [0.1, math.nan]}, tmp_path)
    nested = Study("rai-demo", {"rates": (0.1, 1), "sizes": {"width": np.int64(2)}}, tmp_path)
    assert nested.parameters == {"rates": [0.1, 1], "sizes": {"width": 2}}


def test_a_rule_of_ones_own(study):
    rule = Rule("always", lambda measured, interval: "proved")
    assert study.claim("P1", **claim(rule=rule)).verdict == "proved"


def test_a_file_that_is_no_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        read_metrics(tmp_path)
    path = tmp_path / "metrics.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="expected JSON"):
        read_metrics(path)
    path.write_text('{"metrics": {}}')
    with pytest.raises(ValueError, match="expected notebook, parameters"):
        read_metrics(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="got list"):
        read_metrics(path)
    # A broken set does not keep the next run from starting.
    Study("rai-demo", {}, tmp_path)
    assert not path.exists()


def test_a_recorded_value_can_be_read_as_it_will_be_published(study):
    study.metric("share", 1 / 3, tolerance=0.1)
    assert study.value("share") == 0.3333333333
    with pytest.raises(ValueError, match="expected a recorded metric, got 'other'"):
        study.value("other")


# --- figures in words ---


def test_a_figure_is_described_by_its_own_labels():
    made, (left, right) = plt.subplots(1, 2)
    left.plot([1, 2], label=r"$\hat z_t$")
    left.set(title="backprop,\n16 seeds", xlabel="step", ylabel="held-out accuracy")
    left.legend()
    right.set_xlabel("share of the plane")
    bar = made.colorbar(right.imshow([[0, 1]]), ax=right)
    bar.set_label("P(class 1)")
    assert described(made) == (
        "backprop, 16 seeds: held-out accuracy against step (z_t). share of the plane. "
        "Colour: P(class 1)."
    )
    assert described(plt.figure()) == ""
    made, panels = plt.subplots(1, 2)
    panels[1].set_title("named")
    assert described(made) == "named."
    plt.close("all")


def test_a_set_without_descriptions_is_read(study):
    study.publish()
    path = study.publish_to / "metrics.json"
    record = json.loads(path.read_text())
    del record["descriptions"]
    path.write_text(json.dumps(record))
    assert read_metrics(path)["descriptions"] == {}
    del record["figures"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="expected notebook, parameters"):
        read_metrics(path)

"""How verdicts follow from numbers."""

import math
from dataclasses import replace

import numpy as np
import pytest

from rai_utils.publishing.intervals import Estimate
from rai_utils.publishing.rules import (
    Condition,
    Measured,
    all_of,
    at_least,
    at_most,
    compare,
    ends,
    identity,
)


@pytest.mark.parametrize(
    ("rule", "measured", "interval", "verdict"),
    [
        (at_least(0.9), 0.9, None, "reproduced"),
        (at_least(0.9), 0.89, None, "not reproduced"),
        (at_least(0.9), 0.95, (0.89, 0.99), "undecided"),
        (at_least(0.9, 0.8), 0.75, (0.7, 0.8), "undecided"),
        (at_least(0.9, 0.8), 0.75, (0.7, 0.79), "not reproduced"),
        (at_least(0.9, 0.8), 0.75, (0.7, 0.99), "undecided"),
        (at_least(6, 2, against=1), 0.8, (0.7, 0.9), "contradicted"),
        (at_least(6, 2, against=1), 0.9, (0.7, 1.0), "not reproduced"),
        (at_least(6, 2, against=1), 0.5, None, "contradicted"),
        (at_least(6, 2, against=1), 1.9, (0.7, 2.1), "undecided"),
        (at_most(0.2, against=1), 1.2, (1.1, 1.3), "contradicted"),
        (at_most(0.2, against=1), 0.9, (0.8, 1.3), "not reproduced"),
        (at_most(0.2, against=1), 0.5, (0.1, 1.3), "undecided"),
        (at_least(0.9, 0.5), 0.95, (0.89, 0.99), "partly"),
        (at_least(0.9, 0.5), 0.95, (0.9, 0.99), "reproduced"),
        (at_least(0.9, 0.5), 0.4, None, "not reproduced"),
        (at_least(0.9, 0.5), None, None, "not measured"),
        (at_most(0.1), 0.1, None, "reproduced"),
        (at_most(0.1), 0.05, (0.0, 0.11), "undecided"),
        (at_most(0.1, 0.2), 0.05, (0.0, 0.11), "partly"),
        (at_most(0.1, 0.2), 0.3, None, "not reproduced"),
        (at_most(0.1, 0.2), None, None, "not measured"),
        (identity(1e-9), -1e-9, None, "verified"),
        (identity(1e-9, derived=True), -1e-9, None, "proved"),
        (identity(1e-9, derived=True), -2e-9, None, "not reproduced"),
        (identity(1e-9), -2e-9, None, "not reproduced"),
        (identity(1e-9), 0.0, (-2e-9, 0.0), "not reproduced"),
        (identity(1e-9), None, None, "not measured"),
        (at_least(0.9), math.nan, None, "not measured"),
        (at_most(0.1), None, (0.0, 0.05), "not measured"),
        (at_least(Measured("line", 0.8)), 0.81, (0.79, 0.83), "undecided"),
        (at_least(Measured("line", 0.8)), 0.82, (0.8, 0.83), "reproduced"),
        (at_least(0.95, Measured("line", 0.8, plus=0.02)), 0.84, (0.83, 0.85), "partly"),
        (at_least(0.95, Measured("line", 0.8, plus=0.02)), 0.84, (0.81, 0.85), "undecided"),
        (at_most(Measured("line", 0.75, plus=-0.25)), 0.5, None, "reproduced"),
        (at_most(Measured("line", None)), 0.7, None, "not measured"),
    ],
)
def test_a_rule_judges_the_conservative_end(rule, measured, interval, verdict):
    assert rule.decide(measured, interval) == verdict


def test_the_text_of_a_rule_holds_the_limits_that_decide():
    assert at_least(0.9, 0.5).text == "≥ 0.9; partly: ≥ 0.5 (lower end of the interval)"
    assert at_most(0.1).text == "≤ 0.1 (upper end of the interval)"
    assert at_most(0.1, against=1).text == (
        "≤ 0.1 (upper end of the interval); contradicted: lower end > 1"
    )
    assert identity(1e-9).text == "|deviation| ≤ 1e-09"
    assert identity(1e-9, 12, derived=True).text == "|deviation| ≤ 1e-09 at 12 points, derived"


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
    ("interval", "relation", "met", "open_", "against"),
    [
        ((0.5, 0.9), ">=", True, False, False),
        ((0.5, 0.9), ">", False, True, False),
        ((0.4, 0.5), ">=", False, True, False),
        ((0.4, 0.5), ">", False, False, False),
        ((0.1, 0.2), ">=", False, False, False),
        ((0.0, 0.1), ">=", False, False, True),
        ((0.1, 0.5), "<=", True, False, False),
        ((0.1, 0.5), "<", False, True, False),
        ((0.5, 0.9), "<=", False, True, False),
        ((0.7, 0.9), "<=", False, False, False),
        ((0.81, 0.9), "<=", False, False, True),
    ],
)
def test_a_condition_is_met_by_all_of_an_interval(interval, relation, met, open_, against):
    no_effect = 0.2 if relation.startswith(">") else 0.8
    for value in (interval, Estimate(0.5, interval)):
        found = compare("gap", value, relation, 0.5, against=no_effect)
        assert (found.holds, found.open, found.against) == (met, open_, against)
    assert found.numbers == {
        name: (end, pytest.approx(abs(end - 0.5) / 2))
        for name, end in zip(ends("gap"), interval, strict=True)
    }


def test_the_text_of_a_condition_says_which_ends_decide():
    texts = [
        compare("gap", (0.1, 0.2), ">=", 0.5).text,
        compare("gap", (0.1, 0.2), "<", 0.5, against=0.6).text,
        compare("gap", 0.1, ">=", 0.5, against=0.2).text,
    ]
    assert texts == [
        "gap ≥ 0.5 (lower end)",
        "gap < 0.5 (upper end; against: lower end > 0.6)",
        "gap ≥ 0.5 (against: < 0.2)",
    ]


MET, OPEN, AGAINST, FAILED, MISSING = (
    compare("x", interval, ">=", 0.5, against=0.2)
    for interval in ((0.6, 0.7), (0.4, 0.7), (0.0, 0.1), (0.1, 0.3), (0.1, math.nan))
)


@pytest.mark.parametrize(
    ("conditions", "partly", "verdict"),
    [
        ([MET, MET], None, "reproduced"),
        ([MET, OPEN], None, "undecided"),
        ([OPEN, FAILED], None, "not reproduced"),
        ([OPEN, AGAINST], None, "contradicted"),
        ([MET, AGAINST, FAILED], None, "contradicted"),
        ([MET, OPEN], 1, "partly"),
        ([OPEN, OPEN], 1, "undecided"),
        ([MET, OPEN, FAILED], 2, "undecided"),
        ([MET, OPEN, AGAINST], 2, "undecided"),
        ([MET, AGAINST, AGAINST], 2, "contradicted"),
        ([MET, FAILED, FAILED], 2, "not reproduced"),
        ([MET, MISSING], 1, "not measured"),
    ],
)
def test_all_of_leaves_open_what_its_intervals_leave_open(conditions, partly, verdict):
    for order in (conditions, conditions[::-1]):
        assert all_of(*order, partly=partly).decide(0.0, (0.0, 0.0)) == verdict


def test_a_number_held_to_two_limits_keeps_the_smaller_tolerance():
    both = compare("slope", (0.95, 1.05), ">=", 0.9), compare("slope", (0.95, 1.05), "<=", 1.15)
    for rule in (all_of(*both), all_of(*both[::-1])):
        assert rule.numbers == {
            "slope, lower end": (0.95, pytest.approx(0.025)),
            "slope, upper end": (1.05, pytest.approx(0.05)),
        }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: at_least(0.5, 0.5), "partly must be below reproduced .0.5., got 0.5"),
        (lambda: at_most(0.5, 0.5), "partly must be above reproduced .0.5., got 0.5"),
        (lambda: at_least(math.nan), "limit must be finite, got nan"),
        (
            lambda: at_least(0.5, against=0.6),
            "against must not be inside .* got 0.6",
        ),
        (lambda: at_most(0.5, 0.7, against=0.6), "against must not be inside .* got 0.6"),
        (lambda: at_most(0.5, against=math.nan), "limit must be finite, got nan"),
        (lambda: at_most(1.0, math.inf), "limit must be finite, got inf"),
        (lambda: at_most(-math.inf), "limit must be finite, got -inf"),
        (lambda: at_least(Measured("line", 0.5, plus=math.nan)), "limit must be finite, got nan"),
        (lambda: identity(-1), "tolerance must be 0 or above"),
        (lambda: Measured("line", 1.0, within=0.6), "within of line must be from 0 to 0.5"),
        (lambda: identity(math.nan), "tolerance must be 0 or above"),
        (lambda: compare("gap", 1, "≥", 2), "relation must be one of >=, .* got '≥'"),
        (
            lambda: compare("gap", 1, ">=", 2, against=3),
            "against must not be inside the limit 2, got 3",
        ),
        (lambda: compare("gap", (1, 2), "==", 2), "relation must be one of .* got =="),
        (lambda: compare("gap", (1, 2), "<", 2, against=math.inf), "limit must be finite"),
        (lambda: all_of(), "conditions must be one or more"),
        (lambda: all_of(Condition("a", True), partly=1), "partly must be from 1 to 0"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

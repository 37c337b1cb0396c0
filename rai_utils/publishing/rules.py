"""How verdicts follow from numbers: rules, their conditions, and limits that are measured.

A verdict is never typed: a :class:`Rule` computes it from the number and its interval, and the text
of the rule is made from the same limits that decide. Typed limits must be finite, one for *partly*
weaker than the one for *reproduced* and one for *contradicted* weaker than both; all else is
refused with a ValueError. The words:

- *verified*: an identity that holds to rounding at the points tried; *proved* where a derivation
  stands beside it and is checked symbolically.
- *reproduced*, *partly*, *not reproduced*: all, some or none of what the rule asks for.
- *contradicted*: the interval lies wholly on the other side.
- *undecided*: the interval is too wide to say. *not measured*: data are missing.

A question of the proposal is answered *yes*, *no*, *it depends on* … or *undecided*, and a finding
of the study's own is confirmed or not: :data:`ANSWERS` has their words for the same verdicts.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rai_utils.publishing.intervals import Estimate, Interval, Number

Verdict = Literal[
    "proved",
    "verified",
    "reproduced",
    "partly",
    "undecided",
    "not reproduced",
    "contradicted",
    "not measured",
]
_FINDING = {
    "reproduced": "confirmed",
    "partly": "partly confirmed",
    "not reproduced": "not confirmed",
}
ANSWERS: dict[str, dict[str, str]] = {
    "Q": {
        "reproduced": "yes",
        "partly": "it depends",
        "not reproduced": "no",
        "contradicted": "no",
    },
    **dict.fromkeys("HMGONR", _FINDING),
}
"""Letter of an id -> verdict -> its word there; a verdict that is not named keeps its own."""

WIDEST = 0.5
"""The widest tolerance, as a share of the effect that its number stands for."""

_RELATIONS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    ">=": ("≥", operator.ge),
    "<=": ("≤", operator.le),
    ">": (">", operator.gt),
    "<": ("<", operator.lt),
    "==": ("=", operator.eq),
}


@dataclass(frozen=True)
class Measured:
    """A limit that is itself measured: ``Measured("logistic regression", 0.88, plus=0.02)``.

    The text of a rule names it, and its number is published beside the rule.

    Attributes:
        name: what was measured.
        value: its number; None where it is missing.
        plus: typed margin that the limit lies above it, or below if negative.
        within: tolerance of the number, as a share of it, from 0 to 0.5.
    """

    name: str
    value: Number
    plus: float = 0.0
    within: float = 0.02

    def __post_init__(self) -> None:
        check_share(self.within, self.name)
        _check_limits(self.plus)


Limit = float | Measured
Numbers = Mapping[str, tuple[Number, float]]


@dataclass(frozen=True)
class Rule:
    """How a verdict follows from a measured number and its interval.

    Attributes:
        text: the rule in words, with the limits that are typed.
        decide: (measured, interval) -> the verdict; *not measured* where a number is None.
        numbers: name -> (number, tolerance) of what was measured besides and decides too.
        effect: what a number under this rule stands for, if not its own size.
    """

    text: str
    decide: Callable[[Number, Interval | None], Verdict]
    numbers: Numbers = field(default_factory=dict)
    effect: float | None = None


@dataclass(frozen=True)
class Condition:
    """One part of a composite rule: what is asked, and whether it holds.

    Attributes:
        text: what is asked.
        holds: whether it is met; None where a number is missing.
        numbers: as in :class:`Rule`.
        open: whether the interval is too wide to say: it holds the limit.
        against: whether the interval lies wholly on the other side.
    """

    text: str
    holds: bool | None
    numbers: Numbers = field(default_factory=dict)
    open: bool = False
    against: bool = False


def at_least(
    reproduced: Limit, partly: Limit | None = None, *, against: float | None = None
) -> Rule:
    """Return the rule "the number is at least this", judged at the lower end of the interval.

    Where that end misses every limit and the upper end meets one, the verdict is *undecided*;
    where the upper end lies below ``against``, the value of no effect, it is *contradicted*.
    Without an interval the number itself is judged.
    """
    return _bounded("≥", reproduced, partly, against)


def at_most(
    reproduced: Limit, partly: Limit | None = None, *, against: float | None = None
) -> Rule:
    """Return the rule "the number is at most this": :func:`at_least` the other way round."""
    return _bounded("≤", reproduced, partly, against)


def _bounded(
    sign: Literal["≥", "≤"], reproduced: Limit, partly: Limit | None, against: float | None
) -> Rule:
    direction, near, beyond = (1, "lower", "below") if sign == "≥" else (-1, "upper", "above")
    far = "upper" if near == "lower" else "lower"
    typed = [limit for limit in (reproduced, partly, against) if isinstance(limit, int | float)]
    _check_limits(*typed)
    both_typed = isinstance(reproduced, int | float) and isinstance(partly, int | float)
    if both_typed and direction * (typed[0] - typed[1]) <= 0:
        raise ValueError(f"partly must be {beyond} reproduced ({typed[0]:g}), got {typed[1]:g}")
    if against is not None and any(direction * (limit - against) < 0 for limit in typed):
        raise ValueError(f"against must not be inside the limits {typed[:-1]}, got {against:g}")
    limits = [_limit(limit) for limit in (reproduced, partly) if limit is not None]

    def decide(measured: Number, interval: Interval | None) -> Verdict:
        number, bounds = _present(measured), [value for _, value, _ in limits if value is not None]
        if number is None or len(bounds) < len(limits):
            return "not measured"
        ends = sorted((number, number) if interval is None else interval)[::direction]
        met, could = ([direction * (end - bound) >= 0 for bound in bounds] for end in ends)
        if met[0]:
            return "reproduced"
        if any(met) or any(could):
            return "partly" if any(met) else "undecided"
        on_the_other_side = against is not None and direction * (ends[1] - against) < 0
        return "contradicted" if on_the_other_side else "not reproduced"

    text = "; partly: ".join(f"{sign} {words}" for words, _, _ in limits)
    text += f" ({near} end of the interval)"
    if against is not None:
        text += f"; contradicted: {far} end {'<' if sign == '≥' else '>'} {against:g}"
    numbers = {name: pair for _, _, own in limits for name, pair in own.items()}
    return Rule(text, decide, numbers)


def identity(tolerance: float, points: int | None = None, *, derived: bool = False) -> Rule:
    """Return the rule for an equality: the number is the largest deviation found at ``points``.

    The verdict is *verified* where its absolute value is at most ``tolerance`` (at the far end of
    the interval, if there is one), and *proved* if the equality is ``derived`` beside it and the
    derivation is checked symbolically; otherwise it is *not reproduced*. The deviation itself is
    rounding; what it stands for is ``tolerance``, at least 0.
    """
    check_tolerance(tolerance)
    holds: Verdict = "proved" if derived else "verified"

    def decide(measured: Number, interval: Interval | None) -> Verdict:
        number = _present(measured)
        if number is None:
            return "not measured"
        ends = (number,) if interval is None else interval
        return holds if all(abs(end) <= tolerance for end in ends) else "not reproduced"

    text = f"|deviation| ≤ {tolerance:g}"
    text += "" if points is None else f" at {points} points"
    text += ", derived" if derived else ""
    return Rule(text, decide, effect=tolerance)


def compare(
    name: str,
    value: Number | Interval | Estimate,
    relation: Literal[">=", "<=", ">", "<", "=="],
    limit: Limit,
    *,
    against: float | None = None,
) -> Condition:
    """Return the condition ``value relation limit``, with its text made from the same limit.

    An interval, or an ``Estimate`` that has one, meets the condition with all of itself: its near
    end is judged, and where only the far end meets the limit the condition is *open*. Where the far
    end lies beyond ``against``, the value of no effect, it is *against*. A single number is met or
    not, and never open.

    What is judged is published beside the rule: the value, or both ends as in :func:`ends`. What it
    stands for is its distance from the limit, so its tolerance is half of that. A missing number,
    None or NaN, makes the condition neither hold nor fail.
    """
    if relation not in _RELATIONS:
        raise ValueError(f"relation must be one of {', '.join(_RELATIONS)}, got {relation!r}")
    if isinstance(value, Estimate):
        value = value.value if value.interval is None else value.interval
    single = not isinstance(value, tuple)
    if relation == "==" and not (single and against is None):
        raise ValueError("relation must be one of >=, <=, >, < for an interval or against, got ==")
    sign, relate = _RELATIONS[relation]
    direction = -1 if "<" in relation else 1
    names = (name,) if single else ends(name)
    found = [_present(each) for each in ((value,) if single else value)]
    words, bound, numbers = _limit(limit)
    near, far = ("lower end", "upper end")[::direction]
    notes = [] if single else [near]
    if against is not None:
        _check_limits(against)
        if not isinstance(limit, Measured) and direction * (limit - against) < 0:
            raise ValueError(f"against must not be inside the limit {limit:g}, got {against:g}")
        end, beyond = "" if single else f"{far} ", "<" if direction > 0 else ">"
        notes.append(f"against: {end}{beyond} {against:g}")
    text = f"{name} {sign} {words}" + (f" ({'; '.join(notes)})" if notes else "")
    known = [each for each in found if each is not None]
    if len(known) < len(found) or bound is None:
        return Condition(text, None, {**dict.fromkeys(names, (None, 0.0)), **numbers})
    shown = {own: _shown(each, bound) for own, each in zip(names, known, strict=True)}
    first, last = (known[0], known[-1])[::direction]
    met, could = (bool(relate(end, bound)) for end in (first, last))
    opposed = against is not None and direction * (last - against) < 0
    return Condition(text, met, {**shown, **numbers}, could and not met, opposed)


def ends(name: str) -> tuple[str, str]:
    """Return the names under which the ends of an interval are published beside a rule."""
    return f"{name}, lower end", f"{name}, upper end"


def _shown(number: Number, bound: float) -> tuple[Number, float]:
    distance = abs(float(number or 0) - float(bound))
    return (number, WIDEST * distance) if math.isfinite(distance) else (None, 0.0)


def all_of(*conditions: Condition, partly: int | None = None) -> Rule:
    """Return the rule "all conditions hold"; with ``partly``, that many of them hold it in part.

    The conditions, one or more, decide alone: the measured number and its interval are only shown.
    Where a number of a condition is missing, the verdict is *not measured*. Where too few hold, it
    is *undecided* if those that are open would be enough; otherwise *contradicted* if one is
    against, and *not reproduced* if none is. ``partly`` lies in ``1 … number of conditions − 1``.
    """
    if not conditions:
        raise ValueError("conditions must be one or more, got none")
    if partly is not None and not 1 <= partly < len(conditions):
        raise ValueError(
            f"partly must be from 1 to {len(conditions) - 1} for {len(conditions)} conditions, "
            f"got {partly}"
        )
    missing = any(condition.holds is None for condition in conditions)
    holding = sum(bool(condition.holds) for condition in conditions)
    still = holding + sum(condition.open for condition in conditions)
    least = len(conditions) if partly is None else partly

    def decide(measured: Number, interval: Interval | None) -> Verdict:
        if missing:
            return "not measured"
        if holding >= least:
            return "reproduced" if holding == len(conditions) else "partly"
        if still >= least:
            return "undecided"
        on_the_other_side = any(condition.against for condition in conditions)
        return "contradicted" if on_the_other_side else "not reproduced"

    text = " and ".join(condition.text for condition in conditions)
    if partly is not None:
        text += f"; partly: {partly} of them"
    numbers: dict[str, tuple[Number, float]] = {}
    for condition in conditions:
        for name, (number, near) in condition.numbers.items():
            # A number that is held to two limits is published with the smaller tolerance.
            numbers[name] = number, min(near, numbers.get(name, (number, near))[1])
    return Rule(text, decide, numbers)


def check_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that is negative or not finite."""
    if not (isinstance(tolerance, int | float) and math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be 0 or above, got {tolerance!r}")


def check_share(within: Any, name: str) -> float:
    """Return a tolerance that is a share of an effect; refuse one that is not from 0 to 0.5."""
    if not (isinstance(within, int | float) and 0 <= within <= WIDEST):
        raise ValueError(f"within of {name} must be from 0 to {WIDEST}, got {within!r}")
    return within


def _check_limits(*limits: float) -> None:
    for limit in limits:
        if not math.isfinite(limit):
            raise ValueError(f"limit must be finite, got {limit}")


def _limit(limit: Limit) -> tuple[str, float | None, Numbers]:
    """Return a limit in words, without measured numbers; its value; and what was measured for it.

    The value is None where the number is missing.
    """
    if not isinstance(limit, Measured):
        return f"{limit:g}", limit, {}
    number, plus = _present(limit.value), limit.plus
    text = f"{limit.name} {'+' if plus > 0 else '−'} {abs(plus):g}" if plus else limit.name
    if number is None:
        return text, None, {limit.name: (None, 0.0)}
    return text, number + plus, {limit.name: (number, limit.within * abs(number))}


def _present(value: Number) -> int | float | None:
    """Return a number, or None where it is missing: None itself, or NaN."""
    return None if value is None or math.isnan(value) else value

"""What a notebook publishes: figures, numbers with tolerances, and claims with their verdicts.

A notebook makes one :class:`Study`, hands it every figure and number that it publishes, and ends
with :meth:`Study.publish`. A verdict is never typed: a :class:`Rule` computes it from the number
and its interval, and the text of the rule is made from the same limits that decide.
"""

import importlib.metadata
import json
import math
import operator
import platform
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from scipy import special

from rai_utils.publishing import legibility
from rai_utils.publishing.parameters import check_study

Number = int | float | bool | None
Interval = tuple[float, float]
Verdict = Literal["reproduced", "partly", "not reproduced", "proved", "not measured"]

METRICS_FILE = "metrics.json"
FIGURE_SUFFIXES = (".png", ".pdf")
METRICS_KEYS = (
    "notebook",
    "parameters",
    "environment",
    "metrics",
    "claims",
    "figures",
    "descriptions",
)
DOTS_PER_INCH = 200
SIGNIFICANT_DIGITS = 10
WIDEST = 0.5
"""The widest tolerance, as a share of the effect that its number stands for."""

_SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_KEBAB_CASE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_CLAIM_ID = re.compile(r"[A-Z]+[0-9]+[a-z]?")


def root() -> Path:
    """Return the folder that relative paths start from.

    It is the checkout that this file belongs to. Where the package is installed outside of one, it
    is the checkout that the current folder is in; where there is none either, the current folder.
    """
    here = Path.cwd()
    for folder in (Path(__file__).resolve().parents[2], here, *here.parents):
        if (folder / "notebooks").is_dir() and _is_of_this_project(folder / "pyproject.toml"):
            return folder
    return here


def _is_of_this_project(file: Path) -> bool:
    return file.is_file() and 'name = "rai-study"' in file.read_text(encoding="utf-8")


# --- rules ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """A limit that is itself measured: ``Measured("logistic regression", 0.88, plus=0.02)``.

    The text of a rule names it, and its number is published beside the rule.

    Attributes:
        name: what was measured.
        value: its number; None where it is missing.
        plus: typed margin that the limit lies above it, or below if negative.
        within: tolerance of the number, as a share of it, from 0 to 0.5.

    Raises:
        ValueError: ``within`` is out of range, or ``plus`` not finite.
    """

    name: str
    value: Number
    plus: float = 0.0
    within: float = 0.02

    def __post_init__(self) -> None:
        _check_share(self.within, self.name)
        _check_limits(self.plus)

    @property
    def limit(self) -> float | None:
        """The limit; None where the number is missing."""
        number = _present(self.value)
        return None if number is None else number + self.plus

    @property
    def text(self) -> str:
        """The limit in words: its name and what is typed, no measured number."""
        if not self.plus:
            return self.name
        return f"{self.name} {'+' if self.plus > 0 else '−'} {abs(self.plus):g}"


Limit = float | Measured


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
    numbers: Mapping[str, tuple[Number, float]] = field(default_factory=dict)
    effect: float | None = None


@dataclass(frozen=True)
class Condition:
    """One part of a composite rule: what is asked, and whether it holds.

    ``holds`` is None where a number is missing; ``numbers`` are as in :class:`Rule`.
    """

    text: str
    holds: bool | None
    numbers: Mapping[str, tuple[Number, float]] = field(default_factory=dict)


def at_least(reproduced: Limit, partly: Limit | None = None) -> Rule:
    """Return the rule "the number is at least this", judged at the lower end of the interval.

    Without an interval the number itself is judged.

    Raises:
        ValueError: a typed limit is not finite, or both are and ``partly`` is not below.
    """
    return _bounded("≥", reproduced, partly)


def at_most(reproduced: Limit, partly: Limit | None = None) -> Rule:
    """Return the rule "the number is at most this", judged at the upper end of the interval.

    Without an interval the number itself is judged.

    Raises:
        ValueError: a typed limit is not finite, or both are and ``partly`` is not above.
    """
    return _bounded("≤", reproduced, partly)


def _bounded(sign: Literal["≥", "≤"], reproduced: Limit, partly: Limit | None) -> Rule:
    direction, end, beyond = (1, "lower", "below") if sign == "≥" else (-1, "upper", "above")
    typed = [limit for limit in (reproduced, partly) if isinstance(limit, int | float)]
    _check_limits(*typed)
    if len(typed) == 2 and direction * (reproduced - partly) <= 0:
        raise ValueError(f"expected partly {beyond} reproduced ({reproduced:g}), got {partly:g}")
    limits = [limit for limit in (reproduced, partly) if limit is not None]
    values = [limit.limit if isinstance(limit, Measured) else limit for limit in limits]

    def decide(measured: Number, interval: Interval | None) -> Verdict:
        number, bounds = _present(measured), [value for value in values if value is not None]
        if number is None or len(bounds) < len(values):
            return "not measured"
        judged = number if interval is None else interval[0 if sign == "≥" else 1]
        met = [direction * (judged - bound) >= 0 for bound in bounds]
        if met[0]:
            return "reproduced"
        return "partly" if any(met) else "not reproduced"

    texts = [f"{sign} {_limit_text(limit)}" for limit in limits]
    text = f"{'; partly: '.join(texts)} ({end} end of the interval)"
    return Rule(text, decide, _limit_numbers(*limits))


def between(low: float, high: float) -> Rule:
    """Return the rule "the number is in [low, high]".

    The whole interval inside is *reproduced*; only the number itself inside is *partly*.

    Raises:
        ValueError: ``low`` is not below ``high``, or one of them is not finite.
    """
    _check_limits(low, high)
    if not low < high:
        raise ValueError(f"expected low below high, got {low:g} and {high:g}")

    def decide(measured: Number, interval: Interval | None) -> Verdict:
        number = _present(measured)
        if number is None:
            return "not measured"
        lower, upper = (number, number) if interval is None else interval
        if low <= lower and upper <= high:
            return "reproduced"
        return "partly" if low <= number <= high else "not reproduced"

    return Rule(f"whole interval in [{low:g}, {high:g}]; partly: the value in it", decide)


def identity(tolerance: float) -> Rule:
    """Return the rule for an equality: the number is the largest deviation found.

    The verdict is *proved* where its absolute value is at most ``tolerance`` (at the far end of
    the interval, if there is one), otherwise *not reproduced*. The deviation itself is rounding;
    what it stands for is ``tolerance``.

    Raises:
        ValueError: ``tolerance`` is negative or not finite.
    """
    _check_tolerance(tolerance)

    def decide(measured: Number, interval: Interval | None) -> Verdict:
        number = _present(measured)
        if number is None:
            return "not measured"
        ends = (number,) if interval is None else interval
        return "proved" if all(abs(end) <= tolerance for end in ends) else "not reproduced"

    return Rule(f"|deviation| ≤ {tolerance:g}", decide, effect=tolerance)


def compare(
    name: str, value: Number, relation: Literal[">=", "<=", ">", "<", "=="], limit: Limit
) -> Condition:
    """Return the condition ``value relation limit``, with its text made from the same limit.

    The value is published beside the rule; what it stands for is its distance from the limit, so
    its tolerance is half of that. A missing number, None or NaN, makes the condition neither hold
    nor fail.

    Raises:
        ValueError: ``relation`` is none of ``>=``, ``<=``, ``>``, ``<``, ``==``.
    """
    relations: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
        ">=": ("≥", operator.ge),
        "<=": ("≤", operator.le),
        ">": (">", operator.gt),
        "<": ("<", operator.lt),
        "==": ("=", operator.eq),
    }
    if relation not in relations:
        raise ValueError(f"expected a relation of {', '.join(relations)}, got {relation!r}")
    sign, relate = relations[relation]
    text = f"{name} {sign} {_limit_text(limit)}"
    bound = limit.limit if isinstance(limit, Measured) else limit
    number = _present(value)
    if number is None or bound is None:
        return Condition(text, None, {name: (None, 0.0), **_limit_numbers(limit)})
    distance = abs(float(number) - float(bound))
    shown = (number, WIDEST * distance) if math.isfinite(distance) else (None, 0.0)
    return Condition(text, bool(relate(number, bound)), {name: shown, **_limit_numbers(limit)})


def all_of(*conditions: Condition, partly: int | None = None) -> Rule:
    """Return the rule "all conditions hold"; with ``partly``, that many of them hold it in part.

    The conditions decide alone: the measured number and its interval are only shown. Where a
    number of a condition is missing, the verdict is *not measured*.

    Raises:
        ValueError: no condition, or ``partly`` outside ``1 … number of conditions − 1``.
    """
    if not conditions:
        raise ValueError("expected one condition or more, got none")
    if partly is not None and not 1 <= partly < len(conditions):
        raise ValueError(
            f"expected partly from 1 to {len(conditions) - 1} for {len(conditions)} conditions, "
            f"got {partly}"
        )
    missing = any(condition.holds is None for condition in conditions)
    holding = sum(bool(condition.holds) for condition in conditions)

    def decide(measured: Number, interval: Interval | None) -> Verdict:
        if missing:
            return "not measured"
        if holding == len(conditions):
            return "reproduced"
        return "partly" if partly is not None and holding >= partly else "not reproduced"

    text = " and ".join(condition.text for condition in conditions)
    if partly is not None:
        text += f"; partly: {partly} of them"
    numbers = {name: pair for each in conditions for name, pair in each.numbers.items()}
    return Rule(text, decide, numbers)


def _check_limits(*limits: float) -> None:
    for limit in limits:
        if not math.isfinite(limit):
            raise ValueError(f"expected a finite limit, got {limit}")


def _limit_text(limit: Limit) -> str:
    return limit.text if isinstance(limit, Measured) else f"{limit:g}"


def _limit_numbers(*limits: Limit) -> dict[str, tuple[Number, float]]:
    measured = [limit for limit in limits if isinstance(limit, Measured)]
    numbers = {limit.name: (_present(limit.value), limit.within) for limit in measured}
    return {
        name: (number, 0.0 if number is None else within * abs(number))
        for name, (number, within) in numbers.items()
    }


def _present(value: Number) -> int | float | None:
    """Return a number, or None where it is missing: None itself, or NaN."""
    return None if value is None or math.isnan(value) else value


# --- intervals --------------------------------------------------------------------------------


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Return Student's t interval for the mean of ``values``, shape ``(n,)`` with ``n ≥ 2``.

    Raises:
        ValueError: fewer than two values, more than one axis, a value that is not finite, or a
            level outside (0, 1).
    """
    sample = _sample(values, least=2)
    _check_level(level)
    quantile = special.stdtrit(len(sample) - 1, (1 + level) / 2)
    half = quantile * sample.std(ddof=1) / math.sqrt(len(sample))
    return float(sample.mean() - half), float(sample.mean() + half)


def share_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Return Wilson's interval, inside [0, 1], for a share of ``successes`` in ``trials``.

    Raises:
        ValueError: no trial, successes outside ``0 … trials``, or a level outside (0, 1).
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"expected 0 ≤ successes ≤ trials ≥ 1, got {successes} of {trials}")
    _check_level(level)
    z = special.ndtri((1 + level) / 2)
    share = successes / trials
    scale = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[[np.ndarray], float],
    level: float,
    generator: np.random.Generator,
    resamples: int = 2000,
) -> Interval:
    """Return the percentile bootstrap interval of ``statistic`` over ``values``, shape ``(n,)``.

    Each of the ``resamples`` draws ``n`` values with replacement from ``generator``.

    Raises:
        ValueError: fewer than two values, more than one axis, a value that is not finite, a level
            outside (0, 1), or fewer than one resample.
    """
    sample = _sample(values, least=2)
    _check_level(level)
    if resamples < 1:
        raise ValueError(f"expected one resample or more, got {resamples}")
    drawn = generator.integers(len(sample), size=(resamples, len(sample)))
    repeated = [float(statistic(sample[indices])) for indices in drawn]
    low, high = np.quantile(repeated, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sample(values: Sequence[float] | np.ndarray, *, least: int) -> np.ndarray:
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or len(sample) < least:
        raise ValueError(f"expected one axis of {least} values or more, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError(f"expected finite values, got {sample[~np.isfinite(sample)][0]}")
    return sample


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level}")


# --- figures in words --------------------------------------------------------------------------


def described(figure: Figure) -> str:
    """Return what a figure shows in words: its panels, their axes, what the legends name.

    It is made from the titles and labels that the figure itself holds. A figure without any gives
    an empty text.
    """
    panels, keys = [], []
    for axes in figure.axes:
        if axes.get_label() == "<colorbar>":
            named = _spoken(axes.get_ylabel() or axes.get_xlabel())
            keys += [f"Colour: {named}."] if named else []
            continue
        across, up = _spoken(axes.get_xlabel()), _spoken(axes.get_ylabel())
        drawn = f"{up} against {across}" if up and across else up or across
        parts = [_spoken(axes.get_title()), drawn]
        text = ": ".join(part for part in parts if part)
        legend = axes.get_legend()
        names = [] if legend is None else legend.get_texts()
        if names:
            text += f" ({', '.join(_spoken(name.get_text()) for name in names)})"
        panels += [text] if text else []
    for legend in figure.legends:
        keys.append(f"Key: {', '.join(_spoken(text.get_text()) for text in legend.get_texts())}.")
    title = _spoken(figure.get_suptitle())
    sentences = [f"{title}." if title else "", *(f"{panel}." for panel in dict.fromkeys(panels))]
    return " ".join(sentence for sentence in [*sentences, *dict.fromkeys(keys)] if sentence)


def _spoken(label: str) -> str:
    """Return a label without line breaks and without the signs that set mathematics."""
    return " ".join(re.sub(r"\\(?:hat|mathrm|text)|[$\\{}]", "", label).split())


# --- the study --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A claim as it was measured; its fields are what ``metrics.json`` holds for it."""

    id: str
    statement: str
    measured: Number
    interval: Interval | None
    seeds: int | None
    rule: str
    verdict: Verdict
    tolerance: float
    effect: Number
    numbers: dict[str, dict[str, Number]]


class Study:
    """Collects what one notebook publishes, and writes it into one folder.

    Args:
        notebook: the notebook's name, in kebab-case.
        parameters: the notebook's parameters. ``publish_to`` is left out of what is recorded.
        publish_to: the folder to write to; a relative path starts at :func:`root`.

    A set of an earlier run in that folder is removed at once, so that what stands there after a
    failure is never taken for the result of this run.

    Raises:
        ValueError: a name that is not in kebab-case, a number that is not finite, or a parameter
            out of the range that the notebook declares for it.
        TypeError: a parameter that is no number, text, ``None``, or list or mapping of these, or
            not of the type of its default in the notebook.
    """

    def __init__(
        self, notebook: str, parameters: Mapping[str, Any], publish_to: str | Path
    ) -> None:
        _check_name(notebook, _KEBAB_CASE, "a notebook", "kebab-case", "rai-demo")
        self.notebook = notebook
        self.parameters = {
            name: plain(value, f"parameter {name}")
            for name, value in parameters.items()
            if name != "publish_to"
        }
        check_study(root() / "notebooks" / f"{notebook}.ipynb", self.parameters)
        self.publish_to = root() / publish_to
        self._metrics: dict[str, dict[str, Any]] = {}
        self._claims: dict[str, Claim] = {}
        self._figures: list[str] = []
        self._descriptions: dict[str, str] = {}
        self.publish_to.mkdir(parents=True, exist_ok=True)
        self._remove_earlier_set()

    def metric(
        self,
        name: str,
        value: float | None,
        *,
        tolerance: float | None = None,
        within: float | None = None,
        effect: float | None = None,
        interval: Interval | None = None,
        seeds: int | None = None,
    ) -> float | None:
        """Record a number under a snake_case name and return it unchanged.

        Its tolerance is the absolute difference within which another run's number must lie. It is
        at most half of the effect that the number stands for: its own size, or what ``effect``
        says (its distance from chance, from a limit, or between two methods; what a deviation of
        rounding must stay below). A number that does not exist is given as ``None``; NaN and
        infinity are refused.

        Args:
            name: snake_case.
            value: the number.
            tolerance: absolute; 0 for a number that must be the same. One of this and ``within``.
            within: tolerance as a share of the effect, from 0 to 0.5.
            effect: what the number stands for, above 0; None for its absolute value.
            interval: its interval.
            seeds: how many seeds it is of.

        Raises:
            ValueError: a name that is not snake_case or is used already, a number that is not
                finite, a tolerance that is negative or above half of the effect, an interval
                whose ends are out of order, or seeds below 1.
            TypeError: a value that is not a number, or not one of ``tolerance`` and ``within``.
        """
        _check_name(name, _SNAKE_CASE, "a metric", "snake_case", "share_solved")
        _check_new(name, self._metrics, "metric")
        number = _plain_number(value, name)
        self._metrics[name] = {
            "value": number,
            **_judged(name, number, tolerance, within, effect),
            "interval": _plain_interval(interval, name),
            "seeds": _plain_seeds(seeds, name),
        }
        return value

    def value(self, name: str) -> Number:
        """Return the value of a metric that was recorded, as it will be published.

        Raises:
            ValueError: there is no metric of that name.
        """
        if name not in self._metrics:
            raise ValueError(f"expected a recorded metric, got {name!r}")
        return self._metrics[name]["value"]

    def claim(
        self,
        id: str,
        *,
        statement: str,
        measured: float | None,
        rule: Rule,
        tolerance: float | None = None,
        within: float | None = None,
        effect: float | None = None,
        interval: Interval | None = None,
        seeds: int | None = None,
    ) -> Claim:
        """Judge a claim by ``rule``, record it and return it.

        ``statement`` is the claim in one plain sentence; the other arguments are as for
        :meth:`metric`. Under :func:`identity` the effect is the limit of the identity.

        Raises:
            ValueError: an id that does not look like ``P8`` or is used already, an empty
                statement, or numbers as :meth:`metric` refuses them.
            TypeError: a value that is not a number, or a rule that is not a :class:`Rule`.
        """
        _check_name(id, _CLAIM_ID, "a claim", "capital letters and a number", "P8")
        _check_new(id, self._claims, "claim")
        if not statement.strip():
            raise ValueError(f"expected the statement of claim {id} in a sentence, got none")
        if not isinstance(rule, Rule):
            raise TypeError(f"expected a Rule for claim {id}, got {type(rule).__name__}")
        number = _plain_number(measured, id)
        ends = _plain_interval(interval, id)
        self._claims[id] = Claim(
            id=id,
            statement=statement,
            measured=number,
            interval=ends,
            seeds=_plain_seeds(seeds, id),
            rule=rule.text,
            verdict=rule.decide(number, ends),
            **_judged(id, number, tolerance, within, rule.effect if effect is None else effect),
            numbers={
                name: {
                    "value": _plain_number(value, f"{name} of {id}"),
                    "tolerance": _plain_number(near, f"tolerance of {name} of {id}"),
                }
                for name, (value, near) in rule.numbers.items()
            },
        )
        return self._claims[id]

    def figure(self, name: str, figure: Figure) -> None:
        """Save a figure as ``name.png`` (200 dpi) and ``name.pdf``, the same bytes in each run.

        Text that is cut off or overlaps is warned of, since it may depend on the numbers shown.
        What :func:`described` reads off it is published too, for readers who do not see it.

        Raises:
            ValueError: a name that is not kebab-case or is used already, or a text that is too
                small at half a page's width (:func:`rai_utils.publishing.legibility.check_size`).
            TypeError: something that is not a matplotlib figure.
        """
        _check_name(name, _KEBAB_CASE, "a figure", "kebab-case", "deep-mlp-landscape")
        _check_new(name, self._figures, "figure")
        if not isinstance(figure, Figure):
            raise TypeError(f"expected a matplotlib Figure, got {type(figure).__name__}")
        legibility.check_size(figure)
        for fault in legibility.collisions(figure):
            warnings.warn(f"figure {name}: {fault}", stacklevel=2)
        stem = self.publish_to / name
        # A date and a version of matplotlib would change the bytes without changing the figure.
        figure.savefig(stem.with_suffix(".png"), dpi=DOTS_PER_INCH, metadata={"Software": None})
        figure.savefig(
            stem.with_suffix(".pdf"),
            dpi=DOTS_PER_INCH,
            metadata={"CreationDate": None, "Creator": None, "Producer": None},
        )
        self._figures.append(name)
        self._descriptions[name] = described(figure)

    def publish(self) -> None:
        """Write ``metrics.json``, the last file of the set.

        Floats keep 10 significant digits; keys stay in the order in which they came.
        """
        record = {
            "notebook": self.notebook,
            "parameters": self.parameters,
            "environment": environment(),
            "metrics": self._metrics,
            "claims": [asdict(claim) for claim in self._claims.values()],
            "figures": self._figures,
            "descriptions": self._descriptions,
        }
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        path = self.publish_to / METRICS_FILE
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)

    def verdict_lines(self) -> str:
        """Return one line a claim, ``P5  reproduced``, in the order in which they came.

        It holds no trained number, so nbval may compare it.
        """
        width = max((len(id) for id in self._claims), default=0)
        return "\n".join(f"{id:<{width}}  {claim.verdict}" for id, claim in self._claims.items())

    def claims_table(self) -> str:
        """Return the claims as a Markdown table.

        It holds trained numbers: tag the cell that shows it ``nbval-ignore-output``.
        """
        lines = [
            "| id | claim | measured | interval | seeds | rule | verdict |",
            "|---|---|---:|---|---:|---|---|",
        ]
        for claim in self._claims.values():
            interval = "–" if claim.interval is None else "[{:.4g}, {:.4g}]".format(*claim.interval)
            cells = [
                claim.id,
                claim.statement,
                _shown(claim.measured),
                interval,
                _shown(claim.seeds),
                rule_shown(asdict(claim)),
                claim.verdict,
            ]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return "\n".join(lines)

    def _remove_earlier_set(self) -> None:
        path = self.publish_to / METRICS_FILE
        if not path.exists():
            return
        try:
            names = read_metrics(path)["figures"]
        except ValueError:
            names = []
        path.unlink()
        for name in names:
            for suffix in FIGURE_SUFFIXES:
                (self.publish_to / f"{name}{suffix}").unlink(missing_ok=True)


def rule_shown(claim: Mapping[str, Any]) -> str:
    """Return the rule of a published claim with what was measured for it, as far as it is there."""
    numbers = [f"{name}: {_shown(number['value'])}" for name, number in claim["numbers"].items()]
    return f"{claim['rule']} [{', '.join(numbers)}]" if numbers else claim["rule"]


def read_metrics(path: str | Path) -> dict[str, Any]:
    """Return what :meth:`Study.publish` wrote; ``path`` is the file or its folder.

    A set of before figures had descriptions, or claims the numbers of their rules, has none.

    Raises:
        ValueError: no such file, not JSON, or other keys than those that ``publish`` writes.
    """
    file = Path(path)
    if file.is_dir():
        file = file / METRICS_FILE
    if not file.is_file():
        raise ValueError(f"expected a metrics file, found none at {file}")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON in {file}, got an error: {error}") from error
    if isinstance(record, dict) and tuple(record) == METRICS_KEYS[:-1]:
        record["descriptions"] = {}
    if not isinstance(record, dict) or tuple(record) != METRICS_KEYS:
        found = ", ".join(record) if isinstance(record, dict) else type(record).__name__
        raise ValueError(f"expected {', '.join(METRICS_KEYS)} in {file}, got {found}")
    for claim in record["claims"]:
        claim.setdefault("numbers", {})
    return record


def environment() -> dict[str, Any]:
    """Return the versions and the kind of processor that numbers depend on in the last digits."""
    # Imported here: the pipeline reads sets, and need not wait for torch to be loaded.
    import torch

    versions = {
        name: importlib.metadata.version(name)
        for name in ("torch", "numpy", "scikit-learn", "matplotlib")
    }
    return {
        "python": platform.python_version(),
        **versions,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _check_name(name: str, pattern: re.Pattern[str], what: str, style: str, example: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"expected the name of {what} as text, got {type(name).__name__}")
    if not pattern.fullmatch(name):
        raise ValueError(f"expected the name of {what} as {style}, like {example}, got {name!r}")


def _check_new(name: str, taken: Sequence[str] | Mapping[str, Any], what: str) -> None:
    if name in taken:
        raise ValueError(
            f"expected a new name, but {what} {name!r} exists already; to run a cell again, "
            f"run the notebook from the cell that makes the Study"
        )


def _check_tolerance(tolerance: float) -> None:
    if not (isinstance(tolerance, int | float) and math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"expected a tolerance of 0 or above, got {tolerance!r}")


def _check_share(within: float, name: str) -> None:
    if not (isinstance(within, int | float) and 0 <= within <= WIDEST):
        raise ValueError(f"within of {name} must be from 0 to {WIDEST}, got {within!r}")


def _judged(
    name: str,
    number: Number,
    tolerance: float | None,
    within: float | None,
    effect: float | None,
) -> dict[str, Any]:
    """Return the absolute tolerance of a number, and the effect that it is at most half of."""
    if (tolerance is None) == (within is None):
        raise TypeError(f"expected one of tolerance and within for {name}, got {tolerance, within}")
    if effect is not None and not (math.isfinite(effect) and effect >= 0):
        raise ValueError(f"effect of {name} must be a finite number of 0 or above, got {effect!r}")
    if effect is None and number is not None:
        effect = abs(number)
    if within is not None:
        _check_share(within, name)
    absolute = (within or 0) * (effect or 0) if tolerance is None else tolerance
    _check_tolerance(absolute)
    if effect is not None and number is not None and absolute > WIDEST * effect * (1 + 1e-9):
        raise ValueError(
            f"tolerance of {name} must be at most {WIDEST} of its effect {effect:.4g}, "
            f"got {absolute:g}"
        )
    return {
        "tolerance": _plain_number(absolute, f"tolerance of {name}"),
        "effect": _plain_number(effect, f"effect of {name}"),
    }


def plain(value: Any, where: str) -> Any:
    """Return ``value`` as JSON holds it: no tuples, no numpy or torch scalars, rounded floats."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, where) for item in value]
    return _plain_number(value, where)


def _plain_number(value: Any, where: str) -> Number:
    # Scalars of numpy and tensors of torch without an axis.
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if not isinstance(value, float):
        raise TypeError(f"expected a number for {where}, got {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(
            f"expected a finite number for {where}, got {value}; "
            f"give None for a number that does not exist"
        )
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _plain_interval(interval: Interval | None, where: str) -> Interval | None:
    if interval is None:
        return None
    if len(interval) != 2:
        raise ValueError(f"expected an interval (low, high) for {where}, got {interval!r}")
    low, high = (_plain_number(end, f"the interval of {where}") for end in interval)
    if low is None or high is None or low > high:
        raise ValueError(f"expected low ≤ high in the interval of {where}, got {interval!r}")
    return low, high


def _plain_seeds(seeds: int | None, where: str) -> int | None:
    if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1):
        raise ValueError(f"expected the number of seeds of {where}, 1 or more, got {seeds!r}")
    return seeds


def _shown(value: Number) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

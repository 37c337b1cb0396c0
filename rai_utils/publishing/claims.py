"""What a notebook publishes: figures, numbers with tolerances, and claims with their verdicts.

A notebook makes one :class:`Study`, hands it every figure and number that it publishes, and ends
with :meth:`Study.publish`. Rules that judge are in :mod:`rai_utils.publishing.rules`, intervals in
:mod:`rai_utils.publishing.intervals`. A value of the wrong kind is refused with a TypeError; a name
in another style or used already, a number that is not finite, ends of an interval out of order, and
all else that does not fit, with a ValueError.
"""

import importlib.metadata
import json
import math
import platform
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rai_utils.publishing import legibility
from rai_utils.publishing.intervals import Interval, Number, estimate
from rai_utils.publishing.parameters import PUBLISH_TO, study_parameters
from rai_utils.publishing.prose import shown
from rai_utils.publishing.rules import ANSWERS, WIDEST, Rule, check_share, check_tolerance, ends
from rai_utils.recording import as_json, bare, record_of, redraw

METRICS_FILE = "metrics.json"
FIGURE_SUFFIXES = (".png", ".pdf", ".json")
METRICS_KEYS = (
    "notebook",
    "parameters",
    "environment",
    "metrics",
    "claims",
    "figures",
    "descriptions",
)
SIGNIFICANT_DIGITS = 10

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
        project = folder / "pyproject.toml"
        if project.is_file() and 'name = "rai-study"' in project.read_text(encoding="utf-8"):
            return folder
    return here


# --- the study --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Null:
    """What would be measured if a claim were false: the rule of the claim must not accept it.

    Attributes:
        text: the case in words.
        measured: what the claim's number would be, as :meth:`Study.claim` takes it.
        numbers: name -> number of what the rule is made of besides; the others are as measured.
            For a condition on an interval, either end by its name, or all of it by the name of the
            condition, as :meth:`Study.claim` takes it; a single number is both ends.
    """

    text: str
    measured: Any
    numbers: Mapping[str, Any] = field(default_factory=dict)


class Study:
    """Collects what one notebook publishes, and writes it into one folder.

    A set of an earlier run in that folder is removed at once, so that what stands there after a
    failure is never taken for the result of this run.

    Args:
        notebook: the notebook's name, in kebab-case.
        namespace: where the notebook's parameters have their values: its ``globals()``. Their names
            are those of the cell tagged ``parameters`` in ``notebooks/<notebook>.ipynb``; where
            there is no such notebook, every name of the namespace is a parameter. ``publish_to``
            among them is the folder to write to, where a relative path starts at :func:`root`. All
            must be numbers, texts, ``None``, or lists or mappings of these, as the notebook
            declares them.
    """

    def __init__(self, notebook: str, namespace: Mapping[str, Any]) -> None:
        _check_name(notebook, _KEBAB_CASE, "a notebook", "kebab-case", "rai-demo")
        values = study_parameters(root() / "notebooks" / f"{notebook}.ipynb", namespace)
        self.notebook = notebook
        self.publish_to = root() / values.pop(PUBLISH_TO)
        self.parameters = {
            name: plain(value, f"parameter {name}") for name, value in values.items()
        }
        self._metrics: dict[str, dict[str, Any]] = {}
        self._claims: dict[str, dict[str, Any]] = {}
        self._descriptions: dict[str, str] = {}
        self.publish_to.mkdir(parents=True, exist_ok=True)
        self._remove_earlier_set()

    def record(
        self,
        *,
        tolerance: float | None = None,
        within: float | None = None,
        effect: float | None = None,
        share: bool = False,
        **numbers: Any,
    ) -> None:
        """Record numbers under snake_case names: ``record(within=0.02, loss=loss, steps=80)``.

        A number is given as :func:`rai_utils.publishing.intervals.estimate` takes it: an array over
        networks (its mean, interval and count are published), one number, or an ``Estimate``. One
        that does not exist is given as ``None``; NaN and infinity are refused.

        The tolerance is the absolute difference within which another run's number must lie. It is
        at most half of the effect that the number stands for: its own size, or what ``effect`` says
        (its distance from chance, from a limit, or between two methods; what a deviation of
        rounding must stay below).

        Args:
            tolerance: absolute; 0 for numbers that must be the same. One of this and ``within``.
            within: tolerance as a share of the effect, from 0 to 0.5.
            effect: what each number stands for, above 0; None for its absolute value.
            share: whether the numbers are shares or accuracies, whose intervals end at 0 and 1.
            numbers: name -> number; names are new.
        """
        recorded = {}
        for name, measured in numbers.items():
            _check_name(name, _SNAKE_CASE, "a metric", "snake_case", "share_solved")
            _check_new(name, self._metrics, "metric")
            value, interval, seeds = _plain_estimate(measured, name, share)
            recorded[name] = {
                "value": value,
                **_judged(name, value, tolerance, within, effect),
                "interval": interval,
                "seeds": seeds,
            }
        self._metrics |= recorded

    def claim(
        self,
        id: str,
        statement: str,
        measured: Any,
        rule: Rule,
        *,
        tolerance: float | None = None,
        within: float | None = None,
        effect: float | None = None,
        share: bool = False,
        null: Null | None = None,
        depends: str = "",
    ) -> None:
        """Judge a claim by ``rule`` and record it under an id like ``P8``.

        ``statement`` is the claim in one plain sentence and ``null`` what would be measured if it
        were false; ``measured``, ``tolerance``, ``within``, ``effect`` and ``share`` are as for
        :meth:`record`. Under :func:`rai_utils.publishing.rules.identity` the effect is the limit of
        the identity. ``depends`` completes the answer *it depends on* … of a question.
        """
        _check_name(id, _CLAIM_ID, "a claim", "capital letters and a number", "P8")
        _check_new(id, self._claims, "claim")
        if not statement.strip():
            raise ValueError(f"statement of claim {id} must be a sentence, got {statement!r}")
        if not isinstance(rule, Rule):
            raise TypeError(f"rule of claim {id} must be a Rule, got {type(rule).__name__}")
        value, interval, seeds = _plain_estimate(measured, id, share)
        verdict = rule.decide(value, interval)
        word = ANSWERS.get(id[0], {}).get(verdict, verdict)
        if id[0] == "Q" and verdict == "partly" and depends:
            word += f" on {depends}"
        self._claims[id] = {
            "id": id,
            "statement": statement,
            "measured": value,
            "interval": interval,
            "seeds": seeds,
            "rule": rule.text,
            "verdict": word,
            **_judged(id, value, tolerance, within, rule.effect if effect is None else effect),
            "numbers": {
                name: {
                    "value": _plain_number(number, f"{name} of {id}"),
                    "tolerance": _plain_number(near, f"tolerance of {name} of {id}"),
                }
                for name, (number, near) in rule.numbers.items()
            },
            "null": None if null is None else _plain_null(null, rule, id),
        }

    def figure(self, name: str, figure: Figure, *, alt: str) -> None:
        """Save a figure of ``plotting.figure`` as ``name.png`` (200 dpi), ``.pdf`` and ``.json``.

        They have the same bytes in each run. The PNG is as wide as the figure, and the PDF, which
        is for print, half a page. The JSON is what is drawn, from which ``make restyle``
        draws it again (:mod:`rai_utils.recording`). Text that is cut off or overlaps is warned of,
        since it may depend on the numbers shown; text that is too small at half a page's width is
        refused (:func:`rai_utils.publishing.legibility.check_size`). ``alt`` says in a sentence or
        two what is seen and what it shows, for readers who do not see it. Names are kebab-case.
        """
        _check_name(name, _KEBAB_CASE, "a figure", "kebab-case", "deep-mlp-landscape")
        _check_new(name, [*self._descriptions, Path(METRICS_FILE).stem], "figure")
        if not alt.strip():
            raise ValueError(f"alt of figure {name} must be a sentence, got {alt!r}")
        try:
            record = record_of(figure)
        except (TypeError, ValueError) as error:
            raise type(error)(f"figure {name}: {error}") from error

        def drawn(width: float) -> Figure:
            size = width, mpl.rcParams["figure.figsize"][1]
            with mpl.rc_context({"figure.figsize": size}):
                return bare(redraw(record))

        printed = drawn(legibility.HALF_PAGE)
        legibility.check_size(printed)
        for fault in legibility.collisions(printed):
            warnings.warn(f"figure {name}: {fault}", stacklevel=2)
        plt.close(printed)
        stem = self.publish_to / name
        # Each is drawn afresh: a layout that is settled twice may move by a pixel.
        widths = {".png": mpl.rcParams["figure.figsize"][0], ".pdf": legibility.HALF_PAGE}
        for suffix, width in widths.items():
            save_figure(saved := drawn(width), stem.with_suffix(suffix))
            plt.close(saved)
        stem.with_suffix(".json").write_text(as_json(record), encoding="utf-8")
        self._descriptions[name] = alt

    def publish(self) -> None:
        """Write ``metrics.json``, the last file of the set.

        Floats keep 10 significant digits; keys stay in the order in which they came.
        """
        record = {
            "notebook": self.notebook,
            "parameters": self.parameters,
            "environment": environment(),
            "metrics": self._metrics,
            "claims": list(self._claims.values()),
            "figures": list(self._descriptions),
            "descriptions": self._descriptions,
        }
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(self.publish_to / METRICS_FILE, text)

    def verdict_lines(self) -> str:
        """Return one line a claim, ``P5  reproduced``, in the order in which they came.

        It holds no trained number, so nbval may compare it.
        """
        width = max((len(id) for id in self._claims), default=0)
        lines = [f"{id:<{width}}  {claim['verdict']}" for id, claim in self._claims.items()]
        return "\n".join(lines)

    def claims_table(self) -> str:
        """Return the claims as a Markdown table, folded: their verdicts are said in lines.

        It holds trained numbers: tag the cell that shows it ``nbval-ignore-output``.
        """
        lines = [
            "<details><summary>Each claim with its number, interval and rule</summary>\n",
            "| id | claim | measured | interval | seeds | rule | verdict |",
            "|---|---|---:|---|---:|---|---|",
        ]
        for claim in self._claims.values():
            ends = claim["interval"]
            cells = [
                claim["id"],
                claim["statement"],
                shown(claim["measured"], 4),
                "–" if ends is None else "[{:.4g}, {:.4g}]".format(*ends),
                shown(claim["seeds"]),
                rule_shown(claim),
                claim["verdict"],
            ]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return "\n".join([*lines, "\n</details>"])

    def _remove_earlier_set(self) -> None:
        path = self.publish_to / METRICS_FILE
        if not path.exists():
            return
        try:
            names = read_metrics(self.publish_to)["figures"]
        except ValueError:
            names = []
        path.unlink()
        for name in names:
            for suffix in FIGURE_SUFFIXES:
                (self.publish_to / f"{name}{suffix}").unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that whatever ends it leaves the old text or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure in the format that the path ends in, with the same bytes in each run."""
    # A date and a version of matplotlib would change the bytes without changing the figure.
    unsaid = {
        ".png": ("Software",),
        ".pdf": ("CreationDate", "Creator", "Producer"),
        ".svg": ("Date", "Creator"),
    }[path.suffix]
    bare(figure).savefig(path, metadata=dict.fromkeys(unsaid))


def rule_shown(claim: Mapping[str, Any]) -> str:
    """Return the rule of a published claim with what was measured for it, as far as it is there."""
    numbers = [f"{name}: {shown(each['value'], 4)}" for name, each in claim["numbers"].items()]
    return f"{claim['rule']} [{', '.join(numbers)}]" if numbers else claim["rule"]


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return what :meth:`Study.publish` wrote into a folder.

    A file that is not there, not JSON, or of other keys, is refused with a ValueError.
    """
    file = folder / METRICS_FILE
    if not file.is_file():
        raise ValueError(f"{file} must be a metrics file, got no such file")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} must be JSON, got an error: {error}") from error
    if not isinstance(record, dict) or tuple(record) != METRICS_KEYS:
        found = ", ".join(record) if isinstance(record, dict) else type(record).__name__
        raise ValueError(f"keys of {file} must be {', '.join(METRICS_KEYS)}, got {found}")
    return record


def environment() -> dict[str, Any]:
    """Return the versions and the kind of processor that numbers depend on in the last digits."""
    # Imported here: the pipeline reads sets, and need not wait for torch to be loaded.
    import torch

    versions = {
        # The build tag (+cpu) says which wheel it was, not which release.
        name: importlib.metadata.version(name).partition("+")[0]
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
        raise TypeError(f"name of {what} must be text, got {type(name).__name__}")
    if not pattern.fullmatch(name):
        raise ValueError(f"name of {what} must be {style}, like {example}, got {name!r}")


def _check_new(name: str, taken: Collection[str], what: str) -> None:
    if name in taken:
        raise ValueError(
            f"name of a {what} must be new, got {name!r} again; to run a cell again, "
            f"run the notebook from the cell that makes the Study"
        )


def _judged(
    name: str,
    number: Number,
    tolerance: float | None,
    within: float | None,
    effect: float | None,
) -> dict[str, Any]:
    """Return the absolute tolerance of a number, and the effect that it is at most half of."""
    if (tolerance is None) == (within is None):
        raise TypeError(
            f"tolerance or within must be given for {name}, and not both, "
            f"got {tolerance} and {within}"
        )
    if effect is None:
        effect = None if number is None else abs(number)
    elif not (math.isfinite(effect) and effect >= 0):
        raise ValueError(f"effect of {name} must be finite and 0 or above, got {effect!r}")
    if tolerance is None:
        tolerance = check_share(within, name) * (effect or 0)
    check_tolerance(tolerance)
    known = effect is not None and number is not None
    if known and tolerance > WIDEST * effect * (1 + 1e-9):
        raise ValueError(
            f"tolerance of {name} must be at most {WIDEST} of its effect {effect:.4g}, "
            f"got {tolerance:g}"
        )
    return {
        "tolerance": _plain_number(tolerance, f"tolerance of {name}"),
        "effect": _plain_number(effect, f"effect of {name}"),
    }


def _plain_estimate(
    measured: Any, name: str, share: bool = False
) -> tuple[Number, Interval | None, int | None]:
    """Return value, interval and seeds of what was measured, as JSON holds them."""
    found = estimate(measured, name)
    interval, seeds = found.interval, found.seeds
    if interval is not None:
        ends = [_plain_number(end, f"interval of {name}") for end in interval]
        known = [end for end in ends if end is not None]
        if len(ends) != 2 or len(known) != 2 or known[0] > known[1]:
            raise ValueError(f"interval of {name} must be (low, high), got {found.interval!r}")
        low, high = known
        interval = (max(low, 0.0), min(high, 1.0)) if share else (low, high)
    value = _plain_number(found.value, name)
    if share and value is not None and not 0 <= value <= 1:
        raise ValueError(f"{name} must be a share, from 0 to 1, got {value}")
    if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1):
        raise ValueError(f"seeds of {name} must be a number of 1 or more, got {seeds!r}")
    return value, interval, seeds


def _plain_null(null: Null, rule: Rule, id: str) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for name, number in null.numbers.items():
        if name not in rule.numbers and rule.numbers.keys() >= {*ends(name)}:
            found = estimate(number, f"null of {id}")
            pair = (found.value, found.value) if found.interval is None else found.interval
            numbers |= zip(ends(name), pair, strict=True)
        else:
            numbers[name] = number
    if other := numbers.keys() - rule.numbers.keys():
        known = ", ".join(rule.numbers) or "none"
        raise ValueError(f"numbers of the null of {id} must be of {known}, got {min(other)!r}")
    value, interval, seeds = _plain_estimate(null.measured, f"null of {id}")
    return {
        "text": null.text,
        "measured": value,
        "interval": interval,
        "seeds": seeds,
        "numbers": plain(numbers, f"null of {id}"),
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
        raise TypeError(f"{where} must be a number, got {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{where} must be finite, or None where it does not exist, got {value}")
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")

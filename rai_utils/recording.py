"""Figures that can be drawn again: what a figure was told, as data that a person can read.

`plotting.figure` hands out stand-ins of a figure and its panels. Whatever is asked of them, each
method of matplotlib and each function that is a `drawing`, is done and written down, as a step
with its arguments. The steps are plain JSON: labelled numbers and texts, rounded to a few
significant digits before they are drawn, so that what `redraw` makes of them is the same figure,
under whatever style is set then. No step computes a result.

Parts are called by where they come from: "figure", "panel 1", and "part 4.1" for the first thing
that step 4 gave. ``{"is": "panel 1"}`` stands for a part, ``{"array": …}`` for an array with two
axes or more or with gaps (null, "inf"), and ``{"number": "nan"}`` for one number that JSON lacks.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from pkgutil import resolve_name
from typing import Any, ParamSpec, TypeVar

import numpy as np
from matplotlib.container import Container

DIGITS, MAP_DIGITS, MAP = 6, 4, 1000
"""Significant digits of what is drawn, and of arrays of more than `MAP` numbers: a page of print
has fewer points, and a colour map fewer steps."""

Step = dict[str, Any]
P = ParamSpec("P")
R = TypeVar("R")


class Recorded:
    """A stand-in of a matplotlib object: it does what it is told, and lets it be written down."""

    __slots__ = ("_name", "_part", "_recording")

    def __init__(self, recording: Recording, name: str, part: object) -> None:
        self._recording, self._name, self._part = recording, name, part

    @property
    def __class__(self) -> Any:  # ``isinstance`` takes it for what it stands for
        return type(self._part)

    def __repr__(self) -> str:
        return repr(self._part)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if _is_part(found) or not callable(found):
            return self._recording.take({"on": self._name, "get": name}, (), {})
        return lambda *args, **named: self._recording.take(
            {"on": self._name, "call": name}, args, named
        )


class Recording:
    """The steps of one figure, and the parts that they gave.

    Attributes:
        steps: what was asked, in order, as JSON.
        flaw: why the steps do not give the figure, in words; None where they do.
    """

    def __init__(self, figure: object, panels: object, made: Step) -> None:
        self.made = made
        self.steps: list[Step] = []
        self.flaw: str | None = None
        self._parts: dict[str, Recorded] = {}
        self._names: dict[int, str] = {}
        self._register("figure", figure)
        for number, panel in enumerate(_parts_of(panels), 1):
            self._register(f"panel {number}", panel)

    def take(self, step: Step, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Do and write down a step, and return what it gives, with stand-ins for all parts."""
        args, named = [_listed(each) for each in args], {k: _listed(v) for k, v in named.items()}
        try:
            given: Step = {"with": _plain(args), "named": _plain(named)}
        except TypeError as error:
            self.flaw = self.flaw or f"{step.get('call')} was given {error}"
            return self._wrapped(_perform(step, _bare(args), _bare(named), self._parts))
        return self.do(step | {key: each for key, each in given.items() if each})

    def do(self, step: Step) -> Any:
        """Do a step as it was written down, and return what it gives."""
        args, named = self._meant(step.get("with", [])), self._meant(step.get("named", {}))
        result = _perform(step, args, named, self._parts)
        parts = list(_parts_of(result))
        if parts or not step.get("call", "get_").startswith("get_"):
            for number, part in enumerate(parts, 1):
                self._register(f"part {len(self.steps) + 1}.{number}", part)
            self.steps.append(step)
        return self._wrapped(result)

    def _register(self, name: str, part: object) -> None:
        if id(part) not in self._names:  # kept alive by its stand-in: no id comes twice
            self._names[id(part)] = name
            self._parts[name] = Recorded(self, name, part)

    def _wrapped(self, value: Any) -> Any:
        if _is_part(value):
            self._register(f"lost {len(self._names)}", value)
            return self._parts[self._names[id(value)]]
        return _mapped(value, self._wrapped)

    def _meant(self, value: Any) -> Any:
        """What a value of a step stands for; sequences are tuples, as dashes must be."""
        if isinstance(value, dict):
            if "is" in value:
                return self._parts[value["is"]]._part
            if "array" in value:
                array = np.array(value["array"], dtype=object)
                kinds = {*map(type, array.flat)}
                return array.astype(kinds.pop() if kinds in ({int}, {bool}) else float)
            if "number" in value:
                return float(value["number"])
            return {key: self._meant(each) for key, each in value.items()}
        return tuple(map(self._meant, value)) if isinstance(value, list) else value


def recorded(figure: object, panels: Any, made: Step) -> tuple[Any, Any]:
    """Return stand-ins of a figure and its panels, as they are given: one, or an array of them.

    ``made`` is the step that makes such a figure and panels again.
    """
    recording = Recording(figure, panels, made)
    return recording._wrapped(figure), recording._wrapped(panels)


def bare(figure: object) -> Any:
    """Return the matplotlib object that a stand-in stands for; others as they are."""
    return figure._part if type(figure) is Recorded else figure


def drawing(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function that draws on what it is given be one step, under the names it gives."""
    signature, name = inspect.signature(function), getattr(function, "__name__", "")

    @wraps(function)
    def drawn(*args: P.args, **named: P.kwargs) -> R:
        leaves = _leaves([*args, *named.values()])
        given = next((leaf for leaf in leaves if type(leaf) is Recorded), None)
        if given is None:
            return function(*args, **named)
        bound = signature.bind(*args, **named).arguments
        step = {"call": f"{function.__module__}.{name}"}
        return given._recording.take(step, (), bound)

    return drawn


def record_of(figure: object) -> dict[str, Any]:
    """Return how a figure was made: ``{"figure": first step, "steps": the others}``.

    A figure that is no stand-in is refused with a TypeError, and one that was given what JSON
    cannot hold, such as a patch, with a ValueError.
    """
    if type(figure) is not Recorded:
        raise TypeError(f"figure must be one of plotting.figure, got {type(figure).__name__}")
    recording = figure._recording
    if recording.flaw is not None:
        raise ValueError(
            "figure must be drawn from numbers and texts, or by a function of rai_utils that is a "
            f"`drawing`, got one where {recording.flaw}"
        )
    return {"figure": recording.made, "steps": recording.steps}


def redraw(record: Mapping[str, Any]) -> Any:
    """Return the figure of `record_of`, drawn anew under the style that is set now."""
    figure, _ = _perform(record["figure"], (), record["figure"]["named"], {})
    for step in record["steps"]:
        figure._recording.do(step)
    return figure


def as_json(record: Mapping[str, Any]) -> str:
    """Return a record as JSON, a line for each argument of a step."""

    def line(key: str, value: Any) -> str:
        if key == "named":
            return '"named": {\n   ' + ",\n   ".join(line(*each) for each in value.items()) + "}"
        return f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"

    def lines(step: Step) -> str:
        return "{" + ",\n  ".join(line(*each) for each in step.items()) + "}"

    steps = ",\n ".join(map(lines, record["steps"]))
    return f'{{"figure": {lines(record["figure"])},\n"steps": [\n {steps}\n]}}\n'


def _perform(
    step: Step, args: Sequence[Any], named: Mapping[str, Any], parts: Mapping[str, Recorded]
) -> Any:
    if "on" in step:
        found = getattr(parts[step["on"]]._part, step.get("call") or step["get"])
        return found(*args, **named) if "call" in step else found
    if not step["call"].startswith("rai_utils."):
        raise ValueError(f"a function that draws must be one of rai_utils, got {step['call']}")
    function = resolve_name(step["call"])
    bound = inspect.signature(function).bind_partial()
    bound.arguments.update(named)
    return function(*bound.args, **bound.kwargs)


def _is_part(value: object) -> bool:
    """Whether a value is a thing of matplotlib and no list of such things."""
    own = type(value).__module__.partition(".")[0] == "matplotlib"
    return own and not (_is_list(value) or isinstance(value, str | float))


def _is_list(value: object) -> bool:
    """Whether a value is a list, a tuple, or one of matplotlib's lists of its parts."""
    own = type(value).__module__.partition(".")[0] == "matplotlib"
    listed = isinstance(value, list | tuple) or (own and isinstance(value, Sequence))
    return listed and not isinstance(value, Container)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value with its inner ones changed, where it is a list, tuple, dict or array of objects."""
    if isinstance(value, dict):
        return {key: change(each) for key, each in value.items()}
    if isinstance(value, np.ndarray) and value.dtype == object:
        changed = np.empty_like(value)
        changed.flat = [change(each) for each in value.flat]
        return changed
    if _is_list(value):
        changed = [change(each) for each in value]
        return tuple(changed) if isinstance(value, tuple) else changed
    return value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = list(value.flat)
    inner = list(value.values()) if isinstance(value, dict) else value
    if not _is_list(inner):
        yield inner
        return
    for each in inner:
        yield from _leaves(each)


def _parts_of(value: Any) -> Iterator[Any]:
    return (leaf for leaf in _leaves(value) if _is_part(leaf))


def _listed(value: Any) -> Any:
    """Iterators and views as lists, since they are read twice."""
    once = isinstance(value, Iterable) and not hasattr(value, "__getitem__")
    return list(value) if once and type(value) is not Recorded else value


def _bare(value: Any) -> Any:
    return bare(value) if type(value) is Recorded else _mapped(value, _bare)


def _plain(value: Any) -> Any:
    """A value as JSON; a TypeError, whose text is what it is, if that cannot hold it."""
    if type(value) is Recorded:
        if value._name.startswith("lost"):
            raise TypeError("what a step gave that was not written down")
        return {"is": value._name}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else {"number": str(value)}
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"a key {wrong[0]!r} that is no text")
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(each) for each in value]
    if hasattr(value, "__array__"):
        return _plain_array(value)
    raise TypeError(f"a {type(value).__name__}")


def _plain_array(value: Any) -> Any:
    array = np.asarray(np.ma.filled(value.astype(float), np.nan) if np.ma.isMA(value) else value)
    if array.dtype.kind == "f":
        digits = MAP_DIGITS if array.size > MAP else DIGITS
        nested, gaps = _rounded(array.tolist(), digits), not np.isfinite(array).all()
    else:
        nested, gaps = _plain(array.tolist()), False
    return {"array": nested} if array.dtype.kind in "fiub" and (array.ndim > 1 or gaps) else nested


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, list):
        return [_rounded(each, digits) for each in value]
    if math.isfinite(value):
        return float(f"{value:.{digits}g}")
    return None if math.isnan(value) else str(value)

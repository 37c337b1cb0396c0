"""The parameters of a notebook: what it declares, in which ranges, and what a run may set.

One code cell of a notebook is tagged ``parameters``. A line of it is a name, its default, and in a
comment the range and what it is::

    depth = 100  # [9, 1000] hidden layers
    relaxed_steps = 200  # [1, steps) a bound may be another parameter
    widths = [8, 64]  # 2 or more of [1, 4096], ascending: each entry in the range
    problem = "diabetes"  # {diabetes, digits} one of these

A square bracket includes its bound, a round one does not. A list holds one entry or more, where
nothing else is said; ``distinct`` in place of ``ascending`` leaves their order open. A parameter
without a range may be anything of its type. What does not fit is refused with a ValueError that
names it, a value of another type than its default with a TypeError.
"""

import ast
import io
import json
import operator
import re
import sys
import tokenize
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

PARAMETERS_TAG = "parameters"
PUBLISH_TO = "publish_to"

_RANGE = re.compile(
    r"(?P<text>(?:(?P<least>\d+) or more of )?"
    r"(?:(?P<opening>[\[(])(?P<low>[^,()\[\]{}]+),(?P<high>[^,()\[\]{}]+)(?P<closing>[\])])"
    r"|\{(?P<choices>[^{}]*)\})"
    r"(?:, (?P<order>ascending|distinct))?)(?=\W|$)"
)
_COMPARISONS = {"(": operator.gt, "[": operator.ge, ")": operator.lt, "]": operator.le}
_LOOKS_LIKE_A_RANGE = re.compile(r"\d+ or more|[\[({]")
_ASSIGNMENT = re.compile(r"(?:^|(?<=\s))(?=[^\W\d]\w*\s*=(?!=))")
_LARGEST = sys.float_info.max
_YAML_TEXT = re.compile(r"[-+]?\d+e[-+]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Range:
    """What a parameter may be: one of some choices, or on the right side of two bounds.

    A bound is a comparison and what is compared with: a number, or the name of a parameter.
    """

    text: str
    least_entries: int
    order: str | None
    choices: Sequence[str]
    bounds: Sequence[tuple[Callable[[Any, Any], bool], float | str]]


# --- what a notebook declares -------------------------------------------------------------------


def declared_parameters(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names and defaults of the one code cell that is tagged ``parameters``.

    The notebook is as ``nbformat.read`` or ``json.load`` returns it. Each line of the cell must be
    ``name = literal``, one of them ``publish_to``.
    """
    parameters = {name: default for name, default, _ in _declarations(notebook)}
    if not isinstance(parameters.get(PUBLISH_TO), str):
        raise ValueError(f"parameters must have {PUBLISH_TO} = 'build/scratch/…', got none")
    return parameters


def declared_ranges(notebook: Mapping[str, Any]) -> dict[str, Range]:
    """Return the range of each parameter that has one.

    A comment that opens like a range must be one, with numbers or parameters as its bounds.
    """
    declarations = list(_declarations(notebook))
    names = {name for name, default, _ in declarations if isinstance(default, int | float)}
    return {
        name: _range(name, comment, names)
        for name, _, comment in declarations
        if _LOOKS_LIKE_A_RANGE.match(comment)
    }


def _declarations(notebook: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield each parameter's name, its default, and the comment that its last line opens."""
    cells = [
        cell for cell in notebook["cells"] if PARAMETERS_TAG in cell["metadata"].get("tags", [])
    ]
    if len(cells) != 1 or cells[0]["cell_type"] != "code":
        raise ValueError(f"cells tagged {PARAMETERS_TAG!r} must be one code cell, got {len(cells)}")
    source = "".join(cells[0]["source"])
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(
            f"lines of the parameters cell must be name = literal, got no Python: "
            f"{error.msg} (line {error.lineno})"
        ) from error
    comments = {
        token.start[0]: token.string.lstrip("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    lines = source.splitlines()
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=expression):
                pass
            case _:
                _refuse_statement(statement)
        try:
            default = ast.literal_eval(expression)
        except ValueError:
            _refuse_statement(statement)
        number = statement.end_lineno or 0
        words = [comments.get(number, "")]
        # A long comment goes on in lines of its own.
        while lines[number : number + 1] and lines[number].startswith("#"):
            number += 1
            words.append(comments[number])
        yield name, default, " ".join(words)


def _refuse_statement(statement: ast.stmt) -> NoReturn:
    raise ValueError(
        f"lines of the parameters cell must be name = literal, got {ast.unparse(statement)!r}"
    )


def _range(name: str, comment: str, names: set[str]) -> Range:
    found = _RANGE.match(comment)
    if found is None:
        raise ValueError(f"the range of {name} must be like [1, 10) or {{a, b}}, got {comment!r}")
    choices, bounds = [], []
    if found["choices"] is not None:
        choices = [choice.strip() for choice in found["choices"].split(",")]
    else:
        for bracket, end in (("opening", "low"), ("closing", "high")):
            bounds.append((_COMPARISONS[found[bracket]], _bound(name, found[end].strip(), names)))
    return Range(found["text"], int(found["least"] or 1), found["order"], choices, bounds)


def _bound(name: str, text: str, names: set[str]) -> float | str:
    if text in names - {name}:
        return text
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(
            f"a bound of {name} must be a number or another parameter, got {text!r}"
        ) from error


# --- what a run sets ----------------------------------------------------------------------------


def parse_assignments(text: str) -> dict[str, Any]:
    """Return ``"depth=50 rates=[0.1, 0.01]"`` as a mapping; values are Python literals or text.

    Each name comes once, and no word before the first of them.
    """
    starts = [found.start() for found in _ASSIGNMENT.finditer(text)]
    opening = text[: starts[0]] if starts else text
    if opening.strip():
        raise ValueError(f"a parameter must be name=value, got {opening.strip()!r}")
    parsed: dict[str, Any] = {}
    position = 0
    while position < len(starts):
        # An = inside quotes starts no parameter: go on until the part is a literal.
        ends = [*starts[position + 1 :], len(text)]
        name, _, first = text[starts[position] : ends[0]].partition("=")
        name, value, taken = name.strip(), first.strip(), 1
        for count, end in enumerate(ends, start=1):
            part = text[starts[position] : end].partition("=")[2].strip()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of a literal that is oddly written
                    value, taken = ast.literal_eval(part), count
                break
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
        if name in parsed:
            raise ValueError(f"each parameter must come once, got {name} twice")
        parsed[name] = value
        position += taken
    return parsed


def checked_parameters(
    declared: Mapping[str, Any], overrides: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Return ``overrides`` with each value in the type of its default (a float may be given whole).

    ``where`` names the place that the overrides come from, for the messages. Names must be declared
    and not ``publish_to``, numbers finite.
    """
    checked: dict[str, Any] = {}
    for name, value in overrides.items():
        if name == PUBLISH_TO:
            raise ValueError(
                f"names in {where} must be of the study, got {name}, which the pipeline sets"
            )
        if name not in declared:
            known = ", ".join(key for key in declared if key != PUBLISH_TO)
            raise ValueError(f"names in {where} must be of {known}, got {name!r}")
        checked[name] = _in_type_of(declared[name], value, f"{name} in {where}")
    return checked


def check_ranges(values: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """Refuse values, those of every parameter, that are not in their ranges."""
    for name, limits in ranges.items():
        value = values[name]
        entries = value if isinstance(value, list | tuple) else [value]
        if not (len(entries) >= limits.least_entries and _inside(entries, limits, values)):
            named = [bound for _, bound in limits.bounds if isinstance(bound, str)]
            known = ", ".join(f"{bound} = {_shown(values[bound])}" for bound in named)
            raise ValueError(
                f"{name} must be {_kind(value, limits)}{limits.text}"
                f"{f' with {known}' if known else ''}, got {_shown(value)}"
            )


def study_parameters(path: Path, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that the parameters of the notebook at ``path`` have in ``namespace``.

    Where there is no notebook, all of ``namespace`` is taken for parameters. Each must have a
    value, of its type and in its range.
    """
    if PUBLISH_TO not in namespace:
        raise ValueError(f"{PUBLISH_TO} must be a folder to write to, got none")
    if not path.is_file():
        return dict(namespace)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    declared = declared_parameters(notebook)
    if missing := [name for name in declared if name not in namespace]:
        raise ValueError(
            f"{missing[0]} must be set as in the parameters cell of {path.name}, got none"
        )
    values = {name: namespace[name] for name in declared}
    given = {name: value for name, value in values.items() if name != PUBLISH_TO}
    checked = checked_parameters(declared, given, path.name)
    check_ranges(declared | checked, declared_ranges(notebook))
    return values


def _kind(value: Any, limits: Range) -> str:
    if isinstance(value, list | tuple):
        return "" if " or more of " in limits.text else "1 or more of "
    return "one of " if limits.choices else "in "


def _inside(entries: Sequence[Any], limits: Range, values: Mapping[str, Any]) -> bool:
    distinct = sorted(set(entries))
    if limits.order and len(distinct) < len(entries):
        return False
    if limits.order == "ascending" and distinct != list(entries):
        return False
    if limits.choices:
        return all(entry in limits.choices for entry in entries)
    return all(
        compare(entry, values[bound] if isinstance(bound, str) else bound)
        for compare, bound in limits.bounds
        for entry in entries
    )


def _in_type_of(default: Any, value: Any, where: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and isinstance(default, float):
        if not abs(value) <= _LARGEST:
            raise ValueError(f"{where} must be finite, got {_shown(value)}")
        return float(value)
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        if not default:
            return list(value)
        return [_in_type_of(default[0], item, f"an entry of {where}") for item in value]
    if type(value) is not type(default):
        hint = ""
        if isinstance(default, float) and isinstance(value, str) and _YAML_TEXT.fullmatch(value):
            hint = " (YAML reads 1e-3 as text: write 1.0e-3)"
        raise TypeError(
            f"{where} must be {type(default).__name__}, "
            f"got {type(value).__name__} {_shown(value)}{hint}"
        )
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"

"""The public functions and classes of the package as HTML, read off their docstrings."""

import html
import importlib
import inspect
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import Any

from rai_utils.publishing.sources import module_sources

FOLDER = Path(__file__).resolve().parents[1]
PACKAGE = FOLDER.name
ROOMS = ("", "publishing", "experiments")


def modules_in_order() -> list[str]:
    """Return the names of the package's modules, the core first; each after what it imports."""
    names = {
        path: ".".join(path.relative_to(FOLDER).with_suffix("").parts)
        for path in sorted(FOLDER.rglob("*.py"))
        if path.stem != "__init__"
    }
    imports = {
        name: {
            names[each]
            for each in module_sources({path}, [FOLDER.parent]) - {path}
            if each in names
        }
        for path, name in names.items()
    }
    order = TopologicalSorter(imports).static_order()
    return sorted(order, key=lambda name: ROOMS.index(name.rpartition(".")[0].partition(".")[0]))


def public_members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the public functions and classes that ``module`` defines, in the order of its text."""
    own = [
        (name, member)
        for name, member in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(member) or inspect.isclass(member))
        and member.__module__ == module.__name__
    ]
    yield from sorted(own, key=lambda pair: inspect.getsourcelines(pair[1])[1])


def reference() -> str:
    """Return one chapter: for each module what it says of itself, then its public members."""
    parts = []
    for name in modules_in_order():
        module = importlib.import_module(f"{PACKAGE}.{name}")
        parts.append(f'<h3 id="api-{name}">{PACKAGE}.{name}</h3>\n{_text(module)}')
        for label, member in public_members(module):
            parts.append(_folded(f"{name}.{label}", member))
            methods = [
                (method, function)
                for method, function in vars(member).items()
                if not method.startswith("_") and inspect.isfunction(function)
            ]
            if inspect.isclass(member):
                parts += [_folded(f"{name}.{label}.{method}", item) for method, item in methods]
    return "\n".join(parts)


def _folded(label: str, member: Any) -> str:
    try:
        signature = str(inspect.signature(member))
    except ValueError:  # a class that takes what its base of another package takes
        signature = ""
    kind = "class " if inspect.isclass(member) else ""
    summary = f"<code>{html.escape(kind + label + signature)}</code>"
    return f"<details><summary>{summary}</summary>\n{_text(member)}</details>"


def _text(member: Any) -> str:
    return f"<pre>{html.escape(inspect.getdoc(member) or '')}</pre>\n"

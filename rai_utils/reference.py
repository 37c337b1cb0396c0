"""The public functions and classes of the package as HTML, read off their docstrings."""

import ast
import html
import importlib
import inspect
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "rai_utils"


def modules_in_order() -> list[str]:
    """Return the names of the package's modules; each stands after those that it imports."""
    imports = {
        path.stem: _imported(path)
        for path in sorted(Path(__file__).parent.glob("*.py"))
        if path.stem != "__init__"
    }
    return list(TopologicalSorter(imports).static_order())


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


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            names.add(node.module.split(".")[1])
    return names


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

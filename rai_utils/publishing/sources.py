"""What a notebook is made from: the modules that it imports, and the published data that it reads.

``python rai_utils/publishing/sources.py`` lists them for the Makefile, as ``notebook|file`` words.
It needs the standard library alone, because make asks before there is an environment.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

PACKAGE = "rai_utils"
READ = f"{PACKAGE}.experiments.sweep.read"

_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_DOCUMENTED = (ast.Module, *_DEFINITIONS)
_SCOPES = (*_DEFINITIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def notebook_sources(notebook: Path, folder: Path) -> list[Path]:
    """Return the files that the results of a notebook depend on, besides itself.

    These are the modules that it imports, those that they import, and so on, each name that a
    package passes on (``__init__.pyi``) standing for the module it is from; ``figures/<name>/
    metrics.json`` for each text ``figures/<name>`` in its code; and ``figures/study/<name>.json``
    for each ``sweep.read("<name>")`` in its code. Where that name is no literal, every sweep that
    a text of the code names counts, or every sweep there is. Data that is not there is left out.

    Args:
        notebook: the notebook.
        folder: the checkout that it belongs to, with ``rai_utils/`` and ``figures/``.

    Returns:
        Paths below ``folder``, sorted, each once.

    Raises:
        SyntaxError: code that this Python cannot parse.
    """
    tree = ast.parse(notebook_code(notebook))
    found = {path for name in imported(tree) for path in _files(name, [folder])}
    modules = module_sources(found, [folder])
    return sorted(modules | set(_data(tree, folder)))


def notebook_code(notebook: Path) -> str:
    """Return the Python of a notebook's code cells; magics and shell lines are left out."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    python = [source for source in sources if not source.lstrip().startswith("%%")]
    lines = [line for source in python for line in source.splitlines()]
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def module_sources(files: set[Path], folders: Sequence[Path]) -> set[Path]:
    """Return modules and all that they import, directly or not, from the folders.

    Args:
        files: the modules to start from.
        folders: where top-level modules and packages of our own lie; others are left out.

    Raises:
        SyntaxError: code that this Python cannot parse.
    """
    found: set[Path] = set()
    waiting = set(files)
    while waiting:
        file = waiting.pop()
        found.add(file)
        if file.suffix == ".pyi":
            continue  # it says where names are from, and imports nothing
        names = _imports(file.read_text(encoding="utf-8"), _package(file, folders))
        waiting |= {path for name in names for path in _files(name, folders)} - found
    return found


def imported(tree: ast.AST, package: str = "") -> Iterator[str]:
    """Yield the dotted names that a tree imports, ``rai_utils.data.moons`` for ``from … import``.

    Imports within functions count, and ``import_module("…")`` does; what stands under
    ``if TYPE_CHECKING`` does not, as it never runs.

    Args:
        tree: of a module, a notebook or a part.
        package: the dotted name that relative imports start from.
    """
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        for node in tree.orelse:
            yield from imported(node, package)
        return
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
        # ``import a.b`` binds ``a``, and whatever ``a`` passes on can be had from it.
        yield from (alias.name.partition(".")[0] for alias in tree.names if not alias.asname)
    elif isinstance(tree, ast.ImportFrom):
        parts = package.split(".")
        above = parts[: len(parts) - tree.level + 1] if tree.level else []
        origin = ".".join([*above, *filter(None, [tree.module])])
        yield from (f"{origin}.{alias.name}" for alias in tree.names)
    elif isinstance(tree, ast.Call) and _name(tree.func).endswith("import_module"):
        named = [each.value for each in tree.args[:1] if isinstance(each, ast.Constant)]
        yield from (name for name in named if isinstance(name, str))
    for node in ast.iter_child_nodes(tree):
        yield from imported(node, package)


@cache
def _imports(text: str, package: str) -> frozenset[str]:
    return frozenset(imported(ast.parse(text), package))


# --- the fingerprint of a function ----------------------------------------------------------------


def fingerprint(file: Path, name: str, folders: Sequence[Path]) -> str:
    """Return a hash of the code that a function of a module runs, as far as it is our own.

    It covers the definitions and constants that the function names, those that these name, and so
    on through all modules of the folders; and what the modules do when they are imported besides
    defining names. Comments, docstrings, layout and other definitions do not change it, nor does
    a move of code to another module. What code finds by a name made at run time (``getattr``) is
    not seen.

    Args:
        file: the module.
        name: a name at its top level; all of the module counts if it is not there.
        folders: where top-level modules and packages of our own lie.

    Raises:
        SyntaxError: code that this Python cannot parse.
    """
    for kept in (_module, _bindings, _digest):
        kept.cache_clear()  # a file may have changed since the last call
    found: set[str] = set()
    waiting = [(file, part) for part in _parts_of(file, name)]
    for each in module_sources({file}, folders):
        waiting += [(each, part) for part in _module(each) if _acts(part, each)]
    seen: set[tuple[Path, ast.stmt]] = set()
    while waiting:
        place, part = waiting.pop()
        if (place, part) in seen:
            continue
        seen.add((place, part))
        names = []
        for used in _used(part, _package(place, folders)):
            full, own = _behind(used, place, folders)
            waiting += own
            # Our own code counts by what it says, and not by where it stands.
            names.append(" ".join(sorted(_digest(each) for _, each in own)) if own else full)
        found.add(f"{_digest(part)}: {names}")
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]


def _behind(
    used: str, place: Path, folders: Sequence[Path]
) -> tuple[str, list[tuple[Path, ast.stmt]]]:
    """Return what a name in a module means: in full, and the statements of our own behind it."""
    first, _, rest = used.partition(".")
    full, own = used, []
    for binding in _binding(place, first):
        if isinstance(binding, ast.Import | ast.ImportFrom):
            meant = _meanings(binding, _package(place, folders)).get(first, first)
            full = ".".join(filter(None, [meant, rest]))
        else:
            own.append((place, binding))
    return full, own or _owned(full, folders)


@cache
def _digest(part: ast.stmt) -> str:
    return hashlib.sha256(str(_form(part)).encode()).hexdigest()


def _form(node: object) -> object:
    """Return a tree as tuples that no release of Python writes in another way.

    ``ast.dump`` leaves out empty fields from 3.13 on, and later releases add fields. Where a
    ``from … import`` looks is left out: what it finds counts.
    """
    if isinstance(node, ast.ImportFrom):
        return "ImportFrom", _form(node.names)
    if isinstance(node, ast.AST):
        fields = [(name, _form(value)) for name, value in ast.iter_fields(node) if name != "ctx"]
        return type(node).__name__, *[field for field in fields if field[1] not in (None, ())]
    if isinstance(node, list):
        return tuple(map(_form, node))
    return None if node is None else repr(node)


@cache
def _module(file: Path) -> tuple[ast.stmt, ...]:
    """Return the statements of a module, without any docstring."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tuple(tree.body)


@cache
def _bindings(file: Path) -> dict[str, list[ast.stmt]]:
    """Return each name of a module with the statements that give it its meaning."""
    bindings: dict[str, list[ast.stmt]] = {}
    for part in _module(file):
        for name in _bound(part):
            bindings.setdefault(name, []).append(part)
    return bindings


def _binding(file: Path, name: str) -> list[ast.stmt]:
    return _bindings(file).get(name, [])


def _parts_of(file: Path, name: str) -> Sequence[ast.stmt]:
    return _binding(file, name) or _module(file)


def _bound(part: ast.AST) -> frozenset[str]:
    """Return the names that a statement binds where it stands."""
    names, waiting = set(), [part]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _SCOPES):
            names |= {node.name} if hasattr(node, "name") else set()
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return frozenset(names)


def _acts(part: ast.stmt, file: Path) -> bool:
    """Return whether a statement does something on import besides giving names a meaning.

    A decorator of our own may keep what it decorates in a register.
    """
    if isinstance(part, _DEFINITIONS):
        names = [_name(getattr(each, "func", each)) for each in part.decorator_list]
        places = [_binding(file, name.partition(".")[0]) for name in names]
        return any(isinstance(binding, _DEFINITIONS) for place in places for binding in place)
    if isinstance(part, ast.If) and "__name__" in ast.unparse(part.test):
        return False
    text = isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
    return not _bound(part) and not text


def _used(part: ast.stmt, package: str) -> Iterator[str]:
    """Yield the names that a statement reads, dotted as far as they are."""
    if not isinstance(part, ast.Import | ast.ImportFrom):
        yield from imported(part, package)
    waiting: list[ast.AST] = [part]
    while waiting:
        node = waiting.pop()
        name = _name(node)
        if name:
            yield name
        else:
            waiting += ast.iter_child_nodes(node)


def _owned(name: str, folders: Sequence[Path]) -> list[tuple[Path, ast.stmt]]:
    """Return what a dotted name means, if it leads into one of our modules."""
    for folder in folders:
        parts = name.split(".")
        for length in range(len(parts), 0, -1):
            path = folder.joinpath(*parts[:length])
            for file in (path.with_suffix(".py"), path / "__init__.py"):
                if file.is_file():
                    after = parts[length : length + 1]
                    passed_on = _passed_on(path) if file.parent == path else {}
                    if after and after[0] in passed_on:
                        meant = [passed_on[after[0]], *parts[length + 1 :]]
                        return _owned(".".join(meant), folders)
                    chosen = _parts_of(file, parts[length]) if parts[length:] else _module(file)
                    return [(file, part) for part in chosen]
    return []


# --- names ----------------------------------------------------------------------------------------


def _files(name: str, folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the module that a dotted name leads to, and the packages on the way."""
    for folder in folders:
        path = folder
        for part in name.split("."):
            inner = path / part
            if (inner / "__init__.py").is_file():
                path = inner
                yield path / "__init__.py"
            elif inner.with_suffix(".py").is_file():
                yield inner.with_suffix(".py")
                break
            else:
                yield from _homes(path, part, folders)
                break
        else:
            yield from _homes(path, "*", folders)


def _homes(package: Path, name: str, folders: Sequence[Path]) -> Iterator[Path]:
    """Yield where a name is from that a package passes on, or all of them for ``*``."""
    passed_on = _passed_on(package)
    for meant in passed_on.values() if name == "*" else filter(None, [passed_on.get(name)]):
        yield package / "__init__.pyi"
        yield from _files(meant, folders)


def _passed_on(package: Path) -> dict[str, str]:
    """Return the names that a package imports when they are asked for, with their full names."""
    stub = package / "__init__.pyi"
    return _meanings(ast.parse(stub.read_text(encoding="utf-8"))) if stub.is_file() else {}


def _package(file: Path, folders: Sequence[Path]) -> str:
    """Return the package that a module's relative imports start from."""
    for folder in folders:
        if file.is_relative_to(folder):
            return ".".join(file.relative_to(folder).parent.parts)
    return ""


def _name(node: ast.AST) -> str:
    """Return ``a.b.c`` for such an expression, an empty text for any other."""
    if isinstance(node, ast.Attribute):
        before = _name(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def _data(tree: ast.Module, folder: Path) -> Iterator[Path]:
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for text in texts:
        parts = text.rstrip("/").split("/")
        if parts[0] == "figures" and len(parts) == 2:
            yield from _existing(folder.joinpath(*parts, "metrics.json"))
    study, meanings = folder / "figures" / "study", _meanings(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or _meant(node.func, meanings) != READ:
            continue
        given = [*node.args, *(each.value for each in node.keywords if each.arg == "name")]
        if given and isinstance(given[0], ast.Constant):
            yield from _existing(study / f"{given[0].value}.json")
        else:
            every = list(study.glob("*.json"))
            yield from [path for path in every if path.stem in texts] or every


def _existing(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path


def _meant(node: ast.expr, meanings: dict[str, str]) -> str:
    """Return the dotted name that an expression stands for, by the imports."""
    first, _, rest = _name(node).partition(".")
    return ".".join(filter(None, [meanings.get(first, first), rest]))


def _meanings(tree: ast.AST, package: str = "") -> dict[str, str]:
    """Return each name that an import of a tree binds, with what it stands for."""
    meanings = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            meanings |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names = imported(node, package)
            meanings |= {
                alias.asname or alias.name: name
                for alias, name in zip(node.names, names, strict=True)
            }
    return meanings


def main(folder: Path) -> int:
    """Print ``notebook|file`` for every source of every notebook; return an exit status."""
    for notebook in sorted((folder / "notebooks").glob("*.ipynb")):
        for source in notebook_sources(notebook, folder):
            print(f"{notebook.stem}|{source.relative_to(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))

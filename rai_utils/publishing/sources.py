"""What a notebook is made from: the modules that it imports, and the published data that it reads.

``python rai_utils/publishing/sources.py`` lists them for the Makefile, as ``notebook|file`` words.
It needs the standard library alone, because make asks before there is an environment.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path

READ = "rai_utils.experiments.sweep.read"

_DEFINITIONS = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_INNER = ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def notebook_sources(notebook: Path, folder: Path) -> list[Path]:
    """Return the files that the results of a notebook depend on, besides itself, sorted.

    These are the modules that it imports, those that they import, and so on, each name that a
    package passes on (``__init__.pyi``) standing for the module it is from;
    ``figures/<name>/metrics.json`` for each text ``figures/<name>`` in its code; and
    ``figures/study/<name>.json`` for each ``sweep.read("<name>")`` in its code. Where that name is
    no literal, every sweep that a text of the code names counts, or every sweep there is. Data that
    is not there is left out. ``folder`` is the checkout, with ``rai_utils/`` and ``figures/``.
    """
    _look_again()
    tree = ast.parse(notebook_code(notebook))
    found = {path for name in imported(tree) for path in _files(name, (folder,))}
    data = {path for path in _data(tree, folder / "figures") if path.is_file()}
    return sorted(module_sources(found, (folder,)) | data)


def notebook_code(notebook: Path) -> str:
    """Return the Python of a notebook's code cells; magics and shell lines are left out."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    python = [source for source in sources if not source.lstrip().startswith("%%")]
    return re.sub(r"^\s*[%!].*", "", "\n".join(python), flags=re.MULTILINE)


def module_sources(files: set[Path], folders: tuple[Path, ...]) -> set[Path]:
    """Return modules and all that they import, directly or not, from the folders.

    These are where top-level modules and packages of our own lie; others are left out.
    """
    _look_again()
    found: set[Path] = set()
    waiting = set(files)
    while waiting:
        file = waiting.pop()
        found.add(file)
        if file.suffix == ".pyi":
            continue  # it says where names are from, and imports nothing
        names = _imports(_text(file))
        waiting |= {path for name in names for path in _files(name, folders)} - found
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names that a tree imports, ``rai_utils.data.moons`` for ``from … import``.

    Imports within functions count; what stands under ``if TYPE_CHECKING`` does not, as it never
    runs. A relative import is refused with a ValueError.
    """
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += reversed(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            # ``import a.b`` binds ``a``, and whatever ``a`` passes on can be had from it.
            yield from (alias.name.partition(".")[0] for alias in node.names if not alias.asname)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"an import must be absolute, got {ast.unparse(node)!r}")
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting += reversed([*ast.iter_child_nodes(node)])


@cache
def _imports(text: str) -> frozenset[str]:
    return frozenset(imported(ast.parse(text)))


def _data(tree: ast.Module, figures: Path) -> Iterator[Path]:
    nodes, study = list(ast.walk(tree)), figures / "study"
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
    for text in (text.rstrip("/") for text in texts if isinstance(text, str)):
        if re.fullmatch("figures/[^/]+", text):
            yield figures.parent / text / "metrics.json"
    meanings = _meanings(nodes)
    for node in nodes:
        if not isinstance(node, ast.Call) or _meant(_name(node.func), meanings) != READ:
            continue
        given = [*node.args, *(each.value for each in node.keywords if each.arg == "name")]
        if given and isinstance(given[0], ast.Constant):
            yield study / f"{given[0].value}.json"
        else:
            every = list(study.glob("*.json"))
            yield from [path for path in every if path.stem in texts] or every


# --- the fingerprint of a function ----------------------------------------------------------------


def fingerprint(file: Path, name: str, folders: tuple[Path, ...]) -> str:
    """Return a hash of the code that a function of a module runs, as far as it is our own.

    It covers the definitions and constants that the function names, those that these name, and so
    on through all modules of the folders; and what the modules do when they are imported besides
    defining names. Comments, docstrings, layout and other definitions do not change it, nor does a
    move of code to another module. What code finds by a name made at run time (``getattr``) is not
    seen. Where the name is not at the top level, all of the module counts; ``folders`` are as in
    ``module_sources``.
    """
    modules = module_sources({file}, folders)
    found: set[str] = set()
    waiting = _parts_of(file, [name])
    for each in modules:
        waiting += [(each, part) for part in _module(_text(each)) if _acts(part, _text(each))]
    seen: set[tuple[Path, ast.stmt]] = set()
    while waiting:
        place, part = waiting.pop()
        if (place, part) in seen:
            continue
        seen.add((place, part))
        names = []
        for used in _used(part):
            full, own = _behind(used, place, folders)
            waiting += own
            # Our own code counts by what it says, and not by where it stands.
            names.append(" ".join(sorted(_digest(each) for _, each in own)) if own else full)
        found.add(f"{_digest(part)}: {names}")
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]


@cache
def _behind(
    used: str, place: Path, folders: tuple[Path, ...]
) -> tuple[str, list[tuple[Path, ast.stmt]]]:
    """Return what a name in a module means: in full, and the statements of our own behind it."""
    bindings = _bindings(_text(place)).get(used.partition(".")[0], [])
    imports = [each for each in bindings if isinstance(each, ast.Import | ast.ImportFrom)]
    own = [(place, each) for each in bindings if each not in imports]
    full = _meant(used, _meanings(imports))
    return full, own or _owned(full, folders)


def _owned(name: str, folders: tuple[Path, ...]) -> list[tuple[Path, ast.stmt]]:
    """Return what a dotted name means, if it leads into one of our modules."""
    file, rest = _module_of(name, folders)
    if file is None:
        return []
    passed_on = _passed_on(file)
    if rest and rest[0] in passed_on:
        return _owned(".".join([passed_on[rest[0]], *rest[1:]]), folders)
    return _parts_of(file, rest)


def _parts_of(file: Path, names: Sequence[str]) -> list[tuple[Path, ast.stmt]]:
    """Return what gives the first name its meaning, or the whole module."""
    parts = _bindings(_text(file)).get(names[0]) if names else None
    return [(file, part) for part in parts or _module(_text(file))]


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
def _module(text: str) -> tuple[ast.stmt, ...]:
    """Return the statements of a module, without any docstring."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | _DEFINITIONS)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return tuple(tree.body)


@cache
def _bindings(text: str) -> dict[str, list[ast.stmt]]:
    """Return each name of a module with the statements that give it its meaning."""
    bindings: dict[str, list[ast.stmt]] = {}
    for part in _module(text):
        for name in _bound(part):
            bindings.setdefault(name, []).append(part)
    return bindings


def _bound(part: ast.AST) -> set[str]:
    """Return the names that a statement binds where it stands."""
    if isinstance(part, _INNER):
        return set()
    if isinstance(part, _DEFINITIONS):
        return {part.name}
    if isinstance(part, ast.Name):
        return set() if isinstance(part.ctx, ast.Load) else {part.id}
    if isinstance(part, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in part.names}
    return set().union(*map(_bound, ast.iter_child_nodes(part)))


@cache
def _acts(part: ast.stmt, text: str) -> bool:
    """Return whether a statement does something on import besides giving names a meaning.

    A decorator of our own may keep what it decorates in a register.
    """
    if isinstance(part, _DEFINITIONS):
        names = [_name(getattr(each, "func", each)) for each in part.decorator_list]
        places = [_bindings(text).get(name.partition(".")[0], []) for name in names]
        return any(isinstance(binding, _DEFINITIONS) for place in places for binding in place)
    if isinstance(part, ast.If) and "__name__" in ast.unparse(part.test):
        return False
    literal = isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
    return not _bound(part) and not literal


@cache
def _used(part: ast.AST) -> list[str]:
    """Return the names that a statement reads, dotted as far as they are."""
    used = [] if isinstance(part, ast.Import | ast.ImportFrom) else [*imported(part)]
    waiting = [part]
    while waiting:
        node = waiting.pop()
        if name := _name(node):
            used.append(name)
        else:
            waiting += ast.iter_child_nodes(node)
    return used


# --- files and names ------------------------------------------------------------------------------


@cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _look_again() -> None:
    """Forget what was seen on disk: a file may have changed since the last question.

    What was found out about a text holds for that text.
    """
    for seen in (_text, _behind, _module_of, _stems, _passed_on):
        seen.cache_clear()


@cache
def _module_of(name: str, folders: tuple[Path, ...]) -> tuple[Path | None, list[str]]:
    """Return the module of ours that a dotted name leads into, and what is left of the name."""
    parts = name.split(".")
    for folder in folders:
        if parts[0] not in _stems(folder):
            continue  # most names are of no module
        for length in range(len(parts), 0, -1):
            path = folder.joinpath(*parts[:length])
            for file in (path.with_suffix(".py"), path / "__init__.py"):
                if file.is_file():
                    return file, parts[length:]
    return None, parts


@cache
def _stems(folder: Path) -> frozenset[str]:
    return frozenset(path.stem for path in folder.iterdir())


def _files(name: str, folders: tuple[Path, ...]) -> Iterator[Path]:
    """Yield the module that a dotted name leads to, and the packages on the way.

    With them comes where a name is from that a package passes on; all of those for the package.
    """
    file, rest = _module_of(name, folders)
    if file is None:
        return
    yield file
    packages = (folder / "__init__.py" for folder in file.parents)
    yield from takewhile(Path.is_file, packages)
    passed_on = _passed_on(file)
    chosen = rest[0] if rest else "*"
    for each, meant in passed_on.items():
        if chosen in (each, "*"):
            yield file.with_suffix(".pyi")
            yield from _files(meant, folders)


@cache
def _passed_on(file: Path) -> dict[str, str]:
    """Return the names that a package imports when they are asked for, with their full names."""
    stub = file.with_suffix(".pyi")
    if file.stem != "__init__" or not stub.is_file():
        return {}
    return _meanings(ast.walk(ast.parse(stub.read_text(encoding="utf-8"))))


def _name(node: ast.AST) -> str:
    """Return ``a.b.c`` for such an expression, an empty text for any other."""
    if isinstance(node, ast.Attribute):
        before = _name(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def _meant(name: str, meanings: Mapping[str, str]) -> str:
    """Return the dotted name that a name stands for, by the imports."""
    first, _, rest = name.partition(".")
    return ".".join(filter(None, [meanings.get(first, first), rest]))


def _meanings(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """Return each name that the imports among some nodes bind, with what it stands for."""
    meanings: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            meanings |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            bound = [alias.asname or alias.name for alias in node.names]
            meanings |= zip(bound, imported(node), strict=True)
    return meanings


def main(folder: Path) -> None:
    """Print ``notebook|file`` for every source of every notebook."""
    for notebook in sorted((folder / "notebooks").glob("*.ipynb")):
        for source in notebook_sources(notebook, folder):
            print(f"{notebook.stem}|{source.relative_to(folder)}")


if __name__ == "__main__":
    main(Path.cwd())

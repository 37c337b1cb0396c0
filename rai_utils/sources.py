"""What a notebook is made from: the modules that it imports, and the published data that it reads.

``python -m rai_utils.sources`` lists them for the Makefile, as ``notebook|file`` words. It needs
the standard library alone, because make asks before there is an environment.
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
READ = f"{PACKAGE}.sweep.read"

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def notebook_sources(notebook: Path, folder: Path) -> list[Path]:
    """Return the files that the results of a notebook depend on, besides itself.

    These are the modules that it imports, those that they import, and so on; ``figures/<name>/
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
        waiting |= set(_imports(file, tuple(folders))) - found
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
    elif isinstance(tree, ast.ImportFrom):
        parts = package.split(".")
        above = parts[: len(parts) - tree.level + 1] if tree.level else []
        origin = ".".join([*above, *filter(None, [tree.module])])
        yield from (f"{origin}.{alias.name}" for alias in tree.names)
    elif isinstance(tree, ast.Call) and _name(tree.func).endswith("import_module"):
        yield from (each.value for each in tree.args[:1] if isinstance(each, ast.Constant))
    for node in ast.iter_child_nodes(tree):
        yield from imported(node, package)


@cache
def _imports(file: Path, folders: tuple[Path, ...]) -> tuple[Path, ...]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = set(imported(tree, _package(file, folders)))
    return tuple(path for name in names for path in _files(name, folders))


def fingerprint(files: set[Path]) -> str:
    """Return a hash of what modules do: comments, docstrings and layout do not change it.

    Raises:
        SyntaxError: code that this Python cannot parse.
    """
    codes = []
    for file in sorted(files, key=lambda file: (file.name, str(file))):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
        codes.append(f"{file.stem}: {ast.dump(tree)}")
    return hashlib.sha256("\n".join(codes).encode()).hexdigest()[:16]


def _files(name: str, folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the module that a dotted name leads to, and the packages on the way."""
    for folder in folders:
        path = folder
        for part in name.split("."):
            path /= part
            if (path / "__init__.py").is_file():
                yield path / "__init__.py"
            elif path.with_suffix(".py").is_file():
                yield path.with_suffix(".py")
                break
            else:
                break


def _package(file: Path, folders: Sequence[Path]) -> str:
    """Return the package that a module's relative imports start from."""
    for folder in folders:
        if file.is_relative_to(folder):
            return ".".join(file.relative_to(folder).parent.parts)
    return ""


def _name(node: ast.expr) -> str:
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
    study, meanings = folder / "figures" / "study", dict(_meanings(tree))
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


def _meanings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield each name that an import binds, with what it stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname, alias.name) for alias in node.names if alias.asname)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def main(folder: Path) -> int:
    """Print ``notebook|file`` for every source of every notebook; return an exit status."""
    for notebook in sorted((folder / "notebooks").glob("*.ipynb")):
        for source in notebook_sources(notebook, folder):
            print(f"{notebook.stem}|{source.relative_to(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))

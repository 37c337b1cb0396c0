"""RAI on a model of your own, and the networks, fits and data of the study.

``from rai_utils import relax`` brings in what ``relax`` needs and no more: a name is imported from
its module, which ``__init__.pyi`` says, when it is asked for.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

_OFFER = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
_HOMES = {
    alias.name: str(line.module)
    for line in _OFFER
    if isinstance(line, ast.ImportFrom)
    for alias in line.names
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Sweeps that are too long for ``make figures``: many cells, run in parallel, kept one by one.

A cell is one call of a function with plain arguments. A finished cell is written at once, so a
run that is interrupted loses none and the next one goes on where it ended. The published file is
data that a notebook reads, with the command, the time and the machine that made it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import get_ident
from time import perf_counter
from typing import Any

from joblib import Parallel, delayed, parallel_config
from tqdm.auto import tqdm

from rai_utils.claims import environment, plain, root
from rai_utils.training import configure

Cell = dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """One call of ``work`` for each cell.

    Attributes:
        name: what the data is called; published as ``figures/study/<name>.json``.
        cells: keyword arguments of each call, as JSON holds them.
        work: a function of a module, which every process can import. It returns plain numbers,
            texts, lists and mappings, the same ones for the same arguments.

    Raises:
        ValueError: there is no cell, or one occurs twice.
    """

    name: str
    cells: tuple[Cell, ...]
    work: Callable[..., dict[str, Any]]

    def __post_init__(self) -> None:
        if not self.cells:
            raise ValueError(f"sweep {self.name} must have at least one cell, got none")
        keys = [_key(self, cell) for cell in self.cells]
        if len(set(keys)) < len(keys):
            twice = next(
                cell for cell, key in zip(self.cells, keys, strict=True) if keys.count(key) > 1
            )
            raise ValueError(f"sweep {self.name} must have each cell once, got {twice} twice")


@dataclass(frozen=True)
class Published:
    """What a sweep published.

    Attributes:
        cells: arguments and results of each cell in one mapping, in the order of the sweep.
        seconds: time of each cell on one thread, (cells,).
        command: what makes the data again.
        machine: versions and processor, as recorded.
    """

    cells: tuple[Cell, ...]
    seconds: tuple[float, ...]
    command: str
    machine: dict[str, Any]


def run(sweep: Sweep, *, jobs: int = 2, backend: str = "loky", folder: Path | None = None) -> Path:
    """Run the cells that no earlier run finished, and publish all of them.

    Each process uses one thread, so that a cell's numbers do not depend on ``jobs``.

    Args:
        sweep: what to run.
        jobs: processes at a time, at least 1; with ``"dask"``, the cluster decides.
        backend: of joblib: ``"loky"`` (processes of this machine), ``"dask"`` (the cluster of the
            active ``distributed.Client``), or another that is registered.
        folder: the checkout to write to; None for this one.

    Returns:
        The published file.

    Raises:
        ValueError: ``jobs`` is below 1, or a result holds NaN or infinity.
        TypeError: a result that JSON cannot hold.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    place = root() if folder is None else folder
    kept = place / "build" / "study" / sweep.name
    kept.mkdir(parents=True, exist_ok=True)
    files = {_key(sweep, cell): kept / f"{_key(sweep, cell)}.json" for cell in sweep.cells}
    missing = {
        key: cell
        for (key, file), cell in zip(files.items(), sweep.cells, strict=True)
        if not file.is_file()
    }
    with (
        parallel_config(backend=backend, n_jobs=jobs),
        tqdm(total=len(files), initial=len(files) - len(missing), desc=sweep.name) as bar,
    ):
        # Whoever started the run writes: the processes may be on machines that share no disk.
        finished = Parallel(return_as="generator_unordered")(
            delayed(_call)(sweep.work, key, cell) for key, cell in missing.items()
        )
        for key, result, seconds in finished:
            record = {
                "parameters": missing[key],
                "result": plain(result, f"cell {missing[key]} of {sweep.name}"),
                "seconds": round(seconds, 2),
            }
            _write(files[key], record)
            bar.update()
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files.values()]
    published = place / "figures" / "study" / f"{sweep.name}.json"
    published.parent.mkdir(parents=True, exist_ok=True)
    machine = {**environment(), "threads": 1, "processors": os.cpu_count()}
    command = f"make study SWEEPS={sweep.name}"
    _write(published, {"command": command, "machine": machine, "cells": records})
    return published


def read(name: str, folder: Path | None = None) -> Published:
    """Return what a sweep published.

    Args:
        name: the sweep's name.
        folder: the checkout to read from; None for this one.

    Raises:
        ValueError: there is no such file, or it is not one that ``run`` writes.
    """
    file = (root() if folder is None else folder) / "figures" / "study" / f"{name}.json"
    if not file.is_file():
        raise ValueError(
            f"expected published data at {file}, found none: run this in a clone of the "
            f"repository, or make the data there with make study"
        )
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        cells, command, machine = record["cells"], record["command"], record["machine"]
    except (json.JSONDecodeError, KeyError) as error:
        raise ValueError(
            f"expected a published sweep in {file.name}, got an error: {error}"
        ) from error
    return Published(
        tuple({**cell["parameters"], **cell["result"]} for cell in cells),
        tuple(cell["seconds"] for cell in cells),
        command,
        machine,
    )


def _key(sweep: Sweep, cell: Cell) -> str:
    """Name a cell by all that its result depends on, but for the code of this package."""
    work = f"{sweep.work.__module__}.{sweep.work.__qualname__}"
    text = json.dumps([work, cell, environment()["torch"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _call(
    work: Callable[..., dict[str, Any]], key: str, cell: Cell
) -> tuple[str, dict[str, Any], float]:
    _prepare(get_ident())
    started = perf_counter()
    result = work(**cell)
    return key, result, perf_counter() - started


@cache
def _prepare(thread: int) -> None:
    """Configure a thread once, before its first cell: denormals are flushed thread by thread."""
    configure(threads=1)


def _write(path: Path, record: dict[str, Any]) -> None:
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)

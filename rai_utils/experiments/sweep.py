"""Sweeps that are too long for ``make figures``: many cells, run in parallel, kept one by one.

A cell is one call of a function with plain arguments. A finished cell is written at once, so a
run that is interrupted loses none and the next one goes on where it ended; a fresh checkout goes
on from the cells that are published. Each is kept with a fingerprint of the code that made it, and
computed again when that code changes. The published file is data that a notebook reads, with the
command, the time and the machine that made it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from threading import get_ident
from time import perf_counter
from types import FunctionType
from typing import Any

import numpy as np
from joblib import Parallel, delayed, parallel_config
from tqdm.auto import tqdm

from rai_utils.publishing.claims import environment, plain, root, write_whole
from rai_utils.publishing.sources import fingerprint
from rai_utils.training import History, configure

Cell = dict[str, Any]
Record = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]


def grid(same: Cell | None = None, /, **choices: Iterable[Any]) -> tuple[Cell, ...]:
    """Return a cell for every combination of the choices; the last name changes fastest.

    Each has the arguments of ``same`` too.
    """
    each = product(*choices.values())
    return tuple({**(same or {}), **dict(zip(choices, chosen, strict=True))} for chosen in each)


def finite(values: Any, digits: int | None = None) -> Any:
    """Return numbers as JSON holds them, None where one is not finite.

    Args:
        values: a number, or an array, which becomes nested lists.
        digits: significant ones to keep; None for all.
    """
    if np.ndim(values):
        return [finite(value, digits) for value in values]
    if not np.isfinite(values):
        return None
    return float(values if digits is None else f"{values:.{digits}g}")


def ends(*histories: History, digits: int | None = None) -> dict[str, list[float | None]]:
    """Return ``train`` and ``held_out``: accuracy of each network at its fit's last evaluation.

    The networks of one fit come after those of another. None where the forward pass is not finite;
    ``digits`` as in ``finite``.
    """
    found: dict[str, list[float | None]] = {"train": [], "held_out": []}
    for history in histories:
        parts = history.accuracy, history.held_out_accuracy  # (evaluations, networks) each
        for values, rows in zip(found.values(), parts, strict=True):
            values += finite(rows[-1], digits) if len(rows) else [None] * rows.shape[1]
    return found


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
    work: FunctionType

    def __post_init__(self) -> None:
        if not self.cells:
            raise ValueError(f"sweep {self.name} must have at least one cell, got none")
        keys: set[str] = set()
        for cell in self.cells:
            if (key := _key(self, cell)) in keys:
                raise ValueError(f"sweep {self.name} must have each cell once, got {cell} twice")
            keys.add(key)


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


def run(
    sweep: Sweep,
    *,
    jobs: int = 2,
    backend: str = "loky",
    folder: Path | None = None,
    replace: bool = False,
) -> Path:
    """Run the cells that this code has not finished yet, and publish all; return the file.

    Each process uses one thread, so that a cell's numbers do not depend on ``jobs``. A sweep that
    lacks settings of the published data is a trial: its data goes to ``build/study/<name>.json``,
    and what is published stays.

    Args:
        sweep: what to run.
        jobs: processes at a time, at least 1; with ``"dask"``, the cluster decides.
        backend: of joblib: ``"loky"`` (processes of this machine), ``"dask"`` (the cluster of the
            active ``distributed.Client``), or another that is registered.
        folder: the checkout to write to; None for this one.
        replace: publish even where published settings are left out.

    Raises:
        ValueError: a result holds NaN or infinity.
        TypeError: a result that JSON cannot hold, or work that no module file defines.
    """
    place = root() if folder is None else folder
    kept = place / "build" / "study" / sweep.name
    kept.mkdir(parents=True, exist_ok=True)
    code = code_of(sweep.work)
    machine = {**environment(), "threads": 1, "processors": os.cpu_count()}
    published = _published_file(sweep.name, place)
    earlier = _published_records(published)
    records: dict[str, Record] = {}
    missing: dict[str, Cell] = {}
    for cell in sweep.cells:
        key = _key(sweep, cell)
        found = [_record(kept / f"{key}.json"), *earlier]
        current = [each for each in found if _is_current(each, cell, code, machine)]
        if current:
            records[key] = current[0]
        else:
            missing[key] = cell
    # A child that takes Ctrl-C as well would write its traceback over the one line that is due.
    ignoring: dict[str, Any] = {}
    if backend == "loky":
        ignoring = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    with (
        parallel_config(backend=backend, n_jobs=jobs, **ignoring),
        tqdm(total=len(sweep.cells), initial=len(records), desc=sweep.name) as bar,
    ):
        # Whoever started the run writes: the processes may be on machines that share no disk.
        finished = Parallel(return_as="generator_unordered")(
            delayed(_call)(sweep.work, key, cell) for key, cell in missing.items()
        )
        for key, result, seconds in finished:
            records[key] = {
                "parameters": missing[key],
                "result": plain(result, f"cell {missing[key]} of {sweep.name}"),
                "seconds": round(seconds, 2),
                "code": code,
                "machine": machine,
            }
            _write(kept / f"{key}.json", records[key])
            bar.update()
    trial = any(record.get("parameters") not in sweep.cells for record in earlier) and not replace
    target = kept.with_suffix(".json") if trial else published
    target.parent.mkdir(parents=True, exist_ok=True)
    data = _data(sweep, code, [records[_key(sweep, cell)] for cell in sweep.cells])
    # A file of the same content keeps its time, which make reads.
    if _record(target) != data:
        _write(target, data)
    return target


def adopt(sweep: Sweep, folder: Path | None = None) -> Path:
    """Say that published data is what the present code makes, without computing it again.

    For a change of the code that changes no number. Returns the published file; where there is
    none, a ValueError says so.
    """
    file = _published_file(sweep.name, root() if folder is None else folder)
    data = _record(file)
    if not data:
        raise ValueError(f"published data must be at {file.name}, got none: make study")
    _write(file, data | {"code": code_of(sweep.work)})
    return file


def read(name: str, folder: Path | None = None) -> Published:
    """Return what a sweep published; a ValueError where there is nothing that ``run`` writes."""
    file = _published_file(name, root() if folder is None else folder)
    if not file.is_file():
        raise ValueError(
            f"published data must be at {file}, got none: run this in a clone of the "
            f"repository, or make the data there with make study"
        )
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        cells, command, machine = record["cells"], record["command"], record["machine"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file.name} must be a published sweep, got an error: {error}") from error
    return Published(
        tuple({**cell["parameters"], **cell["result"]} for cell in cells),
        tuple(cell["seconds"] for cell in cells),
        command,
        machine,
    )


def _key(sweep: Sweep, cell: Cell) -> str:
    """Name a cell by its work and its arguments, wherever the work is defined."""
    text = json.dumps([sweep.work.__qualname__, cell], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def code_of(work: FunctionType) -> str:
    """Return the fingerprint of what a cell runs: its function and all of ours that it names.

    It is that of the first question: what is edited later is not what this process has loaded.
    """
    source = inspect.getsourcefile(work)
    if source is None or not Path(source).is_file():
        raise TypeError(f"the work of a sweep must be a function of a module, got {work}")
    file = Path(source).resolve()
    top = file.parents[work.__module__.count(".")]
    return fingerprint(file, work.__qualname__.partition(".")[0], (top, ROOT))


def _is_current(record: Record, cell: Cell, code: str, machine: dict[str, Any]) -> bool:
    """Whether this code made a record, with this release of torch in whatever build."""
    return (
        record.keys() >= {"result", "seconds", "machine"}
        and record.get("parameters") == cell
        and record.get("code") == code
        and record["machine"]["torch"].partition("+")[0] == machine["torch"]
    )


def _published_file(name: str, folder: Path) -> Path:
    return folder / "figures" / "study" / f"{name}.json"


def _record(path: Path) -> Record:
    """Return what a file holds; nothing where there is none or it was cut off."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _published_records(file: Path) -> list[Record]:
    """Return the cells of a published file as they were kept when they were made."""
    data = _record(file)
    shared = {"code": data.get("code"), "machine": data.get("machine")}
    return [{**shared, **cell} for cell in data.get("cells", [])]


def _data(sweep: Sweep, code: str, records: list[Record]) -> Record:
    """Return what is published; a cell names its machine where it is not the first one's."""
    machine = records[0]["machine"]
    cells = [
        {
            name: value
            for name, value in record.items()
            if name != "code" and (name, value) != ("machine", machine)
        }
        for record in records
    ]
    command = f"make study SWEEPS={sweep.name}"
    return {"command": command, "code": code, "machine": machine, "cells": cells}


def _call(work: FunctionType, key: str, cell: Cell) -> tuple[str, dict[str, Any], float]:
    _prepare(get_ident())
    started = perf_counter()
    result = work(**cell)
    return key, result, perf_counter() - started


@cache
def _prepare(thread: int) -> None:
    """Configure a thread once, before its first cell: denormals are flushed thread by thread."""
    configure(threads=1)


def _write(path: Path, record: dict[str, Any]) -> None:
    write_whole(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

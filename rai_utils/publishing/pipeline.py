"""Run a notebook with parameters, and publish its results only when it has finished.

``python -m rai_utils.publishing.pipeline execute rai-demo --profile full`` runs a notebook in a
folder of its own under ``build/``. When the last cell is done, the run is moved to
``build/<tree>/finished/``, the figure folder is swapped for the new one, and the executed notebook
is moved to ``build/<tree>/<notebook>.ipynb`` last: make reads the time of that file. A failure,
Ctrl-C or ``kill -9`` at any moment leaves the last good set whole.

``python -m rai_utils.publishing.pipeline publish rai-demo`` publishes a run that finished and could
not be published, because the disk was full or a folder could not be written.

``python -m rai_utils.publishing.pipeline write-back rai-demo`` puts the outputs of the full run
into the committed notebook.
"""

import argparse
import contextlib
import fcntl
import io
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from rai_utils.publishing import catalogue, prose
from rai_utils.publishing.catalogue import aside, repair
from rai_utils.publishing.claims import FIGURE_SUFFIXES, METRICS_FILE, read_metrics, root
from rai_utils.publishing.parameters import (
    PUBLISH_TO,
    check_ranges,
    checked_parameters,
    declared_parameters,
    declared_ranges,
    parse_assignments,
)

ROOT = root()
PROFILES = ("full", "quick")
CUSTOM = "custom"
INJECTED_TAG = "injected-parameters"
ERROR_MARKER_TAG = "papermill-error-cell-tag"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# A link or a picture, in Markdown or HTML, that is no address, no anchor and no attachment.
_RELATIVE_LINK = re.compile(
    r"""(?P<opening>\]\(<?|\b(?:src|href)=["'])(?![a-zA-Z][\w+.-]*:|[/#])(?P<path>[^\s()<>"'#?]+)"""
)
NOTEBOOK_METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


class NotebookError(RuntimeError):
    """A notebook stopped before its end; the message is the line that a person reads."""


# --- parameters -------------------------------------------------------------------------------


def read_profile(path: Path) -> dict[str, Any]:
    """Return the parameters that a profile file sets.

    Raises:
        ValueError: no such file, or not a YAML mapping.
    """
    if not path.is_file():
        raise ValueError(f"expected a profile at {path}, found none")
    try:
        profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"expected YAML in {path}, got an error: {error}") from error
    if not isinstance(profile, dict):
        raise ValueError(f"expected name: value lines in {path}, got {type(profile).__name__}")
    return profile


# --- running ----------------------------------------------------------------------------------


def kernel_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` as the kernels of the pipeline and of nbval need it."""
    changed = dict(environment)
    # MPLBACKEND would keep the figures out of the notebook; the others are a reader's own.
    for name in ("MPLBACKEND", "PYTHONSTARTUP", "PYTHONIOENCODING"):
        changed.pop(name, None)
    # No settings but those of the study: matplotlib's defaults, and an IPython without a profile.
    changed["MATPLOTLIBRC"] = os.devnull
    changed["IPYTHONDIR"] = str(root() / "build" / "ipython")
    changed["JUPYTER_CONFIG_DIR"] = str(root() / "build" / "jupyter")
    changed["JUPYTER_NO_CONFIG"] = "1"
    # A bar is written to stderr, and no stored output may hold stderr.
    changed["RAI_PROGRESS"] = "off"
    # The debugger of the kernel is not used, and warns on the terminal.
    changed["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    changed["PYTHONHASHSEED"] = "0"
    changed["SOURCE_DATE_EPOCH"] = "1577836800"
    # The kernel named python3 is this interpreter's, whatever a user has registered under it.
    changed["JUPYTER_PATH"] = str(Path(sys.prefix, "share", "jupyter"))
    # The helper of this checkout is imported, whatever else is installed.
    paths = [str(root()), *filter(None, [environment.get("PYTHONPATH")])]
    changed["PYTHONPATH"] = os.pathsep.join(paths)
    return changed


def execute(
    notebook: str,
    profile: str,
    overrides: Mapping[str, Any] | None = None,
    folder: Path = ROOT,
    newer: Sequence[str] | None = None,
) -> Path:
    """Run ``notebooks/<notebook>.ipynb`` and publish what it made; return the executed notebook.

    With ``overrides`` the tree is ``build/custom``, else ``build/<profile>``. The full profile
    publishes to ``figures/<notebook>``, every other tree to ``build/<tree>/figures/<notebook>``.

    Args:
        notebook: name without suffix.
        profile: ``"full"`` (the notebook's own defaults) or ``"quick"``.
        overrides: parameters to set besides the profile's.
        folder: the project's folder.
        newer: what make found to be newer than the executed notebook. Where that is the notebook
            alone, and the code and the text are those of the last run, it was only saved, and is
            not run again. None runs it.

    Raises:
        ValueError: unknown notebook, profile or parameter, a parameter out of range, a malformed
            marker in its prose, figures that cannot be written, or another run of the same
            notebook in the same tree.
        TypeError: a parameter of the wrong type.
        NotebookError: a cell failed, the kernel died, the notebook did not publish, or what it
            published could not be put in its place.
        KeyboardInterrupt: the run was interrupted.
    """
    source = folder / "notebooks" / f"{notebook}.ipynb"
    parameters = run_parameters(source, profile, overrides or {}, folder)
    tree = CUSTOM if overrides else profile
    target, figures = _executed_path(folder, tree, notebook), _figures_path(folder, tree, notebook)
    with _only_run(folder / "build" / tree / "running", notebook, tree) as running:
        _check_room(figures)
        with catalogue.sets_to_itself(folder) if tree == "full" else contextlib.nullcontext():
            repair(figures)
        if newer == [str(source.relative_to(folder))] and _is_only_saved(source, target, figures):
            os.utime(target)
            _say(f"{notebook}  {tree}  saved without a change, not run again")
            return target
        finished = target.parent / "finished" / notebook
        if (finished / source.name).exists():
            _say(
                f"{notebook}  {tree}  an earlier run is not published: {_how_to_publish(finished)}"
            )
        shutil.rmtree(running, ignore_errors=True)
        running.mkdir(parents=True)
        for outdated in (target.parent / "failed").glob(f"{notebook}.*"):
            outdated.unlink()
        workplace = Path(tempfile.mkdtemp(dir=running))
        _say(f"{notebook}  {tree}  running …")
        start = time.monotonic()
        executed, log = workplace / source.name, running / f"{notebook}.log"
        made = workplace / "figures"
        try:
            with _quiet(log), _temporary_files_in(running):
                _run_papermill(source, executed, {**parameters, PUBLISH_TO: str(made)})
            record = _finished_set(made, notebook)
            _fill_prose(executed, record)
            _move_links(executed, source, target, figures)
        except BaseException as error:
            failed = _keep_failed(executed, log, source, target.parent / "failed")
            shutil.rmtree(running, ignore_errors=True)
            where = f"; see {failed.relative_to(folder)}" if failed else ""
            if isinstance(error, KeyboardInterrupt):
                _say(f"{notebook}  {tree}  interrupted, nothing was published{where}")
                raise
            raise NotebookError(
                f"{notebook}  {tree}  failed {_reason(failed, error)}{where}"
            ) from error
        shutil.rmtree(finished, ignore_errors=True)
        finished.parent.mkdir(exist_ok=True)
        workplace.rename(finished)
        shutil.rmtree(running, ignore_errors=True)
        _publish_finished(notebook, tree, folder)
    duration = _duration(time.monotonic() - start)
    _say(f"{notebook}  {tree}  done in {duration} -> {figures.relative_to(folder)}")
    return target


def publish_finished(notebook: str, tree: str, folder: Path = ROOT) -> Path:
    """Publish a run that finished but could not be published; return the executed notebook.

    Args:
        notebook: name without suffix.
        tree: ``"full"``, ``"quick"`` or ``"custom"``.
        folder: the project's folder.

    Raises:
        ValueError: there is no such run, or the notebook is running.
        NotebookError: it can still not be published.
    """
    finished = folder / "build" / tree / "finished" / notebook
    if not (finished / f"{notebook}.ipynb").is_file():
        raise ValueError(f"expected a finished run at {finished.relative_to(folder)}, found none")
    with _only_run(folder / "build" / tree / "running", notebook, tree):
        _publish_finished(notebook, tree, folder)
    return _executed_path(folder, tree, notebook)


def _publish_finished(notebook: str, tree: str, folder: Path) -> None:
    target = _executed_path(folder, tree, notebook)
    finished = target.parent / "finished" / notebook
    try:
        if tree == "full":
            publish_with_index(finished / "figures", folder, notebook)
        else:
            publish(finished / "figures", _figures_path(folder, tree, notebook))
        (finished / target.name).replace(target)
    except (OSError, ValueError) as error:
        raise NotebookError(
            f"{notebook}  {tree}  finished, but not published: {error}; it is kept in "
            f"{finished.relative_to(folder)}: {_how_to_publish(finished)}"
        ) from error
    shutil.rmtree(finished)


def _how_to_publish(finished: Path) -> str:
    # build/<tree>/finished/<notebook>
    tree, folder = finished.parents[1].name, finished.parents[3]
    own = Path(sys.prefix) == folder / ".venv"
    python = ".venv/bin/python" if own else "python"
    return f"{python} -m rai_utils.publishing.pipeline publish {finished.name} --tree {tree}"


def _executed_path(folder: Path, tree: str, notebook: str) -> Path:
    return folder / "build" / tree / f"{notebook}.ipynb"


def _figures_path(folder: Path, tree: str, notebook: str) -> Path:
    return (folder if tree == "full" else folder / "build" / tree) / "figures" / notebook


def _check_room(figures: Path) -> None:
    """Refuse a place that will not take a set as large as the last one, before the long run."""
    last = sum(path.stat().st_size for path in figures.glob("*")) if figures.is_dir() else 0
    try:
        figures.parent.mkdir(parents=True, exist_ok=True)
        if figures.exists() and not os.access(figures, os.W_OK):
            raise PermissionError(f"no permission to write to {figures.name}")
        with tempfile.TemporaryFile(dir=figures.parent) as probe:
            probe.write(bytes(last + 2**20))
    except OSError as error:
        raise ValueError(
            f"figures must be writable and have room in {figures.parent}, got {error}"
        ) from error


def _is_only_saved(source: Path, target: Path, figures: Path) -> bool:
    """Return whether the last run in ``target`` was of the code and the text of ``source``."""
    if not target.is_file():
        return False
    committed, executed = (nbformat.read(path, as_version=4).cells for path in (source, target))
    try:
        record = read_metrics(figures)
        for cell in committed:
            if cell.cell_type == "markdown":
                text = prose.fill(cell.source, record)
                cell.source = _with_links_moved(text, source, target, figures)
    except ValueError:  # no set, or a number that it does not have
        return False
    executed = [cell for cell in executed if INJECTED_TAG not in _tags(cell)]
    return [(cell.cell_type, cell.source) for cell in committed] == [
        (cell.cell_type, cell.source) for cell in executed
    ]


def run_parameters(
    source: Path, profile: str, overrides: Mapping[str, Any], folder: Path = ROOT
) -> dict[str, Any]:
    """Return the parameters of a run that differ from the defaults, after checking all of them.

    Raises:
        ValueError: as :func:`execute`.
        TypeError: as :func:`execute`.
    """
    if profile not in PROFILES:
        raise ValueError(f"expected a profile of {', '.join(PROFILES)}, got {profile!r}")
    if not source.is_file():
        known = ", ".join(sorted(path.stem for path in source.parent.glob("*.ipynb"))) or "none"
        raise ValueError(f"expected a notebook of {known}, got {source.stem!r}")
    notebook = nbformat.read(source, as_version=4)
    declared = declared_parameters(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose.names(cell.source)
    chosen: dict[str, Any] = {}
    if profile != "full":
        path = folder / "notebooks" / "profiles" / profile / f"{source.stem}.yaml"
        where = str(path.relative_to(folder))
        chosen |= checked_parameters(declared, read_profile(path), where)
    chosen |= checked_parameters(declared, overrides, "the command")
    check_ranges(declared | chosen, declared_ranges(notebook))
    return chosen


def _run_papermill(source: Path, target: Path, parameters: Mapping[str, Any]) -> None:
    # Imported here, so that a wrong parameter is refused at once.
    import papermill

    previous = dict(os.environ)
    os.environ.clear()
    os.environ.update(kernel_environment(previous))
    try:
        with warnings.catch_warnings():
            # What the tools below papermill warn of is nothing that a reader can change.
            warnings.simplefilter("ignore")
            papermill.execute_notebook(
                _without_fields(source),
                _without_fields(target),
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=source.parent,
            )
    finally:
        os.environ.clear()
        os.environ.update(previous)


def _without_fields(path: Path) -> str:
    """Return a path for papermill, which reads ``{name}`` in it as a parameter."""
    return str(path).replace("{", "{{").replace("}", "}}")


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Let this process and its kernel make their temporary files where a killed run is cleaned."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    variable = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        os.environ.pop("TMPDIR")
        if variable is not None:
            os.environ["TMPDIR"] = variable


def _finished_set(made: Path, notebook: str) -> dict[str, Any]:
    """Return the record of a set of figures, after checking that the set is whole."""
    record = read_metrics(made)
    if record["notebook"] != notebook:
        raise ValueError(f"expected a set of {notebook}, got one of {record['notebook']}")
    expected = {f"{name}{suffix}" for name in record["figures"] for suffix in FIGURE_SUFFIXES}
    found = {path.name for path in made.iterdir()}
    if found != expected | {METRICS_FILE}:
        different = ", ".join(sorted(found ^ (expected | {METRICS_FILE})))
        raise ValueError(f"expected the figures that {METRICS_FILE} lists, but not so: {different}")
    return record


def _fill_prose(path: Path, record: Mapping[str, Any]) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = prose.fill(cell.source, record)
    nbformat.write(notebook, path)


def _move_links(path: Path, source: Path, target: Path, figures: Path) -> None:
    """Let the relative links of the text lead where they led, from where the notebook will be."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _with_links_moved(cell.source, source, target, figures)
    nbformat.write(notebook, path)


def _with_links_moved(text: str, source: Path, target: Path, figures: Path) -> str:
    published = source.parent.parent / "figures" / source.stem

    def moved(link: re.Match[str]) -> str:
        place = Path(os.path.normpath(source.parent / link["path"]))
        if place.is_relative_to(published):
            place = figures / place.relative_to(published)
        return link["opening"] + Path(os.path.relpath(place, target.parent)).as_posix()

    return _RELATIVE_LINK.sub(moved, text)


def _keep_failed(executed: Path, log: Path, source: Path, folder: Path) -> Path | None:
    """Move what a failed run left into ``folder``; return the notebook, if it got that far."""
    folder.mkdir(parents=True, exist_ok=True)
    if log.is_file():
        log.replace(folder / log.name)
    if not executed.is_file():
        return None
    failed = folder / executed.name
    _move_links(executed, source, failed, source.parent.parent / "figures" / source.stem)
    return executed.replace(failed)


def _reason(failed: Path | None, error: BaseException) -> str:
    """Return which cell failed, and the last line of its error."""
    last = str(error).strip().splitlines() or [""]
    message = f"{type(error).__name__}: {last[0]}"
    if failed is None:
        return f"before its first cell: {message}"
    cells = [
        cell
        for cell in nbformat.read(failed, as_version=4).cells
        if cell.cell_type == "code" and not {INJECTED_TAG, ERROR_MARKER_TAG} & set(_tags(cell))
    ]
    from nbclient.exceptions import DeadKernelError

    reached = [cell for cell in cells if cell.metadata.papermill.start_time]
    wrong = [cell for cell in cells if _error_outputs(cell)]
    # A kernel that dies writes no output; the last cell that was reached is where it died.
    if not wrong and (len(reached) < len(cells) or isinstance(error, DeadKernelError)):
        wrong = reached[-1:]
    if not wrong:
        return f"after its last cell: {message}"
    for output in _error_outputs(wrong[0]):
        lines = f"{output.ename}: {output.evalue}".strip().splitlines()
        message = lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"
    opening = next(iter(wrong[0].source.strip().splitlines()), "")
    return f"in code cell {cells.index(wrong[0]) + 1} of {len(cells)} ({opening[:60]}): {message}"


def _error_outputs(cell: NotebookNode) -> list[NotebookNode]:
    return [output for output in cell.outputs if output.output_type == "error"]


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Send what this process and its kernel write on the terminal into ``log``."""
    kept = {1: os.dup(1), 2: os.dup(2)}
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("wb") as target:
        for stream in kept:
            os.dup2(target.fileno(), stream)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, copy in kept.items():
                os.dup2(copy, stream)
                os.close(copy)


@contextlib.contextmanager
def _only_run(running: Path, notebook: str, tree: str) -> Iterator[Path]:
    """Hold a lock that ends with this process, and yield the folder that it protects."""
    running.mkdir(parents=True, exist_ok=True)
    with (running / f"{notebook}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"expected one run of {notebook} ({tree}) at a time, got a second one"
            ) from error
        yield running / notebook


# --- publishing -------------------------------------------------------------------------------


def publish(made: Path, figures: Path) -> None:
    """Swap the folder ``figures`` for ``made``; each moment's state is whole or repairable.

    The new set is first copied beside the old one, so that each step is one rename.
    """
    new, old = aside(figures)
    figures.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(made, new)
        if figures.exists():
            figures.rename(old)
        new.rename(figures)
        if old.exists():
            shutil.rmtree(old)
    except BaseException:
        repair(figures)
        raise


def publish_with_index(made: Path, folder: Path, name: str) -> None:
    """Publish ``made`` as ``figures/<name>`` and bring what is generated from all sets up to date.

    One run at a time does so: no list is made while another set is being swapped.
    """
    with catalogue.sets_to_itself(folder):
        publish(made, folder / "figures" / name)
        catalogue.write_index(folder)


# --- writing back -----------------------------------------------------------------------------


def write_back(notebook: str, folder: Path = ROOT) -> bool:
    """Put the outputs of the full run into the committed notebook; return whether it changed.

    Sources, cell ids and tags stay as committed, numbers in the prose are made from the published
    metrics, and execution counts run from 1. Timings and everything else that papermill adds stay
    out. The executed notebooks that were up to date stay so for make.

    Raises:
        ValueError: no full run, or one of other code than the committed notebook's.
    """
    source = folder / "notebooks" / f"{notebook}.ipynb"
    executed_path = folder / "build" / "full" / source.name
    for path, what in ((source, "a notebook"), (executed_path, "a finished full run")):
        if not path.is_file():
            raise ValueError(f"expected {what} at {path.relative_to(folder)}, found none")
    committed = nbformat.read(source, as_version=4)
    executed = [
        cell
        for cell in nbformat.read(executed_path, as_version=4).cells
        if INJECTED_TAG not in _tags(cell)
    ]
    _check_same_code(committed.cells, executed, notebook)
    with catalogue.sets_to_itself(folder):
        record = read_metrics(folder / "figures" / notebook)
    count = 0
    for cell, run in zip(committed.cells, executed, strict=True):
        if cell.cell_type == "markdown":
            cell.source = prose.fill(cell.source, record)
        if cell.cell_type != "code":
            continue
        for added in ("papermill", "execution", "ExecuteTime"):
            cell.metadata.pop(added, None)
        count += run.execution_count is not None
        cell.execution_count = None if run.execution_count is None else count
        cell.outputs = [
            _stable_output(output, cell.execution_count)
            for output in run.outputs
            # A widget lives only as long as its kernel.
            if WIDGET_VIEW not in output.get("data", {})
        ]
    committed.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    return _write_notebook(committed, source)


def filled_readme(folder: Path = ROOT) -> str:
    """Return README.md with its numbers, its claims and its badges made from what is published.

    Raises:
        ValueError: a marker that ``prose.fill`` refuses, or a block that is not closed.
    """
    records = catalogue.published_sets(folder)
    text = prose.fill((folder / "README.md").read_text(encoding="utf-8"), records)
    if "<!--claims-->" in text:
        text = prose.fill_block(text, "claims", catalogue.claims_in_short(records))
    if "<!--badges-->" in text:
        text = prose.fill_block(text, "badges", catalogue.badges(folder))
    return text


def fill_readme(folder: Path = ROOT) -> bool:
    """Write README.md as :func:`filled_readme` makes it; return whether it changed.

    Raises:
        ValueError: as :func:`filled_readme`.
    """
    readme = folder / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = filled_readme(folder)
    readme.write_text(after, encoding="utf-8")
    return after != before


def _check_same_code(
    committed: Sequence[NotebookNode], executed: Sequence[NotebookNode], notebook: str
) -> None:
    def outline(cells: Sequence[NotebookNode]) -> list[tuple[str, str]]:
        return [(cell.cell_type, cell.source if cell.cell_type == "code" else "") for cell in cells]

    if outline(committed) != outline(executed):
        raise ValueError(
            f"expected the code of the last full run in {notebook}, got other code: "
            f"run make {notebook} first"
        )


def _stable_output(output: NotebookNode, execution_count: int | None) -> NotebookNode:
    if output.output_type == "execute_result":
        output.execution_count = execution_count
    return output


def _write_notebook(notebook: NotebookNode, path: Path) -> bool:
    text = nbformat.writes(notebook) + "\n"
    if path.read_text(encoding="utf-8") == text:
        return False
    before = path.stat().st_mtime_ns
    folder = path.parent.parent
    runs = [folder / "build" / tree / path.name for tree in PROFILES]
    current = [run for run in runs if run.is_file() and run.stat().st_mtime_ns >= before]
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    # Only outputs and generated numbers changed, so what was up to date still is.
    for run in current:
        os.utime(run)
    return True


# --- command line -----------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None, folder: Path = ROOT) -> int:
    """Run the command line; return 0, 1 (a notebook failed), 2 (refused) or 130 (interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m rai_utils.publishing.pipeline")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("execute", help="run a notebook and publish its figures")
    run.add_argument("notebook")
    run.add_argument("--profile", default="full", help=f"one of {', '.join(PROFILES)}")
    run.add_argument(
        "--parameters", default="", metavar="ASSIGNMENTS", help='like "depth=50 rates=[0.1, 0.01]"'
    )
    run.add_argument("--newer", help="what make found to be newer than the executed notebook")
    late = commands.add_parser("publish", help="publish a run that could not be published")
    late.add_argument("notebook")
    late.add_argument("--tree", default="full", choices=(*PROFILES, CUSTOM))
    back = commands.add_parser("write-back", help="store the outputs of the full run")
    back.add_argument("notebook", nargs="+")
    chosen = parser.parse_args(arguments)
    replace_unprintable()
    try:
        with interruptible():
            _run_command(chosen, folder)
    except KeyboardInterrupt:
        # The cell that was running leaves a task behind, which is told of at exit.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        return 130
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    except (ValueError, TypeError, OSError) as error:
        print(f"{chosen.command}: {error}", file=sys.stderr)
        return 2
    return 0


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on whatever ends a command politely.

    make ends its children with SIGTERM, a closed terminal with SIGHUP: both are like Ctrl-C, which
    a shell lets its background jobs ignore.
    """
    handlers = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def replace_unprintable() -> None:
    """Let what the terminal cannot show be printed as a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _run_command(chosen: argparse.Namespace, folder: Path) -> None:
    if chosen.command == "execute":
        overrides = parse_assignments(chosen.parameters)
        newer = None if chosen.newer is None else chosen.newer.split()
        execute(Path(chosen.notebook).stem, chosen.profile, overrides, folder, newer)
        return
    if chosen.command == "publish":
        published = publish_finished(Path(chosen.notebook).stem, chosen.tree, folder)
        _say(f"{published.stem}  {chosen.tree}  published")
        return
    for name in (Path(given).stem for given in chosen.notebook):
        changed = write_back(name, folder)
        _say(f"{name}  notebook  {'written' if changed else 'unchanged'}")
    _say(f"README.md  {'written' if fill_readme(folder) else 'unchanged'}")


def _say(line: str) -> None:
    print(line, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


if __name__ == "__main__":
    sys.exit(main())

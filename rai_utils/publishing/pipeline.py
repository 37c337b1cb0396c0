"""Run a notebook with parameters, and publish its results only when it has finished.

``python -m rai_utils.publishing.pipeline execute rai-demo --profile full`` runs a notebook in a
folder of its own under ``build/``. When the last cell is done, the run is moved to
``build/<tree>/finished/``, the figure folder is swapped for the new one, and the executed notebook
is moved to ``build/<tree>/<notebook>.ipynb`` last: make reads the time of that file. A failure,
Ctrl-C or ``kill -9`` at any moment leaves the last good set whole. ``publish rai-demo`` publishes
a run that finished and could not be published, because the disk was full or a folder could not be
written. ``write-back rai-demo`` puts the outputs of the full run into the committed notebook.
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
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from rai_utils.publishing import catalogue, prose
from rai_utils.publishing.catalogue import aside, repair
from rai_utils.publishing.claims import (
    FIGURE_SUFFIXES,
    METRICS_FILE,
    read_metrics,
    root,
    write_whole,
)
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
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
NOTEBOOK_METADATA = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
_ADDED_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}
# A link or a picture, in Markdown or HTML, that is no address, no anchor and no attachment.
_RELATIVE_LINK = re.compile(
    r"""(?P<opening>\]\(<?|\b(?:src|href)=["'])(?![a-zA-Z][\w+.-]*:|[/#])(?P<path>[^\s()<>"'#?]+)"""
)


class NotebookError(RuntimeError):
    """A notebook stopped before its end; the message is the line that a person reads."""


class _Run:
    """A run of a notebook in a tree, and where its files lie."""

    def __init__(self, notebook: str, tree: str, folder: Path) -> None:
        self.notebook, self.tree, self.folder = notebook, tree, folder
        self.place = folder / "build" / tree
        self.source = folder / "notebooks" / f"{notebook}.ipynb"
        self.executed = self.place / self.source.name
        self.finished = self.place / "finished" / notebook
        self.figures = (folder if tree == "full" else self.place) / "figures" / notebook

    def __str__(self) -> str:
        return f"{self.notebook}  {self.tree}"


def kernel_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` as the kernels of the pipeline and of nbval need it."""
    # MPLBACKEND would keep the figures out of the notebook; the others are a reader's own.
    dropped = ("MPLBACKEND", "PYTHONSTARTUP", "PYTHONIOENCODING")
    return {name: value for name, value in environment.items() if name not in dropped} | {
        # No settings but the study's: matplotlib's defaults, and an IPython without a profile.
        "MATPLOTLIBRC": os.devnull,
        "IPYTHONDIR": str(root() / "build" / "ipython"),
        "JUPYTER_CONFIG_DIR": str(root() / "build" / "jupyter"),
        "JUPYTER_NO_CONFIG": "1",
        # A bar is written to stderr, and no stored output may hold stderr.
        "RAI_PROGRESS": "off",
        # The debugger of the kernel is not used, and warns on the terminal.
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": "1577836800",
        # The kernel named python3 is this interpreter's, whatever a user has registered under it.
        "JUPYTER_PATH": str(Path(sys.prefix, "share", "jupyter")),
        # The helper of this checkout is imported, whatever else is installed.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root()), environment.get("PYTHONPATH")])),
    }


# --- running ----------------------------------------------------------------------------------


def execute(
    notebook: str,
    profile: str,
    overrides: Mapping[str, Any],
    folder: Path,
    newer: Sequence[str] | None,
) -> None:
    """Run ``notebooks/<notebook>.ipynb`` and publish what it made.

    With ``overrides`` the tree is ``build/custom``, else ``build/<profile>``. The full profile
    publishes to ``figures/<notebook>``, every other tree to ``build/<tree>/figures/<notebook>``.
    Where the notebook is all that make found to be ``newer`` than the last run, and its code and
    text are those of that run, it was only saved, and is not run again. None runs it.

    Raises:
        ValueError: unknown notebook, profile or parameter, a parameter out of range, a malformed
            marker in its prose, figures that cannot be written, or another run of the same
            notebook in the same tree.
        TypeError: a parameter of the wrong type.
        NotebookError: a cell failed, the kernel died, the notebook did not publish, or what it
            published could not be put in its place.
        KeyboardInterrupt: the run was interrupted.
    """
    run = _Run(notebook, CUSTOM if overrides else profile, folder)
    parameters = run_parameters(run.source, profile, overrides, folder)
    with _only_run(run) as running:
        _check_room(run.figures)
        with catalogue.sets_to_itself(folder) if run.tree == "full" else contextlib.nullcontext():
            repair(run.figures)
        if newer == [str(run.source.relative_to(folder))] and _is_only_saved(run):
            os.utime(run.executed)
            _say(f"{run}  saved without a change, not run again")
            return
        if (run.finished / run.source.name).exists():
            _say(f"{run}  an earlier run is not published: {_how_to_publish(run)}")
        _say(f"{run}  running …")
        start = time.monotonic()
        made = _run_apart(run, parameters, running)
        shutil.rmtree(run.finished, ignore_errors=True)
        run.finished.parent.mkdir(exist_ok=True)
        made.rename(run.finished)
        shutil.rmtree(running)
        _publish_finished(run)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    duration = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    _say(f"{run}  done in {duration} -> {run.figures.relative_to(folder)}")


def run_parameters(
    source: Path, profile: str, overrides: Mapping[str, Any], folder: Path = ROOT
) -> dict[str, Any]:
    """Return the parameters of a run that differ from the defaults; errors as `execute`."""
    if profile not in PROFILES:
        raise ValueError(f"the profile must be {' or '.join(PROFILES)}, got {profile!r}")
    if not source.is_file():
        known = ", ".join(sorted(path.stem for path in source.parent.glob("*.ipynb"))) or "none"
        raise ValueError(f"the notebook must be one of {known}, got {source.stem!r}")
    notebook = nbformat.read(source, as_version=4)
    declared = declared_parameters(notebook)
    for cell in _texts(notebook.cells):
        prose.names(cell.source)
    chosen: dict[str, Any] = {}
    if profile != "full":
        path = folder / "notebooks" / "profiles" / profile / f"{source.stem}.yaml"
        chosen = checked_parameters(declared, read_profile(path), str(path.relative_to(folder)))
    chosen |= checked_parameters(declared, overrides, "the command")
    check_ranges(declared | chosen, declared_ranges(notebook))
    return chosen


def read_profile(path: Path) -> dict[str, Any]:
    """Return the parameters that a profile file sets; a ValueError if it is no YAML mapping."""
    try:
        profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"the profile must be YAML in {path}, got an error: {error}") from error
    if not isinstance(profile, dict):
        raise ValueError(f"{path} must hold name: value lines, got {type(profile).__name__}")
    return profile


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


def _is_only_saved(run: _Run) -> bool:
    """Return whether the last run was of the code and the text of the committed notebook."""
    if not run.executed.is_file():
        return False
    committed = nbformat.read(run.source, as_version=4).cells
    try:
        record = read_metrics(run.figures)
        for cell in _texts(committed):
            cell.source = _moved(prose.fill(cell.source, record), run, run.executed)
    except ValueError:  # no set, or a number that it does not have
        return False
    return [(cell.cell_type, cell.source) for cell in committed] == [
        (cell.cell_type, cell.source) for cell in _cells_of_run(run.executed)
    ]


def _run_apart(run: _Run, parameters: Mapping[str, Any], running: Path) -> Path:
    """Run a notebook in a folder of its own below ``running``; return that folder.

    A run that fails is kept in ``build/<tree>/failed``.
    """
    shutil.rmtree(running, ignore_errors=True)
    workplace, failed = running / "run", run.place / "failed" / run.source.name
    workplace.mkdir(parents=True)
    for outdated in failed.parent.glob(f"{run.notebook}.*"):
        outdated.unlink()
    executed, log = workplace / run.source.name, running / f"{run.notebook}.log"
    made = workplace / "figures"
    try:
        with _like_a_kernel(running, log):
            _run_papermill(run.source, executed, {**parameters, PUBLISH_TO: str(made)})
        record = _finished_set(made, run.notebook)
        _rewrite(executed, lambda text: _moved(prose.fill(text, record), run, run.executed))
    except BaseException as error:
        failed.parent.mkdir(parents=True, exist_ok=True)
        if log.is_file():
            log.replace(failed.with_suffix(".log"))
        if executed.is_file():
            _rewrite(executed, lambda text: _moved(text, run, failed))
            executed.replace(failed)
        shutil.rmtree(running, ignore_errors=True)
        where = f"; see {failed.relative_to(run.folder)}" if failed.is_file() else ""
        if isinstance(error, KeyboardInterrupt):
            _say(f"{run}  interrupted, nothing was published{where}")
            raise
        raise NotebookError(f"{run}  failed {_reason(failed, error)}{where}") from error
    return workplace


def _run_papermill(source: Path, target: Path, parameters: Mapping[str, Any]) -> None:
    # Imported here, so that a wrong parameter is refused at once.
    import papermill

    # It reads {name} in a path as a parameter.
    paths = [str(path).replace("{", "{{").replace("}", "}}") for path in (source, target)]
    options = {"kernel_name": "python3", "language": "python", "progress_bar": False}
    with warnings.catch_warnings():
        # What the tools below papermill warn of is nothing that a reader can change.
        warnings.simplefilter("ignore")
        papermill.execute_notebook(
            *paths, parameters=dict(parameters), cwd=source.parent, **options
        )


@contextlib.contextmanager
def _like_a_kernel(temporary: Path, log: Path) -> Generator[None]:
    """Give this process the environment of its kernel, a folder for temporary files, and a log.

    The log gets what both would write on the terminal.
    """
    environment, folder = dict(os.environ), tempfile.tempdir
    terminal = {stream: os.dup(stream) for stream in (1, 2)}
    sys.stdout.flush()
    os.environ.clear()
    os.environ.update(kernel_environment(environment), TMPDIR=str(temporary))
    tempfile.tempdir = str(temporary)
    try:
        with log.open("wb") as target:
            for stream in terminal:
                os.dup2(target.fileno(), stream)
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = folder
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, copy in terminal.items():
            os.dup2(copy, stream)
            os.close(copy)


@contextlib.contextmanager
def _only_run(run: _Run) -> Generator[Path]:
    """Hold a lock that ends with this process, and yield the folder that it protects."""
    running = run.place / "running" / run.notebook
    running.parent.mkdir(parents=True, exist_ok=True)
    with running.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"there must be one run of {run.notebook} ({run.tree}) at a time, got a second one"
            ) from error
        yield running


def _finished_set(made: Path, notebook: str) -> dict[str, Any]:
    """Return the record of a set of figures, after checking that the set is whole."""
    record = read_metrics(made)
    if record["notebook"] != notebook:
        raise ValueError(f"the set must be one of {notebook}, got one of {record['notebook']}")
    listed = {f"{name}{suffix}" for name in record["figures"] for suffix in FIGURE_SUFFIXES}
    different = {path.name for path in made.iterdir()} ^ listed ^ {METRICS_FILE}
    if different:
        names = ", ".join(sorted(different))
        raise ValueError(f"figures must be those that {METRICS_FILE} lists, got other: {names}")
    return record


def _texts(cells: Sequence[NotebookNode]) -> list[NotebookNode]:
    return [cell for cell in cells if cell.cell_type == "markdown"]


def _cells_of_run(executed: Path) -> list[NotebookNode]:
    cells = nbformat.read(executed, as_version=4).cells
    return [cell for cell in cells if not _ADDED_BY_PAPERMILL & {*cell.metadata.get("tags", [])}]


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    """Change each text of a notebook."""
    notebook = nbformat.read(path, as_version=4)
    for cell in _texts(notebook.cells):
        cell.source = change(cell.source)
    nbformat.write(notebook, path)


def moved_links(
    text: str, source: Path, target: Path, meant: Callable[[Path], Path] = lambda place: place
) -> str:
    """Return a text of ``source`` as it may stand in ``target``: its relative links lead as before.

    ``meant`` may name another place in place of each.
    """

    def moved(link: re.Match[str]) -> str:
        place = meant(Path(os.path.normpath(source.parent / link["path"])))
        return link["opening"] + Path(os.path.relpath(place, target.parent)).as_posix()

    return _RELATIVE_LINK.sub(moved, text)


def _moved(text: str, run: _Run, target: Path) -> str:
    """Let the relative links of a text lead where they led, or to the figures of this run."""
    published = run.folder / "figures" / run.notebook

    def of_this_run(place: Path) -> Path:
        own = target == run.executed and place.is_relative_to(published)
        return run.figures / place.relative_to(published) if own else place

    return moved_links(text, run.source, target, of_this_run)


def _reason(failed: Path, error: BaseException) -> str:
    """Return which cell failed, and the last line of its error."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    message = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
    cells = _cells_of_run(failed) if failed.is_file() else []
    cells = [cell for cell in cells if cell.cell_type == "code"]
    reached = [cell for cell in cells if cell.metadata.papermill.start_time]
    if not reached:
        return f"before its first cell: {message}"
    stopped = isinstance(error, PapermillExecutionError | DeadKernelError)
    if not stopped and len(reached) == len(cells):
        return f"after its last cell: {message}"
    for output in reached[-1].outputs:
        if output.output_type == "error":
            lines = f"{output.ename}: {output.evalue}".strip().splitlines()
            message = " … ".join(dict.fromkeys([lines[0], lines[-1]]))
    opening = next(iter(reached[-1].source.strip().splitlines()), "")
    return f"in code cell {len(reached)} of {len(cells)} ({opening[:60]}): {message}"


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


def _publish_finished(run: _Run) -> None:
    kept = run.finished.relative_to(run.folder)
    if not (run.finished / run.source.name).is_file():
        raise ValueError(f"{kept} must be a finished run, got none")
    try:
        if run.tree == "full":
            publish_with_index(run.finished / "figures", run.folder, run.notebook)
        else:
            publish(run.finished / "figures", run.figures)
        (run.finished / run.source.name).replace(run.executed)
    except (OSError, ValueError) as error:
        raise NotebookError(
            f"{run}  finished, but not published: {error}; it is kept in {kept}: "
            f"{_how_to_publish(run)}"
        ) from error
    shutil.rmtree(run.finished)


def _how_to_publish(run: _Run) -> str:
    python = ".venv/bin/python" if Path(sys.prefix) == run.folder / ".venv" else "python"
    return f"{python} -m rai_utils.publishing.pipeline publish {run.notebook} --tree {run.tree}"


# --- writing back -----------------------------------------------------------------------------


def write_back(notebook: str, folder: Path = ROOT) -> bool:
    """Put the outputs of the full run into the committed notebook; return whether it changed.

    Sources, cell ids and tags stay as committed, numbers in the prose are made from the published
    metrics, and execution counts run from 1. Timings and everything else that papermill adds stay
    out. The executed notebooks that were up to date stay so for make. Without a full run, or with
    one of other code than the committed notebook's, a ValueError says so.
    """
    run = _Run(notebook, "full", folder)
    for path, what in ((run.source, "a notebook"), (run.executed, "a finished full run")):
        if not path.is_file():
            raise ValueError(f"{path.relative_to(folder)} must be {what}, got none")
    committed, executed = nbformat.read(run.source, as_version=4), _cells_of_run(run.executed)
    codes = [
        [cell.source if cell.cell_type == "code" else None for cell in cells]
        for cells in (committed.cells, executed)
    ]
    if codes[0] != codes[1]:
        raise ValueError(
            f"the code of {notebook} must be that of the last full run, got other code: "
            f"run make {notebook} first"
        )
    with catalogue.sets_to_itself(folder):
        record = read_metrics(run.figures)
    count = 0
    for cell, ran in zip(committed.cells, executed, strict=True):
        if cell.cell_type == "markdown":
            cell.source = prose.fill(cell.source, record)
        if cell.cell_type != "code":
            continue
        for added in ("papermill", "execution", "ExecuteTime"):
            cell.metadata.pop(added, None)
        count += ran.execution_count is not None
        cell.execution_count = None if ran.execution_count is None else count
        # A widget lives only as long as its kernel.
        cell.outputs = [each for each in ran.outputs if WIDGET_VIEW not in each.get("data", {})]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
    committed.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    text = nbformat.writes(committed) + "\n"
    if run.source.read_text(encoding="utf-8") == text:
        return False
    before = run.source.stat().st_mtime
    runs = [_Run(notebook, tree, folder).executed for tree in PROFILES]
    current = [path for path in runs if path.is_file() and path.stat().st_mtime >= before]
    write_whole(run.source, text)
    # Only outputs and generated numbers changed, so what was up to date still is.
    for path in current:
        os.utime(path)
    return True


def filled_readme(folder: Path = ROOT) -> str:
    """Return README.md with its numbers, its claims and its badges made from what is published."""
    records = catalogue.published_sets(folder)
    text = prose.fill((folder / "README.md").read_text(encoding="utf-8"), records)
    if "<!--claims-->" in text:
        text = prose.fill_block(text, "claims", catalogue.verdict_table(records))
    if "<!--badges-->" in text:
        text = prose.fill_block(text, "badges", catalogue.badges(folder))
    return text


# --- command line -----------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None, folder: Path = ROOT) -> int:
    """Run the command line; return 0, 1 (a notebook failed), 2 (refused) or 130 (interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m rai_utils.publishing.pipeline")
    commands = parser.add_subparsers(dest="command", required=True)
    once = commands.add_parser("execute", help="run a notebook and publish its figures")
    once.add_argument("--profile", default="full", help=f"one of {', '.join(PROFILES)}")
    once.add_argument("--parameters", default="", help='like "depth=50 rates=[0.1, 0.01]"')
    once.add_argument("--newer", type=str.split, help="what make found newer than the last run")
    late = commands.add_parser("publish", help="publish a run that could not be published")
    late.add_argument("--tree", default="full", choices=(*PROFILES, CUSTOM))
    back = commands.add_parser("write-back", help="store the outputs of the full run")
    for command in (once, late, back):
        several = "+" if command is back else None
        command.add_argument("notebook", nargs=several, type=lambda path: Path(path).stem)
    chosen = parser.parse_args(arguments)
    replace_unprintable()
    try:
        with interruptible():
            if chosen.command == "execute":
                overrides = parse_assignments(chosen.parameters)
                execute(chosen.notebook, chosen.profile, overrides, folder, chosen.newer)
            elif chosen.command == "publish":
                run = _Run(chosen.notebook, chosen.tree, folder)
                with _only_run(run):
                    _publish_finished(run)
                _say(f"{run}  published")
            else:
                _write_back_all(chosen.notebook, folder)
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


def _write_back_all(notebooks: Sequence[str], folder: Path) -> None:
    for name in notebooks:
        _say(f"{name}  notebook  {'written' if write_back(name, folder) else 'unchanged'}")
    claims = catalogue.claims_page(catalogue.published_sets(folder))
    for page, text in (("README.md", filled_readme(folder)), ("CLAIMS.md", claims)):
        file = folder / page
        same = file.is_file() and file.read_text(encoding="utf-8") == text
        file.write_text(text, encoding="utf-8")
        _say(f"{page}  {'unchanged' if same else 'written'}")
    # Imported here: a run and its errors need not wait for what draws.
    from rai_utils.publishing.strip import write_strip

    write_strip(folder)


@contextlib.contextmanager
def interruptible() -> Generator[None]:
    """Raise KeyboardInterrupt on whatever ends a command politely.

    make ends its children with SIGTERM, a closed terminal with SIGHUP: both are like Ctrl-C, which
    a shell lets its background jobs ignore.
    """
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in ends}
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


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

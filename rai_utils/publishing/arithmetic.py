"""Does anything hang on how this processor rounds? ``make arithmetic`` runs the study's checks.

Libraries choose their kernels by processor, and kernels differ in the last digits. The settings
below make one processor compute as others would. Under each of them run the fast tests, the quick
profile of every notebook, and the full profile of those that train deep circuits; compared are the
verdicts, the outputs that nbval compares, and the published numbers with their tolerances.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product, repeat
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from rai_utils.publishing.claims import read_metrics, root
from rai_utils.publishing.comparison import disagreements
from rai_utils.publishing.pipeline import PUBLISH_TO, kernel_environment, run_parameters
from rai_utils.publishing.prose import markdown_table
from rai_utils.publishing.settings import NOTEBOOK_SETTINGS, SETTINGS, Setting

# Trained by Rprop from residuals of exactly 0, whose signs are all that counts.
FULL_NOTEBOOKS = ("rai-demo", "rai-grads")
# The package comes before nbval because of what it keeps out.
FAST_TESTS = ("-p", "rai_utils.publishing", "tests", "-m", "not slow")
FAST_TESTS += ("--ignore=tests/test_published.py",)
IGNORED_TAG, INJECTED_TAG = "nbval-ignore-output", "injected-parameters"


Outcome = tuple[NotebookNode, Mapping[str, Any]]
"""An executed notebook and the record that it published."""


def available(settings: Sequence[Setting], flags: Collection[str]) -> list[Setting]:
    """Return the settings that mean something on a processor with these flags."""
    return [setting for setting in settings if not setting.needs or setting.needs in flags]


def compared_outputs(notebook: NotebookNode) -> dict[int, list[str]]:
    """Return what nbval compares, by position of the code cell: texts, and no pictures.

    A run has a cell more than what it is compared with: the parameters that papermill puts in.
    """
    cells = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and INJECTED_TAG not in cell.metadata.get("tags", [])
    ]
    return {
        position: _texts(cell.outputs)
        for position, cell in enumerate(cells)
        if IGNORED_TAG not in cell.metadata.get("tags", [])
    }


def _texts(outputs: Sequence[NotebookNode]) -> list[str]:
    """What is printed, as one text in however many pieces it came, then what is displayed."""
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    shown = [
        str({kind: data for kind, data in output.data.items() if "image/" not in kind})
        for output in outputs
        if output.output_type in ("display_data", "execute_result")
    ]
    return [*([printed] if printed else []), *shown]


def differences(expected: Outcome, found: Outcome) -> list[str]:
    """Return a line for all in which two runs of a notebook do not agree."""
    ours, theirs = compared_outputs(expected[0]), compared_outputs(found[0])
    return disagreements(expected[1], found[1]) + [
        f"code cell {position + 1}: {output} became {theirs.get(position)}"
        for position, output in ours.items()
        if output != theirs.get(position)
    ]


def run_tests(setting: Setting, folder: Path) -> tuple[str, list[str]]:
    """Run the fast tests under a setting; return pytest's summary, and the tests that failed."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ, **setting.variables}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *FAST_TESTS]
    answer = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    lines = answer.stdout.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    counts = [line for line in lines if re.search(r"\d+ (passed|failed|error)", line)]
    if answer.returncode and not failed:
        failed = [answer.stdout[-500:] + answer.stderr[-500:]]
    return re.sub(r" in .*", "", counts[-1].strip("= ")) if counts else "did not run", failed


def run_notebook(setting: Setting, notebook: str, profile: str, folder: Path) -> Outcome:
    """Run a notebook under a setting in a folder of its own; return it and what it published.

    A run that fails is a RuntimeError.
    """
    source = folder / "notebooks" / f"{notebook}.ipynb"
    place = folder / "build" / "arithmetic" / setting.name.replace(" ", "-") / profile
    place.mkdir(parents=True, exist_ok=True)
    executed, figures = place / source.name, place / "figures" / notebook
    parameters = run_parameters(source, profile, {}, folder) | {PUBLISH_TO: str(figures)}
    command = [sys.executable, "-m", "papermill", str(source), str(executed), "--kernel", "python3"]
    command += ["--parameters_yaml", yaml.safe_dump(parameters), "--cwd", str(source.parent)]
    environment = kernel_environment({**os.environ, **setting.variables})
    answer = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if answer.returncode:
        lines = answer.stderr.strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"exit {answer.returncode}: {lines[-1]}")
    return nbformat.read(executed, as_version=4), read_metrics(figures)


def published(notebook: str, folder: Path) -> Outcome:
    """Return the committed notebook and what it published."""
    committed = nbformat.read(folder / "notebooks" / f"{notebook}.ipynb", as_version=4)
    return committed, read_metrics(folder / "figures" / notebook)


def check_tests(settings: Sequence[Setting], folder: Path) -> list[str]:
    """Run the fast tests under each setting, print a table, and return what went wrong."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(run_tests, settings, repeat(folder)))
    names = [setting.name for setting in settings]
    rows = [[name, summary] for name, (summary, _) in zip(names, results, strict=True)]
    print(markdown_table(["fast tests under", "result"], rows), flush=True)
    pairs = zip(names, results, strict=True)
    return [f"{name}: {line}" for name, (_, failed) in pairs for line in failed]


def check_notebooks(
    settings: Sequence[Setting], quick: Sequence[str], full: Sequence[str], folder: Path
) -> list[str]:
    """Run notebooks under each setting, print a table, and return what went wrong.

    A full run is compared with what is published, a quick one with that of the first setting.
    """
    # The longest first, so that no core waits at the end.
    jobs = [*product(reversed(full), ["full"]), *product(quick, ["quick"])]
    wrong: list[str] = []
    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [
            [pool.submit(run_notebook, setting, *job, folder) for setting in settings]
            for job in jobs
        ]
        for (name, profile), own in zip(jobs, runs, strict=True):
            row = [f"{name}, {profile}"]
            for setting, run in zip(settings, own, strict=True):
                try:
                    found = run.result()
                    expected = published(name, folder) if profile == "full" else own[0].result()
                    lines = differences(expected, found)
                except RuntimeError as error:
                    lines = [str(error)]
                wrong += [f"{row[0]}, {setting.name}: {line}" for line in lines]
                row.append(f"{len(lines)} differ" if lines else "agrees")
            rows.append(row)
            print(" | ".join(row), flush=True)
    header = ["notebook", *(setting.name for setting in settings)]
    print("\n" + markdown_table(header, rows), flush=True)
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if all agrees, else 1."""
    parser = argparse.ArgumentParser(prog="python -m rai_utils.publishing.arithmetic")
    parser.add_argument("checks", nargs="*", default=["tests", "notebooks"])
    parser.add_argument("--settings", nargs="*", choices=[setting.name for setting in SETTINGS])
    chosen = parser.parse_args(arguments)
    folder, processor = root(), Path("/proc/cpuinfo")
    flags = processor.read_text().split() if processor.is_file() else []
    settings = available(SETTINGS, flags)
    for setting in SETTINGS:
        if setting not in settings:
            print(f"{setting.name}: left out, this processor lacks {setting.needs}", flush=True)
    if chosen.settings:
        settings = [setting for setting in settings if setting.name in chosen.settings]
    wrong = check_tests(settings, folder) if "tests" in chosen.checks else []
    if "notebooks" in chosen.checks:
        every = sorted(path.stem for path in (folder / "notebooks").glob("*.ipynb"))
        of_notebooks = [setting for setting in settings if setting.name in NOTEBOOK_SETTINGS]
        wrong += check_notebooks(of_notebooks, every, FULL_NOTEBOOKS, folder)
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from rai_utils.publishing import pipeline
from rai_utils.publishing.claims import read_metrics
from rai_utils.publishing.pipeline import (
    kernel_environment,
    main,
    publish,
    publish_with_index,
    repair,
)

PARAMETERS = """\
publish_to = "build/scratch/tiny"
steps = 3  # [1, 9] to take
rate = 0.5  # (0, 1] of each
sizes = [1, 2]  # [1, steps], ascending; a bound is another parameter
"""
STUDY = """\
from rai_utils.publishing.claims import Study
study = Study("tiny", {"steps": steps, "rate": rate, "publish_to": publish_to})
study.record(tolerance=0, doubled=2 * steps)
2 * steps"""
PUBLISH = """\
from rai_utils import plotting
drawn, _ = plotting.figure(panel_height=1)
study.figure("empty", drawn, alt="Nothing.")
study.publish()"""
# The same set, without the time to load torch and what draws.
RECORD = """\
import json, pathlib
doubled = {"value": 2 * steps, "tolerance": 0, "interval": None, "seeds": None}
record = {"notebook": "tiny", "parameters": {"steps": steps, "rate": rate}, "environment": {}}
record |= {"metrics": {"doubled": doubled}, "claims": [], "figures": ["empty"]}
record |= {"descriptions": {"empty": "Nothing."}}
place = pathlib.Path(publish_to)
place.mkdir(parents=True)
for suffix in ("png", "pdf", "json"):
    (place / f"empty.{suffix}").touch()
(place / "metrics.json").write_text(json.dumps(record))"""
PROSE = "# Tiny\n\nTwice is <!--=doubled-->0<!--/-->."
LINKS = (
    PROSE
    + """

![drawn](../figures/tiny/empty.png) [other](other.ipynb#part) [at](https://example.org/a.png)
<img src="../figures/other/a.png"> [here](#part) [kept](attachment:a.png) [readme](<../README.md>)
"""
)
CALL = """\
import sys
from pathlib import Path
from rai_utils.publishing.pipeline import main
sys.exit(main(sys.argv[2:], Path(sys.argv[1])))
"""


@pytest.fixture
def project(tmp_path):
    """A project with one notebook that publishes one number and one figure.

    Its folder's name holds what papermill, make and a shell would read as more than a name.
    """
    place = tmp_path / "a {proj} 100% $HOME it's"
    (place / "notebooks" / "profiles" / "quick").mkdir(parents=True)
    (place / "notebooks" / "profiles" / "quick" / "tiny.yaml").write_text("steps: 2\n")
    write(place, RECORD)
    return place


def write(project, *sources, prose=PROSE, parameters=PARAMETERS):
    """Write the project's notebook: its prose, its parameters and a cell for each source."""
    cells = [new_markdown_cell(prose, id="prose")]
    cells.append(new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}))
    cells += [new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
    nbformat.write(new_notebook(cells=cells), source_of(project))


def source_of(project):
    return project / "notebooks" / "tiny.ipynb"


def old_set(project):
    """Put a published set in place, and return it as :func:`state` does."""
    figures = project / "figures" / "tiny"
    figures.mkdir(parents=True)
    (figures / "metrics.json").write_text("the last good set")
    (figures / "empty.png").write_text("its figure")
    return state(figures)


def state(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def files(folder):
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )


def start(project, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", CALL, str(project), *arguments],
        cwd=pipeline.ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition, seconds=40.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_running(number):
    """Return whether a process runs; one that only waits to be collected does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# --- a run that succeeds ---


@pytest.mark.slow
def test_a_full_run_publishes_and_writes_back(project, monkeypatch, tmp_path_factory, capfd):
    # A kernel of the same name that a user registered, and a backend that hides figures.
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for variable in ("JUPYTER_PATH", "JUPYTER_DATA_DIR"):
        kernel = elsewhere / variable / "kernels" / "python3"
        kernel.mkdir(parents=True)
        (kernel / "kernel.json").write_text(
            '{"argv": ["false"], "display_name": "x", "language": "python"}'
        )
        monkeypatch.setenv(variable, str(elsewhere / variable))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    see = "import os, sys\nsys.executable, os.environ['RAI_PROGRESS'], 'Agg' in os.environ.values()"
    show = "import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])"
    write(project, STUDY, see, show, PUBLISH)
    (project / "figures" / ".tiny.old").mkdir(parents=True)
    (project / "build" / "full" / "failed").mkdir(parents=True)
    (project / "build" / "full" / "failed" / "tiny.ipynb").write_text("an earlier failure")
    environment = dict(os.environ)

    assert main(["execute", "tiny"], project) == 0

    output, errors = capfd.readouterr()
    assert errors == ""
    assert re.fullmatch(
        r"tiny  full  running …\ntiny  full  done in (?:\d+ min )?\d+ s -> figures/tiny\n", output
    )
    assert dict(os.environ) == environment
    assert files(project) == [
        "build/full/tiny.ipynb",
        "figures/README.md",
        "figures/numbers.tex",
        "figures/tiny/empty.json",
        "figures/tiny/empty.pdf",
        "figures/tiny/empty.png",
        "figures/tiny/metrics.json",
        "notebooks/profiles/quick/tiny.yaml",
        "notebooks/tiny.ipynb",
    ]
    assert not (project / "figures" / ".tiny.old").exists()
    record = read_metrics(project / "figures" / "tiny")
    assert record["metrics"]["doubled"]["value"] == 6
    assert "(tiny/empty.png)" in (project / "figures" / "README.md").read_text()
    assert r"\newcommand{\TinyDoubled}{6}" in (project / "figures" / "numbers.tex").read_text()
    executed = nbformat.read(project / "build" / "full" / "tiny.ipynb", as_version=4)
    assert executed.cells[0].source == "# Tiny\n\nTwice is <!--=doubled-->6<!--/-->."
    seen = next(cell for cell in executed.cells if cell.source == see)
    assert seen.outputs[0].data["text/plain"] == repr((sys.executable, "off", False))
    drawn = next(cell for cell in executed.cells if cell.source == show)
    assert "image/png" in drawn.outputs[0].data

    before = nbformat.read(source_of(project), as_version=4)
    readme = project / "README.md"
    readme.write_text("Twice is <!--=tiny/doubled-->0<!--/-->.\n")
    assert main(["write-back", "tiny"], project) == 0
    written = "tiny  notebook  written\nREADME.md  written\nCLAIMS.md  written\n"
    assert capfd.readouterr().out == written
    assert "# Claims" in (project / "CLAIMS.md").read_text()
    assert readme.read_text() == "Twice is <!--=tiny/doubled-->6<!--/-->.\n"
    after = nbformat.read(source_of(project), as_version=4)
    text = source_of(project).read_text()
    assert [cell.id for cell in after.cells] == [cell.id for cell in before.cells]
    assert [cell.source for cell in after.cells[1:]] == [cell.source for cell in before.cells[1:]]
    assert "Twice is <!--=doubled-->6<!--/-->." in after.cells[0].source
    counts = [cell.execution_count for cell in after.cells if cell.cell_type == "code"]
    assert counts == [1, 2, 3, 4, 5]
    assert after.cells[2].outputs[0].execution_count == 2
    assert after.metadata.kernelspec.name == "python3"
    assert after.cells[1].metadata == {"tags": ["parameters"]}
    assert "papermill" not in text
    assert "injected" not in text
    assert str(project) not in text
    # make would run the notebook again if it were newer than its executed twin.
    executed_time = (project / "build" / "full" / "tiny.ipynb").stat().st_mtime_ns
    assert executed_time >= source_of(project).stat().st_mtime_ns

    assert main(["write-back", "tiny"], project) == 0
    assert capfd.readouterr().out == written.replace("written", "unchanged")
    assert source_of(project).read_text() == text

    write(project, STUDY, "other = 1", see, PUBLISH)
    assert main(["write-back", "tiny"], project) == 2
    assert "got other code: run make tiny first" in capfd.readouterr().err


@pytest.mark.slow
def test_a_quick_run_and_a_custom_run_leave_the_published_set(project, capfd):
    kept = old_set(project)
    assert main(["execute", "notebooks/tiny.ipynb", "--profile", "quick"], project) == 0
    assert capfd.readouterr().out.endswith("s -> build/quick/figures/tiny\n")
    quick = read_metrics(project / "build" / "quick" / "figures" / "tiny")
    assert quick["parameters"] == {"steps": 2, "rate": 0.5}
    assert (project / "build" / "quick" / "tiny.ipynb").is_file()

    command = ["execute", "tiny", "--profile", "quick", "--parameters", "rate=1e-3"]
    assert main(command, project) == 0
    assert capfd.readouterr().out.endswith("s -> build/custom/figures/tiny\n")
    custom = read_metrics(project / "build" / "custom" / "figures" / "tiny")
    assert custom["parameters"] == {"steps": 2, "rate": 0.001}
    assert (project / "build" / "custom" / "tiny.ipynb").is_file()

    assert state(project / "figures" / "tiny") == kept
    assert not (project / "build" / "full").exists()


@pytest.mark.slow
def test_links_lead_where_they_led_and_a_saved_notebook_is_not_run_again(project, capfd):
    write(project, RECORD, prose=LINKS)
    make = ["execute", "tiny", "--profile", "quick", "--newer"]
    assert main([*make, "notebooks/tiny.ipynb notebooks/profiles/quick/tiny.yaml"], project) == 0
    executed = project / "build" / "quick" / "tiny.ipynb"
    text = nbformat.read(executed, as_version=4).cells[0].source
    assert text.splitlines()[4:] == [
        "![drawn](figures/tiny/empty.png) [other](../../notebooks/other.ipynb#part) "
        "[at](https://example.org/a.png)",
        '<img src="../../figures/other/a.png"> [here](#part) [kept](attachment:a.png) '
        "[readme](<../../README.md>)",
    ]

    # JupyterLab writes metadata and outputs of its own.
    saved = nbformat.read(source_of(project), as_version=4)
    saved.metadata["language_info"] = {"name": "python", "version": "3.11.9"}
    saved.cells[2].execution_count = 7
    saved.cells[2].metadata["execution"] = {"iopub.status.idle": "now"}
    nbformat.write(saved, source_of(project))
    capfd.readouterr()
    assert main([*make, "notebooks/tiny.ipynb"], project) == 0
    assert capfd.readouterr().out == "tiny  quick  saved without a change, not run again\n"
    assert executed.stat().st_mtime_ns >= source_of(project).stat().st_mtime_ns

    # A run that fails has no figures: its notebook shows the published ones.
    write(project, "1 / 0", prose=LINKS)
    assert main(["execute", "tiny", "--profile", "quick"], project) == 1
    failed = nbformat.read(project / "build" / "quick" / "failed" / "tiny.ipynb", as_version=4)
    assert "![drawn](../../../figures/tiny/empty.png)" in failed.cells[1].source


@pytest.mark.parametrize(
    ("newer", "change"),
    [
        ("notebooks/tiny.ipynb rai_utils/models.py", None),
        ("notebooks/tiny.ipynb always", None),
        ("notebooks/tiny.ipynb", "cell-0"),
        ("notebooks/tiny.ipynb", "prose"),
        ("notebooks/tiny.ipynb", "figures"),
        ("notebooks/tiny.ipynb", "executed"),
    ],
)
def test_a_notebook_is_run_again_where_more_than_its_file_is_new(
    project, monkeypatch, newer, change
):
    (project / "build" / "full").mkdir(parents=True)
    executed = project / "build" / "full" / "tiny.ipynb"
    nbformat.write(nbformat.read(source_of(project), as_version=4), executed)
    figures = project / "figures" / "tiny"
    figures.mkdir(parents=True)
    record = {"metrics": {"doubled": {"value": 0, "interval": None}}, "claims": [], "figures": []}
    record = {"notebook": "tiny", "parameters": {}, "environment": {}, **record, "descriptions": {}}
    (figures / "metrics.json").write_text(json.dumps(record))
    monkeypatch.setattr(pipeline, "_run_papermill", None)  # a run would call it, and fail
    assert main(["execute", "tiny", "--newer", "notebooks/tiny.ipynb"], project) == 0

    changed = nbformat.read(source_of(project), as_version=4)
    for cell in changed.cells:
        cell.source += " more" if cell.id == change == "prose" else ""
        cell.source += "\n1" if cell.id == change == "cell-0" else ""
    nbformat.write(changed, source_of(project))
    if change == "figures":
        (figures / "metrics.json").unlink()
    if change == "executed":
        executed.unlink()
    assert main(["execute", "tiny", "--newer", newer], project) == 1


# --- what is refused before any work ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["tiny", "--parameters", "step=1"],
            "names in the command must be of steps, rate, sizes, got 'step'",
        ),
        (["tiny", "--parameters", "steps=1.5"], "steps .* must be int, got float 1.5"),
        (["tiny", "--parameters", "steps=True"], "got bool True"),
        (["tiny", "--parameters", "steps"], "name=value, got 'steps'"),
        (["tiny", "--parameters", "sizes=[1,'a']"], "an entry of sizes .* must be int"),
        (["tiny", "--parameters", "rate=nan"], "rate .* must be float, got str 'nan'$"),
        (["tiny", "--parameters", "rate=1e999"], "rate .* must be finite, got inf"),
        (["tiny", "--parameters", f"rate={10**400}"], "rate .* must be finite"),
        (["tiny", "--parameters", "sizes=[]"], r"sizes must be 1 or more of \[1, steps\]"),
        (["tiny", "--parameters", "sizes=[1, 4]"], r"with steps = 3, got \[1, 4\]"),
        (["tiny", "--parameters", "steps=1"], r"sizes must be .* with steps = 1, got \[1, 2\]"),
        (["tiny", "--parameters", "steps=0"], r"^execute: steps must be in \[1, 9\], got 0$"),
        (["tiny", "--parameters", "rate=0"], r"rate must be in \(0, 1\], got 0.0"),
        (["tiny", "--parameters", "publish_to=x"], "publish_to, which the pipeline sets"),
        (["tiny", "--profile", "fast"], "the profile must be full or quick, got 'fast'"),
        (["tinny"], "the notebook must be one of tiny, got 'tinny'"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(project, capfd, arguments, message):
    assert main(["execute", *arguments], project) == 2
    output, errors = capfd.readouterr()
    assert output == ""
    assert re.search(message, errors)
    assert errors.count("\n") == 1
    assert not (project / "build").exists()


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (
            "steps: 1\nstep: 2\n",
            "names in notebooks/profiles/quick/tiny.yaml must be of steps, rate, sizes, got 'step'",
        ),
        ("rate: 1e-3\n", "YAML reads 1e-3 as text"),
        ("rate: .nan\n", "rate in notebooks/profiles/quick/tiny.yaml must be finite, got nan"),
        ("rate: nan\n", "rate in notebooks/profiles/quick/tiny.yaml must be float, got str"),
        ("steps: 1\n", "sizes must be 1 or more of [1, steps], ascending with steps = 1"),
        ("steps\n", "name: value lines"),
        ("steps: [1\n", "must be YAML in"),
        (None, "tiny.yaml, got an error: [Errno 2] No such file"),
    ],
)
def test_a_wrong_profile_is_refused(project, capfd, profile, message):
    path = project / "notebooks" / "profiles" / "quick" / "tiny.yaml"
    path.unlink() if profile is None else path.write_text(profile)
    assert main(["execute", "tiny", "--profile", "quick"], project) == 2
    assert message in capfd.readouterr().err
    assert not (project / "build").exists()


def test_a_wrong_marker_is_refused_before_the_run(project, capfd):
    write(project, STUDY, PUBLISH, prose="Twice is <!--=doubled-->0.")
    assert main(["execute", "tiny"], project) == 2
    assert (
        "a marker must be <!--=NAME:FORMAT-->TEXT<!--/--> after other words"
        in capfd.readouterr().err
    )
    assert not (project / "build").exists()


def test_the_environment_of_a_kernel():
    given = {"MPLBACKEND": "Agg", "PYTHONPATH": "/other", "HOME": "/home", "PYTHONSTARTUP": "x.py"}
    before = dict(given)
    made = kernel_environment(given)
    assert not {"MPLBACKEND", "PYTHONSTARTUP"} & made.keys()
    assert made["MATPLOTLIBRC"] == os.devnull
    assert made["PYTHONPATH"].split(os.pathsep) == [str(pipeline.ROOT), "/other"]
    assert made["HOME"] == "/home"
    assert kernel_environment({})["PYTHONPATH"] == str(pipeline.ROOT)
    assert given == before


def test_sets_and_dictionaries_of_text_come_in_one_order_in_every_kernel():
    orders = set()
    for seed in ("1", "2", "random"):
        environment = kernel_environment({**os.environ, "PYTHONHASHSEED": seed})
        code = "print(list({chr(97 + n) * 3 for n in range(20)}))"
        orders.add(subprocess.check_output([sys.executable, "-c", code], env=environment))
    assert len(orders) == 1


def test_no_index_is_written_while_another_set_is_published(project, monkeypatch):
    made = project / "made"
    made.mkdir()
    (made / "metrics.json").write_text("a set")
    inside, order = threading.Event(), []

    def write_index(folder):
        order.append("begins")
        inside.set()
        time.sleep(0.3)
        order.append("ends")

    monkeypatch.setattr(pipeline.catalogue, "write_index", write_index)
    runs = [
        threading.Thread(target=publish_with_index, args=(made, project, name))
        for name in ("one", "two")
    ]
    runs[0].start()
    inside.wait()
    runs[1].start()
    for run in runs:
        run.join()
    assert order == ["begins", "ends"] * 2
    assert state(project / "figures" / "one") == state(project / "figures" / "two") == state(made)


# --- a run that fails ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sources", "prose", "message"),
    [
        (
            ("", "x = 1\nraise ValueError('first line\\nlast line')", ""),
            PROSE,
            r"in code cell 3 of 4 \(x = 1\): ValueError: first line … last line; "
            r"see build/full/failed/tiny.ipynb",
        ),
        (("", "import os\nos._exit(1)"), PROSE, "in code cell 3 of 3 .*DeadKernelError"),
        (("", "import os\nos._exit(1)", ""), PROSE, "in code cell 3 of 4 .*DeadKernelError"),
        ((STUDY,), PROSE, "after its last cell: ValueError: .* must be a metrics file"),
        (
            (RECORD,),
            "Twice is <!--=double-->0<!--/-->.",
            "after its last cell: ValueError: .*got 'double'; the nearest names are doubled",
        ),
        (
            (RECORD, "(place / 'more.png').touch()"),
            PROSE,
            "after its last cell: ValueError: .*more.png",
        ),
        (
            (RECORD.replace('"tiny"', '"other"'),),
            PROSE,
            "the set must be one of tiny, got one of other",
        ),
    ],
    ids=[
        "error",
        "dead at end",
        "dead",
        "no set",
        "unknown name",
        "unlisted file",
        "other notebook",
    ],
)
def test_a_failure_publishes_nothing(project, capfd, sources, prose, message):
    kept = old_set(project)
    write(project, *sources, prose=prose)
    assert main(["execute", "tiny"], project) == 1
    output, errors = capfd.readouterr()
    assert output == "tiny  full  running …\n"
    assert re.search(f"^tiny  full  failed .*{message}", errors)
    assert errors.count("\n") == 1
    assert state(project / "figures" / "tiny") == kept
    assert files(project / "build") == ["full/failed/tiny.ipynb", "full/failed/tiny.log"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_publishes_nothing_and_ends_the_kernel(project, number):
    kept = old_set(project)
    note = project / "kernel"
    wait = f"import os, pathlib, time\npathlib.Path({str(note)!r}).write_text(str(os.getpid()))\n"
    write(project, f"{wait}time.sleep(100)")
    run = start(project, "execute", "tiny")
    wait_until(lambda: note.exists() and note.read_text())
    run.send_signal(number)
    output, errors = run.communicate(timeout=30)
    assert run.returncode == 130
    assert errors == ""
    assert output.splitlines()[-1] == (
        "tiny  full  interrupted, nothing was published; see build/full/failed/tiny.ipynb"
    )
    assert not is_running(note.read_text())
    assert state(project / "figures" / "tiny") == kept
    assert files(project / "build") == ["full/failed/tiny.ipynb", "full/failed/tiny.log"]


@pytest.mark.slow
def test_after_a_kill_the_next_run_starts_anew(project):
    kept = old_set(project)
    note = project / "kernel"
    wait = f"import os, pathlib, time\npathlib.Path({str(note)!r}).write_text(str(os.getpid()))\n"
    write(project, f"{wait}time.sleep(100)")
    elsewhere = project / "temporary"
    elsewhere.mkdir()
    run = start(project, "execute", "tiny", TMPDIR=str(elsewhere))
    wait_until(lambda: note.exists() and note.read_text())
    second = start(project, "execute", "tiny")
    assert (
        "there must be one run of tiny (full) at a time, got a second one"
        in second.communicate(timeout=60)[1]
    )
    assert second.returncode == 2
    run.kill()
    run.communicate()
    assert state(project / "figures" / "tiny") == kept
    assert not (project / "build" / "full" / "tiny.ipynb").exists()
    assert files(project / "build" / "full" / "running")
    assert list(elsewhere.iterdir()) == []
    write(project, RECORD)
    # On a terminal that does not know the dots of "running …".
    third = start(project, "execute", "tiny", PYTHONIOENCODING="ascii")
    output, errors = third.communicate(timeout=60)
    assert (third.returncode, errors) == (0, "")
    assert output.startswith("tiny  full  running ?\ntiny  full  done in ")
    assert files(project / "build") == ["full/tiny.ipynb"]
    wait_until(lambda: not is_running(note.read_text()))


# --- settings of a reader ---

DRAW = """\
import matplotlib.pyplot as plt
from rai_utils.plotting import figure, use_style
use_style()
drawn, axes = figure()
_ = axes.plot([1, 2], label="a line")
_ = axes.legend()
study.figure("drawn", drawn, alt="A line.")"""
LOOK = """\
import builtins, matplotlib, numpy
precision = numpy.get_printoptions()["precision"]
getattr(builtins, "startup", None), matplotlib.rcParams["axes.grid"], precision"""
PUBLISH_WITHOUT_TORCH = """\
from rai_utils.publishing import claims
claims.environment = dict
study.publish()"""


@pytest.mark.slow
def test_a_reader_s_own_settings_change_nothing(project, monkeypatch, tmp_path):
    write(project, STUDY, DRAW, LOOK, PUBLISH_WITHOUT_TORCH)
    assert main(["execute", "tiny"], project) == 0
    plain = state(project / "figures" / "tiny")

    settings = "axes.grid: True\nfont.weight: bold\nlines.linewidth: 9\nsavefig.bbox: tight\n"
    home = tmp_path / "home"
    startup = home / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    seaborn = "import builtins, numpy, seaborn\nseaborn.set_theme()\n"
    seaborn += "builtins.startup = True\nnumpy.set_printoptions(precision=1)\n"
    (startup / "theme.py").write_text(seaborn)
    (home / "startup.py").write_text(seaborn)
    config = "c.InlineBackend.figure_formats = {'svg'}\nc.InlineBackend.rc = {'axes.grid': True}\n"
    for name in ("ipython_config.py", "ipython_kernel_config.py"):
        (startup.parent / name).write_text(config)
    places = (home / ".config" / "matplotlib", home / "given", project / "notebooks")
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / "matplotlibrc").write_text(settings)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MATPLOTLIBRC", str(home / "given"))
    monkeypatch.setenv("IPYTHONDIR", str(home / ".ipython"))
    monkeypatch.setenv("PYTHONSTARTUP", str(home / "startup.py"))
    assert main(["execute", "tiny"], project) == 0

    assert state(project / "figures" / "tiny") == plain
    executed = nbformat.read(project / "build" / "full" / "tiny.ipynb", as_version=4)
    outputs = {cell.source: cell.outputs for cell in executed.cells if cell.cell_type == "code"}
    assert outputs[LOOK][0].data["text/plain"] == "(None, False, 8)"
    assert [*outputs[DRAW][0].data] == ["image/png", "text/plain"]


# --- a place that cannot be written ---


def test_figures_that_cannot_be_written_are_found_before_the_run(project, monkeypatch, capfd):
    monkeypatch.setattr(pipeline, "_run_papermill", None)
    place = project / "figures"
    place.symlink_to("/proc")
    assert main(["execute", "tiny"], project) == 2
    assert re.search("figures must be writable and have room in .*/figures", capfd.readouterr().err)
    place.unlink()
    place.touch()
    assert main(["execute", "tiny"], project) == 2
    assert "figures must be writable" in capfd.readouterr().err
    place.unlink()
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    monkeypatch.setattr(pipeline.tempfile, "TemporaryFile", lambda dir: full)
    assert main(["execute", "tiny"], project) == 2
    assert "No space left on device" in capfd.readouterr().err


@pytest.mark.slow
def test_a_run_that_cannot_be_published_is_kept_and_published_later(project, capfd):
    spoil = f"import pathlib\npathlib.Path({str(project / 'figures')!r}, '.tiny.new').touch()"
    write(project, RECORD, spoil)
    assert main(["execute", "tiny"], project) == 1
    errors = capfd.readouterr().err
    command = "python -m rai_utils.publishing.pipeline publish tiny --tree full"
    assert "tiny  full  finished, but not published: " in errors
    assert f"it is kept in build/full/finished/tiny: {command}\n" in errors
    kept = state(project / "build" / "full" / "finished" / "tiny" / "figures")
    assert {*kept} == {"metrics.json", "empty.png", "empty.pdf", "empty.json"}
    assert not (project / "figures" / "tiny").exists()

    # The next run, which fails, says so and leaves it.
    (project / "figures" / ".tiny.new").unlink()
    good = source_of(project).read_text()
    write(project, "1 / 0")
    assert main(["execute", "tiny"], project) == 1
    assert f"an earlier run is not published: {command}\n" in capfd.readouterr().out
    source_of(project).write_text(good)

    assert main(["publish", "tiny"], project) == 0
    assert capfd.readouterr().out == "tiny  full  published\n"
    assert state(project / "figures" / "tiny") == kept
    assert "## tiny" in (project / "figures" / "README.md").read_text()
    assert (project / "build" / "full" / "tiny.ipynb").is_file()
    assert main(["publish", "tiny"], project) == 2
    assert "build/full/finished/tiny must be a finished run, got none" in capfd.readouterr().err


# --- a kill in the middle of publishing ---


def killed_at(step, made, figures):
    """Run ``publish`` in a process that ends without a word at its ``step``-th change of disk."""
    child = os.fork()
    if child == 0:
        left = step

        def counted(change):
            def changed(*arguments, **keywords):
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(9)
                return change(*arguments, **keywords)

            return changed

        for place, name in (
            (pipeline.shutil, "copy2"),
            (pipeline.Path, "rename"),
            (pipeline.os, "unlink"),
            (pipeline.os, "rmdir"),
        ):
            setattr(place, name, counted(getattr(place, name)))
        # It is a default argument of copytree, bound when the module was read.
        pipeline.shutil.copytree.__defaults__ = (False, None, pipeline.shutil.copy2, False, False)
        with contextlib.suppress(Exception):
            publish(made, figures)
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("first", [True, False], ids=["first set", "second set"])
def test_a_kill_while_publishing_leaves_a_whole_set(tmp_path, first):
    made, figures = tmp_path / "made", tmp_path / "figures" / "tiny"
    made.mkdir()
    new = {"metrics.json": b"new", "a.png": b"new a", "b.png": b"new b"}
    for name, content in new.items():
        (made / name).write_bytes(content)
    seen = []
    for step in range(20):
        pipeline.shutil.rmtree(figures, ignore_errors=True)
        old = {} if first else {"metrics.json": b"old", "a.png": b"old a"}
        if not first:
            figures.mkdir(parents=True)
            for name, content in old.items():
                (figures / name).write_bytes(content)
        ended = killed_at(step, made, figures)
        assert ended in (0, 9)
        if figures.exists():
            assert state(figures) in (old, new)
        repair(figures)
        left = state(figures) if figures.exists() else {}
        assert left in (old, new)
        assert [path.name for path in figures.parent.iterdir()] == (["tiny"] if left else [])
        seen.append(left)
        if ended == 0:
            break
    assert ended == 0
    assert step >= 4
    assert seen[0] == old
    assert seen[-1] == new


def test_an_error_while_publishing_is_undone(tmp_path, monkeypatch):
    made, figures = tmp_path / "made", tmp_path / "figures" / "tiny"
    for folder in (made, figures):
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(folder.name)
    rename = Path.rename

    def refused(path, target):
        if path.name == ".tiny.new":
            raise OSError("disk full")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="disk full"):
        publish(made, figures)
    assert state(figures) == {"metrics.json": b"tiny"}
    assert [path.name for path in figures.parent.iterdir()] == ["tiny"]


# --- writing back ---


def test_write_back_needs_a_full_run(project, capfd):
    assert main(["write-back", "tiny"], project) == 2
    assert "build/full/tiny.ipynb must be a finished full run, got none" in capfd.readouterr().err
    assert main(["write-back", "other"], project) == 2
    assert "notebooks/other.ipynb must be a notebook, got none" in capfd.readouterr().err


def test_write_back_drops_what_differs_from_run_to_run(project):
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "slider"}
    write(project, "x = 1", "")
    run = nbformat.read(source_of(project), as_version=4)
    for number, cell in enumerate(run.cells[1:3]):
        cell.execution_count = 7 + number
        cell.metadata["papermill"] = {"duration": 1.5}
        cell.metadata["execution"] = {"iopub.execute_input": "now"}
    run.cells[2].outputs = [
        nbformat.v4.new_output("display_data", view),
        nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=8),
        nbformat.v4.new_output("stream", text="a line\n"),
    ]
    run.cells.insert(2, new_code_cell("steps = 1", metadata={"tags": ["injected-parameters"]}))
    (project / "build" / "full").mkdir(parents=True)
    nbformat.write(run, project / "build" / "full" / "tiny.ipynb")
    figures = project / "figures" / "tiny"
    figures.mkdir(parents=True)
    record = {
        "notebook": "tiny",
        "parameters": {},
        "environment": {},
        "metrics": {"doubled": {"value": 6, "tolerance": 0, "interval": None, "seeds": None}},
        "claims": [],
        "figures": [],
        "descriptions": {},
    }
    (figures / "metrics.json").write_text(json.dumps(record))
    assert pipeline.write_back("tiny", project)
    cells = nbformat.read(source_of(project), as_version=4).cells
    assert [cell.get("execution_count") for cell in cells] == [None, 1, 2, None]
    assert cells[2].outputs[0].data == {"text/plain": "2"}
    assert cells[2].outputs[0].execution_count == 2
    assert cells[2].outputs[1].text == "a line\n"
    assert cells[2].metadata == {}

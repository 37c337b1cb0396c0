"""Runs the Makefile in a folder of its own; a stand-in for Python writes down how it is called."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from rai_utils.publishing.pipeline import ROOT

pytestmark = pytest.mark.slow

PYTHON = """\
#!/usr/bin/env bash
printf '%s\\0' "$@" >>calls
printf '\\n' >>calls
case "$*" in
*"-m venv"*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
*base_prefix*) grep origin "$0" ;;
*"pip install"*) [ ! -f answer ] || { cat answer; exit 1; } ;;
*"import torch"*) [ ! -f answer ] ;;
*"pip freeze"*) printf '%s\n' nvidia-nccl==2 torch==2.13.0+cpu triton==3 zipp==4 ;;
esac
# origin: NAME
"""


@pytest.fixture
def folder(tmp_path):
    """A folder whose name no shell likes, with the Makefile and what it looks for."""
    place = tmp_path / "a {proj} 100% $HOME it's"
    (place / "notebooks").mkdir(parents=True)
    script = "rai_utils/publishing/environment.sh"
    (place / script).parent.mkdir(parents=True)
    for name in ("Makefile", script):
        shutil.copy(ROOT / name, place / name)
    for name in ("requirements.txt", "pyproject.toml", "notebooks/rai-grads.ipynb"):
        (place / name).touch()
    stand_in(place / "bin" / "python", "one")
    return place


def stand_in(path, origin):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PYTHON.replace("NAME", origin))
    path.chmod(0o755)


def make(folder, *arguments, **environment):
    """Run make with nothing of this test's own environment but PATH."""
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def calls(folder):
    """Return the calls of the stand-in since the last look, each the list of its arguments."""
    file = folder / "calls"
    lines = file.read_text().split("\0\n") if file.exists() else [""]
    file.unlink(missing_ok=True)
    return [line.split("\0") for line in lines if line]


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


HOSTILE = [
    "depth='||>pwned||'",
    "depth=it's",
    "depth=$(touch pwned)",
    "depth=$(shell touch pwned)",
    "depth=${shell touch pwned}",
    "depth=`touch pwned`",
    'depth="; touch pwned; "',
    "depth=1; touch pwned",
    "depth=1 # $PATH $$ \\",
    "name=é -x *",
    "-x=1",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_parameters_reach_python_as_they_were_typed(folder, text):
    before = names(folder)
    ran = make(folder, "rai-grads", f"PARAMETERS={text}", "ENV=active")
    assert ran.returncode == 0, ran.stderr
    expected = ["-m", "rai_utils.publishing.pipeline", "execute", "rai-grads", "--profile", "full"]
    assert calls(folder)[-1] == [*expected, f"--parameters={text}"]
    assert names(folder) == before


@pytest.mark.parametrize("text", HOSTILE)
def test_the_sweeps_and_the_cluster_are_run_by_no_shell(folder, text):
    before = names(folder)
    make(folder, "study", f"SWEEPS={text}", f"CLUSTER={text}", "ENV=active")
    assert calls(folder)[-1][-2:] == ["--cluster", text]
    assert names(folder) == before


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", ["PROFILE", "PYTHON", "ENV"])
def test_what_is_no_profile_python_or_environment_is_refused(folder, name, text):
    before = names(folder)
    ran = make(folder, "figures", f"{name}={text}")
    assert ran.returncode != 0
    assert calls(folder) == []
    assert names(folder) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PROFILE=full quick"], 'PROFILE is full or quick, not "full quick"'),
        (["PROFILE="], 'PROFILE is full or quick, not ""'),
        (["PROFILE=fast"], 'PROFILE is full or quick, not "fast"'),
        (["ENV=conda"], 'ENV is active or not given, not "conda"'),
        (["ENV=active active"], 'ENV is active or not given, not "active active"'),
        (["ENV=active", "PYTHON=python"], "give one of the two"),
        (["PARAMETERS=depth=50"], "PARAMETERS goes with one notebook"),
    ],
)
def test_a_wrong_variable_is_refused_in_one_line(folder, arguments, message):
    ran = make(folder, "figures", *arguments)
    assert ran.returncode != 0
    assert message in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert calls(folder) == []


def test_a_variable_of_the_shell_is_no_parameter(folder):
    ran = make(folder, "rai-grads", "-n", ENV="/etc/profile", PARAMETERS="depth=50", PROFILE="x")
    assert ran.returncode == 0
    assert "--profile full" in ran.stdout
    assert "--parameters" not in ran.stdout


def test_the_environment_is_made_once(folder):
    assert make(folder, ".venv/.stamp", f"PYTHON={folder / 'bin' / 'python'}").returncode == 0
    made = calls(folder)
    assert ["-m", "venv", "--clear", ".venv"] in made
    assert sum("pip" in call for call in made) == 2
    # The same Python under another name, and no name.
    shutil.copy(folder / "bin" / "python", folder / "other")
    for arguments in ([], ["PYTHON=./other"]):
        assert make(folder, ".venv/.stamp", *arguments).returncode == 0
        assert not any("pip" in call or "venv" in call for call in calls(folder))


def test_another_python_makes_the_environment_anew(folder):
    make(folder, ".venv/.stamp", "PYTHON=bin/python")
    calls(folder)
    stand_in(folder / "other", "two")
    ran = make(folder, ".venv/.stamp", "PYTHON=./other")
    assert ran.stdout.startswith("environment  making .venv with ./other\n")
    assert "origin: two" in (folder / ".venv" / "bin" / "python").read_text()
    assert sum("pip" in call for call in calls(folder)) == 2


def test_a_python_that_does_not_exist_is_refused_also_where_venv_stands(folder):
    make(folder, ".venv/.stamp", "PYTHON=bin/python")
    calls(folder)
    ran = make(folder, ".venv/.stamp", "PYTHON=/nonexistent/python")
    assert ran.returncode != 0
    assert "none was found among: /nonexistent/python" in ran.stderr
    assert (folder / ".venv" / ".stamp").exists()
    assert not any("pip" in call or "venv" in call for call in calls(folder))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("none (from versions: none)", "The packages could not be downloaded: is there a network"),
        ("ERROR: no space left", "The packages could not be installed. All of pip's answer is in"),
    ],
)
def test_packages_that_cannot_be_had_are_told_of_and_asked_for_again(folder, answer, message):
    (folder / "answer").write_text(f"{answer}\n")
    ran = make(folder, ".venv/.stamp", "PYTHON=bin/python")
    assert ran.returncode != 0
    assert ran.stderr.startswith(f"{answer}\n{message}")
    assert (folder / ".venv" / "install.log").read_text() == f"{answer}\n"
    (folder / "answer").unlink()
    assert make(folder, ".venv/.stamp").returncode == 0
    assert sum("pip" in call for call in calls(folder)) == 3


def test_an_active_environment_without_the_packages_is_told_of(folder):
    (folder / "answer").touch()
    ran = make(folder, "report", "ENV=active")
    assert ran.returncode != 0
    assert ran.stderr.startswith("ENV=active needs what requirements.txt lists")
    assert not any("rai_utils.publishing.report" in call for call in calls(folder))


def test_the_lock_is_what_a_new_environment_has_without_one_platform_s_builds(folder):
    assert make(folder, "lock", "PYTHON=bin/python").returncode == 0
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line[0] != "#"] == ["torch==2.13.0", "zipp==4"]
    assert lines[:4] == (ROOT / "requirements.txt").read_text().splitlines()[:4]
    assert not (folder / "build" / "lock").exists()


def test_the_pipeline_hears_what_is_newer_than_the_executed_notebook(folder):
    executed, notebook = folder / "build" / "full" / "rai-grads.ipynb", "notebooks/rai-grads.ipynb"
    for path in (executed, folder / "figures" / "rai-grads" / "metrics.json"):
        path.parent.mkdir(parents=True)
        path.touch()
    for path, seconds in ((executed, 2000), (folder / notebook, 3000)):
        os.utime(path, (seconds, seconds))
    os.utime(folder / "requirements.txt", (1000, 1000))
    make(folder, "rai-grads", "ENV=active")
    assert calls(folder)[-1][-1] == f"--newer={notebook}"
    os.utime(folder / "requirements.txt", (3000, 3000))
    make(folder, "rai-grads", "ENV=active")
    assert calls(folder)[-1][-1] == f"--newer={notebook} requirements.txt"
    executed.unlink()
    make(folder, "rai-grads", "ENV=active")
    assert "requirements.txt" in calls(folder)[-1][-1]


def test_lab_serves_what_the_notebooks_show(folder):
    """The command of `make lab`, run in the project: its pictures are above its notebooks."""
    make(folder, "lab", "ENV=active")
    trust, command = [call for call in calls(folder) if "jupyter" in call]
    assert trust[:3] == ["-m", "jupyter", "trust"] and "notebooks/rai-grads.ipynb" in trust
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--ServerApp.port={port}"]
    options += ["--IdentityProvider.token=", "--ServerApp.port_retries=0"]
    server = subprocess.Popen(
        [sys.executable, *command, *options],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        picture = "figures/rai-demo/boundaries.png"
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(url + "/api"):
                break
            time.sleep(0.1)
        request = urllib.request.Request(f"{url}/files/{picture}", headers={"Referer": url})
        with urllib.request.urlopen(request) as answer:
            assert answer.read() == (ROOT / picture).read_bytes()
        with urllib.request.urlopen(url) as answer:
            assert answer.geturl() == f"{url}/lab/tree/notebooks"
    finally:
        server.terminate()
        server.wait()

import importlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from sweep_work import squares

from rai_utils.data import moons
from rai_utils.experiments import study, sweep
from rai_utils.experiments.study import SWEEPS
from rai_utils.experiments.sweep import Sweep, adopt, ends, finite, grid, read, run
from rai_utils.models import Architecture, build_mlp
from rai_utils.publishing.claims import root
from rai_utils.publishing.pipeline import ROOT
from rai_utils.training import Phase, Watch, fit_backprop


@pytest.fixture(autouse=True)
def threads():
    """A sweep of one job configures this very process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)
    sweep._prepare.cache_clear()


def of(*numbers, **fixed):
    return Sweep("squares", tuple({"number": n, **fixed} for n in numbers), squares)


def test_a_sweep_publishes_arguments_and_results_in_its_order(tmp_path):
    path = run(of(3, 1, 2), jobs=1, folder=tmp_path)
    assert path == tmp_path / "figures" / "study" / "squares.json"
    published = read("squares", tmp_path)
    assert [(cell["number"], cell["square"]) for cell in published.cells] == [
        (3, 9),
        (1, 1),
        (2, 4),
    ]
    assert len(published.seconds) == 3
    assert published.command == "make study SWEEPS=squares"
    assert published.machine["torch"] == importlib.metadata.version("torch").partition("+")[0]
    assert published.machine["threads"] == 1


@pytest.mark.slow
def test_processes_give_what_one_gives_with_one_thread_each(tmp_path):
    run(of(1, 2, 3, 4), jobs=2, folder=tmp_path / "two")
    run(of(1, 2, 3, 4), jobs=1, folder=tmp_path / "one")
    cells = read("squares", tmp_path / "two").cells
    assert cells == read("squares", tmp_path / "one").cells
    assert all(cell["threads"] == 1 for cell in cells)


@pytest.mark.slow
def test_a_dask_cluster_carries_a_sweep(tmp_path):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        run(of(1, 2, 3), jobs=2, backend="dask", folder=tmp_path)
    assert [cell["square"] for cell in read("squares", tmp_path).cells] == [1, 4, 9]


def test_an_interrupted_sweep_goes_on_where_it_ended_and_loses_nothing(tmp_path):
    counter = str(tmp_path / "ran")
    with pytest.raises(RuntimeError, match="interrupted"):
        run(of(1, 2, -1, counter=counter), jobs=1, folder=tmp_path)
    assert not (tmp_path / "figures").exists()
    run(of(1, 2, 3, counter=counter), jobs=1, folder=tmp_path)
    with open(counter) as file:  # noqa: PTH123
        ran = file.read().split()
    assert sorted(ran) == ["-1", "1", "2", "3"]


def test_a_cell_is_run_again_for_other_arguments_or_other_work(tmp_path):
    first = of(1)
    assert sweep._key(first, {"number": 1}) != sweep._key(first, {"number": 2})
    other = replace(first, work=of)
    assert sweep._key(first, {"number": 1}) != sweep._key(other, {"number": 1})


# --- what counts as finished ---


def module_of(folder, factor, monkeypatch):
    """Write and import a module whose cells are multiplied by ``factor``."""
    folder.mkdir(exist_ok=True)
    (folder / "made_up.py").write_text(
        f"from pathlib import Path\n\n\ndef times(a, note):\n"
        f"    with Path(note).open('a') as file:\n        file.write(f'{{a}} ')\n"
        f"    return {{'value': a * {factor}}}\n"
    )
    monkeypatch.syspath_prepend(folder)
    sys.modules.pop("made_up", None)
    importlib.invalidate_caches()
    return importlib.import_module("made_up")


def values(path):
    return [cell["result"]["value"] for cell in json.loads(path.read_text())["cells"]]


@pytest.fixture
def times(tmp_path, monkeypatch):
    """Make a sweep over numbers with a factor; ``.ran()`` says which cells ran since the last."""
    note = tmp_path / "note"

    def make(factor, *numbers):
        sys.dont_write_bytecode = True
        module = module_of(tmp_path / "code", factor, monkeypatch)
        cells = tuple({"a": number, "note": str(note)} for number in numbers)
        return Sweep("times", cells, module.times)

    def ran():
        text = note.read_text() if note.exists() else ""
        note.unlink(missing_ok=True)
        return text.split()

    make.ran = ran
    yield make
    sys.modules.pop("made_up", None)


def test_cells_of_other_code_are_computed_again(times, tmp_path):
    assert values(run(times(10, 1, 2), jobs=1, folder=tmp_path)) == [10, 20]
    times.ran()
    assert values(run(times(10, 1, 2, 3), jobs=1, folder=tmp_path)) == [10, 20, 30]
    assert times.ran() == ["3"]
    assert values(run(times(1000, 1, 2, 3), jobs=1, folder=tmp_path)) == [1000, 2000, 3000]
    assert times.ran() == ["1", "2", "3"]


def test_a_fresh_checkout_starts_from_the_published_cells(times, tmp_path):
    path = run(times(10, 1, 2), jobs=1, folder=tmp_path)
    times.ran()
    before = path.stat().st_mtime_ns
    shutil.rmtree(tmp_path / "build")
    run(times(10, 1, 2), jobs=1, folder=tmp_path)
    assert times.ran() == []
    assert path.stat().st_mtime_ns == before
    shutil.rmtree(tmp_path / "build")
    assert values(run(times(10, 1, 2, 3), jobs=1, folder=tmp_path)) == [10, 20, 30]
    assert times.ran() == ["3"]
    shutil.rmtree(tmp_path / "build")
    assert values(run(times(1000, 1, 2, 3), jobs=1, folder=tmp_path)) == [1000, 2000, 3000]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"parameters": {"a": 1}}'])
def test_a_broken_cell_is_computed_again(times, tmp_path, text):
    path = run(times(10, 1, 2), jobs=1, folder=tmp_path)
    times.ran()
    path.unlink()
    first = sweep._key(times(10, 1), times(10, 1).cells[0])
    (tmp_path / "build" / "study" / "times" / f"{first}.json").write_text(text)
    assert values(run(times(10, 1, 2), jobs=1, folder=tmp_path)) == [10, 20]
    assert times.ran() == ["1"]
    path.write_text(text)
    assert values(run(times(10, 1, 2), jobs=1, folder=tmp_path)) == [10, 20]
    assert times.ran() == []


def test_a_trial_leaves_the_published_data(times, tmp_path):
    path = run(times(10, 1, 2), jobs=1, folder=tmp_path)
    before = path.read_bytes()
    for numbers in ((1,), (4, 5)):
        trial = run(times(10, *numbers), jobs=1, folder=tmp_path)
        assert trial == tmp_path / "build" / "study" / "times.json"
        assert values(trial) == [10 * number for number in numbers]
        assert path.read_bytes() == before
    assert run(times(10, 1), jobs=1, folder=tmp_path, replace=True) == path
    assert values(path) == [10]


def test_data_that_is_adopted_is_not_computed_again(times, tmp_path):
    path = run(times(10, 1, 2), jobs=1, folder=tmp_path)
    shutil.rmtree(tmp_path / "build")
    times.ran()
    adopt(times("10.0", 1, 2), tmp_path)
    assert values(run(times("10.0", 1, 2), jobs=1, folder=tmp_path)) == [10, 20]
    assert times.ran() == []
    path.unlink()
    with pytest.raises(ValueError, match="got none"):
        adopt(times(10, 1), tmp_path)


def test_code_that_is_edited_while_sweeps_run_is_not_that_of_their_numbers(
    times, tmp_path, monkeypatch
):
    def run_and_edit(chosen, **options):
        path = run(chosen, **options, folder=tmp_path)
        (tmp_path / "code" / "made_up.py").write_text("def times(a, note):\n    return {}\n")
        return path

    later = times(10, 1)
    loaded = sweep.code_of.__wrapped__(later.work)
    monkeypatch.setattr(study, "SWEEPS", {"squares": of(1), "times": later})
    monkeypatch.setattr(study, "run", run_and_edit)
    monkeypatch.setattr(study, "root", lambda: tmp_path)
    assert study.main(["--jobs", "1"]) == 0
    published = json.loads((tmp_path / "figures" / "study" / "times.json").read_text())
    assert published["code"] == loaded != sweep.code_of.__wrapped__(later.work)


def test_cells_of_another_release_of_torch_are_computed_again(times, tmp_path):
    path = run(times(10, 1, 2), jobs=1, folder=tmp_path)
    shutil.rmtree(tmp_path / "build")
    times.ran()
    data = json.loads(path.read_text())
    data["machine"]["torch"] = torch.__version__.partition("+")[0] + "+other"
    path.write_text(json.dumps(data))
    run(times(10, 1, 2, 3), jobs=1, folder=tmp_path)
    assert times.ran() == ["3"]
    cells = json.loads(path.read_text())["cells"]
    assert ["machine" in cell for cell in cells] == [False, False, True]
    shutil.rmtree(tmp_path / "build")
    data["machine"]["torch"] = "1.0"
    path.write_text(json.dumps(data))
    run(times(10, 1, 2), jobs=1, folder=tmp_path)
    assert times.ran() == ["1", "2"]


def test_the_published_sweeps_are_of_the_present_code():
    """Whoever changes code that makes them runs ``make study``, or adopts them."""
    for each in SWEEPS.values():
        file = sweep._published_file(each.name, root())
        published = json.loads(file.read_text())
        assert published["code"] == sweep.code_of(each.work), f"make study SWEEPS={each.name}"


@pytest.mark.slow
@pytest.mark.parametrize("inherited", [signal.SIG_DFL, signal.SIG_IGN])  # a shell's background
def test_an_interrupt_ends_in_one_line(tmp_path, inherited):
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from rai_utils.experiments import study, sweep\n"
        "import slow_work\ncells = tuple({'a': a, 'note': sys.argv[1]} for a in range(2))\n"
        "study.SWEEPS['slow'] = sweep.Sweep('slow', cells, slow_work.slow)\n"
        "study.root = sweep.root = lambda: Path(sys.argv[2])\n"
        "sys.exit(study.main(['slow', '--jobs', '2']))\n"
    )
    (tmp_path / "slow_work.py").write_text(
        "import pathlib, time\n\ndef slow(a, note):\n    pathlib.Path(note, str(a)).touch()\n"
        "    time.sleep(60)\n    return {}\n"
    )
    (tmp_path / "notes").mkdir()
    started = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "notes"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, inherited),
    )
    end = time.monotonic() + 120
    while len(list((tmp_path / "notes").iterdir())) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    os.killpg(started.pid, signal.SIGINT)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 130
    lines = [line for line in re.split("[\r\n]", errors) if line and not line.startswith("slow:")]
    assert lines == ["make study: interrupted; the cells that were finished are kept"]


def test_a_scheduler_that_does_not_answer_gives_one_line(monkeypatch, capfd):
    monkeypatch.setattr(study, "SCHEDULER_SECONDS", 0.2)
    assert study.main(["sequential", "--cluster", "tcp://127.0.0.1:9"]) == 2
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1
    assert "no scheduler answers at tcp://127.0.0.1:9" in errors


def test_a_sweep_refuses_what_it_cannot_run():
    with pytest.raises(ValueError, match="at least one cell"):
        of()
    with pytest.raises(ValueError, match="each cell once"):
        of(1, 2, 1)


def test_a_run_without_a_process_is_refused(capfd):
    with pytest.raises(SystemExit):
        study.main(["sequential", "--jobs", "0"])
    assert "jobs must be at least 1, got 0" in capfd.readouterr().err


def nothing(number):
    return {"value": float("nan")}


def test_a_result_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="finite"):
        run(Sweep("nothing", ({"number": 1},), nothing), jobs=1, folder=tmp_path)


def test_only_published_data_is_read(tmp_path):
    with pytest.raises(ValueError, match="got none"):
        read("squares", tmp_path)
    file = tmp_path / "figures" / "study" / "squares.json"
    file.parent.mkdir(parents=True)
    for text in ("{", '{"cells": []}', "[]"):
        file.write_text(text)
        with pytest.raises(ValueError, match="published sweep"):
            read("squares", tmp_path)

    file.write_text(json.dumps({"cells": []}))
    with pytest.raises(ValueError, match="published sweep"):
        read("squares", tmp_path)


def test_numbers_are_none_where_they_are_not_finite():
    values = np.array([[1.23456, np.nan], [-np.inf, 0.0]])
    assert finite(values, 3) == [[1.23, None], [None, 0.0]]
    assert finite(np.float32(0.5)) == 0.5 and finite(np.nan) is None


def test_the_ends_of_a_fit_are_none_where_it_failed():
    data, start = moons(20), build_mlp(Architecture((2, 3, 1)), [0, 1])
    history = fit_backprop(start, data, Phase(2, 0.1), watch=Watch([0, 2])).history
    found = ends(history)
    assert found["train"] == history.accuracy[-1].tolist()
    assert found["held_out"] == history.held_out_accuracy[-1].tolist()
    nothing = replace(history, accuracy=history.accuracy[:0])
    assert ends(nothing)["train"] == [None, None]
    assert ends(history, nothing, digits=2)["train"][2:] == [None, None]


def test_a_grid_is_every_combination_with_what_all_share():
    cells = grid({"steps": 3}, depth=(2, 5), network=range(2))
    assert [(each["depth"], each["network"]) for each in cells] == [(2, 0), (2, 1), (5, 0), (5, 1)]
    assert all(each.keys() == {"steps", "depth", "network"} for each in cells)

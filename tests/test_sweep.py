import json
from dataclasses import replace

import pytest
import torch

from rai_utils import sweep
from rai_utils.sweep import Sweep, read, run


def squares(number, counter=None):
    """A cell that says on disk that it ran."""
    if counter is not None:
        with open(counter, "a") as file:  # noqa: PTH123
            file.write(f"{number}\n")
    if number < 0:
        raise RuntimeError("interrupted")
    return {"square": number**2, "threads": torch.get_num_threads()}


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
    assert published.machine["torch"] == torch.__version__
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


def test_a_sweep_refuses_what_it_cannot_run():
    with pytest.raises(ValueError, match="at least one cell"):
        of()
    with pytest.raises(ValueError, match="each cell once"):
        of(1, 2, 1)
    with pytest.raises(ValueError, match="jobs must be at least 1"):
        run(of(1), jobs=0)


def nothing(number):
    return {"value": float("nan")}


def test_a_result_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="finite"):
        run(Sweep("nothing", ({"number": 1},), nothing), jobs=1, folder=tmp_path)


def test_only_published_data_is_read(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        read("squares", tmp_path)
    file = tmp_path / "figures" / "study" / "squares.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"cells": []}))
    with pytest.raises(ValueError, match="published sweep"):
        read("squares", tmp_path)

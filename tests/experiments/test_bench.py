"""The benchmark's arithmetic; no test here depends on how fast a machine is."""

from pathlib import Path

import numpy as np
import pytest

from rai_utils.diagnostics import gradient_norms
from rai_utils.experiments import bench
from rai_utils.experiments.bench import moons_of, power_law, reference_steps
from rai_utils.models import Architecture, build_mlp
from rai_utils.training import Phase, fit_backprop


def test_exponent_is_the_power_of_the_growth():
    sizes = [1, 2, 4, 8]
    assert power_law(sizes, [3 * n**1.7 for n in sizes]) == pytest.approx((1.7, 3))
    with pytest.raises(ValueError, match="sizes must be two or more"):
        power_law([1], [1])


@pytest.mark.parametrize("relaxed", [True, False])
def test_reference_trains_the_module_one_rprop_step_at_a_time(relaxed):
    data = moons_of(10)
    model = build_mlp(Architecture((2, 4, 4, 1)), [0])
    run = reference_steps(model, data, relaxed)
    assert len(run(3)) == 3
    assert len(bench.stacked_steps(bench.fit_relaxed, model, data)(4)) == 4


def test_backprop_is_timed_where_every_layer_has_a_gradient():
    model = bench.with_gradient(bench.deep(100, 20))
    fit = fit_backprop(model, moons_of(20), Phase(12, bench.SMALL), device="cpu")
    for network in (model, fit.model):
        assert (gradient_norms(network, moons_of(20)) > 0.01).all()


def test_every_measuring_function_reports_one_time_a_step():
    products = bench.product_steps(5, 4, 3, batch=2), bench.large_product_steps(20)
    for run in (*products, bench.copy_steps(100)):
        seconds = run(4)
        assert len(seconds) == 4
        assert np.all(np.array(seconds) > 0)


@pytest.mark.slow
def test_peak_memory_of_a_child_is_its_own():
    held = np.ones(60_000_000)
    assert 0 < bench.peak_memory("stacked") < 400
    assert held.size


def test_a_bench_keeps_what_the_peers_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "figures" / "bench"
    place.mkdir(parents=True)
    for file in ("peers.json", "peers.png", "old.png"):
        (place / file).write_text(file)
    published: list[str] = []
    monkeypatch.setattr(bench.sys, "argv", ["bench"])
    monkeypatch.setattr(bench, "root", lambda: tmp_path)
    monkeypatch.setattr(bench, "configure", lambda threads: None)
    monkeypatch.setattr(bench, "measure", lambda study: None)
    monkeypatch.setattr(
        bench,
        "publish_with_index",
        lambda made, folder, name: published.extend(path.name for path in made.iterdir()),
    )
    bench.main()
    assert sorted(published) == ["metrics.json", "peers.json", "peers.png"]

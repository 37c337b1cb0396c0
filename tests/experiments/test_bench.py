"""The benchmark's arithmetic; no test here depends on how fast a machine is."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rai_utils.diagnostics import gradient_norms
from rai_utils.experiments import bench, bench_cuda
from rai_utils.experiments.bench import moons_of, power_law, reference_steps
from rai_utils.models import Architecture, build_mlp
from rai_utils.publishing.claims import Study, read_metrics
from rai_utils.training import Phase, fit_backprop


def test_exponent_is_the_power_of_the_growth():
    sizes = [1, 2, 4, 8]
    assert power_law(sizes, [3 * n**1.7 for n in sizes]) == pytest.approx((1.7, 3))


def test_a_backward_pass_is_compared_with_the_forward_pass_of_its_round(monkeypatch):
    moments = iter(np.cumsum([1, 1, 1, 3] * 7))  # a second forward, three backward
    monkeypatch.setattr(bench, "clocked", partial(bench.clocked, clock=moments.__next__))
    assert bench.backward_over_forward(2, rounds=2) == [3.0, 3.0, 3.0]


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


def test_the_bench_of_a_gpu_records_every_case_and_ratio(tmp_path, monkeypatch):
    seconds = {"recorded": 1.0, "launched": 4.0, "cpu": 10.0}

    def run(fit, model, rate, way):
        assert rate == (bench.SMALL if fit is fit_backprop else 0.1)
        longer = model.architecture.widths[1] * (2 if fit is fit_backprop else model.seeds)
        return lambda count: np.full(count, seconds[way] * longer)

    def tiny(architecture, seeds):
        return build_mlp(Architecture((2, architecture.depth // 100, 1)), seeds)

    methods = {name: (fit, tiny, rate) for name, (fit, _, rate) in bench_cuda.METHODS.items()}
    monkeypatch.setattr(bench_cuda, "run", run)
    monkeypatch.setattr(bench_cuda, "METHODS", methods)
    study = Study("bench-cuda", {"card": "none", "publish_to": str(tmp_path)})
    bench_cuda.measure(study)
    study.publish()
    metrics = read_metrics(tmp_path)["metrics"]
    found = {name: number["value"] for name, number in metrics.items()}
    where = "100_layers_1_networks"
    expected = {
        f"rai_recorded_{where}_milliseconds": 1e3,
        f"rai_launched_{where}_milliseconds": 4e3,
        f"rai_launched_over_recorded_{where}": 4,
        f"rai_cpu_{where}_milliseconds": 1e4,
        f"rai_cpu_over_recorded_{where}": 10,
        f"backprop_recorded_{where}_milliseconds": 2e3,
        f"backprop_launched_{where}_milliseconds": 8e3,
        f"backprop_launched_over_recorded_{where}": 4,
        f"backprop_cpu_{where}_milliseconds": 2e4,
        f"backprop_cpu_over_recorded_{where}": 10,
        f"backprop_over_rai_{where}": 2,
    }
    assert {name: value for name, value in found.items() if where in name} == expected
    assert {name for name in found if "10000" in name} == {
        "rai_recorded_10000_layers_1_networks_milliseconds"
    }
    published = json.loads((bench.root() / "figures" / "bench-cuda" / "metrics.json").read_text())
    assert found.keys() == published["metrics"].keys()

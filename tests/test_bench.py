"""The benchmark's arithmetic; no test here depends on how fast a machine is."""

import numpy as np
import pytest

from rai_utils import bench
from rai_utils.bench import fitted_exponent, interleaved_medians, moons_of, reference_steps
from rai_utils.models import Architecture, build_mlp


def test_medians_leave_out_the_warm_up_and_take_turns():
    order = []

    def candidate(name, values):
        def run(steps):
            order.append(name)
            return values[:steps]

        return run

    medians = interleaved_medians(
        {"slow": candidate("slow", [99, 3, 5, 4]), "fast": candidate("fast", [99, 1, 1, 7])},
        rounds=2,
        steps=3,
        warm_up=1,
    )
    assert medians == {"slow": 4.0, "fast": 1.0}
    assert order == ["slow", "fast", "slow", "fast"]
    with pytest.raises(ValueError, match="got 0, 1 and 2"):
        interleaved_medians({}, 0, 1)


def test_exponent_is_the_power_of_the_growth():
    sizes = [1, 2, 4, 8]
    assert fitted_exponent(sizes, [3 * n**1.7 for n in sizes]) == pytest.approx(1.7)
    with pytest.raises(ValueError, match="two sizes or more"):
        fitted_exponent([1], [1])


@pytest.mark.parametrize("relaxed", [True, False])
def test_reference_trains_the_module_one_rprop_step_at_a_time(relaxed):
    data = moons_of(10)
    model = build_mlp(Architecture((2, 4, 4, 1)), [0])
    run = reference_steps(model, data, relaxed)
    assert len(run(3)) == 3
    assert len(bench.stacked_steps(bench.fit_relaxed, model, data)(4)) == 4


def test_every_measuring_function_reports_one_time_a_step():
    for run in (bench.product_steps(5, 4, 3, batch=2), bench.copy_steps(100)):
        seconds = run(4)
        assert len(seconds) == 4
        assert np.all(np.array(seconds) > 0)


@pytest.mark.slow
def test_peak_memory_of_a_child_is_its_own():
    held = np.ones(60_000_000)
    assert 0 < bench.peak_memory("stacked") < 400
    assert held.size

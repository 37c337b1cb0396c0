"""What a step costs on a GPU: ``python -m rai_utils.experiments.bench_cuda``, where there is one.

The same fits as on the CPU, over depth and over networks trained at once, with the step played back
as a CUDA graph ("recorded") and without ("launched"). Ratios are medians over the rounds of one
interleaved run with warm-up; published as ``figures/bench-cuda/``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray

from rai_utils import plotting, training
from rai_utils.experiments.bench import (
    SMALL,
    deep,
    moons_of,
    published,
    stacked_steps,
    with_gradient,
)
from rai_utils.experiments.timing import Steps, interleaved, steady
from rai_utils.models import StackedMLP, build_mlp, stack
from rai_utils.publishing.claims import Study
from rai_utils.publishing.prose import markdown_table
from rai_utils.training import Fit, configure, fit_backprop, fit_relaxed

CASES = ((100, 1), (100, 10), (100, 64), (1000, 1), (1000, 10), (10_000, 1), (1000, 64))
# Further ways and methods where they take seconds, not minutes.
ON_CPU, LAUNCHED, ONLY_RAI = {(100, 1)}, {(100, 1), (100, 10), (1000, 1)}, {(10_000, 1)}
STEPS, WARM_UP, ROUNDS = 16, 4, 3  # a graph is recorded in the first two steps
WAYS = ("recorded", "launched", "cpu")
METHODS: dict[str, tuple[Callable[..., Fit], Callable[..., StackedMLP], float]] = {
    "rai": (fit_relaxed, build_mlp, 0.1),
    "backprop": (fit_backprop, with_gradient, SMALL),
}


def run(fit: Callable[..., Fit], model: StackedMLP, rate: float, way: str) -> Steps:
    """Time the steps of a fit that is recorded or launched on the GPU, or made on the CPU."""
    device = "cpu" if way == "cpu" else "cuda"
    timed = stacked_steps(fit, model, moons_of(100), rate, device=device)

    def steps(count: int) -> Sequence[float] | NDArray[np.float64]:
        training.CUDA_GRAPHS = way == "recorded"
        return timed(count)

    return steps


def seconds_of(layers: int, networks: int) -> dict[str, NDArray[np.float64]]:
    """Seconds of a step of every method and way, (rounds,) each, in the same rounds."""
    case, timed = (layers, networks), {}
    for method, (fit, build, rate) in METHODS.items():
        if method != "rai" and case in ONLY_RAI:
            continue
        model = stack([build(deep(layers), [0])] * networks)
        for way, cases in {"recorded": {case}, "launched": LAUNCHED, "cpu": ON_CPU}.items():
            if case in cases:
                timed[f"{method}_{way}"] = steady(run(fit, model, rate, way), STEPS, WARM_UP)
    return interleaved(timed, ROUNDS, warm_up=0)


def measure(study: Study) -> None:
    """Measure every case, print it, and record it in ``study``."""
    rows, measured = [], dict[str, Any]()
    for layers, networks in CASES:
        seconds = seconds_of(layers, networks)
        where = f"{layers}_layers_{networks}_networks"
        for method in METHODS:
            of = {way: seconds.get(f"{method}_{way}") for way in WAYS}
            times = {w: 1e3 * float(np.median(v)) for w, v in of.items() if v is not None}
            for way, time in times.items():
                measured[f"{method}_{way}_{where}_milliseconds"] = time
                if way != "recorded":
                    ratio = np.median(seconds[f"{method}_{way}"] / seconds[f"{method}_recorded"])
                    measured[f"{method}_{way}_over_recorded_{where}"] = float(ratio)
            if times:
                cells = [f"{times[way]:.3g}" if way in times else "" for way in WAYS]
                rows.append([f"{method}, {layers} layers, networks: {networks}", *cells])
                print(rows[-1], flush=True)
        if "backprop_recorded" in seconds:
            ratio = np.median(seconds["backprop_recorded"] / seconds["rai_recorded"])
            measured[f"backprop_over_rai_{where}"] = float(ratio)
    study.record(within=0.5, **measured)  # half: times are another machine's in another run
    print("\n" + markdown_table(["one step, ms", *WAYS], rows), flush=True)
    _draw(study, measured)


def _draw(study: Study, measured: Mapping[str, float]) -> None:
    figure, panels = plotting.figure(columns=2, panel_height=1.9, share_y=True)
    sides = (
        ("1 network", "hidden layers", (100, 1000, 10_000), "{}_layers_1_networks"),
        ("1000 hidden layers", "networks", (1, 10, 64), "1000_layers_{}_networks"),
    )
    for axes, (title, label, sizes, where) in zip(panels.flat, sides, strict=True):
        curves = {
            method: [
                measured.get(f"{method.lower()}_recorded_{where.format(n)}_milliseconds", np.nan)
                for n in sizes
            ]
            for method in ("RAI", "backprop")
        }
        plotting.relation(
            axes, sizes, curves, x_label=label, label="one step, ms", log_x=True, log_y=True
        )
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_title(title)
    plotting.shared_key(figure, panels)
    words = "Milliseconds of a training step on a GPU over depth and over networks, on logarithmic "
    words += "axes: RAI's layers are trained side by side, those of backpropagation one after the "
    words += "other."
    study.figure("gpu", figure, alt=words)
    plt.close("all")


def main() -> None:
    """Measure, print, and publish ``figures/bench-cuda/``.

    Raises:
        SystemExit: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise SystemExit("bench_cuda needs a CUDA GPU, and torch sees none")
    configure(threads=torch.get_num_threads())
    training.compile_rprop("cuda")
    training.compile_rprop("cpu")
    card = {"card": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    published("bench-cuda", card, measure)


if __name__ == "__main__":
    main()

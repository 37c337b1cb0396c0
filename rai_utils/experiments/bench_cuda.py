"""What a step costs on a GPU: ``python -m rai_utils.experiments.bench_cuda``, where there is one.

The same fits as on the CPU, at 100 and 1000 hidden layers and several numbers of networks, with
the step played back as a CUDA graph and without. A step's time is the difference of two fits of
different length, divided by their difference in steps: what comes once, the recording, falls out.
Medians over the rounds of one interleaved run; published as ``figures/bench/cuda.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch

from rai_utils import training
from rai_utils.data import moons
from rai_utils.models import Architecture, StackedMLP, build_mlp, stack
from rai_utils.publishing.claims import environment, root
from rai_utils.training import Fit, Phase, Watch, configure, fit_backprop, fit_relaxed

NOTHING = Watch(evaluate_at=())
CASES = ((100, 1), (100, 10), (100, 64), (1000, 1), (1000, 10), (1000, 64))
# The largest take minutes on a CPU, and their launches are few beside their work.
ON_CPU, LAUNCHED = CASES[:2], CASES[:-1]
SHORT, LONG, ROUNDS = 5, 45, 3


def seconds_a_step(
    fit: Callable[..., Fit], model: StackedMLP, device: str, rate: float, short: int, long: int
) -> float:
    """Seconds of a step, from the difference of a long and a short fit."""
    data = moons(held_out=4)

    def whole(steps: int) -> float:
        started = perf_counter()
        fit(model, data, Phase(steps, rate), watch=NOTHING, device=device)
        if device == "cuda":
            torch.cuda.synchronize()
        return perf_counter() - started

    return (whole(long) - whole(short)) / (long - short)


def measure() -> dict[str, object]:
    """Time every case; return the record."""
    configure(threads=torch.get_num_threads())
    training.compile_rprop("cuda")
    training.compile_rprop("cpu")
    rows = []
    for layers, networks in CASES:
        architecture, case = Architecture((2, *[100] * layers, 1)), (layers, networks)
        # Backpropagation with a gradient in every layer, and steps that leave it there.
        for method, fit, rate, start in (
            ("RAI", fit_relaxed, 0.1, ("torch_default", 1.0)),
            ("backprop", fit_backprop, 1e-6, ("orthogonal_centred", 4.0)),
        ):
            model = stack([build_mlp(architecture, [0], *start)] * networks)
            ways: dict[str, list[float]] = {"recorded": [], "launched": [], "cpu": []}
            for _ in range(ROUNDS):
                for way, seconds in ways.items():
                    if case not in {"cpu": ON_CPU, "launched": LAUNCHED}.get(way, CASES):
                        continue
                    training.CUDA_GRAPHS = way == "recorded"
                    device = "cpu" if way == "cpu" else "cuda"
                    seconds.append(seconds_a_step(fit, model, device, rate, SHORT, LONG))
            row = {"method": method, "hidden_layers": layers, "networks": networks}
            row |= {
                f"{way}_milliseconds": float(f"{1e3 * np.median(seconds):.4g}") if seconds else None
                for way, seconds in ways.items()
            }
            rows.append(row)
            print(row, flush=True)
    card = torch.cuda.get_device_name()
    machine = environment() | {"card": card, "cuda": torch.version.cuda}
    return {"machine": machine, "rounds": ROUNDS, "steps": [SHORT, LONG], "rows": rows}


def main() -> None:
    """Measure and publish.

    Raises:
        SystemExit: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise SystemExit("bench_cuda needs a CUDA GPU, and torch sees none")
    file = root() / "figures" / "bench" / "cuda.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(measure(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

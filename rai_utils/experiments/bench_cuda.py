"""What a step costs on a GPU: ``python -m rai_utils.experiments.bench_cuda``, where there is one.

The same fits as on the CPU, at 100 and 1000 hidden layers and several numbers of networks, with
the step played back as a CUDA graph and without. Medians over steps and over the rounds of one
interleaved run; published as ``figures/bench/cuda.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

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
STEPS, ROUNDS = 24, 3


def milliseconds_a_step(
    fit: Callable[..., Fit], model: StackedMLP, device: str, rate: float
) -> float:
    """Median time of a step, without the first ones, which record it."""
    phase = Phase(STEPS, rate)
    seconds = fit(model, moons(held_out=4), phase, watch=NOTHING, device=device).step_seconds
    return 1e3 * float(np.median(seconds[STEPS // 3 :]))


def rows() -> Iterator[dict[str, object]]:
    """Time every case, one after the other."""
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
                for way, times in ways.items():
                    if case not in {"cpu": ON_CPU, "launched": LAUNCHED}.get(way, CASES):
                        continue
                    training.CUDA_GRAPHS = way == "recorded"
                    device = "cpu" if way == "cpu" else "cuda"
                    times.append(milliseconds_a_step(fit, model, device, rate))
            medians = {
                f"{way}_milliseconds": float(f"{np.median(times):.4g}") if times else None
                for way, times in ways.items()
            }
            yield {"method": method, "hidden_layers": layers, "networks": networks} | medians


def main() -> None:
    """Measure and publish; what is done is written, should the largest cases not fit.

    Raises:
        SystemExit: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise SystemExit("bench_cuda needs a CUDA GPU, and torch sees none")
    configure(threads=torch.get_num_threads())
    training.compile_rprop("cuda")
    training.compile_rprop("cpu")
    machine = environment() | {"card": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    record = {"machine": machine, "rounds": ROUNDS, "steps": STEPS, "rows": []}
    file = root() / "figures" / "bench" / "cuda.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    for row in rows():
        record["rows"].append(row)
        print(row, flush=True)
        file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Other packages for the same step: ``make peers`` times them in an environment of their own.

jpc and pcx train networks by predictive coding, whose energy is RAI's with squared errors: the
same targets, the same residuals. Each side makes one Rprop update of weights and one of targets a
step, on the same networks and examples, and all take turns in the same rounds. What differs:

- jpc, as documented: two calls a step, the second with the targets that the first one moved, so
  the energy is differentiated twice. Networks come one after the other.
- jpc, one jit: its energy differentiated once for both, and several networks in one batch (vmap).
- pcx: two gradients a step as in its tutorial, in one jit. Networks come one after the other.
- hook reference: ordinary torch modules and forward hooks. Networks come one after the other.
- this project: weights and targets together. Its output has a target of its own too, read by the
  cross-entropy; the peers hold the output at the label, with the squared error.

Before a peer counts, the energy that it reports is compared with the one computed here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from rai_utils import plotting
from rai_utils.data import Dataset
from rai_utils.experiments.bench import deep, moons_of, reference_steps, shallow, stacked_steps
from rai_utils.experiments.timing import Steps, interleaved, steady
from rai_utils.models import Architecture, StackedMLP, build_mlp
from rai_utils.publishing.claims import environment, root, save_figure
from rai_utils.publishing.pipeline import replace_unprintable
from rai_utils.publishing.prose import markdown_table
from rai_utils.relaxation import Targets, forward_targets, relaxation_plan
from rai_utils.training import configure, fit_relaxed

OURS, OURS_COMPILED, REFERENCE = "this project", "this project, compiled", "hook reference"
PEERS = ("jpc", "jpc, one jit", "pcx")
CASES = {
    "deep, 1 seed": (deep(), 1, 0.1),
    "deep, 16 seeds": (deep(), 16, 0.1),
    "shallow, 1 seed": (shallow(), 1, 0.01),
    "shallow, 16 seeds": (shallow(), 16, 0.01),
}
ROUNDS, STEPS, WARM_UP = 4, {1: 10, 16: 2}, 1
SPREAD = 0.1  # of the noise on the targets: with residuals of 0 there would be nothing to compare


@dataclass(frozen=True)
class Case:
    """The same start for all.

    Attributes:
        model: the networks.
        targets: of every layer, away from the forward pass.
        data: the examples.
        rate: Rprop's first step.
    """

    model: StackedMLP
    targets: Targets
    data: Dataset
    rate: float


def make_case(architecture: Architecture, seeds: int, rate: float) -> Case:
    """Draw networks and targets; the target of the output is the label, as the peers have it."""
    data, model = moons_of(100), build_mlp(architecture, range(seeds))
    plan = relaxation_plan(architecture)
    generator = torch.Generator().manual_seed(0)
    values = [
        value + SPREAD * torch.randn(value.shape, generator=generator)
        for value in forward_targets(model, data.x, plan).values
    ]
    values[-1][-1] = data.y[:, None]  # (seeds, examples, 1)
    return Case(model, Targets(plan, tuple(values), data.x), data, rate)


def linear_layers(model: StackedMLP, seed: int) -> list[torch.nn.Linear]:
    """Return the layers of one network, from the input on."""
    return [part for part in model.as_module(seed) if isinstance(part, torch.nn.Linear)]


@torch.no_grad()
def energies(case: Case) -> list[float]:
    """½ Σ_t ‖z_t − ẑ_t‖², a mean over examples, of each network: what the peers minimise."""
    result = []
    for seed in range(case.model.seeds):
        h, total = case.data.x, torch.zeros(())
        for layer, module in enumerate(linear_layers(case.model, seed), start=1):
            z = case.targets.at(layer)[seed]  # (examples, l_t)
            total = total + (z - module(h)).square().sum() / 2
            h = case.model.architecture.activation.function(z)
        result.append(float(total) / len(case.data.x))
    return result


def write_case(case: Case, path: Path) -> None:
    """Write a case as ``peers_jax`` reads it."""
    arrays: dict[str, Tensor] = {"x": case.data.x, "y": case.data.y[:, None]}
    for seed in range(case.model.seeds):
        for t, module in enumerate(linear_layers(case.model, seed)):
            arrays[f"w{seed}_{t}"], arrays[f"b{seed}_{t}"] = module.weight, module.bias
            arrays[f"z{seed}_{t}"] = case.targets.at(t + 1)[seed]
    architecture = case.model.architecture
    about = {
        "depth": architecture.depth,
        "seeds": case.model.seeds,
        "activation": architecture.hidden_activation,
        "rate": case.rate,
    }
    held: dict[str, Any] = {name: value.detach().numpy() for name, value in arrays.items()}
    np.savez(path, about=json.dumps(about), **held)


def start(python: Path) -> subprocess.Popen[str]:
    """Start the process of the other environment; it holds all peers and works on request."""
    command = [str(python), str(Path(__file__).with_name("peers_jax.py"))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(worker: subprocess.Popen[str], peer: str, case: Path, steps: int) -> dict[str, Any]:
    """Have a peer make so many steps of a case; return what it answers.

    Raises:
        RuntimeError: the process ended.
    """
    request = json.dumps({"peer": peer, "case": str(case), "steps": steps})
    print(request, file=worker.stdin, flush=True)
    line = cast(IO[str], worker.stdout).readline()
    if not line:
        raise RuntimeError(f"the process that times {peer} ended")
    return json.loads(line)


def in_turn(runs: Sequence[Steps]) -> Steps:
    """Time networks that are trained one after the other as one step of all."""
    return lambda steps: np.sum([run(steps) for run in runs], 0).tolist()


def measure(
    name: str, ask_peer: Callable[[str, Path, int], dict[str, Any]], folder: Path
) -> dict[str, dict[str, float]]:
    """Time one case by every side; return the medians in ms, and ratios to this project's step.

    Raises:
        RuntimeError: a peer computes another energy.
    """
    case = make_case(*CASES[name])
    path = folder / f"{name}.npz"
    write_case(case, path)
    fit = partial(
        stacked_steps, fit_relaxed, case.model, case.data, case.rate, targets=case.targets
    )
    modules = [build_mlp(case.model.architecture, [seed]) for seed in range(case.model.seeds)]
    runs: dict[str, Steps] = {
        OURS: fit(),
        OURS_COMPILED: fit(compiled=True),
        REFERENCE: in_turn([reference_steps(m, case.data, True, case.rate) for m in modules]),
    }
    for peer in PEERS:
        answer = ask_peer(peer, path, 1)
        if "missing" in answer:
            print(f"{name}: {peer} is left out, build/peers lacks it", flush=True)
            continue
        own, found = energies(case), answer["energies"]
        if not np.allclose(found, own, rtol=1e-3):
            raise RuntimeError(f"{peer} must have the energies {own}, got {found}")
        runs[peer] = lambda steps, peer=peer: ask_peer(peer, path, steps)["seconds"]
    steps = STEPS[case.model.seeds]
    seconds = interleaved(
        {side: steady(run, steps, WARM_UP) for side, run in runs.items()}, ROUNDS, warm_up=1
    )
    result = {}
    for side, values in seconds.items():
        of = {
            "milliseconds": 1e3 * values,
            "over_this_project": values / seconds[OURS],
            "over_this_project_compiled": values / seconds[OURS_COMPILED],
        }
        result[side] = {what: float(f"{np.median(each):.4g}") for what, each in of.items()}
    return result


def draw(results: dict[str, dict[str, dict[str, float]]], folder: Path) -> None:
    """Draw the time of a step of every side, a panel a case: ``peers.png`` and ``peers.pdf``."""
    for suffix, width in ((".png", plotting.PAGE), (".pdf", plotting.HALF_PAGE)):
        plotting.use_style(width)
        figure, panels = plotting.figure(2, 2, panel_height=1.9, share_y=True)
        for axes, (name, sides) in zip(panels.flat, results.items(), strict=True):
            times = [side["milliseconds"] for side in sides.values()]
            axes.set(xscale="log", title=name.replace(", ", ",\n"))
            plotting.interval_bars(axes, list(sides), times, times, times, label="one step, ms")
            plotting.label_powers(axes.xaxis)
        save_figure(figure, folder / f"peers{suffix}")
        plt.close("all")


def main() -> None:
    """Measure and publish ``figures/bench/peers.json`` and its figure.

    Raises:
        SystemExit: there is no environment of the peers.
    """
    replace_unprintable()
    python = root() / "build" / "peers" / "bin" / "python"
    if not python.is_file():
        raise SystemExit("the peers' environment must be in build/peers: make peers")
    configure(threads=2)
    results = {}
    with start(python) as worker, tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            results[name] = measure(name, partial(ask, worker), Path(folder))
            header = ["one step", "ms", "× this project", "× this project, compiled"]
            rows = [
                [side, *(f"{v:.3g}" for v in of.values())] for side, of in results[name].items()
            ]
            print(f"\n{name}\n" + markdown_table(header, rows), flush=True)
    freeze = [str(python), "-m", "pip", "list", "--format=json"]
    listed = json.loads(subprocess.run(freeze, check=True, capture_output=True, text=True).stdout)
    wanted = ("jax", "jpc", "pcx", "optax", "equinox")
    record = {
        "machine": environment(),
        "packages": {p["name"]: p["version"] for p in listed if p["name"] in wanted},
        "rounds": ROUNDS,
        "cases": results,
    }
    if "jpc, one jit" in results["shallow, 1 seed"]:
        record["metrics"] = {
            f"shallow_speedup_over_jpc_{seeds.replace(' ', '_')}": results[f"shallow, {seeds}"][
                "jpc, one jit"
            ]["over_this_project_compiled"]
            for seeds in ("1 seed", "16 seeds")
        }
    place = root() / "figures" / "bench"
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (place / "peers.json").write_text(text, encoding="utf-8")
    draw(results, place)
    print("\npeers  published in figures/bench")


if __name__ == "__main__":
    sys.exit(main())

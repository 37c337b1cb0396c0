"""What a step costs: against the reference, against the floor, and as the problem grows.

``make bench`` runs this module. It prints tables and publishes ``figures/bench/``. Ratios are
medians over the rounds of one interleaved run with warm-up, so that whatever else the machine does
hits both sides; the milliseconds are of one machine and only an illustration.

Backpropagation is timed from a start with a gradient in every layer. From torch's default
initialisation the gradient of a deep sigmoid net is exactly 0 in most layers, and the stacked fit
does no work there; those rows are called dead.

Beside the ratios stand what the machine did in the same rounds: floating-point operations a second
in one large product and in the step's own products, and bytes a second in a copy.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn

from rai_utils import plotting, training
from rai_utils.data import Dataset, moons
from rai_utils.experiments.timing import Steps, clocked, interleaved, steady, summarise
from rai_utils.models import Architecture, StackedMLP, build_mlp, stack
from rai_utils.modules import relax
from rai_utils.publishing.claims import Study, root
from rai_utils.publishing.intervals import Estimate
from rai_utils.publishing.pipeline import publish_with_index, replace_unprintable
from rai_utils.publishing.prose import markdown_table
from rai_utils.training import Phase, Watch, configure, fit_backprop, fit_relaxed, module_steps

NOTHING = Watch(evaluate_at=())
RPROP_TRANSFERS = 7  # parameter, gradient, previous gradient and step size in; three out
DEEP_WIDTH = 100
SMALL = 1e-6  # a first step that leaves backpropagation's gradient in every layer
LARGE_PRODUCT = 2000  # rows and columns
MOST_EXAMPLES = 10_000


def deep(layers: int = 100, width: int = DEEP_WIDTH) -> Architecture:
    """Return the proposal's deep circuit, or one of another depth or width."""
    return Architecture((2, *[width] * layers, 1))


def shallow() -> Architecture:
    """Return the proposal's shallow circuit."""
    return Architecture((2, 42, 100, 100, 42, 1), "relu")


def with_gradient(architecture: Architecture, seeds: Sequence[int] = (0,)) -> StackedMLP:
    """Return sigmoid networks in which backpropagation's gradient reaches every layer."""
    return build_mlp(architecture, seeds, "orthogonal_centred", 4.0)


def stacked_steps(
    fit: Callable[..., training.Fit],
    model: StackedMLP,
    data: Dataset,
    rate: float = 0.1,
    **options: Any,
) -> Steps:
    """Time the steps of a fit of this package."""
    options = {"watch": NOTHING, "device": "cpu"} | options
    return lambda steps: fit(model, data, Phase(steps, rate), **options).step_seconds


def reference_steps(model: StackedMLP, data: Dataset, relaxed: bool, rate: float = 0.1) -> Steps:
    """Time the original's way: ordinary modules, hooks, and torch's eager Rprop on all tensors."""
    module = model.as_module(0)

    def run(steps: int) -> list[float]:
        with relax(module, data.x) if relaxed else nullcontext() as relaxation:

            def find_loss() -> Tensor:
                loss = nn.functional.binary_cross_entropy_with_logits(module(data.x)[:, 0], data.y)
                return loss if relaxation is None else loss + relaxation.hidden_loss()

            targets = [] if relaxation is None else relaxation.targets.values()
            optimizer = torch.optim.Rprop([*module.parameters(), *targets], lr=rate)
            seconds: list[float] = []
            for _ in module_steps(optimizer, find_loss, steps, seconds):
                pass
        return seconds

    return run


def _clocked(work: Callable[[], object]) -> Steps:
    timed = clocked(work)
    return lambda steps: [timed() for _ in range(steps)]


def product_steps(layers: int, examples: int, width: int, batch: int) -> Steps:
    """Time the three products that a step cannot do without, ``batch`` layers at a time."""
    generator = torch.Generator().manual_seed(0)
    h, weight, delta = (
        torch.randn(layers, rows, width, generator=generator)
        for rows in (examples, width, examples)
    )
    out, weight_out = torch.empty_like(h), torch.empty_like(weight)
    windows = [slice(start, start + batch) for start in range(0, layers, batch)]

    def multiply() -> None:
        for window in windows:
            torch.bmm(h[window], weight[window].mT, out=out[window])
            torch.bmm(delta[window], weight[window], out=out[window])
            torch.bmm(delta[window].mT, h[window], out=weight_out[window])

    return _clocked(multiply)


def large_product_steps(size: int) -> Steps:
    """Time one product of square matrices, large enough for the best that the machine does."""
    left, right = (torch.ones(size, size) for _ in range(2))
    out = torch.empty_like(left)
    return _clocked(lambda: torch.mm(left, right, out=out))


def copy_steps(numbers: int) -> Steps:
    """Time a copy that moves as many bytes as an Rprop step on so many float32 numbers."""
    source = torch.zeros(RPROP_TRANSFERS * numbers // 2)
    target = torch.empty_like(source)
    return _clocked(lambda: target.copy_(source))


def power_law(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Exponent a and factor c of seconds ≈ c · sizeᵃ: the line through the logarithms."""
    exponent, logarithm = np.polyfit(np.log(sizes), np.log(seconds), 1)
    return float(exponent), float(np.exp(logarithm))


@cache
def moons_of(examples: int) -> Dataset:
    """Return Moons with so many training examples."""
    return moons(examples=examples, held_out=4)


def growth(
    fit: Callable[..., training.Fit],
    build: Callable[[Architecture, Sequence[int]], StackedMLP],
    rate: float,
) -> dict[str, dict[int, float]]:
    """Seconds a step by size, as depth, width, examples and seeds grow from the deep circuit's."""
    cases: dict[str, dict[int, tuple[StackedMLP, Dataset]]] = {
        "depth": {n: (build(deep(n - 1), [0]), moons_of(100)) for n in (10, 30, 100, 300, 1000)},
        "width": {n: (build(deep(30, n), [0]), moons_of(100)) for n in (25, 50, 100, 200, 400)},
        "examples": {
            n: (build(deep(30), [0]), moons_of(n)) for n in (100, 300, 1000, 3000, MOST_EXAMPLES)
        },
        "seeds": {n: (build(deep(30), range(n)), moons_of(100)) for n in (1, 2, 4, 16, 64)},
    }
    result = {}
    for name, sizes in cases.items():
        timed = {
            str(size): steady(stacked_steps(fit, model, data, rate), steps=3)
            for size, (model, data) in sizes.items()
        }
        seconds = interleaved(timed, rounds=5, warm_up=0)
        result[name] = {size: float(np.median(seconds[str(size)])) for size in sizes}
    return result


def backward_over_forward(width: int, rounds: int = 40) -> list[float]:
    """Cost of a backward pass of autograd over that of the forward pass before it.

    Plain torch: a ReLU network of four hidden layers as wide as its input, and gradients of all
    weights and biases. The forward pass is timed with the graph being recorded, as training has it.

    Returns:
        Median, first and third quartile of the ratios within a round.
    """
    module = build_mlp(Architecture((*[width] * 5, 1), "relu"), [0]).as_module(0)
    batch = torch.randn(256, width, generator=torch.Generator().manual_seed(0))
    parameters = list(module.parameters())
    losses: list[Tensor] = []  # the second pass uses up the graph that the first one made
    passes = {
        "forward": clocked(lambda: losses.append(module(batch).square().mean())),
        "backward": clocked(lambda: torch.autograd.grad(losses.pop(), parameters)),
    }
    seconds = interleaved(passes, rounds, warm_up=5)
    return summarise(seconds["backward"] / seconds["forward"])


def peak_memory(way: str) -> float:
    """MiB that a few deep RAI steps add to a process of their own, at their peak.

    Args:
        way: ``"reference"`` or ``"stacked"``.
    """
    command = [sys.executable, "-m", "rai_utils.experiments.bench", way]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(answer.stdout.split()[-1])


def _report_memory(way: str) -> None:
    configure(threads=2)
    model, data = build_mlp(deep(), [0]), moons_of(100)
    before = _peak_kibibytes()
    if way == "reference":
        reference_steps(model, data, relaxed=True)(5)
    else:
        stacked_steps(fit_relaxed, model, data)(5)
    print((_peak_kibibytes() - before) / 2**10)


def _peak_kibibytes() -> float:
    """Peak resident memory of this process alone.

    Linux hands the parent's ``ru_maxrss`` on to its children, so its own count is read there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # bytes on macOS


def measure(study: Study) -> None:
    """Measure everything, print it, and record it in ``study``."""
    started = perf_counter()
    training.compile_rprop()  # paid for before any clock runs
    print(f"compiled the Rprop step in {perf_counter() - started:.0f} s", flush=True)
    _deep_and_shallow(study)
    _growth(study)
    rows, timed = [], {}
    for width in (16, 64, 256, 1024):
        name = f"backward_over_forward_width_{width}"
        middle, low, high = backward_over_forward(width)
        timed[name] = Estimate(middle, (low, high))
        rows.append([name, *(f"{ratio:.2f}" for ratio in (middle, low, high))])
    _record(study, timed)
    header = ["torch's own operations", "median", "first quartile", "third quartile"]
    print("\n" + markdown_table(header, rows), flush=True)
    peaks = {way: peak_memory(way) for way in ("reference", "stacked")}
    _record(study, {f"{way}_peak_mebibytes": peak for way, peak in peaks.items()})
    rows = [[way, f"{peak:.0f}"] for way, peak in peaks.items()]
    print("\n" + markdown_table(["deep RAI step", "peak memory, MiB"], rows), flush=True)


def _record(study: Study, measured: dict[str, Any]) -> None:
    study.record(within=0.5, **measured)  # half: times are another machine's in another run


def _deep_and_shallow(study: Study) -> None:
    timed = {name: steady(run, steps=10) for name, run in _work().items()}
    of = interleaved(timed, rounds=6, warm_up=0)
    for ending in ("", "_10_seeds"):
        products = (of[f"{way}{ending}"] for way in ("products_at_once", "products_in_windows"))
        of[f"rai_floor{ending}"] = min(products, key=np.median) + of[f"copy_rai{ending}"]
        one_by_one = of[f"products_one_by_one{ending}"]
        of[f"backprop_floor{ending}"] = one_by_one + of[f"copy_backprop{ending}"]
    seconds = {name: float(np.median(values)) for name, values in of.items()}
    _record(study, {f"{name}_milliseconds": 1e3 * value for name, value in seconds.items()})
    numbers = sum(p.numel() for p in build_mlp(deep(), [0]).parameters())
    rates = {
        "large_product_gflops": 2 * LARGE_PRODUCT**3 / 1e9 / of["large_product"],
        "own_products_gflops": 6 * 99 * DEEP_WIDTH**3 / 1e9 / of["products_in_windows"],
        "copy_gigabytes": 4 * RPROP_TRANSFERS * numbers / 1e9 / of["copy_backprop"],
    }  # each (rounds,), a second
    rates_of = {name: float(np.median(values)) for name, values in rates.items()}
    ratios = {name: float(np.median(of[above] / of[below])) for name, above, below in RATIOS}
    _record(study, ratios | rates_of)
    rows = [[name, f"{1e3 * value:.2f}"] for name, value in seconds.items()]
    print("\n" + markdown_table(["one step", "ms"], rows))
    beside = [f"{value:.0f}" for value in rates_of.values()]
    rows = [[name, f"{value:.2f}", *beside] for name, value in ratios.items()]
    header = ["ratio", "", "GFLOP/s, large product", "GFLOP/s, the step's own", "GB/s, copy"]
    print("\n" + markdown_table(header, rows), flush=True)
    _draw_steps(study, seconds)


RATIOS = (
    ("rai_speedup", "rai_reference", "rai_stacked"),
    ("rai_speedup_10000_examples", "rai_reference_10000_examples", "rai_stacked_10000_examples"),
    ("rai_over_floor", "rai_stacked", "rai_floor"),
    ("rai_over_floor_10_seeds", "rai_stacked_10_seeds", "rai_floor_10_seeds"),
    ("rai_compiled_speedup", "rai_reference", "rai_compiled"),
    ("rai_compiled_over_floor", "rai_compiled", "rai_floor"),
    ("rai_compiled_over_floor_10_seeds", "rai_compiled_10_seeds", "rai_floor_10_seeds"),
    ("backprop_speedup", "backprop_reference", "backprop_stacked"),
    ("backprop_over_floor", "backprop_stacked", "backprop_floor"),
    ("backprop_over_floor_10_seeds", "backprop_stacked_10_seeds", "backprop_floor_10_seeds"),
    ("dead_backprop_over_backprop", "backprop_dead", "backprop_stacked"),
    ("dead_backprop_over_backprop_10_seeds", "backprop_dead_10_seeds", "backprop_stacked_10_seeds"),
    ("shallow_rai_16_over_1", "shallow_rai_16_seeds", "shallow_rai_1_seed"),
    ("shallow_backprop_16_over_1", "shallow_backprop_16_seeds", "shallow_backprop_1_seed"),
    ("shallow_rai_over_compiled_1_seed", "shallow_rai_1_seed", "shallow_rai_compiled_1_seed"),
    ("shallow_rai_over_compiled_16_seeds", "shallow_rai_16_seeds", "shallow_rai_compiled_16_seeds"),
)


def _work() -> dict[str, Steps]:
    """Return all that is timed in the same rounds."""
    data = moons_of(100)
    model, alive = build_mlp(deep(), [0]), with_gradient(deep())
    long, many_examples = build_mlp(deep(30), [0]), moons_of(MOST_EXAMPLES)
    weights = sum(p.numel() for p in model.parameters())
    targets = sum(len(data.x) * width for width in deep().widths[1:])
    timed = {
        "rai_reference": reference_steps(model, data, relaxed=True),
        "rai_stacked": stacked_steps(fit_relaxed, model, data),
        "rai_compiled": stacked_steps(fit_relaxed, model, data, compiled=True),
        "rai_reference_10000_examples": reference_steps(long, many_examples, relaxed=True),
        "rai_stacked_10000_examples": stacked_steps(fit_relaxed, long, many_examples),
        "backprop_reference": reference_steps(alive, data, relaxed=False, rate=SMALL),
        "backprop_stacked": stacked_steps(fit_backprop, alive, data, SMALL),
        "backprop_dead": stacked_steps(fit_backprop, model, data),
        "large_product": large_product_steps(LARGE_PRODUCT),
    }
    for ending, seeds in (("", 1), ("_10_seeds", 10)):
        several, several_alive = (stack([one] * seeds) for one in (model, alive))
        if seeds > 1:
            timed |= {
                f"rai_stacked{ending}": stacked_steps(fit_relaxed, several, data),
                f"rai_compiled{ending}": stacked_steps(fit_relaxed, several, data, compiled=True),
                f"backprop_stacked{ending}": stacked_steps(
                    fit_backprop, several_alive, data, SMALL
                ),
                f"backprop_dead{ending}": stacked_steps(fit_backprop, several, data),
            }
        timed |= {
            f"products_{way}{ending}": product_steps(99 * seeds, 100, DEEP_WIDTH, batch)
            for way, batch in (
                ("at_once", 99 * seeds),
                ("in_windows", 33),
                ("one_by_one", seeds),
            )
        }
        timed[f"copy_rai{ending}"] = copy_steps(seeds * (weights + targets))
        timed[f"copy_backprop{ending}"] = copy_steps(seeds * weights)
    for ending, seeds in (("1_seed", 1), ("16_seeds", 16)):
        few = build_mlp(shallow(), range(seeds))
        timed |= {
            f"shallow_rai_{ending}": stacked_steps(fit_relaxed, few, data, 0.01),
            f"shallow_rai_compiled_{ending}": stacked_steps(
                fit_relaxed, few, data, 0.01, compiled=True
            ),
            f"shallow_backprop_{ending}": stacked_steps(fit_backprop, few, data, 0.01),
        }
    return timed


def _draw_steps(study: Study, seconds: Mapping[str, float]) -> None:
    ways = ("reference", "stacked", "compiled", "floor")
    names = [f"{method}, {way}" for method in ("RAI", "backprop") for way in ways]
    names.remove("backprop, compiled")  # the C file is RAI's
    times = [1e3 * seconds[name.lower().replace(", ", "_")] for name in names]
    figure, axes = plotting.figure(panel_height=1.9)
    axes.set_xscale("log")
    plotting.interval_bars(axes, names, times, times, times, label="one step, ms")
    plotting.label_powers(axes.xaxis)
    words = (
        "Milliseconds of one training step by method and way on a logarithmic axis. Stacked "
        "networks take far less than a reference loop, compiled ones a little less again, and the "
        "floor is not far below."
    )
    study.figure("steps", figure, alt=words)
    plt.close("all")


def _growth(study: Study) -> None:
    results = {
        "RAI": growth(fit_relaxed, build_mlp, 0.1),
        "backprop": growth(fit_backprop, with_gradient, SMALL),
    }
    plotting.use_style(plotting.PAGE)
    figure, panels = plotting.figure(columns=2, rows=2, panel_height=2.2)
    rows = []
    for axes, quantity in zip(panels.flat, results["RAI"], strict=True):
        exponents, curves, fits = [], {}, []
        for method, result in results.items():
            sizes, seconds = zip(*result[quantity].items(), strict=True)
            exponent, factor = power_law(sizes, seconds)
            curves[method] = [1e3 * value for value in seconds]
            fits.append([1e3 * factor * size**exponent for size in sizes])
            _record(study, {f"{method.lower()}_exponent_of_{quantity}": exponent})
            exponents.append(f"{method}: {exponent:.2f}")
            rows.append(
                [f"{method}, {quantity} {sizes[0]} … {sizes[-1]}", f"{exponent:.2f}"]
                + [f"{value:.2f}" for value in curves[method]]
            )
        plotting.relation(
            axes, sizes, curves, x_label=quantity, label="one step, ms", log_x=True, log_y=True
        )
        if sizes[-1] >= 1000:  # five such labels would overlap
            axes.set_xticks(sizes[::2], [f"{size:,}" for size in sizes[::2]])
        axes.plot(sizes, np.transpose(fits), color="black", linestyle="-", linewidth=0.6)
        axes.set_title("\n".join(["slopes", *exponents]))
    plotting.shared_key(figure, panels)
    header = ["growth", "exponent", *(f"ms at size {i}" for i in range(1, 6))]
    print("\n" + markdown_table(header, rows), flush=True)
    words = (
        "Milliseconds of a step over depth, width, examples and seeds on logarithmic axes, each "
        "with a fitted line: all grow about in proportion or slower."
    )
    study.figure("growth", figure, alt=words)
    plt.close("all")


def published(name: str, parameters: Mapping[str, Any], measure: Callable[[Study], None]) -> None:
    """Measure, and publish ``figures/<name>/`` when all of it is done."""
    plotting.use_style()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(name, {**parameters, "publish_to": folder})
        measure(study)
        study.publish()
        for file in (root() / "figures" / name).glob("peers.*"):  # `make peers` made them
            shutil.copy(file, folder)
        publish_with_index(Path(folder), root(), name)
    print(f"\n{name}  published in figures/{name}")


def main() -> None:
    """Measure, print, and publish ``figures/bench/``."""
    if len(sys.argv) > 1:
        _report_memory(sys.argv[1])
        return
    replace_unprintable()
    configure(threads=2)
    published("bench", {"threads": torch.get_num_threads()}, measure)


if __name__ == "__main__":
    main()

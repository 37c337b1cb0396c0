"""Times jpc and pcx, in an environment of their own: ``peers`` starts it and talks to it.

It imports nothing of this package, which needs torch. It reads networks from a file, then takes
requests on stdin, one a line, and answers each on stdout, in JSON.

Every peer holds the same networks, targets and examples, and makes one Rprop update of weights
and one of targets a step. Targets are pre-activations; the output is held at the label, with half
the squared error. The energy is ½ Σ_t ‖z_t − ẑ_t‖², a mean over examples.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

THREADS = 2
if hasattr(os, "sched_setaffinity"):  # XLA takes a thread for each processor that it sees
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

Network = list[Any]
ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu, "identity": lambda z: z}
# What a step returns is what the next one takes; the second is the energy before the update.
Step = Callable[[Any], tuple[Any, Any]]


def rprop(rate: float) -> optax.GradientTransformation:
    """Return the optimiser that all have, with torch's limits."""
    return optax.rprop(rate, min_step_size=1e-6, max_step_size=50.0)


def layers_of(weights: Sequence[Any], biases: Sequence[Any], activation: str) -> Network:
    """Return layers as jpc reads them: W φ(z) + b of the layer below, and the first one of x."""
    layers: Network = []
    for weight, bias in zip(weights, biases, strict=True):
        linear = eqx.nn.Linear(weight.shape[1], weight.shape[0], key=jax.random.PRNGKey(0))
        linear = eqx.tree_at(
            lambda each: (each.weight, each.bias), linear, (jnp.asarray(weight), jnp.asarray(bias))
        )
        # One function for all networks, or each would be compiled anew.
        function = ACTIVATIONS[activation] if layers else ACTIVATIONS["identity"]
        layers.append(eqx.nn.Sequential([eqx.nn.Lambda(function), linear]))
    return layers


def jpc_documented(case: dict[str, Any]) -> tuple[Any, Step]:
    """Make the calls of jpc's documentation: one for the targets, then one for the weights."""
    import jpc

    optim = rprop(case["rate"])
    x, y = case["x"], case["y"]
    start = []
    for weights, biases, targets in case["networks"]:
        params = (layers_of(weights, biases, case["activation"]), None)
        activities = [jnp.asarray(each) for each in targets]
        states = optim.init(eqx.filter(params, eqx.is_array)), optim.init(activities)
        start.append((params, activities, *states))

    def step(networks: list[Any]) -> tuple[list[Any], Any]:
        after, energies = [], []
        for params, activities, params_state, activities_state in networks:
            moved = jpc.update_pc_activities(
                params, activities, optim, activities_state, output=y, input=x
            )
            trained = jpc.update_pc_params(
                params, moved["activities"], optim, params_state, output=y, input=x
            )
            params = trained["model"], trained["skip_model"]
            after.append((params, moved["activities"], trained["opt_state"], moved["opt_state"]))
            energies.append(moved["energy"])
        return after, energies

    return start, step


def jpc_one_jit(case: dict[str, Any]) -> tuple[Any, Step]:
    """Differentiate jpc's energy once for weights and targets, and make both updates, in one jit.

    Several networks are one batch (vmap). Both gradients are those before the update, as here.
    """
    import jpc

    optim = rprop(case["rate"])
    x, y = case["x"], case["y"]
    networks = [
        (layers_of(weights, biases, case["activation"]), [jnp.asarray(z) for z in targets])
        for weights, biases, targets in case["networks"]
    ]
    arrays, fixed = zip(*(eqx.partition(each, eqx.is_array) for each in networks), strict=True)
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *arrays)

    def energy(own: Any) -> Any:
        model, activities = eqx.combine(own, fixed[0])
        return jpc.pc_energy_fn((model, None), activities, y, x=x)

    def update(own: Any, state: Any) -> tuple[Any, Any, Any]:
        value, gradient = jax.value_and_grad(energy)(own)
        updates, state = optim.update(gradient, state, own)
        return optax.apply_updates(own, updates), state, value

    several = len(networks) > 1
    own = stacked if several else arrays[0]
    state = jax.vmap(optim.init)(own) if several else optim.init(own)
    compiled = jax.jit(jax.vmap(update) if several else update, donate_argnums=(0, 1))

    def step(at: Any) -> tuple[Any, Any]:
        own, state, value = compiled(*at)
        return (own, state), value

    return (own, state), step


def pcx_tutorial(case: dict[str, Any]) -> tuple[Any, Step]:
    """Make a step as in pcx's tutorial, targets first, then the weights, in one of its jits.

    Its targets live in the model, so networks come one after the other. Unlike the tutorial, a
    step goes on with the targets of the step before and starts none anew.
    """
    import pcx.functional as pxf
    import pcx.nn as pxnn
    import pcx.predictive_coding as pxc
    import pcx.utils as pxu

    x, y = case["x"], case["y"]
    function = ACTIVATIONS[case["activation"]]

    class Model(pxc.EnergyModule):
        def __init__(self, weights: Sequence[Any], biases: Sequence[Any]) -> None:
            super().__init__()
            self.layers = [pxnn.Linear(w.shape[1], w.shape[0]) for w in weights]
            for layer, weight, bias in zip(self.layers, weights, biases, strict=True):
                layer.nn.weight.set(jnp.asarray(weight))
                layer.nn.bias.set(jnp.asarray(bias))
            self.vodes = [pxc.Vode() for _ in weights]
            self.vodes[-1].h.frozen = True

        def __call__(self, x: Any) -> Any:
            z = self.vodes[0](self.layers[0](x))
            for layer, vode in zip(self.layers[1:], self.vodes[1:], strict=True):
                z = vode(layer(function(z)))
            return self.vodes[-1].get("u")

    batched = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))

    @pxf.vmap(batched, in_axes=(0,), out_axes=0)
    def forward(x: Any, *, model: Any) -> Any:
        return model(x)

    @pxf.vmap(batched, in_axes=(0,), out_axes=None, axis_name="batch")
    def energy(x: Any, *, model: Any) -> Any:
        model(x)
        return jax.lax.pmean(model.energy(), "batch")

    targets_only = pxu.M_hasnot(pxc.VodeParam, frozen=True).to([False, True])
    weights_only = pxu.M(pxnn.LayerParam).to([False, True])

    @pxf.jit()
    def train(x: Any, *, model: Any, of_targets: Any, of_weights: Any) -> Any:
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            value, gradient = pxf.value_and_grad(targets_only)(energy)(x, model=model)
        of_targets.step(model, gradient["model"])
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            _, gradient = pxf.value_and_grad(weights_only)(energy)(x, model=model)
        of_weights.step(model, gradient["model"])
        return value

    start = []
    for weights, biases, targets in case["networks"]:
        model = Model(weights, biases)
        model.train()
        with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
            forward(x, model=model)
        for vode, value in zip(model.vodes, [*targets[:-1], y], strict=True):
            vode.h.set(jnp.asarray(value))
        free = pxu.M_hasnot(pxc.VodeParam, frozen=True)(model)
        of_targets = pxu.Optim(lambda: rprop(case["rate"]), free)
        of_weights = pxu.Optim(lambda: rprop(case["rate"]), pxu.M(pxnn.LayerParam)(model))
        start.append({"model": model, "of_targets": of_targets, "of_weights": of_weights})

    # What is static in one is static in all, or each would be compiled anew.
    structure = jax.tree.structure(start[0])
    start = [jax.tree.unflatten(structure, jax.tree.leaves(each)) for each in start]

    def step(networks: list[Any]) -> tuple[list[Any], Any]:
        return networks, [train(x, **network) for network in networks]

    return start, step


PEERS = {
    "jpc": ("jpc", jpc_documented),
    "jpc, one jit": ("jpc", jpc_one_jit),
    "pcx": ("pcx", pcx_tutorial),
}


def read_case(path: str) -> dict[str, Any]:
    """Read networks, targets and examples that ``peers`` wrote."""
    with np.load(path) as held:
        about = json.loads(str(held["about"]))
        depth = about["depth"]
        networks = [
            tuple([held[f"{kind}{seed}_{t}"] for t in range(depth)] for kind in "wbz")
            for seed in range(about["seeds"])
        ]
        x, y = jnp.asarray(held["x"]), jnp.asarray(held["y"])
    return {"networks": networks, "x": x, "y": y, **about}


def run(step: Step, state: Any, steps: int) -> tuple[Any, list[float], list[float]]:
    """Make so many steps; return the state, seconds of each, and the energies before the first."""
    seconds, first = [], None
    for _ in range(steps):
        started = perf_counter()
        state, energies = step(state)
        jax.block_until_ready(jax.tree.leaves((eqx.filter(state, eqx.is_array), energies)))
        seconds.append(perf_counter() - started)
        first = energies if first is None else first
    return state, seconds, np.atleast_1d(np.array(first, dtype=float)).tolist()


def main() -> None:
    """Answer requests until stdin ends."""
    held: dict[tuple[str, str], tuple[Any, Step]] = {}
    answer = partial(print, file=sys.stdout, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        key = request["peer"], request["case"]
        package, make = PEERS[request["peer"]]
        try:
            if key not in held:
                held[key] = make(read_case(request["case"]))
            state, step = held[key]
            state, seconds, energies = run(step, state, request["steps"])
            held[key] = state, step
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
            answer(json.dumps({"missing": package}))
            continue
        answer(json.dumps({"seconds": seconds, "energies": energies}))


if __name__ == "__main__":
    main()

"""``make study``: the sweeps that are too long for ``make figures``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from rai_utils.experiments import (
    rai_demo,
    rai_grads,
    rai_guided_starts,
    rai_mechanism,
    rai_optimizers,
    relax_your_own,
    softmax_hidden_layer,
)
from rai_utils.experiments import rai_questions_initialisation as limits
from rai_utils.experiments.activation_saturation import convergence, costs, image_race, rates
from rai_utils.experiments.network_basics import training as basics
from rai_utils.experiments.rai_questions_generalisation import generalisation, regularisers
from rai_utils.experiments.rai_questions_minibatches import minibatches
from rai_utils.experiments.sweep import Sweep, adopt, code_of, run
from rai_utils.publishing.claims import root
from rai_utils.publishing.pipeline import interruptible

SCHEDULER_SECONDS = 5
INTERRUPTED = 130
_MODULES = (
    rai_demo,
    rai_grads,
    rai_mechanism,
    rai_guided_starts,
    rai_optimizers,
    limits,
    generalisation,
    regularisers,
    minibatches,
    relax_your_own,
    softmax_hidden_layer,
    basics,
    convergence,
    rates,
    costs,
    image_race,
)
SWEEPS: dict[str, Sweep] = {sweep.name: sweep for module in _MODULES for sweep in module.SWEEPS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweeps that are named, or all, and say where the data is; return an exit status."""
    parser = argparse.ArgumentParser(prog="make study", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SWEEP", help=f"of {', '.join(SWEEPS)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--cluster",
        help="address of a Dask scheduler, or `local` for a cluster of processes on this machine",
    )
    parser.add_argument(
        "--replace", action="store_true", help="publish where published settings are left out too"
    )
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="compute nothing: the published data is what the present code makes",
    )
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in SWEEPS]
    if unknown:
        parser.error(f"sweeps must be among {', '.join(SWEEPS)}, got {', '.join(unknown)}")
    if chosen.jobs < 1:
        parser.error(f"jobs must be at least 1, got {chosen.jobs}")
    sweeps = [SWEEPS[name] for name in chosen.names or SWEEPS]
    for sweep in sweeps:  # now, and not hours later, when a file may have been edited
        code_of(sweep.work)
    try:
        with interruptible():
            if chosen.adopt:
                for sweep in sweeps:
                    print(f"{sweep.name}  adopted  {adopt(sweep).name}")
            elif chosen.cluster is None:
                _run(sweeps, chosen.jobs, "loky", chosen.replace)
            else:
                return _run_on_cluster(sweeps, chosen.jobs, chosen.cluster, chosen.replace)
    except KeyboardInterrupt:
        print("make study: interrupted; the cells that were finished are kept", file=sys.stderr)
        return INTERRUPTED
    return 0


def _run_on_cluster(sweeps: Sequence[Sweep], jobs: int, address: str, replace: bool) -> int:
    # Imported here: only a run on a cluster needs it.
    from distributed import Client

    where: dict[str, Any] = {"address": address, "timeout": SCHEDULER_SECONDS}
    if address == "local":
        where = {"n_workers": jobs, "threads_per_worker": 1}
    try:
        client = Client(**where)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        print(f"make study: no scheduler answers at {address}: {reason}", file=sys.stderr)
        return 2
    with client:
        _run(sweeps, jobs, "dask", replace)
    return 0


def _run(sweeps: Sequence[Sweep], jobs: int, backend: str, replace: bool) -> None:
    for sweep in sweeps:
        started = perf_counter()
        path = run(sweep, jobs=jobs, backend=backend, replace=replace)
        minutes, seconds = divmod(round(perf_counter() - started), 60)
        where = path.relative_to(root())
        print(f"{sweep.name}  {len(sweep.cells)} cells  {minutes}:{seconds:02d}  {where}")


if __name__ == "__main__":
    sys.exit(main())

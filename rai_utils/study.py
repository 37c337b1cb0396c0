"""``make study``: the sweeps behind the rai-questions notebooks."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from time import perf_counter

from rai_utils import generalisation, limits, minibatches, regularisers
from rai_utils.sweep import Sweep, run

_MODULES = (limits, generalisation, regularisers, minibatches)
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
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in SWEEPS]
    if unknown:
        parser.error(f"expected sweeps among {', '.join(SWEEPS)}, got {', '.join(unknown)}")
    if chosen.jobs < 1:
        parser.error(f"expected at least 1 job, got {chosen.jobs}")
    sweeps = [SWEEPS[name] for name in chosen.names or SWEEPS]
    if chosen.cluster is None:
        _run(sweeps, chosen.jobs, "loky")
        return 0
    # Imported here: only a run on a cluster needs it.
    from distributed import Client, LocalCluster

    if chosen.cluster == "local":
        with LocalCluster(n_workers=chosen.jobs, threads_per_worker=1) as cluster, Client(cluster):
            _run(sweeps, chosen.jobs, "dask")
    else:
        with Client(chosen.cluster):
            _run(sweeps, chosen.jobs, "dask")
    return 0


def _run(sweeps: Sequence[Sweep], jobs: int, backend: str) -> None:
    for sweep in sweeps:
        started = perf_counter()
        path = run(sweep, jobs=jobs, backend=backend)
        minutes, seconds = divmod(round(perf_counter() - started), 60)
        print(f"{sweep.name}  {len(sweep.cells)} cells  {minutes}:{seconds:02d}  {path.name}")


if __name__ == "__main__":
    sys.exit(main())

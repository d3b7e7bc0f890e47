"""How fast simulated clusters live: virtual seconds of whole nodes for each second of one core.

    python -m benchmarks.sim

Production code under the load of four clients, heartbeats of 100 ms, every invariant looked at; without faults, and
as worlds with all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from benchmarks import machine
from raftkv.testing.checks import all_checks
from raftkv.testing.cluster import SimCluster
from raftkv.testing.history import History
from raftkv.testing.loop import SimLoop, elapse
from raftkv.testing.simulation import simulate
from raftkv.testing.watching import quiet, watched
from raftkv.testing.workload import Clients, Workload

CLIENTS = 4


def calm(size: int, virtual_s: float, seed: int) -> tuple[float, int]:
    """Virtual seconds a second of a cluster that nothing happens to, and its operations."""
    history = History()
    clients = Clients(seed, history)

    async def live(cluster: SimCluster) -> None:
        await cluster.start()
        await cluster.until_leader()
        workers = [asyncio.ensure_future(clients.act(cluster.client(), number)) for number in range(CLIENTS)]
        await elapse(virtual_s)
        clients.stopping = True
        await asyncio.gather(*workers)

    async def main() -> None:
        cluster = SimCluster(Workload, size, seed=seed)
        await watched(cluster, all_checks(), live(cluster))

    loop = SimLoop()
    began = time.process_time()
    loop.run(main())
    return loop.time() / (time.process_time() - began), len(history.operations)


def faulty(size: int, worlds: int) -> float:
    """The same of worlds in which everything goes wrong."""
    began = time.process_time()
    virtual = sum(simulate(seed, size=size).virtual_s for seed in range(worlds))
    return virtual / (time.process_time() - began)


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--virtual", type=float, default=60.0, help="virtual seconds of a calm cluster (default: 60)")
    parser.add_argument("--worlds", type=int, default=20, help="worlds with faults (default: 20)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, for the median (default: 5)")
    arguments = parser.parse_args()
    print(machine.sentence())
    with quiet():
        for size in (3, 5):
            runs = [calm(size, arguments.virtual, seed) for seed in range(arguments.repeats)]
            speed, operations = statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs)
            print(
                f"{size} nodes, nothing goes wrong: {speed:.0f} virtual seconds a second and core "
                f"({operations / arguments.virtual:.0f} operations a virtual second)"
            )
            print(f"{size} nodes, everything does: {faulty(size, arguments.worlds):.0f}")


if __name__ == "__main__":
    main()

"""How fast simulated clusters live: virtual seconds of whole nodes for each second of one core.

    python -m benchmarks.sim

Production code with heartbeats of 100 ms, every invariant looked at, under several steady loads: the operations of
four clients, five of nine of them writes. What it costs is a sum, so it is given as one: CPU time for a virtual second
in which nothing is asked, and for each operation. Without faults, and as worlds with all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from benchmarks import machine
from raftkv.testing.judging.checks import all_checks
from raftkv.testing.judging.history import History
from raftkv.testing.judging.watching import watched
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop, elapse
from raftkv.testing.world.unheard import quiet
from raftkv.worlds.simulation import simulate
from raftkv.worlds.workload import Clients, Workload

CLIENTS = 4

LOADS = (0, 10, 40, 200)
"""Operations a virtual second: of no client, of programs that now and then ask something, of a busy cluster."""

OPERATION_S = 0.006
"""About how long one takes of virtual time; a client waits for so much less between two of them."""


def calm(size: int, load: float, virtual_s: float, seed: int) -> tuple[float, float]:
    """CPU seconds for a virtual second of a cluster that nothing happens to, and its operations in one."""
    history = History()
    clients = Clients(seed, history, pause_s=CLIENTS / load - OPERATION_S if load else 0.0)

    async def live(cluster: SimCluster) -> None:
        await cluster.start()
        await cluster.until_leader()
        count = CLIENTS if load else 0
        workers = [asyncio.ensure_future(clients.act(cluster.client(), number)) for number in range(count)]
        await elapse(virtual_s)
        clients.stopping = True
        await asyncio.gather(*workers)

    async def main() -> None:
        cluster = SimCluster(Workload, size, seed=seed)
        await watched(cluster, all_checks(), live(cluster))

    loop = SimLoop()
    began = time.process_time()
    loop.run(main())
    return (time.process_time() - began) / loop.time(), len(history.operations) / loop.time()


def faulty(size: int, worlds: int) -> float:
    """Virtual seconds a CPU second of worlds in which everything goes wrong."""
    began = time.process_time()
    virtual = sum(simulate(seed, size=size).virtual_s for seed in range(worlds))
    return virtual / (time.process_time() - began)


def report(size: int, arguments: argparse.Namespace) -> None:
    """Run clusters of `size` nodes under every load, and print a line for each."""
    idle = 0.0
    for load in LOADS:
        runs = [calm(size, load, arguments.virtual, seed) for seed in range(arguments.repeats)]
        spent, operations = statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs)
        line = f"{size} nodes, {operations:3.0f} operations a virtual second: {1 / spent:4.0f} virtual seconds a second"
        if load:
            print(f"{line}, {(spent - idle) / operations * 1e6:.0f} µs an operation")
        else:
            idle = spent
            print(f"{line}, {spent * 1e6:.0f} µs each")
    print(f"{size} nodes, everything goes wrong: {faulty(size, arguments.worlds):.0f} virtual seconds a second")


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--virtual", type=float, default=30.0, help="virtual seconds of a calm cluster (default: 30)")
    parser.add_argument("--worlds", type=int, default=20, help="worlds with faults (default: 20)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, for the median (default: 5)")
    arguments = parser.parse_args()
    print(machine.sentence())
    with quiet():
        for size in (3, 5):
            report(size, arguments)


if __name__ == "__main__":
    main()

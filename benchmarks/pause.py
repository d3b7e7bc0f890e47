"""Snapshots of a large state, taken while writers go on: how long the event loop stands still, and what writers see.

    python -m benchmarks.pause --mib 1024 --snapshots 100

One node in this process, so that its loop can be watched: a task that wants to run every millisecond notes when it
could not. The writers share the loop, so their own work is part of what is noted; the figures without any snapshot,
measured first, tell how much.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time

import uvloop

from benchmarks import machine
from benchmarks.join import Writers, fill
from raftkv import Server
from raftkv.kv import KeyValue, KeyValueClient


class Watch:
    """Notes by how much a task that should run every millisecond is late."""

    def __init__(self) -> None:
        self.late_s: list[float] = []
        self.stopping = False

    async def run(self) -> None:
        """Until `stopping`."""
        while not self.stopping:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            self.late_s.append(time.perf_counter() - began - 0.001)

    def describe(self) -> str:
        """p99 and maximum since the last call, which begins anew."""
        found, self.late_s = sorted(self.late_s), []
        return f"p99 {found[int(len(found) * 0.99)] * 1000:.1f} ms, longest {found[-1] * 1000:.1f} ms"


async def main(arguments: argparse.Namespace) -> int:
    """Run it and print what came of it."""
    sys.setswitchinterval(0.0005)
    with tempfile.TemporaryDirectory(prefix="raftkv-pause-") as directory:
        async with Server(KeyValue, data_dir=directory) as server, KeyValueClient([server.address]) as kv:
            await fill(kv, arguments.mib)
            await server.node.take_snapshot()
            writers, watch = Writers(kv), Watch()
            tasks = [asyncio.ensure_future(writers.run()), asyncio.ensure_future(watch.run())]
            await asyncio.sleep(5)
            watch.describe()
            await asyncio.sleep(10)
            print(machine.sentence())
            print(f"the loop was late without a snapshot: {watch.describe()}")
            longest = []
            for _ in range(arguments.snapshots):
                await server.node.take_snapshot()
                await asyncio.sleep(0.05)
                longest.append(max(watch.late_s))
                watch.late_s.clear()
            longest.sort()
            print(
                f"longest pause around each of {len(longest)} snapshots, {arguments.mib} MiB of state: "
                f"median {longest[len(longest) // 2] * 1000:.1f} ms, "
                f"p99 {longest[int(len(longest) * 0.99)] * 1000:.1f} ms, longest {longest[-1] * 1000:.1f} ms"
            )
            writers.stopping = watch.stopping = True
            await asyncio.gather(*tasks)
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="the state's size (default: 1024)")
    parser.add_argument("--snapshots", type=int, default=100, help="how many are taken (default: 100)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(uvloop.run(main(parse())))

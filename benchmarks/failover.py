"""Three real nodes under load, the leader killed again and again: what is lost (nothing), and how long nobody leads.

    python -m benchmarks.failover --seconds 60 --every 5

Each worker counts in a session of its own and writes keys of its own. At the end every acknowledged write must be
there, and every counter must be what its worker was told: neither lost nor applied twice.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
from typing import Any

import uvloop

from benchmarks import machine
from raftkv.client import Admin
from raftkv.errors import Indeterminate, NotAccepted, RaftKVError, SessionExpired, Unavailable
from raftkv.kv import KeyValueClient
from raftkv.testing.processes import NodeProcess, ProcessCluster


class Load:
    """Workers that write as fast as they are answered, and remember what they were told."""

    def __init__(self, cluster: ProcessCluster, workers: int) -> None:
        self._cluster = cluster
        self._workers = workers
        self.counts = [0] * workers
        self.unknown = [0] * workers
        self.refused = 0
        self.written: dict[bytes, bytes] = {}
        self.last_ack = 0.0
        self.gaps: list[tuple[float, float]] = []
        self.stopping = False

    async def run(self) -> None:
        """Until `stopping`."""
        await asyncio.gather(*[self._work(number) for number in range(self._workers)])

    async def _work(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        step = 0
        async with KeyValueClient(self._cluster.addresses, deadline_s=15) as kv:
            while not self.stopping:
                step += 1
                key, value = b"w%d-%d" % (number, step), b"%d" % step * 20
                try:
                    await kv.put(key, value)
                    self._acknowledged(loop.time())
                    self.written[key] = value
                    self.counts[number] = max(self.counts[number], await kv.increment(b"count-%d" % number))
                    self._acknowledged(loop.time())
                except (Indeterminate, SessionExpired):
                    self.unknown[number] += 1
                except NotAccepted:
                    self.refused += 1

    def _acknowledged(self, now: float) -> None:
        if self.last_ack and now - self.last_ack > 0.005:
            self.gaps.append((self.last_ack, now))
        self.last_ack = now

    def silence_around(self, moment: float) -> float:
        """How long nothing was acknowledged around a kill, in seconds."""
        return max((end - begin for begin, end in self.gaps if begin <= moment + 0.05 and end >= moment), default=0.0)


async def leader_of(cluster: ProcessCluster) -> NodeProcess:
    """The process that leads; asks everybody until one says so of itself."""
    for node in itertools.cycle(list(cluster.nodes.values())):
        if not node.is_running:
            await asyncio.sleep(0.01)
            continue
        try:
            async with Admin([node.member.client_address]) as admin:
                status: dict[str, Any] = await admin.status(0.5)
        except RaftKVError:
            continue
        if status["role"] == "leader":
            return node
    raise AssertionError("there are no nodes")


async def torture(cluster: ProcessCluster, seconds: float, every: float, workers: int) -> tuple[Load, list[float]]:
    """Load and kill; returns the load and the silences."""
    loop = asyncio.get_running_loop()
    load = Load(cluster, workers)
    task = asyncio.ensure_future(load.run())
    await asyncio.sleep(1.0)
    end, kills = loop.time() + seconds, []
    while loop.time() < end:
        await asyncio.sleep(every)
        leader = await leader_of(cluster)
        kills.append(loop.time())
        await asyncio.to_thread(leader.kill)
        await asyncio.sleep(1.0)
        leader.start()
    await asyncio.sleep(2.0)
    load.stopping = True
    await task
    return load, [load.silence_around(kill) for kill in kills]


async def verify(cluster: ProcessCluster, load: Load) -> list[str]:
    """Everything that was acknowledged and is not there; counters that are not what was told."""
    problems = []
    async with KeyValueClient(cluster.addresses, deadline_s=30) as kv:
        for key, value in load.written.items():
            item = await kv.get(key)
            if item is None or item.value != value:
                problems.append(f"{key!r} was acknowledged and is {item}")
        for number, count in enumerate(load.counts):
            item = await kv.get(b"count-%d" % number)
            found = int(item.value) if item is not None else 0
            if not count <= found <= count + load.unknown[number]:
                problems.append(f"counter {number} is {found}: {count} acknowledged, {load.unknown[number]} unknown")
    return problems


async def main(arguments: argparse.Namespace) -> int:
    """Run it and print what came of it."""
    with tempfile.TemporaryDirectory(prefix="raftkv-failover-") as directory, ProcessCluster(directory, 3) as cluster:
        cluster.start_all()
        async with KeyValueClient(cluster.addresses, deadline_s=30) as kv:
            await kv.put(b"ready", b"")
        try:
            load, silences = await torture(cluster, arguments.seconds, arguments.every, arguments.workers)
            problems = await verify(cluster, load)
        except Unavailable as exc:
            problems, load, silences = [f"the cluster did not come back: {exc}"], Load(cluster, 0), [0.0]
    silences.sort()
    print(machine.sentence())
    print(f"leaders killed: {len(silences)}; acknowledged: {len(load.written)} writes, {sum(load.counts)} increments")
    print(f"unknown outcomes: {sum(load.unknown)}; refused: {load.refused}")
    print(
        f"without a leader: p50 {statistics.median(silences) * 1000:.0f} ms, "
        f"p99 {silences[min(len(silences) - 1, int(len(silences) * 0.99))] * 1000:.0f} ms, "
        f"longest {silences[-1] * 1000:.0f} ms (no write acknowledged, seen from the clients)"
    )
    print("lost or applied twice: " + ("nothing" if not problems else "\n".join(problems)))
    return bool(problems)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between kills (default: 5)")
    parser.add_argument("--workers", type=int, default=16, help="clients (default: 16)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(uvloop.run(main(parse())))

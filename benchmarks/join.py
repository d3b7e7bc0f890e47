"""A brand-new node joins a cluster with a large state while writers go on: how fast, and at what cost for them.

    python -m benchmarks.join --mib 1024

Prints the transfer's rate beside a plain copy of as many bytes over a loopback socket into a synced file, what the
leader's memory grew by, and the writers' latencies before and during the transfer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import machine
from benchmarks.failover import leader_of
from raftkv.client import Admin
from raftkv.errors import RaftKVError
from raftkv.kv import KeyValueClient
from raftkv.testing.processes import NodeProcess, ProcessCluster

VALUE_BYTES = 16 << 10
MIB = 1 << 20


def resident_mib(node: NodeProcess) -> float:
    """The process's own memory: without files that the kernel keeps mapped."""
    assert node.process is not None
    fields = Path(f"/proc/{node.process.pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in fields if line.startswith("RssAnon")) / 1024


async def fill(kv: KeyValueClient, mib: int) -> None:
    """Write that much; random bytes, so that nothing is compressed away."""
    count = mib * MIB // VALUE_BYTES

    async def write(first: int) -> None:
        for number in range(first, count, 64):
            await kv.put(b"state-%08d" % number, os.urandom(VALUE_BYTES), deadline_s=60)

    await asyncio.gather(*[write(first) for first in range(64)])


class Writers:
    """Steady writers in the background, and the latencies that they saw."""

    def __init__(self, kv: KeyValueClient, pause_s: float = 0.005) -> None:
        self._kv = kv
        self._pause_s = pause_s
        self.latencies: list[tuple[float, float]] = []
        self.stopping = False

    async def run(self, workers: int = 8) -> None:
        """Until `stopping`."""
        await asyncio.gather(*[self._write(number) for number in range(workers)])

    async def _write(self, number: int) -> None:
        step = 0
        while not self.stopping:
            step += 1
            began = time.perf_counter()
            await self._kv.put(b"writer-%d-%d" % (number, step % 1000), b"x" * 512, deadline_s=60)
            self.latencies.append((began, time.perf_counter() - began))
            await asyncio.sleep(self._pause_s)

    def p99_ms(self, begin: float, end: float) -> float:
        """Of the writes that began between these times."""
        found = sorted(latency for began, latency in self.latencies if begin <= began < end)
        return found[int(len(found) * 0.99)] * 1000 if found else float("nan")


def logs_of(cluster: ProcessCluster) -> str:
    """What all nodes have printed, without colours."""
    text = "".join(node.log_path.read_text() for node in cluster.nodes.values())
    return re.sub(r"\x1b\[\d*m", "", text)


async def status_of(node: NodeProcess) -> dict[str, Any]:
    """What a node says of itself; empty while it does not answer."""
    try:
        async with Admin([node.member.client_address]) as admin:
            return await admin.status(2.0)
    except RaftKVError:
        return {}


async def agree(nodes: list[NodeProcess]) -> bool:
    """Whether all nodes have the same digest at the same index; the writers must rest."""
    found = [await status_of(node) for node in nodes]
    return len({(each.get("applied_index"), each.get("digest")) for each in found}) == 1


def copy_over_loopback(path: Path, mib: int) -> float:
    """Seconds to send as many bytes through a socket into a file, synced."""
    listener = socket.create_server(("127.0.0.1", 0))

    def receive() -> None:
        connection, _ = listener.accept()
        with path.open("wb") as file:
            while data := connection.recv(MIB):
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        connection.close()

    thread = threading.Thread(target=receive)
    piece = os.urandom(MIB)
    began = time.perf_counter()
    thread.start()
    with socket.create_connection(listener.getsockname()) as connection:
        for _ in range(mib):
            connection.sendall(piece)
    thread.join()
    listener.close()
    return time.perf_counter() - began


async def main(arguments: argparse.Namespace) -> int:
    """Run it and print what came of it."""
    settings = ["--set", f"snapshot_rate_bytes_s={arguments.rate_mib * MIB}"] if arguments.rate_mib is not None else []
    with (
        tempfile.TemporaryDirectory(prefix="raftkv-join-") as directory,
        ProcessCluster(directory, 3, arguments=settings) as cluster,
    ):
        cluster.start_all()
        async with KeyValueClient(cluster.addresses, deadline_s=60) as kv:
            await kv.put(b"ready", b"")
            await fill(kv, arguments.mib)
            ok = await join(cluster, kv, arguments.mib)
        seconds = copy_over_loopback(Path(directory) / "copy", arguments.mib)
        print(f"plain copy over a loopback socket: {arguments.mib / seconds:.0f} MiB/s")
    return not ok


async def join(cluster: ProcessCluster, kv: KeyValueClient, mib: int) -> bool:
    """Let the fourth node join under load; prints the figures, returns whether all is well."""
    leader = await leader_of(cluster)
    async with Admin([leader.member.client_address]) as admin:
        await admin.take_snapshot(300)
    writers = Writers(kv)
    task = asyncio.ensure_future(writers.run())
    await asyncio.sleep(10)
    new = cluster.add(4)
    new.start()
    before_mib, began = resident_mib(leader), time.perf_counter()
    async with Admin(cluster.addresses[:3]) as admin:
        await admin.add_learner(new.member)
    peak_mib, installed = before_mib, 0.0
    while True:
        peak_mib = max(peak_mib, resident_mib(leader))
        status = await status_of(new)
        if status.get("snapshots_installed") and not installed:
            installed = time.perf_counter()
        target = (await status_of(leader)).get("commit_index", 1 << 60)
        if installed and status.get("applied_index", 0) >= target - 200:
            break
        await asyncio.sleep(0.05)
    caught_up = time.perf_counter()
    async with Admin(cluster.addresses[:3]) as admin:
        await admin.promote(4)
    writers.stopping = True
    await task
    ok = False
    for _ in range(100):
        if ok := await agree(list(cluster.nodes.values())):
            break
        await asyncio.sleep(0.1)
    before, during = writers.p99_ms(began - 9, began), writers.p99_ms(began, caught_up)
    median = statistics.median(latency for _, latency in writers.latencies) * 1000
    print(machine.sentence())
    print(f"state: {mib} MiB; installed after {installed - began:.1f} s, caught up after {caught_up - began:.1f} s")
    print(f"transfer and installation: {mib / (installed - began):.0f} MiB/s")
    print(f"leader's memory: {before_mib:.0f} MiB before, at most {peak_mib - before_mib:.0f} MiB more")
    print(f"writes: median {median:.2f} ms; p99 {before:.1f} before, {during:.1f} during: {during / before:.2f} times")
    pauses = sorted(float(each) for each in re.findall(r"held_up_ms=([\d.]+)", logs_of(cluster)))
    print(f"commands held up by {len(pauses)} snapshots: median {pauses[len(pauses) // 2]} ms, longest {pauses[-1]} ms")
    print(f"digests at the same index: {'equal on all four' if ok else 'DIFFERENT'}")
    return ok


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="the state's size (default: 1024)")
    parser.add_argument("--rate-mib", type=int, help="the transfer's limit in MiB/s, 0 for none (default: the setting)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(uvloop.run(main(parse())))

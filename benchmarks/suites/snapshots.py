"""Snapshots: what taking one costs the writers, and how fast a brand-new follower gets one."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop

from benchmarks import plots
from benchmarks.latency import Latencies
from benchmarks.load.generator import run_load
from benchmarks.load.rhythm import NS
from benchmarks.load.spec import LoadResult, LoadSpec, Target
from benchmarks.peers.raftkv import RaftkvCluster, resident_mib, status
from benchmarks.report import Column, Report, Series
from benchmarks.suite import Run, Suite
from raftkv import Server
from raftkv.client import Admin
from raftkv.kv import KeyValue, KeyValueClient

TITLE = "Snapshots: taken and installed while 300 writes a second go on"
COLUMNS = [
    Column("mib_s", "MiB/s", "higher"),
    Column("of_copy", "% of a plain copy", "higher"),
    Column("caught_up_s", "caught up s", "lower", 1),
    Column("memory_mib", "leader's memory + MiB", "lower"),
    Column("before_ms", "write p99 before ms", "lower", 2),
    Column("during_ms", "during ms", "lower", 2),
    Column("times", "times", "lower", 2),
    Column("pause_ms", "loop's longest pause ms", "lower", 1),
]
MIB = 1 << 20
VALUE_BYTES = 16 << 10
RATE = 300.0
QUIET_S = 6.0
NEW = 4
INSTALL_DEADLINE_S = 600.0


async def fill(addresses: list[str], mib: int) -> None:
    """Write that much; random bytes, so that nothing is compressed away."""
    count = mib * MIB // VALUE_BYTES
    async with KeyValueClient(addresses, deadline_s=60) as kv:

        async def write(first: int) -> None:
            for number in range(first, count, 64):
                await kv.put(b"state-%08d" % number, os.urandom(VALUE_BYTES))

        await asyncio.gather(*[write(first) for first in range(64)])


def writers(addresses: list[str], meanwhile: Callable[[], None], seed: int) -> LoadResult:
    """Writes on a timetable until `meanwhile` is over."""
    spec = LoadSpec(
        target=Target.LIBRARY,
        addresses=addresses,
        connections=8,
        outstanding=100,
        rate=RATE,
        keys=1_000,
        value_bytes=512,
        seconds=900.0,
        seed=seed,
        timeline=True,
    )
    return run_load(spec, meanwhile)


def p99_ms(result: LoadResult, begin_ns: int, end_ns: int) -> float:
    """Of the writes that were due between these times."""
    pairs = zip(result.due_ns, result.answered_ns, strict=True)
    return Latencies.of(answered - due for due, answered in pairs if begin_ns <= due < end_ns).percentile_ms(99)


def copy_mib_s(directory: Path, mib: int) -> float:
    """How fast as many bytes go through a loopback socket into a synced file."""
    listener = socket.create_server(("127.0.0.1", 0))

    def receive() -> None:
        connection, _ = listener.accept()
        with (directory / "copy").open("wb") as file:
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
    seconds = time.perf_counter() - began
    (directory / "copy").unlink()
    return mib / seconds


class Installation(msgspec.Struct):
    """When what happened, on the monotonic clock, and what was watched."""

    began: int = 0
    installed: int = 0
    caught_up: int = 0
    before_mib: float = 0.0
    peak_mib: float = 0.0
    sent: list[tuple[float, float]] = []


def install(run: Run, mib: int, rate_mib: int | None) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """A fourth node joins three with so much state: the figures, and MiB sent by the second.

    `rate_mib` is the transfer's limit in MiB/s: 0 for none, None for the default setting.
    """
    arguments = [] if rate_mib is None else ["--set", f"snapshot_rate_bytes_s={rate_mib * MIB}"]
    with RaftkvCluster(3, arguments=arguments) as cluster:
        addresses = cluster.processes.addresses
        uvloop.run(fill(addresses, mib))
        uvloop.run(_snapshot(cluster.addresses(leader=True)))
        found = Installation()
        result = writers(addresses, lambda: _join(cluster, found), run.seed)
        copy = copy_mib_s(cluster.directory, mib)
    quiet = found.began - round(QUIET_S * NS)
    before, during = p99_ms(result, quiet, found.began), p99_ms(result, found.began, found.caught_up)
    seconds = (found.installed - found.began) / NS
    figures = {
        "mib_s": mib / seconds,
        "of_copy": 100 * mib / seconds / copy,
        "caught_up_s": (found.caught_up - found.began) / NS,
        "memory_mib": found.peak_mib - found.before_mib,
        "before_ms": before,
        "during_ms": during,
        "times": during / before,
        "copy_mib_s": copy,
    }
    return figures, found.sent


async def _snapshot(addresses: list[str]) -> None:
    async with Admin(addresses) as admin:
        await admin.take_snapshot(300)


def _join(cluster: RaftkvCluster, found: Installation) -> None:
    """Add a node and watch it; fills in what is found."""
    leader = cluster.leader()
    new = cluster.processes.add(NEW)
    new.start()
    while not status(new):  # its process is up: what follows is not the interpreter's start
        time.sleep(0.05)
    time.sleep(QUIET_S)
    founders = cluster.processes.addresses[:3]
    found.before_mib = found.peak_mib = resident_mib(leader)
    found.began = time.perf_counter_ns()

    async def add() -> None:
        async with Admin(founders) as admin:
            await admin.add_learner(new.member)

    asyncio.run(add())
    target = 1 << 60
    deadline = time.monotonic() + INSTALL_DEADLINE_S
    while time.monotonic() < deadline:
        found.peak_mib = max(found.peak_mib, resident_mib(leader))
        theirs, mine = status(new, 2.0), status(leader, 2.0)
        since = (time.perf_counter_ns() - found.began) / NS
        for peer in mine.get("peers", []):
            if peer["node_id"] == NEW and peer.get("snapshot"):
                found.sent.append((since, peer["snapshot"]["sent_bytes"] / MIB))
        if theirs.get("snapshots_installed") and not found.installed:
            found.installed = time.perf_counter_ns()
            target = mine.get("commit_index", target)
        if found.installed and theirs.get("applied_index", 0) >= target:
            found.caught_up = time.perf_counter_ns()
            return
        time.sleep(0.05)
    raise TimeoutError(f"the new node has not caught up within {INSTALL_DEADLINE_S:g} s")


class Watch:
    """Notes by how much a task that should run every millisecond is late."""

    def __init__(self) -> None:
        self.late_s: list[float] = []

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            self.late_s.append(time.perf_counter() - began - 0.001)


async def take(mib: int, count: int, seed: int) -> dict[str, float]:
    """One node in this process, so that its loop can be watched; writers in a process of their own."""
    with tempfile.TemporaryDirectory(prefix="raftkv-bench-") as directory:
        async with Server(KeyValue, data_dir=directory) as server:
            await fill([server.address], mib)
            await server.node.orders.take_snapshot()
            watch = Watch()
            watching = asyncio.ensure_future(watch.run())
            loop = asyncio.get_running_loop()
            times: list[int] = []
            pauses: list[float] = []

            async def snapshots() -> None:
                await asyncio.sleep(QUIET_S)
                times.append(time.perf_counter_ns())
                for _ in range(count):
                    watch.late_s.clear()
                    await server.node.orders.take_snapshot()
                    await asyncio.sleep(0.1)
                    pauses.append(max(watch.late_s))
                times.append(time.perf_counter_ns())

            def meanwhile() -> None:
                asyncio.run_coroutine_threadsafe(snapshots(), loop).result()

            result = await asyncio.to_thread(writers, [server.address], meanwhile, seed)
            watching.cancel()
    begin, end = times
    before, during = p99_ms(result, begin - round(QUIET_S * NS), begin), p99_ms(result, begin, end)
    return {
        "before_ms": before,
        "during_ms": during,
        "times": during / before,
        "pause_ms": sorted(pauses)[int(len(pauses) * 0.99)] * 1000,
    }


def plan(run: Run) -> list[tuple[str, int, int | str | None]]:
    """Case, size of the state, and the transfer's limit (or that it is about taking)."""
    sizes = (128,) if run.quick else (1024, 5120)
    found: list[tuple[str, int, int | str | None]] = [(f"taken, {mib} MiB", mib, "take") for mib in sizes]
    found += [(f"installed, {mib} MiB, default limit", mib, None) for mib in sizes[:1]]
    found += [(f"installed, {mib} MiB, no limit", mib, 0) for mib in sizes]
    return [each for each in found if run.wants(each[0])]


def measure(run: Run) -> Report:
    """Each case on a cluster of its own, once: they are long."""
    report = run.report("snapshots", TITLE, COLUMNS)
    for case, mib, limit in plan(run):
        run.step(case)
        if isinstance(limit, str):
            report.add(case, "raftkv", uvloop.run(take(mib, 5 if run.quick else 20, run.seed)))
        else:
            figures, sent = install(run, mib, limit)
            report.add(case, "raftkv", figures)
            report.series.append(Series("snapshot transfer", case, sent))
    report.notes.append("taken: one node, measured from inside; installed: a fourth node joins three")
    report.notes.append("a plain copy: as many bytes over a loopback socket into a file that is synced at the end")
    return report


def draw(report: Report, directory: Path) -> list[Path]:
    """MiB sent over time."""
    return plots.series(report, directory, {"snapshot transfer": ("seconds since the node was added", "MiB sent")})


SUITE = Suite("snapshots", TITLE, measure, lambda run: len(plan(run)), draw)

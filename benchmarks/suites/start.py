"""Start: how long a killed node takes to serve again, with a long log and with a snapshot plus the log behind it."""

from __future__ import annotations

import time

import msgspec
import uvloop

from benchmarks.load.generator import run_load
from benchmarks.load.spec import LoadSpec, Target
from benchmarks.peers.raftkv import RaftkvCluster, status
from benchmarks.report import Column, Report
from benchmarks.suite import Run, Suite
from raftkv.client import ClientOptions
from raftkv.kv import KeyValueClient

TITLE = "Start: from the start of a killed node's process to its first answer to a write, one node, 100-byte values"
COLUMNS = [
    Column("seconds", "seconds", "lower", 2),
    Column("entries", "entries in the log"),
    Column("log_mib", "log MiB"),
    Column("idle_s", "of it an empty node needs", "lower", 2),
]
NO_SNAPSHOTS = ["--set", "snapshot_entries=1000000000", "--set", f"snapshot_log_bytes={2**31 - 1}"]
VALUE_BYTES = 100
DEADLINE_S = 300.0


def serve_again_s(cluster: RaftkvCluster) -> float:
    """Kill the only node and start it; how long until it answers a write."""
    node = cluster.processes.nodes[1]
    node.kill()
    began = time.perf_counter()
    node.start()

    async def write() -> None:
        options = ClientOptions(deadline_s=DEADLINE_S, backoff_max_s=0.02)
        async with KeyValueClient(cluster.processes.addresses, options=options) as kv:
            await kv.put(b"awake", b"")

    uvloop.run(write())
    return time.perf_counter() - began


def fill(cluster: RaftkvCluster, entries: int, seed: int) -> None:
    """Write until the log has had so many entries."""
    spec = LoadSpec(
        target=Target.RAFTKV,
        addresses=cluster.processes.addresses,
        connections=8,
        outstanding=200,
        value_bytes=VALUE_BYTES,
        keys=entries,
        warmup_s=0.0,
        seconds=5.0,
        seed=seed,
    )
    while (found := status(cluster.processes.nodes[1], 5.0).get("last_index", 0)) < entries:
        seed += 1
        run_load(msgspec.structs.replace(spec, seed=seed, seconds=1.0 if entries - found < 50_000 else 5.0))


def plan(run: Run) -> dict[str, list[str]]:
    """The node's settings for each case."""
    entries = entries_of(run)
    found = {f"log of {entries:,} entries": NO_SNAPSHOTS, f"{entries:,} entries, snapshot plus tail": []}
    return {case: arguments for case, arguments in found.items() if run.wants(case)}


def entries_of(run: Run) -> int:
    """How long the log becomes."""
    return 60_000 if run.quick else 1_000_000


def measure(run: Run) -> Report:
    """Each case on a node of its own, which is killed for each repeat."""
    report = run.report("start", TITLE, COLUMNS)
    for case, arguments in plan(run).items():
        run.step(case)
        with RaftkvCluster(1, arguments=arguments) as cluster:
            idle = serve_again_s(cluster)
            fill(cluster, entries_of(run), run.seed)
            for _ in range(run.repeats):
                seconds = serve_again_s(cluster)
                found = status(cluster.processes.nodes[1], 5.0)
                figures = {
                    "seconds": seconds,
                    "entries": float(found.get("last_index", 0) - found.get("first_index", 1) + 1),
                    "log_mib": found.get("log_bytes", 0) / (1 << 20),
                    "idle_s": idle,
                }
                report.add(case, "raftkv", figures)
    return report


SUITE = Suite("start", TITLE, measure, lambda run: len(plan(run)))

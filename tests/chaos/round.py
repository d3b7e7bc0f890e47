"""Rounds of faults under recorded load on one cluster, and the verdict on what clients saw."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from raftkv.config import MIB
from raftkv.errors import RaftKVError
from raftkv.processes.cluster import ProcessCluster
from raftkv.processes.ports import free_ports
from tests.chaos.clients import MACHINE, Contradiction, RecordedClients, recorded
from tests.chaos.fault import RealFault
from tests.chaos.kinds import ARGUMENTS, KINDS
from tests.chaos.power import move_out
from tests.chaos.probe import disk_bytes, usage
from tests.chaos.proxy import LinkProxy
from tests.chaos.slowness import slowness
from tests.chaos.stage import ChaosStage
from tests.chaos.warm import WarmParent

CLIENTS = 8

INJECT_S = 300.0
"""For a fault to be done: some are done again and again."""


class Bounds(msgspec.Struct, frozen=True):
    """What a round takes, and what it owes."""

    hold_s: tuple[float, float] = (1.0, 4.0)
    """Between the fault and its end."""
    operations_min: int = 20
    """Operations answered in a round, or it shows nothing."""
    recover_s: float = 20.0
    """By then clients have to be served again; where the machine is slower, as much later (`slowness`)."""
    recovered: int = 10
    """So many answers are it."""
    rss_bytes_max: int = 1024 * MIB
    """Of each node after each round: what its settings allow it to keep, with what its clients have under way."""
    descriptors_max: int = 3000
    """A crowd of clients may be there still."""
    disk_bytes_max: int = 1024 * MIB
    """State, log and snapshots; what clients write in a scene is some tens of MiB."""


class SceneReport(msgspec.Struct):
    """What came of a scene."""

    seed: int
    kinds: list[str]
    fired: dict[str, int] = {}
    proxied: dict[str, int] = {}
    """What the proxy did to frames and connections."""
    operations: int = 0
    unknown: int = 0
    undecided: int = 0
    """Keys of which it was not found out whether their history is linearizable."""
    recover_s_max: float = 0.0
    rss_bytes_max: int = 0
    descriptors_max: int = 0
    disk_bytes_max: int = 0
    """Of any node after any round."""
    failure: str | None = None
    losses: int = 0
    """What the checkers found: writes lost or applied twice, reads that were too old."""


async def play_round(stage: ChaosStage, clients: RecordedClients, fault: RealFault, bounds: Bounds) -> float:
    """One fault: injected, held, healed. Returns how long clients then waited to be served (s).

    Raises `AssertionError` when it did nothing, clients did too little, a node has ended, or nobody serves in time.
    """
    stage.note(fault.describe())
    fired, answered = stage.fired[fault.kind], clients.answered
    try:
        async with asyncio.timeout(INJECT_S * slowness()):
            await fault.inject(stage)
        await asyncio.sleep(stage.dice.uniform(*bounds.hold_s))
    finally:
        await fault.heal(stage)
    healed = time.monotonic()
    await clients.more(bounds.recovered, bounds.recover_s)
    recover_s = time.monotonic() - healed
    await stage.leader()
    await clients.more(max(0, answered + bounds.operations_min - clients.answered))
    assert stage.fired[fault.kind] > fired, f"{fault.kind}: it did nothing"
    ended = [node.node_id for node in stage.cluster.nodes.values() if not node.is_running]
    assert not ended, f"{fault.kind}: nodes {ended} have ended by themselves"
    stage.note(f"served again after {recover_s:.2f} s")
    return recover_s


async def play_scene(
    seed: int, kinds: Sequence[str], directory: Path, bounds: Bounds | None = None, *, size: int = 3
) -> SceneReport:
    """A fresh cluster, these kinds of faults one after the other, and the verdict.

    Everything is drawn from the seed; when what happens is repeated, only the time between processes differs.
    """
    report = SceneReport(seed, list(kinds))
    with warm_cluster(directory, size) as cluster, LinkProxy.of(cluster, seed) as proxy:
        stage = ChaosStage(cluster, random.Random(seed), directory, proxy)
        try:
            await _play(stage, kinds, seed, bounds if bounds is not None else Bounds(), report)
        except (AssertionError, OSError, RaftKVError) as exc:
            report.losses = exc.count if isinstance(exc, Contradiction) else 0
            report.failure = str(exc) or type(exc).__name__
            stage.note(f"FAILED: {report.failure}")
        finally:
            cluster.kill_all()
            move_out(stage)  # what is kept must not need a mount to be read
        report.fired, report.proxied = dict(stage.fired), dict(proxy.counts)
    return report


@contextmanager
def warm_cluster(directory: Path, size: int) -> Iterator[ProcessCluster]:
    """A cluster for a scene, whose nodes are forked."""
    with WarmParent() as warm:
        arguments = [*MACHINE, *ARGUMENTS]
        cluster = ProcessCluster(directory, size, arguments=arguments, apart=True, launch=warm.launch)
        for node, port in zip(cluster.nodes.values(), free_ports(size), strict=True):
            node.arguments += ["--http", f"127.0.0.1:{port}"]
        with cluster:
            yield cluster


async def _play(stage: ChaosStage, kinds: Sequence[str], seed: int, bounds: Bounds, report: SceneReport) -> None:
    stage.cluster.start_all()
    await stage.leader()
    async with recorded(stage.cluster.addresses, clients=CLIENTS, seed=seed) as clients:
        try:
            await clients.more(bounds.operations_min)
            for kind in kinds:
                recover_s = await play_round(stage, clients, KINDS[kind](stage), bounds)
                report.recover_s_max = max(report.recover_s_max, recover_s)
                _take_stock(stage, bounds, report)
        finally:
            report.operations, report.unknown = clients.operations, clients.unknown
    report.undecided = clients.undecided
    await stage.until_equal()


def _take_stock(stage: ChaosStage, bounds: Bounds, report: SceneReport) -> None:
    """What the nodes take of their host now. Raises `AssertionError` when that is more than it may be."""
    for node in stage.cluster.nodes.values():
        taken, disk = usage(node), disk_bytes(node)
        report.rss_bytes_max = max(report.rss_bytes_max, taken.rss_bytes)
        report.descriptors_max = max(report.descriptors_max, taken.descriptors)
        report.disk_bytes_max = max(report.disk_bytes_max, disk)
        assert taken.rss_bytes < bounds.rss_bytes_max, f"node {node.node_id} has {taken.rss_bytes / MIB:.0f} MiB"
        assert taken.descriptors < bounds.descriptors_max, f"node {node.node_id} has {taken.descriptors} files open"
        assert disk < bounds.disk_bytes_max, f"node {node.node_id} has {disk / MIB:.0f} MiB on its disk"


def total(reports: Sequence[SceneReport]) -> Counter[str]:
    """All faults of all scenes."""
    fired: Counter[str] = Counter()
    for report in reports:
        fired.update(report.fired)
    return fired

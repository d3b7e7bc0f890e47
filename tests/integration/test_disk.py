"""Full, failing and slow disks under real nodes: no acknowledgement is lost, the node says so, and comes back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from raftkv.config import MIB
from raftkv.processes.cluster import ProcessCluster
from tests.chaos import filesystem, syscalls
from tests.chaos.clients import MACHINE, RecordedClients, recorded
from tests.chaos.filesystem import images
from tests.chaos.fullness import DiskFilled
from tests.chaos.stage import ChaosStage
from tests.chaos.syscalls import ERRORS, INTERRUPTED, READ_ERRORS, CallsFail, SlowDisk
from tests.cli.commands import invoke
from tests.forked import ForkedCluster
from tests.integration.nodes import start, tell

strace = pytest.mark.skipif(syscalls.missing() is not None, reason=syscalls.missing() or "")
full_disks = pytest.mark.skipif(filesystem.missing("ext4") is not None, reason=filesystem.missing("ext4") or "")


def under_load(
    cluster: ProcessCluster, tmp_path: Path, what: Callable[[ChaosStage, RecordedClients], Awaitable[None]]
) -> None:
    """Something done under recorded load, and the verdict."""

    async def story(stage: ChaosStage) -> None:
        await stage.leader()
        async with recorded(cluster.addresses) as clients:
            await clients.more(20)
            await what(stage, clients)
            await stage.leader()
            await clients.more(20)
        await stage.until_equal()

    tell(story(start(cluster, tmp_path)))


@strace
def test_a_node_whose_disk_fails_ends_at_once_and_comes_back_with_everything(tmp_path: Path) -> None:
    """F13, F15, F17: never tried again, since nobody knows what an fsync that failed has left on disk; but a call
    that a signal has interrupted is no failure, and is made again."""

    async def fail(stage: ChaosStage, clients: RecordedClients) -> None:
        faults = [CallsFail(each, stage.dice) for each in ERRORS]
        for fault in [*faults, CallsFail(INTERRUPTED, stage.dice, ends=False)]:
            before = stage.fired[fault.kind]
            await fault.inject(stage)
            assert stage.fired[fault.kind] > before, fault.describe()
            assert all(node.is_running for node in stage.cluster.nodes.values())

    # A vote, a log segment and a manifest are synced by calls of their own, so there must be some of each.
    more = [*MACHINE, "--set", "segment_bytes=1KiB", "--set", "state_flush_entries=5"]
    with ForkedCluster(tmp_path, 3, arguments=more) as cluster:
        under_load(cluster, tmp_path, fail)


@strace
def test_entries_that_cannot_be_read_stop_the_node_and_are_never_skipped(tmp_path: Path) -> None:
    """F18: a leader that has to read old entries for a follower, from a disk that can't."""

    async def fail(stage: ChaosStage, clients: RecordedClients) -> None:
        leader = await stage.leader()
        away = next(node for node in stage.cluster.nodes.values() if node is not leader)
        stage.cluster.kill(away.node_id)
        await clients.more(60)
        fault = CallsFail(READ_ERRORS, stage.dice, of_leader=True, then=away.start)
        await fault.inject(stage)
        assert stage.fired[fault.kind]

    with ForkedCluster(tmp_path, 3, arguments=[*MACHINE, "--set", "log_cache_bytes=1KiB"]) as cluster:
        under_load(cluster, tmp_path, fail)


@strace
def test_a_slow_disk_costs_the_leader_its_place_and_nobody_anything_else(tmp_path: Path) -> None:
    """F16: each sync takes two seconds."""

    async def slow(stage: ChaosStage, clients: RecordedClients) -> None:
        leader = await stage.leader()
        fault = SlowDisk(stage.dice, [2.0])
        await fault.inject(stage)
        await stage.until(lambda: _other_than(stage, leader.node_id), "another leader")
        await fault.heal(stage)
        assert stage.fired[fault.kind]

    with ForkedCluster(tmp_path, 3, arguments=MACHINE) as cluster:
        under_load(cluster, tmp_path, slow)


async def _other_than(stage: ChaosStage, node_id: int) -> bool | None:
    leaders = [status.leader for status in await stage.statuses() if status.node_id != node_id]
    return all(leader not in (None, node_id) for leader in leaders) or None


def test_a_node_below_its_reserve_does_not_lead_and_whoever_asks_hears_why(tmp_path: Path) -> None:
    """F13: the first two nodes want more in reserve than their disk has free. Whatever one does, the third leads; and
    when it is gone, a put ends at once, with the reason."""
    usage = shutil.disk_usage(tmp_path)
    if usage.free >= 0.9 * usage.total:
        pytest.skip(f"{tmp_path} is on a disk of which more is free than a reserve can be")
    full = ["--set", f"disk_free_bytes_min={1 << 60}", "--set", "disk_free_fraction_min=0.9"]
    with ForkedCluster(tmp_path, 3) as cluster:
        full_nodes = [cluster.nodes[1], cluster.nodes[2]]
        for node in full_nodes:
            node.arguments += full

        async def story(stage: ChaosStage) -> None:
            await stage.until(lambda: _leads(stage, 3), "the node with room leading")
            refused = await asyncio.to_thread(
                invoke, "transfer", "1", "--address", cluster.nodes[3].member.client_address
            )
            assert refused.exit_code == 3 and "node 1 has no room" in refused.stderr
            status = await stage.status(1)
            assert status is not None and status.disk_low and status.disk_reserve_bytes > status.disk_free_bytes
            cluster.kill(3)
            addresses = [part for node in full_nodes for part in ("--address", node.member.client_address)]
            await stage.until(lambda: _refusing(stage), "writes being refused")
            put = await asyncio.to_thread(invoke, "put", "a", "1", *addresses, "--timeout", "60")
            assert put.exit_code == 3 and "DiskLow" in put.stderr and "free some space" in put.stderr
            cluster.nodes[3].start()
            await stage.until(lambda: _leads(stage, 3), "the node with room leading")

        tell(story(start(cluster, tmp_path)))


async def _leads(stage: ChaosStage, node_id: int) -> bool | None:
    status = await stage.status(node_id)
    return (status is not None and status.role == "leader") or None


async def _refusing(stage: ChaosStage) -> bool | None:
    return any(status.writes_refused for status in await stage.statuses()) or None


@pytest.mark.root
@full_disks
def test_full_disks_cost_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """F13, F14: a follower's, the leader's, a majority's. Commands are refused or the node ends, and says so; with
    space again everybody serves."""
    small = [*MACHINE, "--set", "segment_bytes=64KiB", "--set", "state_flush_entries=20"]
    cluster = ForkedCluster(tmp_path, 3, arguments=small)
    with images("ext4", {node.node_id: node.data_dir for node in cluster.nodes.values()}, 48 * MIB) as disks, cluster:

        async def fill(stage: ChaosStage, clients: RecordedClients) -> None:
            stage.images = disks
            for count, of_leader in [(1, False), (1, True), (2, False)]:
                fault = DiskFilled(stage.dice, count, of_leader=of_leader)
                await fault.inject(stage)
                await fault.heal(stage)
                await clients.more(20)
            assert stage.fired[fault.kind] == 4

        under_load(cluster, tmp_path, fill)

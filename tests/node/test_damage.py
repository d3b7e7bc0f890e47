"""Damaged and missing files: what can be rebuilt is, and what can't be is refused with what to do."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.core import invariants
from raftkv.errors import (
    StateCorruption,
    Unavailable,
)
from raftkv.kv import KeyValue
from raftkv.state import MemoryStore
from raftkv.testing import elapse, scenario
from raftkv.testing.world.harm import Harm
from tests.logged import capture_logs
from tests.node.steps import fill, follower_of


@pytest.mark.parametrize("leaves_trace", [False, True])
@scenario(KeyValue, seed=1)
async def test_a_state_that_is_gone_is_damage_unless_an_install_was_cut_off(cluster, leaves_trace):
    """Both are rebuilt from the snapshot, but only one is a reason to look at the disk (F11, F60)."""
    client = cluster.client()
    sim = follower_of(cluster)
    await fill(client, 600)
    await elapse(4)
    await fill(client, 100, start=600)
    await cluster.until_equal()
    assert sim.node.raft.log.first_index > 10
    await sim.stop()
    if leaves_trace:
        sim.disk.rename("/data/state", "/data/state.old")
    else:
        sim.disk.remove_tree("/data/state")
    with capture_logs() as lines:
        await sim.start()
    said = [line["event"] for line in lines if line["event"] in ("install_resumed", "state_damaged")]
    assert said == ["install_resumed" if leaves_trace else "state_damaged"]
    await cluster.until_equal()
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_damaged_state_is_rebuilt_from_the_local_snapshot(cluster):
    """F10: the state's file is damaged; the newest snapshot and the log make it whole again."""
    client = cluster.client()
    await fill(client, 300)
    sim = follower_of(cluster)
    await cluster.until_equal()
    await sim.node.orders.take_snapshot()
    await sim.stop()
    sim.harm = Harm.ROT
    sim.disk.flip("/data/state/image", 100, 1)
    await sim.start()
    await cluster.until_equal()
    await client.close()


@pytest.mark.parametrize("is_damaged", [False, True])
@scenario(KeyValue, seed=1)
async def test_a_lost_state_is_not_behind_a_snapshot_of_it(cluster, is_damaged):
    """F11: the state's file is gone, the log is whole, and there is a snapshot, which may be damaged.

    The state opens as an empty one. A core that takes a snapshot for its own which its state has not come to might
    cut off what is still to be applied.
    """
    client = cluster.client()
    await fill(client, 20)
    sim = follower_of(cluster)
    await cluster.until_equal()
    index = await sim.node.orders.take_snapshot()
    await fill(client, 5, start=20)
    await cluster.until_equal()
    await sim.stop()
    sim.disk.lose("/data/state/image")
    if is_damaged:
        (path,) = [path for path in sim.disk.image() if "/snapshots/" in path and path.endswith("/image")]
        sim.disk.flip(path, 100, 1)
    for other in cluster.nodes.values():
        other.crash()
    await sim.start()  # alone: it hears of no commit, so all that it has it has from its disk
    invariants.check(sim.node.raft)
    assert sim.node.raft.applied_index == (0 if is_damaged else index)
    await cluster.start()
    await cluster.until_equal()
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_state_with_nothing_to_rebuild_from_needs_the_operators_word(cluster):
    """Damaged state and snapshots: a typed error that says what to do, and with --rebuild a peer's snapshot comes."""
    client = cluster.client()
    await fill(client, 600)
    sim = follower_of(cluster)
    await cluster.until_equal()
    await sim.node.orders.take_snapshot()
    assert sim.node.raft.log.first_index > 1
    await sim.stop()
    sim.harm = Harm.ROT
    sim.disk.flip("/data/state/image", 100, 1)
    for name in sim.disk.listdir("/data/snapshots"):
        sim.disk.flip(f"/data/snapshots/{name}/image", 100, 1)
    with pytest.raises(StateCorruption, match="--rebuild"):
        await sim.start()
    await sim.start(rebuild=True)
    await cluster.until_equal()
    assert sim.node.snapshots.installed == 1
    await client.close()


@scenario(KeyValue, seed=1)
async def test_without_any_snapshot_nobody_guesses_who_the_members_are(cluster):
    """The log was cut, its snapshots are gone, and the founders are long removed: the node must not elect with them."""
    client = cluster.client()
    await fill(client, 600)
    sim = follower_of(cluster)
    await cluster.until_equal()
    await sim.node.orders.take_snapshot()
    assert sim.node.raft.log.first_index > 1
    await sim.stop()
    sim.harm = Harm.ROT
    for name in sim.disk.listdir("/data/snapshots"):
        sim.disk.flip(f"/data/snapshots/{name}/MANIFEST", 40, 1)
    with pytest.raises(StateCorruption, match="the list of members"):
        await sim.start()
    node = await sim.start(rebuild=True)
    assert not node.raft.membership.voters
    await cluster.until_equal()
    assert node.raft.membership.voters == (1, 2, 3)
    await client.close()


@pytest.mark.parametrize("by", ["a query", "a command"])
@scenario(KeyValue, seed=1)
async def test_damage_that_is_met_later_stops_the_node_and_is_not_forgotten(cluster, by):
    """F10: a block that can't be read: the node stops, and its next start rebuilds the state before it serves."""
    client = cluster.client()
    await fill(client, 300)
    sim = follower_of(cluster)
    await sim.node.orders.take_snapshot()
    await cluster.until_equal()

    def damaged(key):
        raise StateCorruption("a block does not match its checksum")

    sim.harm = Harm.ROT
    sim.node.applier.runner.store.get = damaged
    if by == "a query":
        payload = KeyValue.methods["get"].query_payload(KeyValue.methods["get"].encode_args((b"key-00001",), {}))
        got: list[Any] = []
        sim.node.requests.query(payload, True, lambda index, result: got.append(result))
        assert isinstance(got[0], Unavailable)
    else:
        await fill(client, 1, start=300)
    await cluster.until(lambda: sim.node.failure is not None, 5, "it stops")
    assert isinstance(sim.node.failure, StateCorruption)
    await cluster.until(lambda: sim.disk.exists("/data/state.unfit"), 5, "it is written down")
    sim.crash()
    await sim.start()
    await cluster.until_equal()
    assert not sim.disk.exists("/data/state.unfit")
    await client.close()


@scenario(KeyValue, seed=1)
async def test_damage_that_shows_when_the_state_is_closed_is_said_and_mended(cluster):
    """RocksDB may read a damaged block only then: the node says what to do, and its next start rebuilds (F10)."""
    client = cluster.client()
    await fill(client, 5)
    sim = follower_of(cluster)
    node, store = sim.node, sim.node.applier.runner.store

    def close():
        raise StateCorruption("closing /data/state: block checksum mismatch")

    store.close = close
    with pytest.raises(StateCorruption, match="Start the node again: it rebuilds its state"):
        await sim.stop()
    assert isinstance(node.stopped.result(), StateCorruption)
    sim.crash()
    await sim.start()
    assert sim.node.applier.runner.applied.index == 0, "it was rebuilt"
    await cluster.until_equal()
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_damaged_state_that_cant_even_be_closed_is_rebuilt(cluster):
    """F10: RocksDB reports the damage again when it is closed; the start does what it does for the damage itself."""
    client = cluster.client()
    await fill(client, 5)
    sim = follower_of(cluster)
    await sim.stop()
    good, closed = MemoryStore.open, []

    def damaged(disk, directory):
        store = good(disk, directory)
        patch.undo()

        def close():
            closed.append(directory)
            raise StateCorruption("closing /data/state: block checksum mismatch")

        def read(*args, **kwargs):
            raise StateCorruption("a block does not match its checksum")

        store.close, store.scan = close, read
        return store

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryStore, "open", damaged)
        await sim.start()
    assert closed, "it was closed, which failed"
    await cluster.until_equal()
    await client.close()

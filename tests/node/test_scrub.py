"""Files that rot while a node runs: found in the background, said, and not used any more (F9, F61, F70)."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from raftkv.config import MIB
from raftkv.errors import Unavailable
from raftkv.kv import KeyValue
from raftkv.testing import elapse, play, scenario
from raftkv.testing.tracing.trace import Trace
from raftkv.testing.world.harm import Harm
from raftkv.testing.world.settings import CONFIG
from tests.logged import capture_logs
from tests.node.steps import fill, follower_of, read_all

SCRUBBED = msgspec.structs.replace(CONFIG, scrub_rate_bytes_s=MIB, scrub_interval_s=0.5)


def found(lines):
    """What was said of damage: of what it was."""
    return [line["of"] for line in lines if line["event"] == "damage_found"]


async def settled(cluster, client):
    """A follower with two snapshots, which takes no more of them by itself."""
    await fill(client, 600)
    sim = follower_of(cluster)
    await cluster.until_equal()
    await sim.node.orders.take_snapshot()
    await fill(client, 20, start=600)
    await cluster.until_equal()
    await sim.node.orders.take_snapshot()
    return sim


async def pass_over(cluster, sim):
    """Let everything be read, from the beginning."""
    passes = sim.node.scrubber.passes
    await cluster.until(lambda: sim.node.scrubber.passes > passes + 1, 30, "two passes")


@scenario(KeyValue, seed=1, config=SCRUBBED)
async def test_what_is_sound_is_read_again_and_again_and_nothing_is_said(cluster):
    """While commands go on, segments fill and snapshots come and go."""
    with capture_logs() as lines:
        client = cluster.client()
        await fill(client, 700)
        await cluster.until_equal()
        for sim in cluster.nodes.values():
            await pass_over(cluster, sim)
            assert sim.node.status().problems() == []
            assert sim.node.scrubber.read_bytes > 0
        await client.close()
    assert found(lines) == []


@scenario(KeyValue, seed=1, config=SCRUBBED)
async def test_damaged_snapshots_are_named_and_replaced_by_a_sound_one(cluster):
    """All that there are, at once: the state is sound, so another one is taken by itself, and soon all is well."""
    client = cluster.client()
    sim = await settled(cluster, client)
    store = sim.node.opened.snapshots
    assert len(store.list()) == 2
    before = sim.node.snapshots.taken
    sim.harm = Harm.ROT
    for snapshot in store.list():
        sim.disk.flip(f"{store.path(snapshot)}/image", 100, 1)
    with capture_logs() as lines:
        await cluster.until(lambda: store.damaged(), 10, "the first is found")
        assert any("does not match its checksum" in text for text in sim.node.status().problems())
        await cluster.until(lambda: sim.node.scrubber.damage_found == 2, 10, "both are found")
        await cluster.until(lambda: sim.node.snapshots.taken > before and store.list(), 10, "another one")
    assert found(lines) == ["snapshot", "snapshot"]
    store.verify(store.list()[-1])
    await fill(client, 500, start=620)
    await cluster.until(lambda: sim.node.status().problems() == [], 30, "the damaged ones are gone")
    assert sim.node.status().damage_found == 2
    await client.close()


@scenario(KeyValue, seed=1, config=SCRUBBED)
async def test_no_snapshot_is_taken_of_a_state_that_shares_the_damaged_file(cluster):
    """It would look sound: whatever is asked for is refused, and the operator is told what to do, until it is done."""
    client = cluster.client()
    sim = await settled(cluster, client)
    store = sim.node.opened.snapshots
    newest = store.list()[-1]
    sim.disk.remove("/data/state/image")
    sim.disk.link(f"{store.path(newest)}/image", "/data/state/image")
    sim.disk.flip("/data/state/image", 100, 1)
    with capture_logs() as lines:
        await cluster.until(lambda: sim.node.snapshots.state_rot, 10, "it is found")
    assert found(lines) == ["state and snapshot"]
    assert any("--rebuild" in text for text in sim.node.status().problems())
    await fill(client, 5, start=620)
    with pytest.raises(Unavailable, match="damaged state"):
        await sim.node.orders.take_snapshot()
    sim.disk.remove("/data/state/image")  # as a compaction of the database does
    await cluster.until(lambda: not sim.node.snapshots.state_rot, 10, "it is no part of the state any more")
    await client.close()


@scenario(KeyValue, seed=1, config=SCRUBBED)
async def test_damage_in_the_log_is_said_and_the_node_goes_on(cluster):
    """It has the entries in its state, and the others have them, too: it says that it should be replaced."""
    client = cluster.client()
    await fill(client, 30)
    await cluster.until_equal()
    sim = follower_of(cluster)
    [part] = sim.node.opened.log.written()
    sim.disk.flip(part.path, part.end - 10, 1)
    with capture_logs() as lines:
        await cluster.until(lambda: sim.node.scrubber.damage_found, 10, "it is found")
        await pass_over(cluster, sim)
    assert found(lines) == ["log"], "each damage is said once"
    [problem] = sim.node.status().problems()
    assert part.path in problem and "remove it and add a new one" in problem
    await fill(client, 30, start=30)
    await read_all(cluster, client, 60)
    await client.close()


@scenario(KeyValue, seed=1, config=msgspec.structs.replace(CONFIG, scrub_rate_bytes_s=20000, scrub_interval_s=0.01))
async def test_it_keeps_its_rate_and_what_else_there_is_to_do_comes_in_between(cluster):
    """A step is small, and followed by a pause: flat memory, and nobody waits long for the worker."""
    loop = asyncio.get_running_loop()
    client = cluster.client()
    sim = await settled(cluster, client)
    scrubber = sim.node.scrubber
    await pass_over(cluster, sim)
    read, began = scrubber.read_bytes, loop.time()
    await elapse(20)
    rate = (scrubber.read_bytes - read) / (loop.time() - began)
    assert 0 < rate <= 25_000, "one step may have begun before"
    await client.close()


def test_a_world_in_which_files_are_scrubbed_is_the_same_again():
    """One seed, one trace: also with reads in the background that find something."""

    def told():
        trace = Trace()

        async def story(cluster):
            trace.attach(cluster)
            await cluster.start()
            await cluster.until_leader()
            client = cluster.client()
            await fill(client, 100)
            sim = follower_of(cluster)
            await sim.node.orders.take_snapshot()
            store = sim.node.opened.snapshots
            sim.harm = Harm.ROT
            sim.disk.flip(f"{store.path(store.list()[-1])}/image", 100, 1)
            await elapse(5)
            trace.read = sim.node.scrubber.read_bytes, sim.node.scrubber.damage_found
            await client.close()

        play(KeyValue, story, seed=1, config=SCRUBBED, started=False)
        return trace.read, [(message.to, message.label) for message in trace.messages]

    first = told()
    assert first == told()
    assert first[0][1] == 1
